r"""Dynamic bad pair mining (DBPM), for any system that returns a loss per sample.

Lan, Yan, Hong, Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining Approach", ICLR
2024.

Every positive pair's loss l_i is remembered over the epochs. A pair whose remembered loss is far below the others' is
noisy (both views are alike because both are noise), far above it is faulty (the views show different things):

    m_i = mean_e l_i(e) (1 + e) / E        mu, sigma = mean and deviation of m over the training set
    noisy: m_i <= mu - c_np sigma          faulty: m_i >= mu + c_fp sigma
    L = mean_i w_i l_i,   w_i = N(l_i; mu, sigma) / N(mu; mu, sigma) for flagged pairs, else 1

after E_w warm-up epochs. The official code (lanxiang1017/DynamicBadPairMining_ICLR24 e9355a0) takes the density itself
as the weight, which exceeds 1, and so amplifies a bad pair, once sigma is small (a pair at 2 sigma: sigma < 0.054);
with `normalized=False` flags, statistics and weighted losses equal that code's. It remembers the losses themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from counterpoint.common.data.batch import entry
from counterpoint.common.kernels import gather_rows
from counterpoint.common.trainers.plugin_configs import BadPairsConfig
from counterpoint.common.trainers.plugins import Plugin


class BadPairMiner(nn.Module):
    """Loss memory of every training pair and the weights that follow from it.

    Call it on the row losses of a batch; it returns the weighted ones. Pairs are named by `index`, the samples' stable
    numbers, of which there are `size`. All state stands in buffers and travels in checkpoints. Statistics change at
    epoch borders only: within an epoch every pair is judged by the epochs before it.

    >>> miner = BadPairMiner(4, BadPairsConfig(warmup=1), epochs=10)
    >>> losses = torch.tensor([1.0, 2.0])
    >>> miner(losses, torch.tensor([0, 3]), epoch=0).tolist()
    [1.0, 2.0]
    """

    def __init__(self, size: int, config: BadPairsConfig, epochs: int) -> None:
        super().__init__()
        if size < 1 or epochs < 1:
            raise ValueError(f"BadPairMiner: size and epochs must be positive, got {size} and {epochs}")
        self.config, self.epochs = config, epochs
        for name in ("total", "count", "open_total", "open_count"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("open_epoch", torch.tensor(-1))

    def grow(self, size: int) -> None:
        """Room for `size` pairs; the new ones have not been seen."""
        for name in ("total", "count", "open_total", "open_count"):
            known = self.get_buffer(name)
            setattr(self, name, torch.cat([known, known.new_zeros(size - len(known))]))

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
        """Weighted losses; the epoch's losses go into the memory, themselves or weighted (`remember_weighted`).

        Over several ranks each weighs its own rows and remembers those of all.
        """
        if not self.training:
            return losses
        self.close(epoch)
        index = index.to(losses.device)
        weighted = losses if epoch < self.config.warmup else losses * self.weights(losses, index)
        share = (1 + epoch) / self.epochs
        kept = (weighted if self.config.remember_weighted else losses).detach().double()
        index, kept = _of_all_ranks(index), _of_all_ranks(kept)
        self.open_total.index_add_(0, index, kept * share)
        self.open_count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        return weighted


class BadPairs(Plugin):
    """The plug-in `bad_pairs`: a memory of every term with a loss per sample, begun anew in every stage.

    Samples are told apart by the batch's `index`. E is the number of epochs planned for the stage.
    """

    Config = BadPairsConfig

    def __init__(self, config: BadPairsConfig) -> None:
        super().__init__(config)
        self.stage = -1
        self.miners: dict[str, BadPairMiner] = {}

    def start(self, system: Any, samples: Any) -> None:
        super().start(system, samples)
        if self.stage != system.progress.stage:
            self.stage, self.miners = system.progress.stage, {}

    def weigh(self, name: str, rows: Float[Tensor, " batch"], batch: Any) -> Float[Tensor, " batch"]:
        index = entry(batch, "index").to(rows.device)
        miner = self.miners.setdefault(name, BadPairMiner(1, self.config, 1)).to(rows.device)
        miner.epochs = self.system.epochs
        largest = int(_of_all_ranks(index).max())
        if largest >= len(miner.total):
            miner.grow(max(largest + 1, 2 * len(miner.total)))
        return miner(rows, index, self.system.progress.epoch)

    def state_dict(self) -> dict[str, Any]:
        """The memories."""
        return {"stage": self.stage, "miners": {name: dict(m.state_dict()) for name, m in self.miners.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the memories of a checkpoint."""
        self.stage, self.miners = int(state["stage"]), {}
        for name, memory in state["miners"].items():
            self.miners[name] = BadPairMiner(len(memory["total"]), self.config, 1)
            self.miners[name].load_state_dict(memory)


def _of_all_ranks(values: Shaped[Tensor, " batch"]) -> Shaped[Tensor, " all_rows"]:
    return gather_rows(values) if dist.is_available() and dist.is_initialized() else values
