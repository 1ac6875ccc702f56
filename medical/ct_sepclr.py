r"""SepCLR: what patients share with the healthy, and what only patients have, in two codes of a volume.

Louiset et al., "Separating common from salient patterns with contrastive representation learning", ICLR 2024; official
code neurospin-projects/2024_rlouiset_sep_clr, read at 0e40bff. Two networks give a common code c and a salient code s
of every view of a volume, each with a projector; y says who is a patient (target), s' is s with the healthy at zero:

    L = align(c1, c2) + 2 unif(c)                              both populations, on the sphere
      + b_s [align(s1, s2 | y = 1) + 2 unif(s')]               raw codes
      + b_r align(s | y = 0, 0)                                the healthy have no salient pattern
      + lambda mean_i log mean_j k(c_i, c_j) k(s'_i, s'_j)     k-JEM: lowers I(c; s)

Nothing of it forbids c to hold what s holds but the last term: `evaluate` asks both codes for both kinds of labels.

Where this departs: 3D networks and views are ours; batches hold both populations in the split's proportion, where the
official loader shuffles (a batch of one population alone has no loss). The evaluation probes what stands before the
projectors, as the official script does besides the heads.

Where its terms stand:

    L                      common/losses/sepclr.py: SepCLR
    k-JEM                  common/losses/sepclr.py: joint_entropy
    two networks           medical/models.py: VolumeEncoder
    projectors             common/models/projector.py: Projector
    batches, views         medical/labelled_scans.py: TwoPopulationSampler, volume_view
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.errors import InputError
from counterpoint.common.losses import SepCLR
from counterpoint.common.metrics import Interval, logistic_probe
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.models import Projector
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.inputs import Input
from counterpoint.medical.clip_ct import CT
from counterpoint.medical.labelled_scans import LabelledSystem, TwoPopulationSampler
from counterpoint.medical.models import VolumeEncoder
from counterpoint.medical.separation_configs import CTSepCLRConfig

HIDDEN = 128


class CTSepCLR(LabelledSystem):
    """Common and salient codes of volumes. Batches hold `ct` [batch, x, y, z] in HU and, for training, `value`: 1 for
    the target population, 0 for the background."""

    Config = CTSepCLRConfig
    presets = CTSepCLRConfig.presets
    modalities: ClassVar[tuple[str, ...]] = ("common", "salient")
    inputs: ClassVar[dict[str, Input]] = {"ct": CT}
    metric: ClassVar[str] = "dot"  # the length of a salient code says how much of it there is
    label_column = "target"
    known = (0.0, 1.0)

    def __init__(self, config: CTSepCLRConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        if config.train.batch_size < 4:
            raise InputError(f"--train.batch_size is {config.train.batch_size}; two of each population are four")
        widths = {"common": config.common, "salient": config.salient}
        self.encoders = nn.ModuleDict(
            {name: VolumeEncoder(config.windows, config.channels, width) for name, width in widths.items()}
        )
        self.projectors = nn.ModuleDict({name: Projector(width, HIDDEN, width) for name, width in widths.items()})
        self.loss = SepCLR(
            temperature=config.temperature, salient=config.salient_weight, zero=config.zero_weight,
            joint=config.joint_weight,
        )  # fmt: skip

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        try:
            return TwoPopulationSampler(dataset.values > 0.5, batch_size, seed)
        except ValueError as error:
            raise InputError(f"column {self.config.target!r}: {error}; choose another batch size or column") from None

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Heads of two views of every volume."""
        found = {}
        for number, view in zip(("", "_2"), self.views(batch)):
            found |= {f"{name}{number}": self._head(name, view) for name in self.modalities}
        return found

    def _head(self, name: str, ct: Tensor) -> Tensor:
        return self.projectors[name](self.encoders[name](ct))

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = (embeddings[name] for name in ("common", "common_2", "salient", "salient_2"))
        target = batch["value"] > 0.5
        if not target.any() or target.all():  # a last batch of validation
            return {"sepclr": embeddings["common"].sum() * 0}
        return {"sepclr": self.loss(*codes, target=target)}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Heads, as the loss compares them: common codes at unit length, salient ones as they are."""
        ct = batch["ct"].float()
        found = {name: self._head(name, ct) for name in self.modalities if modality in (None, name)}
        return {name: normalize(z, dim=-1) if name == "common" else z for name, z in found.items()}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Codes before the projectors."""
        return {name: self.encoders[name](batch["ct"].float()) for name in self.modalities}


@dataclass(frozen=True)
class Separation(Result):
    """What linear probes read from either code.

    Attributes:
        metrics: `COLUMN from common`, `COLUMN from salient`: AUROC (accuracy for more than two classes).
        chance: of a constant prediction.
        intervals: 95 % bootstrap intervals over patients.
        notes: what is expected of which column, and what was left out.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


def protocols(run: OpenRun) -> Mapping[str, Result]:
    """Both codes asked for the finding, for what patients alone have, and for what everybody has."""
    config, train, test = run.system.config, run.samples("train"), run.samples()
    metrics: dict[str, float] = {}
    chance: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    notes = [f"salient codes should tell {config.target}, common ones what everybody has; the reverse should be chance"]
    asked = [(config.target, False), *((c, True) for c in config.within), *((c, False) for c in config.shared)]
    for column, among in asked:
        if column not in train.columns or column not in test.columns:
            notes.append(f"no column {column}: not asked for")
            continue
        encoded = run.features("train"), run.features()
        kept = [_rows(s, found.positions, column, among) for s, found in zip((train, test), encoded)]
        labels = [[str(s.column(column)[e.positions[i]]) for i in k] for s, e, k in zip((train, test), encoded, kept)]
        if min(len(set(found)) for found in labels) < 2:
            notes.append(f"{column}: of one value alone among the volumes with a value, not asked for")
            continue
        groups = [np.array([e.groups[i] for i in k]) for e, k in zip(encoded, kept)]
        for code in run.system.modalities:
            parts = [e.vectors[code][torch.as_tensor(k)] for e, k in zip(encoded, kept)]
            probe = logistic_probe(
                parts[0], labels[0], parts[1], labels[1], train_groups=groups[0], groups=groups[1], n_boot=run.n_boot,
                seed=run.seed,
            )  # fmt: skip
            figure = "auroc" if "auroc" in probe.scores.metrics else "accuracy"
            name = f"{column} from {code}" + ("" if figure == "auroc" else " (accuracy)")
            metrics[name] = probe.scores.metrics[figure]
            chance[name], intervals[name] = probe.scores.chance[figure], probe.scores.intervals[figure]
    if not metrics:
        return {"separation": NotRun("; ".join(notes[1:]))}
    return {"separation": Separation(metrics, chance, intervals, notes)}


def _rows(samples: Any, positions: Sequence[int], column: str, among: bool) -> list[int]:
    """Which of the encoded samples have a value; `among` patients only."""
    values = samples.column(column)
    known = [i for i, p in enumerate(positions) if values[p] not in (None, "", -1) and values[p] == values[p]]
    return [i for i in known if not among or samples.values[positions[i]] > 0.5]
