"""A table of facts beside recordings: `REFERENCE.csv` of PhysioNet's challenges (record,label), or more columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.timeseries.sidecars import Sheet, read_sheet

KEYS = ("record", "recording", "record_name", "recording_id", "file", "file_name", "filename", "id", "name")
WRITTEN = ("id", "group", "file", "row", "fs", "leads", "units", "seconds", "events", "annotations", "channels")


@dataclass(frozen=True)
class Reference:
    """The rows of a table by the recordings they are of.

    Attributes:
        sheet: the table.
        row_of: position of the row of each recording that has one, by the recording's id.
        key: the column that names recordings; the others are facts about them.
    """

    sheet: Sheet
    row_of: Mapping[str, int]
    key: str

    @classmethod
    def read(cls, path: Path, names: Mapping[Path, str]) -> Reference:
        """Read a table about the recordings `names` (file -> id).

        The column called `record` (or another of `KEYS`) names them: by id, by file name, or by file name without its
        suffix. A table of two columns without such a name in its first line is `record,label` from that line on, as
        the challenges of 2015 to 2018 write it.

        Raises `InputError` naming file and row: a recording that is not there, two that the same name fits, one named
        twice, a split other than train, val and test, or a column that the import writes itself.
        """
        sheet = read_sheet(path, name_columns=_unnamed)
        key = next((name for name in sheet.names if name.casefold() in KEYS), "")
        if not key:
            raise InputError(f"{path}: no column names the recordings ({', '.join(sheet.names)}); call it 'record'")
        own = next((name for name in sheet.names if name != key and name in WRITTEN), "")
        if own:
            raise InputError(f"{path}: column {own!r} is one that the import writes itself; rename it")
        called: dict[str, set[str]] = {}
        for file, name in names.items():
            for text in (name, file.name, file.stem):
                called.setdefault(text, set()).add(name)
        row_of: dict[str, int] = {}
        for text, i in sheet.unique(key).items():
            fits = called.get(text) or called.get(Path(text).name) or set()
            if not fits:
                raise InputError(f"{sheet.where(i)}: {key} {text!r} is none of the {len(names)} recordings imported")
            if len(fits) > 1:
                some = ", ".join(sorted(fits)[:3])
                raise InputError(f"{sheet.where(i)}: {key} {text!r} fits {len(fits)} recordings ({some}); write the id")
            (name,) = fits
            if name in row_of:
                raise InputError(f"{sheet.where(i)}: recording {name} has a row already, {row_of[name] + 1}")
            row_of[name] = i
            if (split := sheet.rows[i].get("split", "").strip()) not in (*SPLITS, ""):
                raise InputError(f"{sheet.where(i)}: split {split!r} is not train, val, test or empty")
        return cls(sheet, row_of, key)

    @property
    def columns(self) -> tuple[str, ...]:
        """The facts that it holds."""
        return tuple(name for name in self.sheet.names if name != self.key)

    def facts(self, name: str, label: str = "") -> dict[str, str]:
        """What the table says of a recording, empty where it has no row; `label` names the column of the class."""
        row = self.sheet.rows[self.row_of[name]] if name in self.row_of else {}
        found = {column: row.get(column, "").strip() for column in self.columns}
        return found | ({"label": found[label]} if label in found else {})

    def owner(self, name: str, column: str) -> str:
        """Whose a recording is, by a column of the table; `InputError` where that is empty or the row is missing."""
        if name not in self.row_of:
            raise InputError(f"{self.sheet.path}: has no row for recording {name}, so its {column} is unknown; add it")
        owner = self.facts(name)[column]
        if not owner:
            where = self.sheet.where(self.row_of[name])
            raise InputError(f"{where}: {column} is empty; it says whose the recording is")
        return owner

    def without(self, names: Mapping[Path, str]) -> list[str]:
        """Recordings that have no row."""
        return [name for name in names.values() if name not in self.row_of]


def _unnamed(first: list[str]) -> list[str] | None:
    """Names for a table of two columns whose first line is data."""
    named = any(cell.strip().casefold() in KEYS for cell in first)
    return ["record", "label"] if len(first) == 2 and not named else None
