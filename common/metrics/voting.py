"""Many windows of one query vote: each gives one vote to every key that it finds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

VOTES = 25
"""Nearest keys that a window votes for, however few answers are then shown."""


def count_votes(found: Int[np.ndarray, "*rows"], n: int, owners: Int[np.ndarray, " keys"] | None = None) -> np.ndarray:
    """`[n]` votes of each key, or of each owner of keys where `owners` names it for every key.

    >>> count_votes(np.array([[0, 2], [0, 1]]), 3).tolist()
    [2, 1, 1]
    >>> count_votes(np.array([[0, 2], [0, 1]]), 2, np.array([0, 1, 1])).tolist()
    [2, 2]
    """
    rows = np.asarray(found, dtype=np.int64).ravel()
    return np.bincount(rows if owners is None else owners[rows], minlength=n)


def vote_shares(found: Int[np.ndarray, "*rows"], owners: Int[np.ndarray, " keys"], n: int) -> Float[np.ndarray, " n"]:
    """`[n]` votes of each owner divided by how many keys it has, so that one with many has no advantage.

    >>> vote_shares(np.array([[0, 2], [0, 1]]), np.array([0, 1, 1]), 2).tolist()
    [2.0, 1.0]
    """
    return count_votes(found, n, owners) / np.bincount(owners, minlength=n)
