"""FastCLIP: the global contrastive loss for image and text with one learnt temperature."""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Diagonal, SameLabel, Self
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sample_state import SampleState
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.losses.sharing import EngineSettings
from counterpoint.common.losses.sogclr import SogCLR

__all__ = ["FastCLIP"]


class FastCLIP(Objective):
    """SogCLR for image and text with one learnt temperature (FastCLIP, version 3).

        g_i = batch mean over negatives of exp(h_ij / T),   u_i <- (1 - gamma) u_i + gamma g_i      (per side a, b)
        L = sg(T) mean_i (g_i^a / u_i^a + g_i^b / u_i^b) + rho T + T mean_i (log u_i^a + log u_i^b) / 2

    T is a learnable `LogitScale`; u and the factor T before the first term carry no gradient, as in the official code
    (which adds eps = 1e-14 to u; here u lives in the log domain).

    Args:
        n_samples: size of the data set.
        temperature: start of T, or a `LogitScale`.
        rho: 8.
        gamma, decay_epochs: as in `SogCLR`, gamma 0.9 here, 0.2 to 0.8 in the paper's settings (our reading).

    Source: Wei et al. 2024; Optimization-AI/fast_clip at efd89d5, src/fast_clip/loss.py.

    >>> import torch
    >>> loss = FastCLIP(n_samples=10, temperature=0.5)
    >>> round(loss(torch.eye(4), torch.eye(4), index=torch.arange(4)).item(), 4)   # 0.5 (1 + 1 + 8 - 2)
    4.0
    """

    card = ObjectiveCard(
        paper="FastCLIP 2024",
        needs="index; state over the data set",
        engine="contrast_stats(Self, columns)",
        status="official numbers",
        checked="official numbers (Optimization-AI/fast_clip efd89d5), states and temperature included",
    )

    def __init__(
        self,
        n_samples: int,
        temperature: float | LogitScale = 0.07,
        *,
        rho: float = 8.0,
        gamma: float = 0.9,
        decay_epochs: int | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = temperature if isinstance(temperature, LogitScale) else LogitScale(temperature)
        self.rho, self.gamma, self.decay_epochs, self.now = rho, gamma, decay_epochs, gamma
        self.state = SampleState(n_samples, engine.get("distributed"), log_u_a=-math.inf, log_u_b=-math.inf)

    set_epoch = SogCLR.set_epoch

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"],
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The objective's estimate over the batch."""
        a, b = self.embed(za, zb)
        scale = torch.as_tensor(self.logit_scale(), dtype=a.dtype, device=a.device)
        drop = Self() if group is None else SameLabel(group)
        stats = self.stats(a, b, scale=scale, positive=Diagonal(), exclude=drop, columns=True)
        ratios, logs, t = [], [], 1 / scale
        for name, rows in (("log_u_a", stats), ("log_u_b", stats.columns)):
            log_g = rows.lse - rows.count.clamp_min(1).to(a.dtype).log() - rows.positive
            log_u = self.state.moved(name, index, log_g.detach(), self.now)
            if self.training:
                self.state.write(name, index, log_u)
            some = rows.count > 0
            gap = torch.where(some, log_g, torch.zeros_like(log_g)) - torch.where(some, log_u, torch.zeros_like(log_u))
            ratios.append(self.mean(torch.exp(gap), some))
            logs.append(self.mean(log_u, some))
        return t.detach() * (ratios[0] + ratios[1]) + t * (self.rho + (logs[0] + logs[1]) / 2)
