"""What a protocol is given, and the table of protocols that `evaluate` runs by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

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
    """

    features: object
    labels: LabelsLike | None = None
    groups: object | None = None
    views: Mapping[str, Tensor] | None = None

    @property
    def modalities(self) -> dict[str, Tensor]:
        several = self.features if isinstance(self.features, Mapping) else {"": self.features}
        return {name: as_matrix(z) for name, z in several.items()}

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
        return seen.hexdigest()


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
    "pairs": "two modalities",
    "descriptions": "descriptions of the classes",
}


def protocol(name: str, *needs: str) -> Callable[[Run], Run]:
    """Register a function of `Context` that returns {result name: Result}; its first docstring line is the summary."""

    def register(run: Run) -> Run:
        PROTOCOLS[name] = Protocol(name, needs, (run.__doc__ or "").strip().splitlines()[0], run)
        return run

    return register
