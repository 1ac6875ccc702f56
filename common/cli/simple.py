"""The short verbs: `demo`, `systems` and `losses`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Vertical
from counterpoint.common.lazy import resolve


class Rows(list):
    """A list of records: JSON gives all of them whole, the table for people the first columns.

    >>> Rows([{"name": "a", "paper": "x", "module": "m"}], columns=("name", "paper")).lines
    ['name  paper', 'a     x']
    """

    def __init__(self, records: Iterable[dict], columns: Sequence[str]) -> None:
        super().__init__(records)
        self.columns = columns

    def as_dict(self) -> list[dict]:
        """The records themselves."""
        return list(self)

    @property
    def lines(self) -> list[str]:
        """An aligned table under its column names."""
        return table(self.columns, [[str(row[column]) for column in self.columns] for row in self])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align `rows` under `columns`; the last column runs free.

    >>> table(["name", "n"], [["audio", "3"]])
    ['name   n', 'audio  3']
    """
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [columns, *rows]]


def demo(command: Call) -> int:
    """Run the vertical's demo; its options are the demo function's parameters."""
    return call(command.program, resolve(command.vertical.demo), command.argv)


def systems(command: Call) -> int:
    """List the vertical's systems."""
    return call(command.program, list_systems, command.argv, command.vertical)


def losses(command: Call) -> int:
    """List the objectives."""
    return call(command.program, list_losses, command.argv)


def list_systems(vertical: Vertical) -> Rows:
    """List the systems with their status, paper and needs."""
    return Rows((entry.as_dict() for entry in vertical.systems), ("name", "status", "paper", "summary"))


def list_losses() -> Rows:
    """List the contrastive objectives with their papers, what they need and what they are checked against."""
    from counterpoint.common.losses import objectives

    records = ({**asdict(entry), "status": "ready"} for entry in objectives())
    return Rows(records, ("name", "paper", "needs"))
