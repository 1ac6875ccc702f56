"""Altered item sequences: crop, mask, reorder."""

import numpy as np
from jaxtyping import Int

from counterpoint.recsys.models.sasrec import NOTHING

Sequence = Int[np.ndarray, "items"]
Part = Int[np.ndarray, "some"]


def crop(items: Sequence, rng: np.random.Generator, share: float = 0.5) -> Part:
    """A stretch of floor(share n) items, anywhere."""
    kept = int(len(items) * share)
    start = int(rng.integers(len(items) - kept + 1))
    return items[start : start + kept]


def mask(items: Sequence, rng: np.random.Generator, share: float = 0.5) -> Sequence:
    """floor(share n) items hidden (`NOTHING`), the others in their places."""
    out = items.copy()
    out[rng.permutation(len(items))[: int(len(items) * share)]] = NOTHING
    return out


def reorder(items: Sequence, rng: np.random.Generator, share: float = 0.8) -> Sequence:
    """A stretch of floor(share n) items, anywhere, in random order."""
    moved = int(len(items) * share)
    start = int(rng.integers(len(items) - moved + 1))
    out = items.copy()
    out[start : start + moved] = rng.permutation(out[start : start + moved])
    return out


def altered(
    items: Sequence,
    rng: np.random.Generator,
    crop_share: float = 0.5,
    mask_share: float = 0.5,
    reorder_share: float = 0.8,
) -> tuple[Part, Int[np.ndarray, "some_other"]]:
    """Two views by two different operators (CL4SRec); a single item stays as it is.

    >>> first, second = altered(np.arange(6), np.random.default_rng(0))
    >>> {*first.tolist(), *second.tolist()} <= {NOTHING, *range(6)}
    True
    """
    if len(items) < 2:
        return items, items
    ways = ((crop, crop_share), (mask, mask_share), (reorder, reorder_share))
    (one, share_one), (two, share_two) = (ways[i] for i in rng.permutation(3)[:2])
    return one(items, rng, share_one), two(items, rng, share_two)
