"""From samples to batches: every sample's randomness depends on (seed, stage, epoch, place in the epoch) alone.

So the batches are the same with 0 or 8 workers, on 1 or 2 devices, in one go or resumed in the middle of an epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import BadSample, Samples, checked
from counterpoint.common.errors import InputError
from counterpoint.common.rng import drawing_together, preserved_rng, seed_all


@dataclass(frozen=True)
class Marks:
    """What the loop is told of a batch beside the batch itself: bad samples (index, id, reason) that others stand in
    for, and whether every rank has all of it."""

    bad: tuple[tuple[int, str, str], ...] = ()
    repeated: bool = False


@dataclass(frozen=True)
class Datasets:
    """What a system trains, validates and is tested on, each a `Samples`; a split that the data lack is None."""

    train: Samples
    val: Samples | None = None
    test: Samples | None = None

    def __post_init__(self) -> None:
        for name in SPLITS:
            if getattr(self, name) is not None or name == "train":
                checked(getattr(self, name), f"the {name} split")


class SeededBatches(Dataset):
    """Turns a request (seeds and positions) into a batch; a bad sample is replaced by another, and reported.

    The replacement avoids the groups in the batch.
    """

    def __init__(self, dataset: Samples) -> None:
        self.dataset = dataset

    @cached_property
    def groups(self) -> tuple[Sequence[str], int]:
        """The group of every sample, and how many different ones there are; looked up when a sample is bad."""
        groups = self.dataset.groups
        return groups, len(set(groups))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, request: tuple[list[int], list[int], int, bool]) -> tuple[Any, Marks]:
        positions, seeds, common, repeated = request
        if (batch := self.dataset.batch(positions, seeds)) is not None:
            return batch, Marks(repeated=repeated)
        with preserved_rng(devices=False):
            samples, bad = [], []
            for position, seed in zip(positions, seeds):
                samples.append(self._sample(position, seed, positions, bad))
            seed_all(seeds[0] + 1, devices=False)
            with drawing_together(common + 2):
                batch = self.dataset.collate(samples)
        return batch, Marks(tuple((b.index, b.id, b.reason) for b in bad), repeated)

    def _sample(self, position: int, seed: int, positions: list[int], bad: list[BadSample]) -> dict[str, Any]:
        seed_all(seed, devices=False)
        sample = self.dataset[position]
        if not isinstance(sample, BadSample):
            return sample
        groups, every = self.groups
        taken = {groups[p] for p in positions}
        rng = np.random.default_rng(seed)
        for _ in range(1000):
            if not isinstance(sample, BadSample):
                return sample
            bad.append(sample)
            other = int(rng.integers(len(self.dataset)))
            if len(taken) == every or groups[other] not in taken:
                seed_all(seed, devices=False)
                sample = self.dataset[other]
                if not isinstance(sample, BadSample):
                    positions.append(other)
        raise InputError(f"sample {bad[0].id} and all that could replace it are unreadable ({bad[0].reason})")


class Requests:
    """Yields (positions, seeds, the whole batch's seed, whether it is repeated) of this rank's share of every batch of
    the current epoch, in rank order; all of it where the sampler says that batches are not shared out.

    With `repeat` a batch that does not divide is given to every rank as a whole, and says so (`Marks.repeated`):
    figures of a validation are then those of one process, whatever its losses average over.
    """

    def __init__(
        self, sampler: BatchSampler, seed: int, stage: int, rank: int, world: int, repeat: bool = False
    ) -> None:
        self.sampler, self.seed, self.stage = sampler, seed, stage
        self.rank, self.world, self.repeat = rank, world, repeat

    def __iter__(self) -> Iterator[tuple[list[int], list[int], int, bool]]:
        epoch, number = self.sampler.epoch, self.sampler.batch
        for batch in self.sampler:
            seeds = np.random.SeedSequence([self.seed, self.stage, epoch, number]).generate_state(len(batch), np.uint64)
            mine = slice(self.rank * len(batch) // self.world, (self.rank + 1) * len(batch) // self.world)
            repeated = self.repeat and len(batch) % self.world > 0
            if repeated or not self.sampler.shared_out:
                mine = slice(None)
            # 62 bits: torch takes a signed seed, and one is added for the collate function.
            seeds = [int(s >> np.uint64(2)) for s in seeds]
            yield list(batch[mine]), seeds[mine], seeds[0], repeated
            number += 1


class Batches:
    """An epoch's batches, as Lightning iterates them. It has no length: a resumed epoch is a shorter one.

    `position` says where every new iteration starts (epoch, batch): what was trained on counts, not what was fetched.
    Whoever takes a batch asks for its `marks`, in the same order: the loop fetches ahead.
    """

    def __init__(
        self,
        dataset: Samples,
        requests: Requests,
        workers: int,
        pin: bool,
        position: Callable[[], tuple[int, int]],
    ) -> None:
        self.requests, self.workers, self.pin, self.position = requests, workers, pin, position
        self.source = SeededBatches(dataset)
        self._marks: deque[Marks] = deque()

    def marks(self) -> Marks:
        """Those of the next batch that nobody has asked about."""
        return self._marks.popleft()

    def __iter__(self) -> Iterator[Any]:
        self._marks.clear()
        self.requests.sampler.epoch, self.requests.sampler.batch = self.position()
        loader = DataLoader(
            self.source,
            sampler=self.requests,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.pin,
            # Its own generator: the workers' base seed must not take numbers from the global one.
            generator=torch.Generator().manual_seed(0),
        )
        for batch, marks in loader:
            self._marks.append(marks)
            yield batch
