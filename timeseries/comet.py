r"""COMET: contrast at every level of a medical recording: patient, trial, sample, observation.

Wang, Han, Zhang, Zhang et al., "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series",
NeurIPS 2023.

    L = l_1 L_patient + l_2 L_trial + l_3 L_sample + l_4 L_observation

Each level has its own two views. Patient and trial views see every time step and differ by dropout; sample and
observation views hide random stretches of latent time. Patient and trial levels take the other samples with the same
id as positives (`id_loss`); the sample level is TS2Vec's instance term and the observation level its temporal term,
each averaged over max-pooled scales. A level with weight 0 costs nothing.

Shared work: the encoder's only dropout stands behind its blocks, so the unmasked passes of the patient and trial
levels agree up to that dropout. They are computed once and dropped out four times: 5 passes through the blocks instead
of 8, with the same values and gradients as eight separate ones.

Where its terms stand:

    L_patient, L_trial     timeseries/objectives.py: id_loss
    L_sample               timeseries/objectives.py: hierarchical, instance_loss
    L_observation          timeseries/objectives.py: hierarchical, temporal_loss
    hidden stretches       timeseries/encoders.py: timestamp_mask
    batches of trials      timeseries/comet.py: TrialSampler
    averaged weights       timeseries/averaging.py: AveragedWeights
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data import BatchSampler, ShuffleSampler
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.timeseries.averaging import AveragedWeights
from counterpoint.timeseries.backbones import named_encoder
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.configs import CometConfig
from counterpoint.timeseries.encoders import pool_series, timestamp_mask
from counterpoint.timeseries.objectives import hierarchical, id_loss

LEVELS = ("patient", "trial", "sample", "observation")


class TrialSampler(BatchSampler):
    """Batches of whole trials: trials in random order, their windows next to one another, cut into batches.

    A random batch of 256 windows out of many trials holds few same-trial pairs, and the trial level learns nothing;
    here almost all windows meet their trial (a trial may straddle two batches). Trials and their windows are drawn
    anew every epoch (the official code keeps the batches and reorders within them: our choice).

    >>> batch = next(iter(TrialSampler(["a", "a", "b", "b", "c", "c"], batch_size=4)))
    >>> len({"aabbcc"[i] for i in batch})
    2
    """

    def __init__(self, trials: Sequence[Any] | np.ndarray, batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        codes = np.unique(np.asarray(trials), return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        self.samples = len(codes)

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        rng = self._rng(epoch)
        rows = np.concatenate([rng.permutation(self.members[i]) for i in rng.permutation(len(self.members))])
        cut = [rows[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        return [cut[i].tolist() for i in rng.permutation(len(cut))]


class Comet(SignalSystem):
    """Four-level contrast (see the module's text)."""

    Config = CometConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "encoder": {"dim": 64, "hidden": 32, "depth": 6},
            "train": {"batch_size": 64, "max_epochs": 10},
            "optim": {"lr": 1e-3},
            "views": "shared",
            "data": {"patients": 20},
        },
        # The weights of the official configurations.
        "ptb": {"patient": 0.1, "trial": 0.7, "sample": 0.1, "observation": 0.1},
    }

    def __init__(self, config: CometConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        if config.views not in ("separate", "shared"):
            raise InputError(f"views {config.views!r} is unknown; choose separate or shared")
        if config.sampler not in ("trial", "window"):
            raise InputError(f"sampler {config.sampler!r} is unknown; choose trial or window")
        self.levels = tuple(name for name in LEVELS if getattr(config, name) > 0)
        if not self.levels or min(getattr(config, name) for name in LEVELS) < 0:
            raise InputError("the weights of patient, trial, sample and observation must be 0 or more, one above 0")
        self.loss_weights = {name: getattr(config, name) for name in self.levels}
        self.encoder = named_encoder(config.encoder, self.channels, assets, "comet")
        self.average = AveragedWeights(self.encoder)

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        if self.config.sampler == "window":
            return ShuffleSampler(len(dataset), batch_size, seed)
        return TrialSampler(dataset.trial, batch_size, seed)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Two views [batch, time, dim] of every active level, named `patient_1`, `patient_2`, ..."""
        hidden = self.encoder.project(batch["x"])
        views: dict[str, Tensor] = {}
        whole = self.encoder.blocks_only(hidden) if {"patient", "trial"} & set(self.levels) else None
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for level in self.levels:
            kind = "unmasked" if level in ("patient", "trial") else "masked"
            key = kind if self.config.views == "shared" else level
            if key not in pairs:
                if kind == "unmasked":
                    pairs[key] = (self.encoder.dropout(whole), self.encoder.dropout(whole))
                else:
                    pairs[key] = (self._masked(hidden), self._masked(hidden))
            views[f"{level}_1"], views[f"{level}_2"] = pairs[key]
        return views

    def _masked(self, hidden: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time dim"]:
        keep = timestamp_mask("continuous", hidden.shape[0], hidden.shape[1], device=hidden.device)
        return self.encoder.latent(hidden * keep[..., None])

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        for level in self.levels:
            z1, z2 = embeddings[f"{level}_1"], embeddings[f"{level}_2"]
            if level in ("patient", "trial"):
                terms[level] = id_loss(z1, z2, batch[level].to(z1.device), self.config.temperature)
            else:
                kind = "instance" if level == "sample" else "temporal"
                terms[level] = hierarchical(z1, z2, **{kind: 1.0})
        return terms

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """Maximum over time of the averaged encoder's representation (our reading of the frozen evaluation)."""
        return pool_series(self.represent_steps(x), x)

    def represent_steps(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time dim"]:
        """The averaged encoder's representation of every time step."""
        return self.average.module.eval()(x)
