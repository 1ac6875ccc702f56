r"""SupReMix: volumes in the order of a number that is known of them, as an age.

Wu et al., "Mixup Your Own Pairs", 2023 (SupReMix); the authors' files were read without the name of their repository
(`common/losses/supremix.py`). For row i of both views, with label y_i,

    l_i = -1/|P_i| sum_{p in P_i} [ s_ip - log( sum_{real r != i} w_ir e^{s_ir} + sum_{mixtures m} w_im e^{s_im} ) ],

    mix-neg   a z_i + (1 - a) z_k for y_k != y_i, a ~ Beta(2, 8);      mix-pos   of z_j, z_k with y_j < y_i < y_k nearby
    w = |y_i - y_.| + 1,     P_i = rows of the same label and the mix-positives of i.

3D network and views are ours. Labels are counted in units (`unit`), in which `window` is given: 5 years for ages. The
paper then trains a linear head by L1 (`finetune`); `evaluate` fits a ridge probe to the frozen features.

Where its terms stand:

    l_i, mixtures          common/losses/supremix.py: SupReMix
    network                medical/models.py: VolumeEncoder
    views                  medical/labelled_scans.py: volume_view
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.losses import SupReMix
from counterpoint.common.metrics import Interval, ridge_probe
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.inputs import Input
from counterpoint.medical.clip_ct import CT
from counterpoint.medical.labelled_scans import LabelledSystem
from counterpoint.medical.models import VolumeEncoder
from counterpoint.medical.separation_configs import CTSupReMixConfig


class CTSupReMix(LabelledSystem):
    """Volumes ordered by a continuous label. Batches hold `ct` [batch, x, y, z] in HU and, for training, `value`."""

    Config = CTSupReMixConfig
    presets = CTSupReMixConfig.presets
    modalities: ClassVar[tuple[str, ...]] = ("ct",)
    inputs: ClassVar[dict[str, Input]] = {"ct": CT}
    label_column = "label"

    def __init__(self, config: CTSupReMixConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.ct = VolumeEncoder(config.windows, config.channels, config.dim)
        self.loss = SupReMix(config.temperature, beta=config.beta, window=config.window)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of two views of every volume."""
        first, second = self.views(batch)
        return {"ct": self.ct(first), "ct_2": self.ct(second)}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        target = batch["value"].float() / self.config.unit
        return {"supremix": self.loss(embeddings["ct"], embeddings["ct_2"], target=target)}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        return {"ct": normalize(self.ct(batch["ct"].float()), dim=-1)}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The embedding, which the paper puts its linear head on."""
        return {"ct": self.ct(batch["ct"].float())}


@dataclass(frozen=True)
class Ordered(Result):
    """How well a ridge probe reads the label from frozen features, in the column's own unit.

    Attributes:
        metrics: as `common.metrics.ridge_probe` gives them (MAE, R2, ...).
        chance: of the training volumes' mean.
        intervals: 95 % bootstrap intervals over patients.
        notes: which column, and how many volumes.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


def protocols(run: OpenRun) -> Mapping[str, Result]:
    """The label read by a ridge probe."""
    train, test, label = run.samples("train"), run.samples(), run.system.config.label
    if label not in train.columns or label not in test.columns:
        return {"ordered": NotRun(f"no column {label} in the training volumes or in those to evaluate")}
    mine, theirs = run.features("train"), run.features()
    probe = ridge_probe(
        mine.vectors["ct"], train.values[mine.positions], theirs.vectors["ct"], test.values[theirs.positions],
        train_groups=np.array(mine.groups), groups=np.array(theirs.groups), n_boot=run.n_boot, seed=run.seed,
    )  # fmt: skip
    scores = probe.scores
    notes = [f"column {label}, {probe.train} training volumes, {scores.n} volumes", *scores.notes]
    return {"ordered": Ordered(scores.metrics, scores.chance, scores.intervals, notes)}
