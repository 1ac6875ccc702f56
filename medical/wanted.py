"""What an import of volumes is asked for beside the files, and what a table of facts says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.medical.report_files import KEYS, facts_of_table


@dataclass(frozen=True)
class ScansWanted:
    """What an import is asked for beside the files.

    Attributes:
        reports: a folder of text files or a table of reports.
        table: a table of facts of the volumes.
        key: the column of either table that names volumes.
        labels: columns of the table of facts that become columns of the manifest.
        scrub: remove what looks identifying from the reports.
        salt: file of the salt of hashed names; OUT/salt.private unless given.
        what: the name of what is imported, in messages.
    """

    reports: Path | None = None
    table: Path | None = None
    key: str = ""
    labels: tuple[str, ...] = ()
    scrub: bool = True
    salt: Path | None = None
    what: str = "volume"
    facts: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        self.facts.update(facts_of_table(self.table, self.key))
        if self.labels and not self.facts:
            raise InputError("--labels names columns of a table; give it as --table")
        if self.facts and (unknown := set(self.labels) - set(next(iter(self.facts.values())))):
            raise no_such("label column", min(unknown), next(iter(self.facts.values())))

    def fact(self, names: Sequence[str], column: str) -> str:
        """A cell of the table of facts, of the first of a volume's names that it has; empty where there is none."""
        for name in names:
            if name in self.facts:
                row = {k.lower(): v for k, v in self.facts[name].items()}
                return str(row.get(column.lower(), "")).strip()
        return ""

    def label_cells(self, names: Sequence[str]) -> dict[str, Any]:
        """The label columns: numbers where they are such, missing (also -1 stays -1: uncertain) where empty."""
        cells: dict[str, Any] = {}
        for column in self.labels:
            text = self.fact(names, column)
            try:
                cells[column] = float(text) if text else None
            except ValueError:
                cells[column] = text
        return cells


def left_columns(wanted: ScansWanted, others: Sequence[str] = ()) -> list[str]:
    """Which columns of the table of facts were not taken; `others` were, too."""
    taken = {*others, *wanted.labels, wanted.key, "patient", "slope", "intercept", *KEYS}
    taken = {name.lower() for name in taken} | {"rescaleslope", "rescaleintercept", "volumename"}
    left = [name for name in next(iter(wanted.facts.values())) if name.lower() not in taken]
    if not left:
        return []
    split = "; its column split, too: `data split` makes one by patient" if "split" in map(str.lower, left) else ""
    return [f"Of {wanted.table} these columns were not taken: {', '.join(left)} (--labels takes labels){split}."]


def one_kind(rows: Sequence[dict[str, Any]], called: Mapping[str, Sequence[str]], wanted: ScansWanted) -> None:
    """A label column with a word among numbers is text throughout, as it was written."""
    for column in wanted.labels:
        kinds = {type(row.get(column)) for row in rows} - {type(None)}
        if len(kinds) > 1:
            for row in rows:
                row[column] = wanted.fact(called[row["id"]], column) or None
