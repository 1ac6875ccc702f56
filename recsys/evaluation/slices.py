"""Which items and which users a figure is about: head, mid and tail, rare and new items, short and long histories."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def item_slices(counts: Int[np.ndarray, items], rare: int) -> dict[str, Bool[np.ndarray, items]]:
    """Masks of items by their training interactions.

    Head, mid and tail hold a third of the interactions each, in the order of popularity (equals stay together, in the
    more popular part); items without one are `new`, those with 1 to `rare` are `rare`: both are part of the tail.

    >>> found = item_slices(np.array([6, 3, 2, 1, 0]), 1)
    >>> [mask.nonzero()[0].tolist() for mask in found.values()]
    [[0], [1], [2, 3, 4], [3], [4]]
    >>> list(found)
    ['head items', 'mid items', 'tail items', 'rare items (1 to 1 interactions)', 'new items']
    """
    levels = np.unique(counts)[::-1]
    held = np.bincount(counts)[levels] * levels
    before = held.cumsum() - held  # interactions of more popular items
    part = np.minimum(before * 3 // max(int(counts.sum()), 1), 2)
    side = part[len(levels) - 1 - np.searchsorted(levels[::-1], counts)]
    side = np.where(counts == 0, 2, side)
    found = {name: side == place for place, name in enumerate(("head items", "mid items", "tail items"))}
    if rare:
        found[f"rare items (1 to {rare} interactions)"] = (counts >= 1) & (counts <= rare)
    found["new items"] = counts == 0
    return found


def user_slices(lengths: Int[np.ndarray, users]) -> dict[str, Bool[np.ndarray, users]]:
    """Masks of users by their training interactions: thirds of the users that have any, and those that have none.

    >>> found = user_slices(np.array([0, 1, 5, 9]))
    >>> {name: mask.nonzero()[0].tolist() for name, mask in found.items()}
    {'histories of 1': [1], 'histories of 2 to 5': [2], 'histories of 6 or more': [3], 'users without a history': [0]}
    """
    known = lengths[lengths > 0]
    found: dict[str, np.ndarray] = {}
    if len(known):
        low, high = (int(q) for q in np.quantile(known, [1 / 3, 2 / 3], method="lower"))
        bounds = [(1, low), (low + 1, high), (high + 1, int(known.max()))]
        for i, (first, last) in enumerate(bounds):
            if first > last:
                continue
            said = f"{first} or more" if i == 2 else f"{first}" if first == last else f"{first} to {last}"
            found[f"histories of {said}"] = (lengths >= first) & (lengths <= last)
    found["users without a history"] = lengths == 0
    return found
