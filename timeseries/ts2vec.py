r"""TS2Vec: a representation per timestamp from two overlapping crops.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022.

Two crops of a series overlap in a segment; latent timestamps are masked at random in both. On the overlap, at every
max-pooled time scale, a timestamp's other view is told from other series at the same step (instance) and from other
steps of the same series (temporal):

    L = 1/S \sum_s  alpha L_instance^(s) + (1 - alpha) L_temporal^(s)          (raw dot products, no temperature)

The last scale has one step and the instance term alone. Evaluation uses the average of the weights over all steps; a
series is represented by the maximum over time.

Where its terms stand:

    L_instance^(s)         timeseries/objectives.py: instance_loss
    L_temporal^(s)         timeseries/objectives.py: temporal_loss
    sum over scales        timeseries/objectives.py: hierarchical, ts2vec_loss
    overlapping crops      timeseries/ts2vec.py: draw_crops
    timestamp masking      timeseries/encoders.py: timestamp_mask
    averaged weights       timeseries/averaging.py: AveragedWeights
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.rng import common_generator
from counterpoint.common.trainers import Assets
from counterpoint.timeseries.averaging import AveragedWeights
from counterpoint.timeseries.backbones import named_encoder
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.encoders import pool_series, timestamp_mask
from counterpoint.timeseries.objectives import ts2vec_loss


def draw_crops(batch: int, time: int, temporal_unit: int = 0) -> dict[str, Tensor]:
    """Draw the two crops: overlap [left, left + overlap), contexts reaching to `far_left` and `far_right`.

    overlap >= 2^(temporal_unit + 1) steps; each row is shifted by its own offset that keeps both crops inside. The
    lengths are those of the batch, on all ranks that share it, so that its rows stack.

    >>> _ = torch.manual_seed(0)
    >>> crops = draw_crops(4, 50)
    >>> bool(crops["far_left"] <= crops["left"]), crops["offset"].shape
    (True, torch.Size([4]))
    """

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=common_generator()))

    shortest = 2 ** (temporal_unit + 1)
    if time < shortest:
        raise InputError(f"windows of {time} samples are shorter than TS2Vec's least overlap of {shortest}; "
                         "lengthen --data.length or lower --temporal_unit")  # fmt: skip
    overlap = integer(shortest, time + 1)
    left = integer(0, time - overlap + 1)
    right = left + overlap
    far_left, far_right = integer(0, left + 1), integer(right, time + 1)
    offset = torch.randint(-far_left, time - far_right + 1, (batch,))
    numbers = {"far_left": far_left, "left": left, "right": right, "far_right": far_right}
    return {"offset": offset, **{name: torch.tensor(value) for name, value in numbers.items()}}


def _take(
    x: Float[Tensor, "batch time channels"], first: Tensor, length: int
) -> Float[Tensor, "batch length channels"]:
    steps = first[:, None] + torch.arange(length, device=x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], steps]


class TS2Vec(SignalSystem):
    """Hierarchical contrast of two crops (see the module's text).

    >>> TS2Vec.presets["small"]["encoder"]["depth"]
    6
    """

    Config = TS2VecConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "encoder": {"dim": 64, "hidden": 32, "depth": 6},
            "train": {"batch_size": 32, "max_steps": 200},
            "data": {"patients": 20},
        }
    }

    def __init__(self, config: TS2VecConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.encoder = named_encoder(config.encoder, self.channels, assets, "ts2vec")
        self.average = AveragedWeights(self.encoder)

    def draw_views(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with the step's crops; of longer windows the crops see `max_length` samples."""
        count, time = batch["x"].shape[:2]
        used = min(time, self.config.max_length)
        longer = used < time
        first = int(torch.randint(0, time - used + 1, (), generator=common_generator())) if longer else 0
        crops = draw_crops(count, used, self.config.temporal_unit)
        return {**batch, **crops, "offset": crops["offset"] + first}

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Representations [batch, overlap, dim] of the two crops on their overlap."""
        x, offset = batch["x"], batch["offset"]
        far_left, left, right, far_right = (int(batch[name]) for name in ("far_left", "left", "right", "far_right"))
        first = _take(x, offset + far_left, right - far_left)
        second = _take(x, offset + left, far_right - left)
        return {
            "first": self._view(first, slice(left - far_left, None)),
            "second": self._view(second, slice(0, right - left)),
        }

    def _view(self, x: Float[Tensor, "batch time channels"], steps: slice) -> Float[Tensor, "batch steps dim"]:
        keep = timestamp_mask(self.config.mask, x.shape[0], x.shape[1], device=x.device) if self.training else None
        return self.encoder(x, keep, steps)

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        config = self.config
        loss = ts2vec_loss(embeddings["first"], embeddings["second"], config.alpha, config.temporal_unit)
        return {"hierarchical": loss}

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """Maximum over time of the averaged encoder's representation."""
        return pool_series(self.represent_steps(x), x)

    def represent_steps(
        self, x: Float[Tensor, "batch time channels"], mask_last: bool = False
    ) -> Float[Tensor, "batch time dim"]:
        """The averaged encoder's representation of every step, the last one hidden if asked (anomaly protocol)."""
        keep = timestamp_mask("mask_last", x.shape[0], x.shape[1], device=x.device) if mask_last else None
        # Before the first step the average is the initial network, a copy of the encoder.
        return self.average.module.eval()(x, keep)
