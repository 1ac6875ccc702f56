"""Tanimoto similarity of fingerprints, in blocks of rows: memory is linear in the molecules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

TWIN = 0.7
"""From this similarity of ECFP4 on a molecule counts as a near twin of another."""


def tanimoto(a: Int[np.ndarray, "n bits"], b: Int[np.ndarray, "m bits"]) -> Float[np.ndarray, "n m"]:
    """|A and B| / |A or B| of every two rows of bits; 0 where neither has a bit.

    >>> tanimoto(np.array([[1, 1, 0, 0], [0, 0, 0, 0]]), np.array([[1, 0, 0, 0], [1, 1, 0, 0]])).tolist()
    [[0.5, 1.0], [0.0, 0.0]]
    """
    shared = a.astype(np.float32) @ b.astype(np.float32).T  # whole numbers, exact
    union = a.sum(1, dtype=np.float32)[:, None] + b.sum(1, dtype=np.float32) - shared
    return shared / np.maximum(union, 1)


def nearest_similarity(
    test: Int[np.ndarray, "n bits"], train: Int[np.ndarray, "m bits"], block: int = 256
) -> Float[np.ndarray, " n"]:
    """The similarity of every test molecule to the training molecule that is most like it: what leaks through a split.

    >>> nearest_similarity(np.eye(2, dtype=int), np.array([[1, 0], [1, 1]])).tolist()
    [1.0, 0.5]
    """
    return np.concatenate([np.empty(0, np.float32), *(found.max(1) for found in _blocks(test, train, block))])


def _blocks(a: np.ndarray, b: np.ndarray, block: int) -> Iterator[np.ndarray]:
    for start in range(0, len(a), block):
        yield tanimoto(a[start : start + block], b)
