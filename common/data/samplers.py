"""Resumable batch samplers: the batches of an epoch are a function of (seed, epoch), a position is two numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Values = Sequence[Any] | np.ndarray  # one per sample


class BatchSampler(ABC):
    """Lists of sample positions. Use as `DataLoader(dataset, batch_sampler=sampler)`; the trainer does.

    `epoch` and `batch` say where the next `iter()` starts; a full pass moves on to the next epoch by itself.
    """

    shared_out = True
    """Whether ranks share a batch out among them; otherwise each gets all of it, with the same random numbers, and does
    the same work (a whole graph)."""

    def __init__(self, batch_size: int, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size, self.seed = batch_size, seed
        self.epoch = self.batch = 0

    @abstractmethod
    def batches(self, epoch: int) -> Sequence[Any]:
        """All batches of one epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches(self.epoch))

    def begin_epoch(self) -> None:  # noqa: B027 - most samplers have nothing to do here
        """Called before an epoch's first batch is drawn: what was given to the sampler meanwhile takes effect here, so
        that an epoch resumed in its middle is the one that was begun."""

    def __iter__(self) -> Iterator[list[int]]:
        if self.batch == 0:
            self.begin_epoch()
        batches = self.batches(self.epoch)
        while self.batch < len(batches):
            self.batch += 1
            yield [int(i) for i in batches[self.batch - 1]]
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The position; subclasses whose tables change during training add them."""
        return {"epoch": self.epoch, "batch": self.batch, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.epoch, self.batch, self.seed = int(state["epoch"]), int(state["batch"]), int(state["seed"])

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])


class ShuffleSampler(BatchSampler):
    """Every sample once an epoch, in a new random order.

    >>> sampler = ShuffleSampler(10, batch_size=4)
    >>> [len(b) for b in sampler]
    [4, 4]
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0, drop_last: bool = True) -> None:
        super().__init__(batch_size, seed)
        self.n, self.drop_last = n, drop_last

    def __len__(self) -> int:
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def batches(self, epoch: int) -> Sequence[Any]:
        order = self._rng(epoch).permutation(self.n)
        return [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]


class SequentialSampler(BatchSampler):
    """Every sample once, in order, the last batch smaller: validation. A last batch below `least` joins the one before.

    >>> list(SequentialSampler(5, batch_size=2)), list(SequentialSampler(5, batch_size=2, least=2))
    ([[0, 1], [2, 3], [4]], [[0, 1], [2, 3, 4]])
    """

    def __init__(self, n: int, batch_size: int, least: int = 1) -> None:
        super().__init__(batch_size)
        self.n, self.least = n, least

    def batches(self, epoch: int) -> Sequence[Any]:
        starts = list(range(0, self.n, self.batch_size))
        if len(starts) > 1 and self.n - starts[-1] < self.least:
            starts.pop()
        return [range(i, j) for i, j in zip(starts, [*starts[1:], self.n])]


