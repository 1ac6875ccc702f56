"""The loop that turns samples into vectors, for all who need them: shards, evaluation, search, finetuning, clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from counterpoint.common.data.batch import to_device
from counterpoint.common.data.samples import BadSample, Samples, checked, fact, refuse_bad
from counterpoint.common.progress import track
from counterpoint.common.rng import preserved_rng, seed_all

What = Literal["encode", "features", "dense"]
_METHODS = {"encode": "encode", "features": "features", "dense": "dense_features"}


@dataclass(frozen=True)
class EncodedRows:
    """Vectors of some samples; row i of every entry belongs to one sample.

    Attributes:
        vectors: modality -> [n, ...], floating point as float32, on the CPU.
        positions: places of the rows in the data set (unreadable samples have none).
        ids, groups: of each row.
        facts: further values of each row, by the names asked for.
        left_out: unreadable samples as (id, reason).
    """

    vectors: dict[str, Tensor]
    positions: list[int]
    ids: list[str]
    groups: list[str]
    facts: dict[str, list] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def encode_rows(
    system: Any,
    samples: Samples,
    positions: Sequence[int] | None = None,
    *,
    what: What | Callable[[Any], Mapping[str, Tensor]] = "encode",
    facts: Sequence[str] = (),
    change: Callable[[Any, list[int]], Any] | None = None,
    batch_size: int = 128,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: str = "",
) -> EncodedRows:
    """All of `encoded_batches` together; for more rows than memory holds, go through those one by one.

    >>> from counterpoint.common.data.samples import ListSamples
    >>> class Twice(torch.nn.Module):
    ...     def encode(self, batch):
    ...         return {"x": 2 * batch["x"]}
    >>> data = ListSamples([{"x": torch.ones(3) * i, "id": f"s{i}"} for i in range(4)])
    >>> found = encode_rows(Twice(), data, [1, 3], batch_size=1)
    >>> found.ids, found.vectors["x"][:, 0].tolist()
    (['s1', 's3'], [2.0, 6.0])
    """
    parts = list(
        encoded_batches(
            system, samples, positions, what=what, facts=facts, change=change, batch_size=batch_size, workers=workers,
            device=device, seed=seed, progress=progress,
        )
    )  # fmt: skip
    full = [p for p in parts if p.positions]
    for part in full[1:]:
        if part.vectors.keys() != full[0].vectors.keys():
            raise ValueError(
                f"the system encodes {sorted(full[0].vectors)} in one batch and {sorted(part.vectors)} in another"
            )
    return EncodedRows(
        {name: torch.cat([p.vectors[name] for p in full]) for name in (full[0].vectors if full else ())},
        [x for p in parts for x in p.positions],
        [x for p in parts for x in p.ids],
        [x for p in parts for x in p.groups],
        {name: [x for p in full for x in p.facts[name]] for name in facts},
        [x for p in parts for x in p.left_out],
    )


def encoded_batches(
    system: Any,
    samples: Samples,
    positions: Sequence[int] | None = None,
    *,
    what: What | Callable[[Any], Mapping[str, Tensor]] = "encode",
    facts: Sequence[str] = (),
    change: Callable[[Any, list[int]], Any] | None = None,
    batch_size: int = 128,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: str = "",
) -> Iterator[EncodedRows]:
    """Encode samples batch by batch, in evaluation mode and without gradients; one batch is in memory at a time.

    A modality that has a pool of its own is embedded from there, not from the samples beside it (`encode`).
    Unreadable samples (`BadSample`) are left out and listed; more than the data set's `max_bad` of them stop the loop.
    Data sets that draw views draw the same ones every time, with any number of workers: the generators are seeded per
    batch from `seed` and put back afterwards.

    Args:
        system: a module with `encode(batch) -> {name: [batch, ...]}`.
        positions: which samples; all unless given.
        what: `encode` (for search and retrieval), `features` (for heads and probes), `dense` (every place of a
            sample), or a function of the batch.
        facts: names of values to keep of each sample: columns of the data set, or keys of the sample.
        change: (batch, positions of its samples) -> batch, applied before a batch is encoded (corruption).
        workers: processes that read samples beside this one.
        device: where batches go; the device of the system's parameters unless given.
        progress: what the progress bar says; none when empty.
    """
    checked(samples, "what is to be encoded")
    function = getattr(system, _METHODS[what]) if isinstance(what, str) else what
    if device is None:
        device = next((p.device for p in system.parameters()), torch.device("cpu"))
    chosen = range(len(samples)) if positions is None else positions
    source = _Reading(samples, chosen, batch_size, tuple(facts), seed)
    loader = DataLoader(
        source, batch_size=None, num_workers=workers, generator=torch.Generator().manual_seed(0), shuffle=False
    )
    training, bad = system.training, 0
    system.eval()
    try:
        for part, batch in track(loader, progress, len(source)) if progress else loader:
            if part.left_out:
                bad += len(part.left_out)
                refuse_bad(bad, len(samples), samples.max_bad, BadSample(0, *part.left_out[0]))
            if not part.positions:
                yield part
                continue
            batch = to_device(batch, device)
            batch = batch if change is None else change(batch, part.positions)
            with torch.inference_mode(), preserved_rng():
                seed_all(seed)
                encoded = function(batch)
            vectors = {}
            for name, value in encoded.items():
                if what == "encode" and name in samples.pools:
                    continue
                if len(value) != len(part.positions):
                    raise ValueError(f"the system made {len(value)} {name} embeddings of {len(part.positions)} samples")
                vectors[name] = (value.float() if value.is_floating_point() else value).cpu()
            yield EncodedRows(vectors, part.positions, part.ids, part.groups, part.facts, part.left_out)
    finally:
        system.train(training)


class _Reading(Dataset):
    """Batch number -> (what is known of its rows, the batch); read here or in a worker process."""

    def __init__(
        self, samples: Samples, positions: Sequence[int], batch_size: int, facts: tuple[str, ...], seed: int
    ) -> None:
        self.samples, self.positions, self.batch_size = samples, positions, batch_size
        self.facts, self.seed = facts, seed

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[EncodedRows, Any]:
        wanted = [int(p) for p in self.positions[number * self.batch_size : (number + 1) * self.batch_size]]
        with preserved_rng(devices=False):
            seed_all(self.seed * 1_000_003 + number, devices=False)
            read = [(position, self.samples[position]) for position in wanted]
            good = [(position, s) for position, s in read if not isinstance(s, BadSample)]
            batch = self.samples.collate([s for _, s in good]) if good else None
        rows = EncodedRows(
            {},
            [position for position, _ in good],
            [str(s["id"]) for _, s in good],
            [str(s["group"]) for _, s in good],
            {name: [fact(self.samples, position, s, name) for position, s in good] for name in self.facts},
            [(s.id, s.reason) for _, s in read if isinstance(s, BadSample)],
        )
        return rows, batch
