"""Tables that lie beside recordings: a sheet read row by row, so that whatever is wrong is named with file and row."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from counterpoint.common.data.importing import require_file
from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers.text import read_text

MISSING = frozenset({"", "n/a", "na", "nan"})


@dataclass(frozen=True)
class Sheet:
    """A text table: `names` of its columns and `rows` as they are written. Rows count from 1 below the names."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def where(self, position: int) -> str:
        """File and row of a position, for a sentence."""
        return f"{self.path}, row {position + 1}"

    def number(self, position: int, column: str, default: float | None = None) -> float:
        """A cell as a finite number; a missing one is `default`, or an `InputError` where there is none."""
        text = self.rows[position].get(column, "").strip()
        if text.lower() in MISSING and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.where(position)}: {column} is {text!r}, not a number")
        return value

    def unique(self, column: str) -> dict[str, int]:
        """Position of every value of a column; `InputError` for one that is empty or stands there twice."""
        found: dict[str, int] = {}
        for i, row in enumerate(self.rows):
            value = row[column].strip()
            if not value:
                raise InputError(f"{self.where(i)}: {column} is empty")
            if value in found:
                first = found[value] + 1
                raise InputError(
                    f"{self.where(i)}: {column} {value!r} stands there a second time (first in row {first})"
                )
            found[value] = i
        return found


def read_sheet(
    path: Path,
    needs: Sequence[str] = (),
    separator: str = ",",
    name_columns: Callable[[list[str]], list[str] | None] | None = None,
) -> Sheet:
    """Read a table whose first line names its columns; all of `needs` must be there.

    `name_columns` looks at the first line and gives the names where that line is data already, else None. Raises
    `InputError` naming the file and the row: no such file, no rows, a column missing or named twice, a row with more or
    fewer cells than there are names.
    """
    text, _ = read_text(require_file(path))
    try:
        lines = [line for line in csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter=separator) if any(line)]
    except csv.Error as error:
        raise InputError(f"{path}: is no table ({error}); save it with one line a row") from None
    if not lines:
        raise InputError(f"{path}: the table is empty")
    given = name_columns(lines[0]) if name_columns else None
    names = [name.strip() for name in (given or lines[0])]
    body = lines if given else lines[1:]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: column {twice!r} stands there twice; rename one of them")
    lack = [name for name in needs if name not in names]
    if lack:
        raise InputError(f"{path}: has no column {lack[0]!r} (its columns: {', '.join(names)})")
    for i, cells in enumerate(body):
        if len(cells) != len(names):
            raise InputError(f"{path}, row {i + 1}: {len(cells)} cells where {len(names)} columns are named")
    return Sheet(path, tuple(names), tuple(dict(zip(names, cells)) for cells in body))
