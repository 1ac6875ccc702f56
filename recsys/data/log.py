"""`Interactions`: who met what, when, and how it was rated, as columns of numbers beside two tables of names."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.recsys.data.ids import IdMap

NO_SPLIT = -1
_TYPES = {"user": pa.int32(), "item": pa.int32(), "time": pa.float64(), "rating": pa.float32(), "split": pa.int8()}


@dataclass(frozen=True, eq=False)
class Interactions:
    """An interaction log, sorted by user, then by time (rows of one time, or of no time, in the order of the log).

    Attributes:
        users, items: the names; there may be more of them than the log mentions.
        user, item: [n] int32 rows of the two tables.
        time: [n] float64, seconds or whatever number the log counts time in; None where it has no times.
        rating: [n] float32; None where every interaction counts the same.
        split: [n] int8 place in train, val, test, -1 where a row is of no split; None where nothing is split.

    >>> log = Interactions(IdMap(["a", "b"]), IdMap(["x", "y"]), np.array([0, 0, 1]), np.array([1, 0, 1]))
    >>> len(log), log.item_counts.tolist(), log.starts.tolist()
    (3, [1, 2], [0, 2, 3])
    """

    users: IdMap
    items: IdMap
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None = None
    rating: np.ndarray | None = None
    split: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, kind in (("user", np.int32), ("item", np.int32), ("time", np.float64), ("rating", np.float32)):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, np.asarray(values, dtype=kind))
        if self.split is not None:
            object.__setattr__(self, "split", np.asarray(self.split, dtype=np.int8))
        for name in ("item", "time", "rating", "split"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.user):
                raise ValueError(f"{len(values)} values of {name} for {len(self.user)} interactions")
        for name, size in (("user", len(self.users)), ("item", len(self.items))):
            rows = getattr(self, name)
            if len(rows) and (rows.min() < 0 or rows.max() >= size):
                raise ValueError(f"an interaction names the {name} row {rows.max()} or below 0; there are {size}")

    def __len__(self) -> int:
        return len(self.user)

    def ordered(self) -> Interactions:
        """Sorted by user, then by time; equal ones keep their order."""
        if self.time is None:
            order = np.argsort(self.user, kind="stable")
        else:
            order = np.argsort(self.time, kind="stable")
            order = order[np.argsort(self.user[order], kind="stable")]
        return self.take(order)

    def take(self, rows: np.ndarray) -> Interactions:
        """Some of the rows, by place or by a mask."""
        kept = {n: None if (v := getattr(self, n)) is None else v[rows] for n in _TYPES}
        return replace(self, **kept)

    def of(self, split: str) -> Interactions:
        """The rows of one split."""
        if self.split is None:
            raise ValueError("the log is not split")
        return self.take(self.split == SPLITS.index(split))

    @cached_property
    def item_counts(self) -> np.ndarray:
        """[items] interactions of every item."""
        return np.bincount(self.item, minlength=len(self.items))

    @cached_property
    def user_counts(self) -> np.ndarray:
        """[users] interactions of every user."""
        return np.bincount(self.user, minlength=len(self.users))

    @cached_property
    def starts(self) -> np.ndarray:
        """[users + 1] where every user's rows begin."""
        return np.concatenate([[0], self.user_counts.cumsum()])

    @cached_property
    def pairs(self) -> np.ndarray:
        """[n] user and item of every row as one number."""
        return self.user.astype(np.int64) * max(len(self.items), 1) + self.item

    def renamed(self, users: IdMap, items: IdMap) -> tuple[Interactions, np.ndarray]:
        """The log in the rows of other tables, and which of its rows have both names there (the others are left out).
        """
        user, item = users.rows(self.users)[self.user], items.rows(self.items)[self.item]
        known = (user >= 0) & (item >= 0)
        kept = self.take(known)
        return replace(kept, users=users, items=items, user=user[known], item=item[known]).ordered(), known

    @cached_property
    def hash(self) -> str:
        """sha256 over names, sorted pairs with their times and ratings, and splits: no order of a file changes it."""
        seen = hashlib.sha256(f"{self.users.hash}{self.items.hash}".encode())
        order = np.argsort(self.pairs, kind="stable")
        for name in ("pairs", "time", "rating", "split"):
            values = getattr(self, name)
            seen.update(name.encode())
            if values is not None:
                seen.update(np.ascontiguousarray(values[order]).tobytes())
        return seen.hexdigest()

    @property
    def pair_hash(self) -> str:
        """sha256 of who met what alone: the fingerprint by which two copies of one data set are told to be one."""
        seen = hashlib.sha256(f"{self.users.hash}{self.items.hash}".encode())
        seen.update(np.sort(self.pairs).tobytes())
        return seen.hexdigest()

    def save(self, path: Path) -> None:
        """Write the columns as Parquet with checksums; whole or not at all."""
        columns = {n: v for n in _TYPES if (v := getattr(self, n)) is not None}
        table = pa.table({name: pa.array(values, _TYPES[name]) for name, values in columns.items()})
        write_log_table(table, path)

    @classmethod
    def load(cls, path: Path, users: IdMap, items: IdMap) -> Interactions:
        """Read what `save` wrote. Raises `InputError` for a file that is missing, damaged, or of other tables."""
        table = read_log_table(path)
        if not {"user", "item"} <= set(table.column_names):
            raise InputError(f"{path}: has no columns user and item; import the data again")
        columns: dict[str, Any] = {}
        for name in _TYPES:
            if name in table.column_names:
                column = table.column(name)
                if column.null_count or column.type != _TYPES[name]:
                    raise InputError(f"{path}: column {name} is damaged ({column.type}); import the data again")
                columns[name] = column.to_numpy()
        try:
            return cls(users, items, **columns)
        except ValueError as error:
            raise InputError(f"{path}: does not fit the tables of users and items ({error}); import again") from error


def stands_in(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which whole numbers stand among others; `np.isin` sorts both together, which takes ten times as long.

    >>> stands_in(np.array([3, 1]), np.array([1, 2])).tolist()
    [False, True]
    """
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    among = np.sort(among)
    return among[np.minimum(np.searchsorted(among, values), len(among) - 1)] == values


def write_log_table(table: pa.Table, path: Path) -> None:
    """A Parquet file with checksums, written whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary, write_page_checksum=True)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_log_table(path: Path) -> pa.Table:
    """A Parquet file of ours; raises `InputError` where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; import the data again")
    try:
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: cannot be read ({reason}); import the data again") from error
    return table
