"""Results as people and programs read them: aligned tables, plain JSON, files written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


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


def clock(seconds: float, digits: int = 0) -> str:
    """A time as players show it.

    >>> clock(72), clock(3661.24, 1), clock(0.256, 2), clock(59.97, 1)
    ('1:12', '1:01:01.2', '0:00.26', '1:00.0')
    """
    seconds = round(seconds, digits)
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    said = f"{rest:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02d}:{said}" if hours else f"{minutes}:{said}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align `rows` under `columns`; the last column runs free.

    >>> table(["name", "n"], [["audio", "3"]])
    ['name   n', 'audio  3']
    """
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [columns, *rows]]


def jsonable(value: Any) -> Any:
    """Plain JSON: paths as text, tensors and arrays as lists, NaN and infinities as null.

    >>> from pathlib import Path
    >>> jsonable({"a": (1, float("nan")), "b": Path("x")})
    {'a': [1, None], 'b': 'x'}
    """
    if hasattr(value, "as_dict"):
        return jsonable(value.as_dict())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def write_json(figures: dict, target: Path) -> None:
    """Write JSON under a temporary name, then rename: a reader never sees half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(jsonable(figures), indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)
