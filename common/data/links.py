"""Sparse pairs of rows: which keys answer a query (`relevant`), and which are left out of its pool (`exclude`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs (query row, key row), each once: equal reports, several captions of one picture, items already seen.

    Memory grows with the number of pairs, never with queries times keys.

    Attributes:
        queries, keys: [pairs] rows, sorted by query, then by key.
        shape: how many queries and keys there are.

    >>> links = Links.of([[0, 2], [], [1]], 3)
    >>> links.pairs, links.T.pairs, links.counts.tolist()
    ([(0, 0), (0, 2), (2, 1)], [(0, 0), (1, 2), (2, 0)], [2, 0, 1])
    """

    queries: np.ndarray | Sequence[int]
    keys: np.ndarray | Sequence[int]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        queries, keys = (np.asarray(x, dtype=np.int64).reshape(-1) for x in (self.queries, self.keys))
        if len(queries) != len(keys):
            raise ValueError(f"links need one key row per query row, got {len(queries)} and {len(keys)}")
        for what, rows, n in zip(("query", "key"), (queries, keys), self.shape):
            if len(rows) and (rows.min() < 0 or rows.max() >= n):
                odd = int(rows.min() if rows.min() < 0 else rows.max())
                raise ValueError(f"links name the {what} row {odd}, but there are {n}")
        flat = np.unique(queries * max(self.shape[1], 1) + keys)
        object.__setattr__(self, "queries", flat // max(self.shape[1], 1))
        object.__setattr__(self, "keys", flat % max(self.shape[1], 1))

    @classmethod
    def of(cls, found: Any, keys: int | None = None) -> Links:
        """Links from a SciPy sparse matrix, from a list of key rows for each query, or as they are.

        `keys` is the number of keys, needed for lists.
        """
        if isinstance(found, Links):
            return found
        if hasattr(found, "tocoo"):
            matrix = found.tocoo()
            kept = matrix.data != 0
            return cls(matrix.row[kept], matrix.col[kept], tuple(matrix.shape))
        if keys is None:
            raise ValueError("links from lists of rows need the number of keys")
        lengths = [len(rows) for rows in found]
        rows = np.concatenate([np.asarray(rows, dtype=np.int64) for rows in found]) if any(lengths) else []
        return cls(np.repeat(np.arange(len(lengths)), lengths), rows, (len(lengths), keys))

    @classmethod
    def equal(cls, a: Sequence[Any], b: Sequence[Any] | None = None, *, others: bool = False) -> Links:
        """Every two rows of one value (the same report, the same patient); rows without a value belong to nothing.

        `others` leaves a row's link to itself out: with `b` not given, the other rows of the same patient.

        >>> Links.equal(["x", "y", "x"], others=True).pairs
        [(0, 2), (2, 0)]
        """
        b = a if b is None else b
        places: dict[Any, list[int]] = {}
        for j, value in enumerate(b):
            places.setdefault(value, []).append(j)
        missing = {None, ""}
        rows = [[] if x in missing or x != x else places.get(x, []) for x in a]
        links = cls.of(rows, len(b))
        if not others:
            return links
        kept = links.queries != links.keys
        return cls(links.queries[kept], links.keys[kept], links.shape)

    @property
    def T(self) -> Links:
        """The same pairs asked from the other side."""
        return Links(self.keys, self.queries, self.shape[::-1])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.queries.tolist(), self.keys.tolist()))

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def starts(self) -> np.ndarray:
        """[queries + 1] where each query's pairs begin."""
        return np.searchsorted(self.queries, np.arange(self.shape[0] + 1))

    @property
    def counts(self) -> np.ndarray:
        """[queries] number of pairs of each query."""
        return np.diff(self.starts)

    def of_query(self, row: int) -> np.ndarray:
        """The key rows of one query."""
        return self.keys[self.starts[row] : self.starts[row + 1]]

    def within(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(query row counted from `rows.start`, key row) of the pairs of some queries."""
        part = slice(self.starts[rows.start], self.starts[rows.stop])
        return self.queries[part] - rows.start, self.keys[part]

    def of_queries(self, queries: Sequence[int] | np.ndarray) -> Links:
        """The links of some queries, renumbered in the order given, to all keys; in the time of what is taken.

        >>> Links.of([[0, 2], [1], []], 3).of_queries([1, 0]).pairs
        [(0, 1), (1, 0), (1, 2)]
        """
        rows = np.asarray(queries, dtype=np.int64)
        counts = self.counts[rows]
        places = np.arange(counts.sum()) + np.repeat(self.starts[rows] - counts.cumsum() + counts, counts)
        return Links(np.repeat(np.arange(len(rows)), counts), self.keys[places], (len(rows), self.shape[1]))

    def take(self, queries: Sequence[int], keys: Sequence[int]) -> Links:
        """Links between some of the rows, renumbered in the order given; a row may be named once.

        >>> Links.of([[0, 2], [1]], 3).take([1, 0], [2, 1]).pairs
        [(0, 1), (1, 0)]
        """
        new_query, new_key = (np.full(n, -1, dtype=np.int64) for n in self.shape)
        new_query[np.asarray(queries, dtype=np.int64)] = np.arange(len(queries))
        new_key[np.asarray(keys, dtype=np.int64)] = np.arange(len(keys))
        q, k = new_query[self.queries], new_key[self.keys]
        kept = (q >= 0) & (k >= 0)
        return Links(q[kept], k[kept], (len(queries), len(keys)))

    def has(self, other: Links) -> np.ndarray:
        """For every pair of another one, whether it stands here too."""
        width = max(self.shape[1], 1)
        return np.isin(other.queries * width + other.keys, self.queries * width + self.keys)
