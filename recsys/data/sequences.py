"""Training samples of sequential recommenders: prefixes with their next items, or whole histories."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import Samples
from counterpoint.common.data.samples import options_hash
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.data.samples import PairNames, mixed
from counterpoint.recsys.models.sasrec import NOTHING
from counterpoint.recsys.models.sequences import altered, numbers_for


def uniform_draws(seeds: np.ndarray, draws: int) -> np.ndarray:
    """[rows, draws] numbers in [0, 1), each row's by its seed.

    >>> u = uniform_draws(np.arange(1000, dtype=np.uint64), 3)
    >>> bool((abs(u.mean(0) - 0.5) < 0.05).all()), float(abs(np.corrcoef(u.T)[0, 1])) < 0.1
    (True, True)
    """
    columns = [mixed(mixed(seeds, draw), 0) for draw in range(draws)]
    return np.stack(columns, 1).astype(np.float64) * 2.0**-64 * (1 - 2.0**-53)


def padded(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The last `length` of items[start:end] of every row, at the left of [rows, longest], `NOTHING` behind their ends.

    >>> padded(np.array([5, 6, 7, 8]), np.array([0, 2]), np.array([3, 3]), 2)[0].tolist()
    [[6, 7], [7, -1]]
    """
    begins = np.maximum(starts, ends - length)
    lengths = ends - begins
    place = np.arange(max(int(lengths.max(initial=0)), 1))
    inside = place < lengths[:, None]
    found = np.where(inside, items[np.where(inside, begins[:, None] + place, 0)], NOTHING)
    return found.astype(np.int64), lengths


class _Histories(Samples):
    """What both kinds have in common: the training log, ordered by user and time."""

    def __init__(self, data: InteractionData, length: int, positions: np.ndarray) -> None:
        self.data, self.length, self.positions = data, length, positions
        self.log, self.synthetic = data.log.of("train"), data.synthetic

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> dict[str, Any]:
        batch = self.batch([position], [int(torch.randint(2**62, ()))])
        row = {name: values[0] for name, values in batch.items()}
        return {**row, "index": position, "id": self.ids[position], "group": self.groups[position]}

    def remembered(self) -> dict[str, Sequence[str]]:
        """Nothing: users stand in every split by intent, and interactions have no names elsewhere."""
        return {"ids": (), "groups": ()}


class Prefixes(_Histories):
    """Every training interaction but a user's first: the items before it, and itself as the next one.

    Args:
        length: items of a prefix that are kept, the last ones.
        shares: of crop, mask and reorder; None makes no altered views.
    """

    def __init__(self, data: InteractionData, length: int, shares: Sequence[float] | None = None) -> None:
        starts = data.log.of("train").starts
        later = np.ones(int(starts[-1]), dtype=bool)
        later[starts[:-1][np.diff(starts) > 0]] = False
        super().__init__(data, length, np.flatnonzero(later))
        self.shares = shares

    def batch(self, positions: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
        rows = self.positions[np.asarray(positions, dtype=np.int64)]
        user = self.log.user[rows].astype(np.int64)
        items, lengths = padded(self.log.item, self.log.starts[user], rows, self.length)
        found = {"sequence": items, "lengths": lengths, "item": self.log.item[rows].astype(np.int64)}
        if self.shares is not None:
            numbers = uniform_draws(np.asarray(seeds, dtype=np.uint64), numbers_for(items.shape[1]))
            for name, (view, ends) in zip(("first", "second"), altered(items, lengths, numbers, self.shares)):
                found |= {name: view, f"{name}_lengths": ends}
        index = torch.as_tensor(np.asarray(positions, dtype=np.int64))
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in found.items()}
        return {"index": index, "group": torch.from_numpy(user), "user": torch.from_numpy(user), **tensors}

    @cached_property
    def ids(self) -> Sequence[str]:
        log, rows = self.log, self.positions
        return PairNames(log.users, log.items, log.user[rows], log.item[rows])

    @property
    def groups(self) -> Sequence[str]:
        return [self.log.users[u] for u in self.log.user[self.positions]]

    @cached_property
    def hash(self) -> str:
        return options_hash(self.log.hash, prefixes=self.length, altered=self.shares)


class Histories(_Histories):
    """Every user with two training items or more: his items but the last, and at each place the next one; an item that
    he has not met, for each place."""

    def __init__(self, data: InteractionData, length: int) -> None:
        super().__init__(data, length, np.flatnonzero(data.log.of("train").user_counts > 1))
        self.met = np.sort(self.log.pairs)

    def batch(self, positions: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
        user = self.positions[np.asarray(positions, dtype=np.int64)]
        starts, ends = self.log.starts[user], self.log.starts[user + 1]
        whole, lengths = padded(self.log.item, starts, ends, self.length + 1)
        inside = np.arange(whole.shape[1] - 1) < (lengths - 1)[:, None]
        found = {
            "user": user,
            "sequence": np.where(inside, whole[:, :-1], NOTHING),
            "next": whole[:, 1:],
            "negative": np.where(inside, self.others(user, inside.shape[1], seeds), NOTHING),
            "lengths": lengths - 1,
        }
        index = torch.as_tensor(np.asarray(positions, dtype=np.int64))
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in found.items()}
        return {"index": index, "group": tensors["user"], **tensors}

    def others(self, users: np.ndarray, places: int, seeds: Sequence[int], tries: int = 64) -> np.ndarray:
        """[users, places] items that a user has not met in training, drawn uniformly; one that has met nearly all may
        get one of them."""
        n, own = len(self.log.items), np.asarray(seeds, dtype=np.uint64)
        found = np.zeros((len(users), places), dtype=np.int64)
        bad = np.ones_like(found, dtype=bool)
        for draw in range(tries):
            found = np.where(bad, (uniform_draws(mixed(own, draw), places) * n).astype(np.int64), found)
            bad = np.isin(users[:, None] * n + found, self.met)
            if not bad.any():
                break
        return found

    @property
    def ids(self) -> Sequence[str]:
        return [self.log.users[u] for u in self.positions]

    groups = ids

    @cached_property
    def hash(self) -> str:
        return options_hash(self.log.hash, histories=self.length)
