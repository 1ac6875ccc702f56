r"""DBPM: dynamic bad pair mining, for any instance-contrastive system.

Lan, Yan, Hong, Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining Approach", ICLR
2024.

Every positive pair's loss l_i is remembered over the epochs. A pair whose remembered loss is far below the others' is
noisy (both views are alike because both are noise), far above it is faulty (the views show different things):

    m_i = mean_e l_i(e) (1 + e) / E        mu, sigma = mean and deviation of m over the training set
    noisy: m_i <= mu - c_np sigma          faulty: m_i >= mu + c_fp sigma
    L = mean_i w_i l_i,   w_i = N(l_i; mu, sigma) / N(mu; mu, sigma) for flagged pairs, else 1

after E_w warm-up epochs. The official code takes the density itself as the weight, which exceeds 1, and so amplifies a
bad pair, once sigma is small (a pair at 2 sigma: sigma < 0.054); `normalized=False` reproduces it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import Assets
from counterpoint.timeseries.augment import permuted_jittered, scaled
from counterpoint.timeseries.averaging import AveragedWeights
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.configs import DBPMConfig, DBPMSystemConfig
from counterpoint.timeseries.encoders import TS2VecEncoder, pool_series
from counterpoint.timeseries.windows import WindowSet


class BadPairMiner(nn.Module):
    """Loss memory of every training pair and the weights that follow from it.

    Call it on the row losses of a batch; it returns the weighted ones. Pairs are named by `index`, the samples' stable
    numbers, of which there are `size`. All state stands in buffers and travels in checkpoints. Statistics change at
    epoch borders only: within an epoch every pair is judged by the epochs before it.

    >>> miner = BadPairMiner(4, DBPMConfig(warmup=1), epochs=10)
    >>> losses = torch.tensor([1.0, 2.0])
    >>> miner(losses, torch.tensor([0, 3]), epoch=0).tolist()
    [1.0, 2.0]
    """

    def __init__(self, size: int, config: DBPMConfig, epochs: int) -> None:
        super().__init__()
        if size < 1 or epochs < 1:
            raise ValueError(f"BadPairMiner: size and epochs must be positive, got {size} and {epochs}")
        self.config, self.epochs = config, epochs
        for name in ("total", "count", "open_total", "open_count"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("open_epoch", torch.tensor(-1))

    def close(self, epoch: int) -> None:
        """Move the losses of the epoch before `epoch` into the memory (called by itself at the first batch)."""
        if int(self.open_epoch) != epoch:
            self.total += self.open_total
            self.count += self.open_count
            self.open_total.zero_()
            self.open_count.zero_()
            self.open_epoch.fill_(epoch)

    def statistics(self) -> tuple[Float[Tensor, " size"], Float[Tensor, ""], Float[Tensor, ""]]:
        """m_i (NaN for pairs never seen), mu and sigma over the pairs seen."""
        mean = self.total / self.count.where(self.count > 0, torch.nan)
        seen = mean[self.count > 0]
        return mean, seen.mean(), seen.std(correction=0)

    def flags(self) -> tuple[Bool[Tensor, " size"], Bool[Tensor, " size"]]:
        """Noisy and faulty pairs by the epochs remembered so far."""
        mean, mu, sigma = self.statistics()
        certain = sigma > 1e-12
        noisy = (mean <= mu - self.config.noisy * sigma) & certain
        faulty = (mean >= mu + self.config.faulty * sigma) & certain
        return noisy, faulty

    def weights(self, losses: Float[Tensor, " batch"], index: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """w_i: 1, or for flagged pairs the density of the current loss under N(mu, sigma)."""
        noisy, faulty = self.flags()
        _, mu, sigma = self.statistics()
        flagged = (noisy | faulty)[index]
        density = torch.exp(-0.5 * ((losses.detach().double() - mu) / sigma.clamp(min=1e-12)) ** 2)
        if not self.config.normalized:
            density = density / (sigma.clamp(min=1e-12) * math.sqrt(2 * math.pi))
        return torch.where(flagged, density, torch.ones_like(density)).to(losses.dtype)

    def forward(
        self, losses: Float[Tensor, " batch"], index: Int[Tensor, " batch"], epoch: int
    ) -> Float[Tensor, " batch"]:
        """Weighted losses; the epoch's losses go into the memory, themselves or weighted (`remember_weighted`)."""
        if not self.training:
            return losses
        self.close(epoch)
        index = index.to(losses.device)
        weighted = losses if epoch < self.config.warmup else losses * self.weights(losses, index)
        share = (1 + epoch) / self.epochs
        kept = weighted if self.config.remember_weighted else losses
        self.open_total.index_add_(0, index, kept.detach().double() * share)
        self.open_count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        return weighted


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
        size = config.encoder
        self.encoder = TS2VecEncoder(self.channels, size.dim, size.hidden, size.depth, dropout=size.dropout)
        self.average = AveragedWeights(self.encoder)
        self.projector = nn.Sequential(nn.Linear(size.dim, size.dim), nn.ReLU(), nn.Linear(size.dim, config.projection))
        self.objective = NTXent(config.temperature)
        self.miner: BadPairMiner | None = None
        if config.mining is not None:
            self.miner = BadPairMiner(assets["pairs"], config.mining, config.train.max_epochs)

    def draw_views(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with a weak and a strong view of every window."""
        x = batch["x"]  # gaps and padding stay NaN in both views: noise on them would be data
        second = batch.get("second", x)
        return {**batch, "weak": scaled(x, self.config.scaling), "strong": permuted_jittered(
            second, self.config.segments, self.config.jitter)}  # fmt: skip

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of the two views."""
        views = {name: batch[name] for name in ("weak", "strong")}
        return {name: self.projector(pool_series(self.encoder(x), x)) for name, x in views.items()}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = self.objective.row_losses(embeddings["weak"], embeddings["strong"])
        if self.miner is not None:
            rows = self.miner(rows, batch["index"], self.progress.epoch)
        return {"nt_xent": rows.mean()}

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """Maximum over time of the averaged encoder's representation, before the projector."""
        return pool_series(self.represent_steps(x), x)

    def represent_steps(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time dim"]:
        """The averaged encoder's representation of every time step."""
        return self.average.module.eval()(x)