class GroupUniqueBatchSampler(BatchSampler):
    """No two samples of one group (patient, piece, scene) in a batch: no false negatives, in linear time.

    The samples, listed group after group in random order, are dealt like cards to the epoch's batches: the members of
    a group lie consecutively, so they land in different batches. Every sample appears at most once an epoch; the
    remainder that fills no batch, and the members of a group beyond one per batch, wait for another epoch (other ones
    each time; their number is `waiting(epoch)`).

    >>> sampler = GroupUniqueBatchSampler(["a", "a", "b", "b", "c", "c"], batch_size=3)
    >>> sorted(sorted("aabbcc"[i] for i in batch) for batch in sampler)
    [['a', 'b', 'c'], ['a', 'b', 'c']]
    """

    def __init__(self, groups: Values, batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
        self.sizes = np.bincount(self.codes)
        self.n_batches, self.cap = _capacity(self.sizes, batch_size)
        if self.n_batches == 0:
            raise ValueError(
                f"{len(self.sizes)} groups cannot fill a batch of {batch_size} with one sample of each; "
                f"give batch_size at most {len(self.sizes)}"
            )

    def __len__(self) -> int:
        return self.n_batches

    def waiting(self, epoch: int) -> int:
        """Samples left out of this epoch."""
        return len(self.codes) - sum(len(b) for b in self.batches(epoch))

    def batches(self, epoch: int) -> Sequence[Any]:
        rng = self._rng(epoch)
        return _deal(self.codes, self.cap, self.n_batches, self.batch_size, rng)


class ClusterDisjointBatchSampler(BatchSampler):
    """Each batch draws from as many different clusters as possible (after G-SimCLR, drawn anew every epoch).

    Every sample may appear; a cluster larger than the number of batches is spread evenly over them. `disjointness`
    says what was achieved.

    >>> sampler = ClusterDisjointBatchSampler([0, 0, 0, 1, 1, 1], batch_size=2)
    >>> sampler.disjointness(0)
    1.0
    """

    def __init__(self, clusters: Values, batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
        self.n_batches = len(self.codes) // batch_size

    def __len__(self) -> int:
        return self.n_batches

    def batches(self, epoch: int) -> Sequence[Any]:
        return _deal(self.codes, len(self.codes), self.n_batches, self.batch_size, self._rng(epoch))

    def disjointness(self, epoch: int) -> float:
        """Different clusters in a batch over its size, averaged."""
        return float(np.mean([len(np.unique(self.codes[b])) / len(b) for b in self.batches(epoch)]))


class WithinClusterBatchSampler(BatchSampler):
    """Each batch from one cell of the earlier stages' clusterings (Multistage Contrastive Learning).

    `clusters[s]` holds every sample's cluster after stage s; a cell is one combination of them. The remainder of a
    cell that fills no batch joins its parent cell (all stages but the last), and so on up to the whole set: our
    choice; with `fallback=False` it waits for another epoch, as in the authors' released sampler. Batches come in
    random order.

    >>> sampler = WithinClusterBatchSampler([[0, 0, 0, 0, 1, 1, 1, 1]], batch_size=2)
    >>> {len({i // 4 for i in batch}) for batch in sampler}
    {1}
    """

    def __init__(self, clusters: Sequence[Values], batch_size: int, seed: int = 0, fallback: bool = True) -> None:
        super().__init__(batch_size, seed)
        table = np.asarray(clusters).T
        if table.ndim != 2:
            raise ValueError("clusters is a list with one assignment of all samples per earlier stage")
        self.fallback = fallback
        self.cells = [
            np.unique(table[:, :depth], axis=0, return_inverse=True)[1].reshape(-1)
            for depth in range(table.shape[1], 0, -1)
        ]
        self.cells.append(np.zeros(len(table), dtype=int))

    def batches(self, epoch: int) -> Sequence[Any]:
        rng = self._rng(epoch)
        rest, result = rng.permutation(len(self.cells[0])), []
        for level in self.cells if self.fallback else self.cells[:1]:
            left = []
            codes = level[rest]
            for members in _members(rest, codes):
                full = len(members) // self.batch_size * self.batch_size
                result += list(members[:full].reshape(-1, self.batch_size))
                left.append(members[full:])
            rest = rng.permutation(np.concatenate(left)) if left else rest[:0]
        return [result[i] for i in rng.permutation(len(result))]


class NeighbourTableSampler(BatchSampler):
    """What draws batches by a table of neighbours: `update` gives the next epoch another one; both travel in the state.

    `neighbours[i]` lists positions of samples near i, the nearest first; -1 pads. No two samples of one value of
    `apart` stand in a batch.
    """

    def __init__(self, neighbours: Any, batch_size: int, apart: Values | None = None, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.neighbours = _neighbours(neighbours)
        self.following: np.ndarray | None = None
        n = len(self.neighbours)
        self.codes = np.arange(n) if apart is None else np.unique(np.asarray(apart, str), return_inverse=True)[1]
        if len(self.codes) != n:
            raise ValueError(f"a group is needed for each of the {n} samples, got {len(self.codes)}")

    def update(self, neighbours: Any) -> None:
        """Use new neighbours from the next epoch on."""
        following = _neighbours(neighbours)
        if len(following) != len(self.neighbours):
            raise ValueError(f"neighbours of {len(following)} samples, and there are {len(self.neighbours)}")
        self.following = following

    def begin_epoch(self) -> None:
        if self.following is not None:
            self.neighbours, self.following = self.following, None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "neighbours": self.neighbours, "following": self.following}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.neighbours, self.following = _neighbours(state["neighbours"]), None
        if state.get("following") is not None:
            self.update(state["following"])


class HardNegativeBatchSampler(NeighbourTableSampler):
    """Batches of near neighbours: seeds drawn at random, each joined by unused samples among its nearest ones.

    `neighbours[i]` lists the samples most similar to i (an index's answer, without i itself; -1 pads). `per_seed` of
    them join every seed, the hardest unused first. With `groups`, a sample of a group already in the batch is passed
    over: it would be a false negative. `update` gives the next epoch another table; both travel in the state.

    >>> sampler = HardNegativeBatchSampler([[1], [0], [3], [2]], batch_size=2, per_seed=1)
    >>> sorted(sorted(batch) for batch in sampler)
    [[0, 1], [2, 3]]
    """

    def __init__(
        self, neighbours: Any, batch_size: int, per_seed: int = 3, groups: Values | None = None, seed: int = 0
    ) -> None:
        super().__init__(neighbours, batch_size, groups, seed)
        self.per_seed = per_seed

    def batches(self, epoch: int) -> Sequence[Any]:
        order = self._rng(epoch).permutation(len(self.neighbours))
        used = np.zeros(len(order), dtype=bool)
        result, waiting, start = [], [], 0
        while start < len(order):
            batch: list[int] = []
            groups: set[int] = set()

            def take(i: int, batch: list[int] = batch, groups: set[int] = groups) -> bool:
                if used[i] or self.codes[i] in groups or len(batch) == self.batch_size:
                    return False
                used[i] = True
                batch.append(i)
                groups.add(int(self.codes[i]))
                return True

            passed = []
            for seed in waiting:
                if len(batch) == self.batch_size or (not used[seed] and not self._grow(int(seed), take)):
                    passed.append(seed)
            while len(batch) < self.batch_size and start < len(order):
                seed = int(order[start])
                start += 1
                if not used[seed] and not self._grow(seed, take):
                    passed.append(seed)
            waiting = passed
            if len(batch) == self.batch_size:
                result.append(batch)
        return result

    def _grow(self, seed: int, take: Any) -> bool:
        if not take(seed):
            return False
        joined = 0
        for neighbour in self.neighbours[seed]:
            if joined == self.per_seed:
                break
            joined += neighbour >= 0 and take(int(neighbour))
        return True


class WeightedSampler(BatchSampler):
    """Samples drawn with replacement, in proportion to their weights: rare classes, or a mixture of sources.

    For AdaInf's mixture of real and generated data give each real sample the weight that replication would give it.

    >>> sampler = WeightedSampler([0.0, 1.0, 1.0], batch_size=4, n_batches=2)
    >>> any(0 in batch for batch in sampler)
    False
    """

    def __init__(self, weights: Values, batch_size: int, seed: int = 0, n_batches: int | None = None) -> None:
        super().__init__(batch_size, seed)
        self.weights = np.asarray(weights, dtype=np.float64)
        finite = np.isfinite(self.weights).all()
        if self.weights.ndim != 1 or not finite or (self.weights < 0).any() or not self.weights.sum() > 0:
            raise ValueError("weights is a list of finite numbers, not negative, not all zero")
        self.n_batches = n_batches if n_batches is not None else max(1, len(self.weights) // batch_size)

    def __len__(self) -> int:
        return self.n_batches

    def batches(self, epoch: int) -> Sequence[Any]:
        total = self.n_batches * self.batch_size
        edges = np.cumsum(self.weights)
        draws = np.searchsorted(edges, self._rng(epoch).random(total) * edges[-1], side="right")
        return list(draws.reshape(self.n_batches, self.batch_size))


def _neighbours(table: Any) -> np.ndarray:
    table = np.array(table, dtype=np.int64)
    if table.ndim != 2 or table.max(initial=-1) >= len(table) or table.min(initial=0) < -1:
        raise ValueError("neighbours is a table [samples, neighbours] of sample positions (-1 pads)")
    return table


def _members(items: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Items of each code, in their given order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(items[order], cuts) if len(items) else []


def _capacity(sizes: np.ndarray, batch_size: int) -> tuple[int, int]:
    """Most batches that groups of these sizes fill with at most one member each, a fixed point of n -> n_kept // B."""
    batches = int(sizes.sum()) // batch_size
    while True:
        kept = int(np.minimum(sizes, batches).sum()) // batch_size
        if kept == batches:
            return batches, batches
        batches = kept


def _deal(codes: np.ndarray, cap: int, n_batches: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Deal samples, group after group, to the batches in turn; at most `cap` of a group, `batch_size` in a batch."""
    order = rng.permutation(len(codes))
    groups = [members[:cap] for members in _members(order, codes[order])]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    cards = np.concatenate(groups)
    surplus = len(cards) - n_batches * batch_size
    if surplus:
        keep = np.ones(len(cards), dtype=bool)
        keep[rng.choice(len(cards), surplus, replace=False)] = False
        cards = cards[keep]
    return list(cards.reshape(batch_size, n_batches).T[rng.permutation(n_batches)])
