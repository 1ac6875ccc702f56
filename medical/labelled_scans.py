"""Volumes with a number from a column of their manifest, views of them, and batches that hold two populations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.manifest import SPLITS, as_number
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import options_hash
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import ContrastiveSystem, Datasets
from counterpoint.medical.clip_ct import jitter
from counterpoint.medical.configs import CTDataConfig
from counterpoint.medical.data import CTData, load_ct, load_prepared
from counterpoint.medical.gemini import random_affine
from counterpoint.medical.scenes import Scenes
from counterpoint.medical.separation_configs import VolumeViewsConfig


class LabelledScans(Scenes):
    """The volumes of a split: `ct` [x, y, z] in the recipe's values, and `value`, a number of the manifest's column
    `label` (NaN where there is none); where `labelled`, label maps as in `Scenes`."""

    def __init__(self, data: CTData, split: str, config: CTDataConfig, label: str, labelled: bool = False) -> None:
        super().__init__(data, split, config, labelled)
        self.label, self.split = label, split

    def __getitem__(self, position: int) -> dict[str, Any]:
        data, affine = load_prepared(self.data.volumes[self.rows[position]])
        known = {"index": position, "id": self.ids[position], "group": self.groups[position]}
        if self.labelled and "labels" in self.columns:
            known["labels"] = self.data.label_map(self.rows[position], self.config.recipe)
        ct = torch.from_numpy(data.astype(np.float32))
        return {**known, "ct": ct, "value": torch.tensor(self.values[position]), "affine": torch.from_numpy(affine)}

    @cached_property
    def values(self) -> np.ndarray:
        """[samples] the column as numbers."""
        if self.label not in self.columns:
            return np.full(len(self), np.nan, dtype=np.float32)
        found = [as_number(v, self.label) for v in self.column(self.label)]
        return np.array([np.nan if v is None else v for v in found], dtype=np.float32)

    @cached_property
    def hash(self) -> str:
        return options_hash(super().hash, label=self.label)

    def require(self, known: Sequence[float] | None = None) -> LabelledScans:
        """Itself, if every volume has a value (one of `known`, where these are given)."""
        if self.label not in self.columns:
            raise no_such("column", self.label, self.columns)
        bad = ~np.isfinite(self.values) if known is None else ~np.isin(self.values, known)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            meant = "a number" if known is None else " or ".join(f"{v:g}" for v in known)
            raise InputError(
                f"{self.split} split: {int(bad.sum())} of {len(self)} volumes have no {meant} in column "
                f"{self.label!r}, the first is {self.ids[first]}; leave them out of the manifest"
            )
        return self


class LabelledSystem(ContrastiveSystem):
    """What systems over volumes with a labelled column share: reading, splits, and two views of every volume."""

    label_column: str
    known: Sequence[float] | None = None

    @classmethod
    def read(cls, config: Any, assets: Any = None) -> CTData:
        return load_ct(config.data, config.train.on_error, config.train.max_bad)

    def _datasets(self, labelled: bool) -> list[LabelledScans | None]:
        there, config = set(self.data.manifest.frame["split"]), self.config.data
        column = getattr(self.config, self.label_column)
        return [LabelledScans(self.data, s, config, column, labelled) if s in there else None for s in SPLITS]

    def datasets(self) -> Datasets:
        train, val, test = self._datasets(False)
        return Datasets(train and train.require(self.known), val and val.require(self.known), test)

    def evaluation_datasets(self) -> Datasets:
        """Also of volumes without a value; with label maps, for heads."""
        return Datasets(*self._datasets(True))

    def views(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Two draws of every volume."""
        ct, outside = batch["ct"].float(), self.config.data.recipe.outside
        return volume_view(ct, self.config.views, outside), volume_view(ct, self.config.views, outside)


def volume_view(
    ct: Float[Tensor, "batch x y z"], config: VolumeViewsConfig, outside: float
) -> Float[Tensor, "batch x y z"]:
    """Every volume turned, scaled, moved and noisy; `outside` comes in at the ends.

    >>> still = VolumeViewsConfig(shift=0, degrees=0.0, scale=(1.0, 1.0), noise=0.0)
    >>> x = torch.arange(8.0).view(1, 2, 2, 2)
    >>> torch.allclose(volume_view(x, still, -1.0), x, atol=1e-4)
    True
    """
    moved = random_affine((ct - outside)[:, None], config.degrees, config.scale)[:, 0] + outside
    moved = jitter(moved, config.shift, outside)
    sd = config.noise * torch.rand(len(ct), 1, 1, 1).to(ct)
    return moved + sd * torch.randn(ct.shape).to(ct)


class TwoPopulationSampler(BatchSampler):
    """Batches of both populations, in the proportion of the split, at least two of each.

    >>> sampler = TwoPopulationSampler([True, False, False] * 4, batch_size=6)
    >>> [sum(i % 3 == 0 for i in batch) for batch in sampler]
    [2, 2]
    """

    def __init__(self, target: Sequence[bool] | np.ndarray, batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        of = np.asarray(target, dtype=bool)
        self.parts = np.flatnonzero(of), np.flatnonzero(~of)
        if batch_size < 4:
            raise ValueError(f"batch_size is {batch_size}; two of each population are four")
        mine = int(np.clip(round(batch_size * of.mean()), 2, batch_size - 2)) if len(of) else 2
        self.shares = mine, batch_size - mine
        self.count = min(len(part) // share for part, share in zip(self.parts, self.shares))
        if not self.count:
            raise ValueError(
                f"{len(self.parts[0])} samples of the target and {len(self.parts[1])} of the background fill no batch "
                f"of {batch_size}"
            )

    def __len__(self) -> int:
        return self.count

    def batches(self, epoch: int) -> Sequence[Any]:
        rng = self._rng(epoch)
        drawn = [
            rng.permutation(part)[: self.count * n].reshape(self.count, n) for part, n in zip(self.parts, self.shares)
        ]
        return list(rng.permuted(np.concatenate(drawn, 1), axis=1))
