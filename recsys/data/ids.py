"""Names of users and items and their rows in a table. Names may be added; none ever changes its row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such


class IdMap(Sequence):
    """Text ids in the order of their rows.

    >>> ids = IdMap(["u7", "u1"])
    >>> ids.rows(["u1", "nobody"]).tolist(), ids.extended(["u1", "u9"]).names.to_pylist()
    ([1, -1], ['u7', 'u1', 'u9'])
    """

    def __init__(self, names: Any) -> None:
        self.names = _texts(names)
        if pc.count_distinct(self.names).as_py() < len(self.names):
            twice = pc.value_counts(self.names)
            name = twice.field("values").filter(pc.greater(twice.field("counts"), 1))[0].as_py()
            raise InputError(f"id {name!r} stands in the table twice; every user and item has one row")

    @classmethod
    def of(cls, *columns: Any) -> IdMap:
        """All different names of some columns, sorted by their bytes: the order of the rows of a log has no say."""
        names = pa.concat_arrays([pc.unique(_texts(column)) for column in columns])
        names = pc.unique(names)
        return cls(names.take(pc.sort_indices(names)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self.names[row].to_pylist()
        return self.names[int(row)].as_py()

    def __iter__(self):
        return iter(self.names.to_pylist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.names.equals(other.names)

    __hash__ = None  # type: ignore[assignment]

    def rows(self, names: Any) -> np.ndarray:
        """[n] row of every name, -1 where there is none."""
        found = pc.index_in(_texts(names), value_set=self.names)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def row(self, name: str, kind: str = "id") -> int:
        """The row of one name; raises `InputError` with a near one."""
        (row,) = self.rows([name]).tolist()
        if row < 0:
            raise no_such(kind, name, self if len(self) < 100_000 else [])
        return row

    def extended(self, names: Any) -> IdMap:
        """These names, and behind them those that are new, sorted."""
        new = pc.unique(_texts(names))
        new = new.filter(pc.is_null(pc.index_in(new, value_set=self.names)))
        return self if not len(new) else IdMap(pa.concat_arrays([self.names, new.take(pc.sort_indices(new))]))

    def take(self, rows: np.ndarray) -> IdMap:
        """The names of some rows, in their order."""
        return IdMap(self.names.take(pa.array(rows, pa.int64())))

    @cached_property
    def hash(self) -> str:
        """sha256 of the names in their order."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """One JSON text a line."""
        return "\n".join(json.dumps(name, ensure_ascii=False) for name in self.names.to_pylist()).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> IdMap:
        """What `to_bytes` wrote.

        >>> IdMap.from_bytes(IdMap(["a\\nb", "c"]).to_bytes())[0]
        'a\\nb'
        """
        return cls(json.loads("[" + content.decode().replace("\n", ",") + "]"))


def listed_ids(text: str, nobody: str = "") -> list[str]:
    """Ids as a person lists them: with commas between, or as a JSON list of texts, which can name any id, also one with
    a comma in it; the word `nobody` and the empty text list none. `InputError` for a JSON list of something else.

    >>> listed_ids("b12, b77"), listed_ids('["Ramones, The", "none"]'), listed_ids("none", nobody="none")
    (['b12', 'b77'], ['Ramones, The', 'none'], [])
    """
    text = text.strip()
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None  # an id may begin like this
        if isinstance(found, list):
            wrong = next((name for name in found if not isinstance(name, str | int) or isinstance(name, bool)), None)
            if wrong is not None or None in found:
                raise InputError(f"{text[:60]}: {json.dumps(wrong)} is no id; list texts, as in " + '["b12", "b77"]')
            return [str(name) for name in found]
    return [] if text in ("", nobody) else [name.strip() for name in text.split(",") if name.strip()]


def _texts(names: Any) -> pa.Array:
    if isinstance(names, IdMap):
        return names.names
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    if not isinstance(names, pa.Array):
        names = pa.array([str(name) for name in names] if isinstance(names, Iterable) else names, pa.large_string())
    return names if pa.types.is_large_string(names.type) else pc.cast(names, pa.large_string())
