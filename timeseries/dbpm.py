"""DBPM: instance contrast of weak and strong augmentations with dynamic bad pair mining.

Lan, Yan, Hong, Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining Approach", ICLR
2024.

A weak and a strong augmentation of a window are told from the batch's other windows by NT-Xent; the mining of its pairs
is written in `common.trainers.bad_pairs`, where any system takes it as the plug-in `bad_pairs`.

Where its terms stand:

    NT-Xent of each pair   common/losses/ntxent.py: NTXent
    mining of bad pairs    common/trainers/bad_pairs.py: BadPairMiner
    augmentations          timeseries/augment.py: scaled, permuted_jittered
    averaged weights       timeseries/averaging.py: AveragedWeights
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.bad_pairs import BadPairMiner
from counterpoint.timeseries.augment import permuted_jittered, scaled
from counterpoint.timeseries.averaging import AveragedWeights
from counterpoint.timeseries.backbones import named_encoder, step_vectors, window_vectors
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.configs import DBPMSystemConfig
from counterpoint.timeseries.windows import WindowSet


class DBPM(SignalSystem):
    """Instance contrast of a weak and a strong augmentation, its bad pairs weighted down (see the module's text).

    `mining = null` in the configuration gives the plain learner it is compared with. Samples
    may bring a field `second`, the source of the second view: this is how checks plant bad pairs with known flags.
    """

    Config = DBPMSystemConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "encoder": {"dim": 64, "hidden": 32, "depth": 6},
            "train": {"batch_size": 64, "max_epochs": 20},
            "mining": {"warmup": 8},
            "optim": {"lr": 1e-3},
            "data": {"patients": 20},
        }
    }

    @classmethod
    def learn(cls, config: DBPMSystemConfig, data: WindowSet) -> Assets:
        """Also how many pairs the memory of losses holds: `config.pairs`, or one for every window."""
        return super().learn(config, data).replace(pairs=max(config.pairs, len(data)))

    def __init__(self, config: DBPMSystemConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.encoder = named_encoder(config.encoder, self.channels, assets)
        self.average = AveragedWeights(self.encoder)
        dim = self.encoder.dim
        self.projector = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, config.projection))
        self.objective = NTXent(config.temperature)
        self.miner: BadPairMiner | None = None
        if config.mining is not None:
            self.miner = BadPairMiner(assets["pairs"], config.mining, config.train.max_epochs)

    def draw_views(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with a weak and a strong view of every window."""
        x = batch["x"]  # gaps and padding stay NaN in both views: noise on them would be data
        second = batch.get("second", x)
        config = self.config
        return {
            **batch,
            "weak": scaled(x, config.scaling, config.scaling_per),
            "strong": permuted_jittered(second, config.segments, config.jitter),
        }

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of the two views."""
        views = {name: batch[name] for name in ("weak", "strong")}
        return {name: self.projector(window_vectors(self.encoder, x)) for name, x in views.items()}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = self.objective.row_losses(embeddings["weak"], embeddings["strong"])
        if self.miner is not None:
            rows = self.miner(rows, batch["index"], self.progress.epoch)
        return {"nt_xent": rows}

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """Maximum over time of the averaged encoder's representation, before the projector."""
        return window_vectors(self.average.module.eval(), x)

    def represent_steps(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time dim"]:
        """The averaged encoder's representation of every time step."""
        return step_vectors(self.average.module.eval(), x)
