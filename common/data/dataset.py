"""Datasets over a manifest, and how unreadable samples travel through a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from counterpoint.common.data.manifest import Manifest, _missing
from counterpoint.common.data.shards import ShardReader
from counterpoint.common.errors import InputError


@dataclass(frozen=True)
class BadSample:
    """Stands in the place of a sample that could not be read."""

    index: int
    id: str
    reason: str


class ManifestDataset(Dataset):
    """Samples of a manifest: `load(row)` returns a dictionary of tensors; `index`, `id` and `group` are added.

    Args:
        manifest: the rows (usually `manifest.select(split="train")`); `index` is their stable number.
        load: reads one row (a dictionary; missing values are None).
        on_error: `raise` an `InputError` naming the row, or `skip`: return a `BadSample`, which the training loader
            counts, lists in the run folder and replaces by another sample.
        max_bad: share of bad samples that stops a run.
        stream: True when the manifest is of tar shards (`write_shards`, `index_shards`); then `load` finds the sample's
            files, extension -> bytes, in `row["files"]`. Draw batches with `ShardShuffleSampler`.

    >>> table = Manifest.from_rows([{"id": "a", "value": 1.0}, {"id": "b", "value": 2.0}])
    >>> dataset = ManifestDataset(table, lambda row: {"x": torch.tensor(row["value"])})
    >>> dataset[1]["x"], dataset[1]["index"], dataset[1]["id"]
    (tensor(2.), 1, 'b')
    """

    def __init__(
        self,
        manifest: Manifest,
        load: Callable[[dict], Mapping[str, Any]],
        on_error: str = "raise",
        max_bad: float = 0.01,
        stream: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.manifest, self.load, self.on_error, self.max_bad = manifest, load, on_error, max_bad
        frame = manifest.frame
        self.indices = frame.index.to_numpy(dtype=np.int64)
        self.ids = frame["id"].to_numpy(dtype=object)
        self.groups = frame["group"].to_numpy(dtype=object)
        self.reader = ShardReader(manifest) if stream else None
        self._columns = {name: frame[name].tolist() for name in frame.columns}

    def __len__(self) -> int:
        return len(self.indices)

    def row(self, position: int) -> dict[str, Any]:
        """The manifest's row behind a sample."""
        return {k: None if _missing(v[position]) else v[position] for k, v in self._columns.items()}

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        index, name = int(self.indices[position]), str(self.ids[position])
        try:
            row = self.row(position)
            if self.reader is not None:
                row["files"] = self.reader.files(row)
            sample = dict(self.load(row))
        except Exception as error:  # whatever the reader met, the user needs the row
            reason = " ".join(str(error).split()) or type(error).__name__
            if self.on_error == "skip":
                return BadSample(index, name, reason)
            where = f"{self.manifest.path or 'manifest'}, row {index + 1} (id {name})"
            raise InputError(f"{where}: {reason}; repair the row, or train with on_error=skip") from error
        return {**sample, "index": index, "id": name, "group": str(self.groups[position])}


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack tensors and numbers; text, values some of which are missing (None), and what does not stack stay a list.

    >>> collate([{"x": torch.zeros(2), "id": "a"}, {"x": torch.ones(2), "id": "b"}])["id"]
    ['a', 'b']
    """
    batch = {}
    if odd := set().union(*samples) - set(samples[0]).intersection(*samples):
        raise ValueError(f"field {min(odd)!r} stands in some samples of a batch only: give None where it is missing")
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        first = values[0]
        if any(v is None for v in values):
            batch[name] = values
            continue
        if isinstance(first, torch.Tensor) and any(v.shape != first.shape for v in values):
            shapes = sorted({tuple(v.shape) for v in values})
            raise ValueError(
                f"field {name!r} has several shapes in one batch ({shapes[0]}, {shapes[1]}): pad or crop it"
            )
        if isinstance(first, (torch.Tensor, np.ndarray, int, float, np.number)):
            batch[name] = default_collate(values)
        else:
            batch[name] = values
    return batch


def synthetic_part(dataset: Any) -> str:
    """What a generator made of a data set (or of a manifest's), in words; empty where all of it was measured.

    A data set says so in its `synthetic`, or its manifest in `meta["synthetic"]`: True, or the words. Whatever shows
    figures or samples of the data set repeats it.

    >>> made = Manifest.from_rows([{"id": "a"}], meta={"synthetic": "sound rendered from real scores"})
    >>> synthetic_part(ManifestDataset(made, lambda row: {}))
    'sound rendered from real scores'
    """
    table = dataset if isinstance(dataset, Manifest) else getattr(dataset, "manifest", None)
    said = getattr(dataset, "synthetic", None) or getattr(table, "meta", {}).get("synthetic")
    return said if isinstance(said, str) else "made by a generator, not measured" if said else ""


def group_codes(groups: Sequence[str]) -> torch.Tensor:
    """Stable 63-bit integers of group names, the same in every process: what losses compare.

    >>> group_codes(["p1", "p2", "p1"])[0] == group_codes(["p1"])[0]
    tensor(True)
    """
    codes = [int.from_bytes(hashlib.blake2b(str(g).encode(), digest_size=8).digest(), "big") >> 1 for g in groups]
    return torch.tensor(codes, dtype=torch.int64)
