r"""Common Words: verses find their captions by inner product.

A verse is the mean of its notes under a small network, a caption the mean of its words' vectors, in which a word of
frequency :math:`p` counts :math:`a / (a + p)`. Frequencies are counted first; then both are contrasted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.data import Manifest
from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets, Stage
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms

from .configs import BalladConfig
from .songs import UNKNOWN, Reader, Verses, learn_pitches, learn_words


class CommonWords(ContrastiveSystem):
    """Tunes and captions under InfoNCE of inner products."""

    Config = BalladConfig
    modalities = ("tune", "caption")
    metric = "dot"

    def __init__(self, config: BalladConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        words = len(self.assets["words"])
        self.table = nn.Embedding(words, config.dim)
        self.notes = nn.Sequential(nn.Linear(2, config.dim), nn.Tanh(), nn.Linear(config.dim, config.dim))
        self.register_buffer("counts", torch.zeros(words))
        self.register_buffer("weights", torch.ones(words))
        self.loss = contrast_of(config, InfoNCE(config.temperature, normalize=False))

    # Data ------------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: BalladConfig, assets: Assets | None = None) -> Manifest:
        return Manifest.load(config.data.manifest)

    @classmethod
    def learn(cls, config: BalladConfig, data: Manifest) -> Assets:
        train = data.select("train")
        return Assets(words=[UNKNOWN, *learn_words(train)], pitches=learn_pitches(train))

    @classmethod
    def extend(cls, assets: Assets, config: BalladConfig, data: Manifest) -> Assets:
        known = assets["words"]
        new = set(learn_words(data.select("train"))) - set(known)
        return assets.replace(words=[*known, *sorted(new)])

    def grow(self, assets: Assets) -> None:
        new = len(assets["words"]) - len(self.assets["words"])
        table = nn.Embedding(len(assets["words"]), self.config.dim)
        table.weight.data[: len(self.table.weight)] = self.table.weight.data
        self.table = table
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self.weights = torch.cat([self.weights, self.weights.new_ones(new)])

    def datasets(self) -> Datasets:
        train, reader = self.config.train, Reader(self.assets, self.config.data.transpose)
        there = set(self.data.frame["split"])
        return Datasets(
            *(
                Verses(self.data.select(split), reader, train.on_error, train.max_bad) if split in there else None
                for split in ("train", "val", "test")
            )
        )

    # Stages ----------------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        return Stage("count", gradient_free=True, max_epochs=1), Stage("contrast")

    def observe(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mine = torch.bincount(batch["caption"].values, minlength=len(self.counts)).to(self.counts)
        self.counts += self.gather_rows(mine[None]).sum(0).to(self.counts)
        return {"words": self.counts.sum()}

    def after_epoch(self) -> None:
        if self.stage.gradient_free:
            self.weights = self.config.common / (self.config.common + self.counts / self.counts.sum())

    # Method ----------------------------------------------------------------------------------------------------------

    def heard(self, batch: Mapping[str, Any]) -> Tensor:
        """[notes, dim] of every note of a batch: its pitch and the step from the note before."""
        tune = batch["tune"]
        values = tune.values.to(self.table.weight)
        begins = torch.nn.functional.pad(tune.owners.diff(), (1, 0), value=1) > 0
        steps = (values - values.roll(1)).masked_fill(begins, 0.0)
        return self.notes(torch.stack([values, steps], 1))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {}
        if "tune" in batch:
            found["tune"] = batch["tune"].mean(self.heard(batch))
        if "caption" in batch:
            words = batch["caption"].values
            found["caption"] = batch["caption"].mean(self.table(words), self.weights[words])
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return contrast_terms(self.loss, "contrast", embeddings, batch, group=self.group_ids(batch))

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"tune": batch["tune"].padded(self.heard(batch))}
