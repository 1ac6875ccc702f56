"""What a protocol is given, and the table of protocols that `evaluate` runs by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from counterpoint.common.data.links import Links
from counterpoint.common.metrics.inputs import as_list, as_matrix, as_table
from counterpoint.common.metrics.labels import LabelsLike
from counterpoint.common.metrics.result import Result


@dataclass(frozen=True)
class Split:
    """Features of one split: one matrix, or one per modality with rows belonging together.

    Attributes:
        features: [n, dim] or {modality: [n, dim]}; tensors, arrays, lists, columns of pandas or Arrow that hold one
            vector a row, `.parquet` and `.npy` files.
        labels: class per row, or [n, classes] 0/1/NaN matrix, or numbers when the task is regression; None without.
            As `groups`, in anything that holds one value a row.
        groups: resampling unit of each row (patient, scene, piece).
        views: {modality: [n, views, dim]} for LiDAR.
        pools: modality -> features with rows of their own (captions, items), compared with the others by `relevant`.
        relevant, exclude: (query modality, key modality) -> what `retrieval` takes under these names; without an entry
            row i belongs to row i and nothing is left out. One direction is enough where it is `Links`.
        metric: the score of retrieval, see `SCORES`.
    """

    features: object
    labels: LabelsLike | None = None
    groups: object | None = None
    views: Mapping[str, Tensor] | None = None
    pools: Mapping[str, Split] = field(default_factory=dict)
    relevant: Mapping[tuple[str, str], object] = field(default_factory=dict)
    exclude: Mapping[tuple[str, str], object] = field(default_factory=dict)
    metric: str = "cosine"

    @property
    def modalities(self) -> dict[str, Tensor]:
        """The features whose rows belong together."""
        several = self.features if isinstance(self.features, Mapping) else {"": self.features}
        return {name: as_matrix(z) for name, z in several.items()}

    @property
    def all_modalities(self) -> dict[str, Tensor]:
        """Also those with rows of their own."""
        return self.modalities | {name: as_matrix(pool.features) for name, pool in self.pools.items()}

    def groups_of(self, modality: str) -> object | None:
        """The resampling units of a modality's rows."""
        return self.pools[modality].groups if modality in self.pools else self.groups

    def truth(self, a: str, b: str) -> tuple[object, object]:
        """(relevant, exclude) of queries of a among keys of b."""
        return tuple(_either_way(table, a, b) for table in (self.relevant, self.exclude))

    @property
    def rows(self) -> int:
        return len(next(iter(self.modalities.values())))

    def digest(self) -> str:
        """sha256 over shapes, float32 features, labels and groups: two equal digests mean the same evaluation data."""
        seen = hashlib.sha256()
        for name, z in sorted(self.modalities.items()):
            seen.update(f"{name}{tuple(z.shape)}".encode())
            seen.update(np.ascontiguousarray(z.detach().cpu().float().numpy()).tobytes())
        for extra in (self.labels, self.groups):
            matrix = None if extra is None else as_table(extra)
            values = extra if extra is None else as_list(extra) if matrix is None else matrix.tolist()
            seen.update(json.dumps(values, default=str).encode())
        for name, pool in sorted(self.pools.items()):
            seen.update(f"{name}{pool.digest()}".encode())
        for what in (self.relevant, self.exclude):
            for way, truth in sorted(what.items()):
                said = truth.pairs if isinstance(truth, Links) else as_list(truth)
                seen.update(json.dumps([way, said], default=str).encode())
        return seen.hexdigest()


def _either_way(table: Mapping[tuple[str, str], object], a: str, b: str) -> object:
    if (a, b) in table:
        return table[a, b]
    back = table.get((b, a))
    if back is not None and not isinstance(back, Links):
        raise ValueError(f"the truth is given for {b} -> {a} only; give it as Links, or for {a} -> {b} too")
    return None if back is None else back.T


@dataclass(frozen=True)
class Context:
    """What a protocol gets: the splits, the task, the seed, and the encoded descriptions of the classes (or None)."""

    test: Split
    train: Split | None
    val: Split | None
    task: str
    ks: tuple[int, ...]
    seed: int
    n_boot: int
    descriptions: Mapping[str, Tensor] | None = None


Run = Callable[[Context], Mapping[str, Result]]


@dataclass(frozen=True)
class Protocol:
    """A registered way to evaluate: what it needs and the function that runs it."""

    name: str
    needs: tuple[str, ...]  # names of `NEEDS`
    summary: str
    run: Run


PROTOCOLS: dict[str, Protocol] = {}

#: What a protocol may need, in words.
NEEDS = {
    "labels": "labels",
    "classes": "labels that are classes",
    "no regression": "labels that are classes",
    "train": "a training split with labels",
    "two modalities": "two modalities",
    "pairs": "two modalities of the same samples",
    "descriptions": "descriptions of the classes",
}


def protocol(name: str, *needs: str) -> Callable[[Run], Run]:
    """Register a function of `Context` that returns {result name: Result}; its first docstring line is the summary."""

    def register(run: Run) -> Run:
        PROTOCOLS[name] = Protocol(name, needs, (run.__doc__ or "").strip().splitlines()[0], run)
        return run

    return register
