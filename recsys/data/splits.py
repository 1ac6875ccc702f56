"""The four ways to hold interactions out, k-core filtering, and what would be a leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.suggest import no_such
from counterpoint.recsys.data.log import NO_SPLIT, Interactions, stands_in

KINDS = ("random", "leave-last-out", "time", "items")
TRAIN, VAL, TEST = range(3)


def k_core(log: Interactions, k: int) -> Interactions:
    """The largest part of a log in which every user and every item has k interactions or more.

    Raises:
        InputError: nothing is left.
    """
    while len(log):
        kept = (log.user_counts[log.user] >= k) & (log.item_counts[log.item] >= k)
        if kept.all():
            return log
        log = log.take(kept)
    raise InputError(f"no user and item with {k} interactions each are left (--data.core); give a smaller core")


def split_log(
    log: Interactions, kind: str, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Interactions:
    """The log with a split for every row.

    - `random`: of every user's n rows, drawn at random, round(val n) validate and round(test n) test; at least one
      trains.
    - `leave-last-out`: the last row of every user tests, the one before it validates; a user of two rows has no
      validation row, one of a single row only trains.
    - `time`: the earliest rows of all train, the latest test; rows of one time stay together.
    - `items`: whole items are drawn to validate and to test: nobody has met them in training (item cold start).

    >>> from counterpoint.recsys.data.ids import IdMap
    >>> log = Interactions(IdMap(["a"]), IdMap(list("wxyz")), np.zeros(4), np.arange(4), time=np.arange(4))
    >>> split_log(log, "leave-last-out").split.tolist(), split_log(log, "time", (0.5, 0.25, 0.25)).split.tolist()
    ([0, 0, 1, 2], [0, 0, 1, 2])
    """
    if kind not in KINDS:
        raise no_such("kind of split", kind, KINDS)
    fractions = _checked(fractions)
    make = {"random": _random, "leave-last-out": _last_out, "time": _by_time, "items": _by_item}[kind]
    return replace(log, split=make(log, fractions, np.random.default_rng(seed)))


def _checked(fractions: Sequence[float]) -> np.ndarray:
    shares = np.array(fractions, dtype=float)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6 or shares[0] <= 0:
        said = ", ".join(f"{name} {share:g}" for name, share in zip(SPLITS, fractions))
        raise InputError(f"shares of {said}: give train, val and test, none negative, that add up to 1")
    return shares


def _random(log: Interactions, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.lexsort((rng.random(len(log)), log.user))  # users stay together, their rows in random order
    n = log.user_counts[log.user]
    place = np.empty(len(log), dtype=np.int64)
    place[order] = np.arange(len(log)) - log.starts[log.user[order]]
    held = [np.floor(share * n + 0.5).astype(np.int64) for share in fractions[1:]]
    test = np.minimum(held[1], n - 1)
    val = np.minimum(held[0], n - 1 - test)
    return np.where(place < test, TEST, np.where(place < test + val, VAL, TRAIN))


def _last_out(log: Interactions, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = log.user_counts[log.user]
    behind = log.starts[1:][log.user] - 1 - np.arange(len(log))
    return np.where((behind == 0) & (n > 1), TEST, np.where((behind == 1) & (n > 2), VAL, TRAIN))


def _by_time(log: Interactions, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if log.time is None:
        raise InputError("a split by time needs times, and the log has none; split it at random or leave the last out")
    moments, counts = np.unique(log.time, return_counts=True)
    names = np.flatnonzero(fractions > 0)
    if len(moments) < len(names):
        raise InputError(f"the log has {len(moments)} different time(s), too few for {len(names)} splits")
    middle = counts.cumsum() - counts / 2
    cuts = fractions[names].cumsum()[:-1] * len(log)
    starts = np.searchsorted(middle, cuts)
    for i in range(len(starts)):  # every split gets a time of its own
        starts[i] = max(starts[i], 1 + (starts[i - 1] if i else 0))
    for i in reversed(range(len(starts))):
        starts[i] = min(starts[i], (starts[i + 1] if i + 1 < len(starts) else len(moments)) - 1)
    return names[np.searchsorted(starts, np.searchsorted(moments, log.time), side="right")]


def _by_item(log: Interactions, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    there = np.flatnonzero(log.item_counts)
    bounds = np.floor(fractions.cumsum()[:2] * len(there) + 0.5).astype(int)
    side = np.full(len(log.items), NO_SPLIT, dtype=np.int8)
    for place, part in enumerate(np.split(rng.permutation(there), bounds)):
        side[part] = place
    return side[log.item]


def check_split(log: Interactions, kind: str) -> None:
    """Raise `LeakageError` where a training pair is held out too, or the split is not what its kind says."""
    if log.split is None:
        raise ValueError("the log is not split")
    held = log.take(log.split > TRAIN)
    trained = log.of("train")
    both = stands_in(held.pairs, trained.pairs)
    if both.any() and kind not in ("time", "leave-last-out"):  # there, who meets an item again does so later
        row = int(both.argmax())
        raise LeakageError(
            f"user {log.users[held.user[row]]!r} and item {log.items[held.item[row]]!r} stand in train and in "
            f"{SPLITS[held.split[row]]} ({int(both.sum())} such pairs); split the log again"
        )
    if kind == "time" and log.time is not None and len(held) and len(trained):
        sides = [log.of(name).time for name in SPLITS]
        for a, b in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
            if len(sides[a]) and len(sides[b]) and (last := sides[a].max()) >= (first := sides[b].min()):
                raise LeakageError(
                    f"split by time, but {SPLITS[a]} goes on to {last:.15g} and {SPLITS[b]} begins at {first:.15g}"
                )
    if kind == "leave-last-out":
        falls = (np.diff(log.split) < 0) & (np.diff(log.user) == 0)
        if falls.any():
            row = int(falls.argmax())
            raise LeakageError(
                f"user {log.users[log.user[row]]!r}: a {SPLITS[log.split[row + 1]]} interaction comes after a "
                f"{SPLITS[log.split[row]]} one, where leave-last-out keeps their order"
            )
    if kind == "items":
        seen = np.zeros((3, len(log.items)), dtype=bool)
        used = log.take(log.split != NO_SPLIT)
        seen[used.split, used.item] = True
        if (twice := seen.sum(0) > 1).any():
            name = log.items[int(twice.argmax())]
            raise LeakageError(f"item {name!r} stands in two splits, where whole items are held out")
