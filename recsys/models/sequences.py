"""Altered item sequences: crop, mask, reorder; whole batches at once, each row by random numbers of its own.

Source: Xie et al., "Contrastive learning for sequential recommendation" (CL4SRec), ICDE 2022, with the official MCLRec
code's floors: a share of n items is the whole number below it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from counterpoint.recsys.models.sasrec import NOTHING

Items = Int[np.ndarray, "batch length"]
Lengths = Int[np.ndarray, "batch"]
Numbers = Float[np.ndarray, "batch numbers"]
View = tuple[Items, Lengths]


def crop(items: Items, lengths: Lengths, numbers: Numbers, share: float = 0.5) -> View:
    """A stretch of a share of the items, anywhere."""
    kept = (lengths * share).astype(np.int64)
    place = np.arange(items.shape[1])
    start = (numbers[:, 0] * (lengths - kept + 1)).astype(np.int64)
    moved = np.take_along_axis(items, np.minimum(start[:, None] + place, items.shape[1] - 1), 1)
    return np.where(place < kept[:, None], moved, NOTHING), kept


def mask(items: Items, lengths: Lengths, numbers: Numbers, share: float = 0.5) -> View:
    """A share of the items hidden (`NOTHING`), the others in their places."""
    inside = np.arange(items.shape[1]) < lengths[:, None]
    keys = np.where(inside, numbers[:, 1:], np.inf)
    rank = keys.argsort(1).argsort(1)
    return np.where(rank < (lengths * share).astype(np.int64)[:, None], NOTHING, items), lengths


def reorder(items: Items, lengths: Lengths, numbers: Numbers, share: float = 0.8) -> View:
    """A stretch of a share of the items, anywhere, in random order."""
    moved = (lengths * share).astype(np.int64)[:, None]
    place = np.arange(items.shape[1])
    start = (numbers[:, :1] * (lengths[:, None] - moved + 1)).astype(np.int64)
    inside = (place >= start) & (place < start + moved)
    keys = np.where(inside, start + numbers[:, 1:] * moved, place)  # below 1, so that a stretch keeps to its places
    keys = np.where(inside, np.minimum(keys, start + moved - 0.5), keys)
    return np.take_along_axis(items, keys.argsort(1, kind="stable"), 1), lengths


def numbers_for(length: int) -> int:
    """How many random numbers `altered` needs of each row."""
    return 1 + 2 * (1 + length)


def altered(
    items: Items, lengths: Lengths, numbers: Numbers, shares: Sequence[float] = (0.5, 0.5, 0.8)
) -> tuple[View, View]:
    """Two views of every row by two different operators; a single item stays as it is.

    Args:
        items: sequences at the left, `NOTHING` behind their ends.
        numbers: uniform in [0, 1), `numbers_for(length)` of each row.
        shares: of crop, mask and reorder.

    >>> rng = np.random.default_rng(0)
    >>> (first, n), (second, m) = altered(np.arange(6)[None], np.array([6]), rng.random((1, numbers_for(6))))
    >>> {*first[0, : n[0]], *second[0, : m[0]]} <= {NOTHING, *range(6)}
    True
    """
    choice = (numbers[:, 0] * 6).astype(np.int64)  # ordered pairs of two different operators
    first = choice // 2
    second = (first + 1 + choice % 2) % 3
    views = []
    for number, chosen in enumerate((first, second)):
        begin = 1 + number * (1 + items.shape[1])
        own = numbers[:, begin : begin + 1 + items.shape[1]]
        out, ends = items.copy(), lengths.copy()
        for operator, (change, share) in enumerate(zip((crop, mask, reorder), shares)):
            rows = np.flatnonzero((chosen == operator) & (lengths > 1))
            if len(rows):
                out[rows], ends[rows] = change(items[rows], lengths[rows], own[rows], share)
        # A share of few items may be none at all: one stays, or nothing would be left to read.
        none = ends < 1
        out[none, :1], ends[none] = items[none, :1], 1
        views.append((out, ends))
    return views[0], views[1]
