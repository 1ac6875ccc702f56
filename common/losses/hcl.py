"""Hard and debiased negatives: HCL, and its cross-modal form for activity recognition."""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import ContrastStats, Diagonal, SameLabel, Self
from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["HCL", "CrossModalHCL"]


class HCL(Objective):
    """Negatives weighted by their hardness and corrected for false ones (HCL; beta = 0: debiased contrastive loss).

        RW_i = sum_j e^{(1 + beta) s_ij / T} / mean_j e^{beta s_ij / T}
        N_i  = max( (RW_i - tau+ n p_i) / (1 - tau+),  n e^{-1/T} ),      p_i = e^{s_{i,i+} / T}
        l_i  = log(1 + N_i / p_i)

    over the rows of [za; zb]; n is the number of negatives the row really has (2 B - 2, read from the engine). Computed
    in the log domain from one pass with two scales. tau_plus = beta = 0 is NT-Xent. The share of rows on the lower
    clamp, where the negatives get no gradient, is `monitors["clamp_rate"]`. A single pair has loss 0.

    Args:
        temperature: T (0.5).
        tau_plus: assumed probability of a false negative (0.1).
        beta: hardness (1.0).

    Embeddings must be unit vectors: the clamp relies on scores >= -1.

    Raises `ValueError` for a `tau_plus` outside [0, 1).

    Source: Robinson et al. 2020, Chuang et al. 2020.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(HCL(temperature=1.0, tau_plus=0.0, beta=0.0)(z, z).item(), 4)
    1.1654
    """

    card = ObjectiveCard(
        paper="HCL 2020, Debiased CL 2020",
        needs="two views; optional group",
        engine="contrast_stats(two scales) x 3, merge",
        status="official numbers",
        checked="official numbers (tau+ 0.1 and 0.01)",
    )

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        tau_plus: float = 0.1,
        beta: float = 1.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must lie in [0, 1), got {tau_plus}")
        self.temperature, self.tau_plus, self.beta = temperature, tau_plus, beta

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows."""
        a, b = self.embed(za, zb)
        return self._mean(*self.two_views(a, b, scale=self._scales(a), group=group))

    def _scales(self, like: Tensor) -> Float[Tensor, "2 1"]:
        return like.new_tensor([[(1 + self.beta) / self.temperature], [self.beta / self.temperature]])

    def _mean(self, *directions: ContrastStats) -> Float[Tensor, ""]:
        both = [self._rows(s) for s in directions]
        self.monitors["clamp_rate"] = torch.cat([clamped for _, clamped in both]).float().mean().detach()
        return self.mean(torch.cat([loss for loss, _ in both]))

    def _rows(self, stats: ContrastStats) -> tuple[Tensor, Tensor]:
        count = stats.count.to(stats.lse.dtype)
        some, n = stats.count > 0, count.clamp_min(1)
        positive = stats.positive[..., 0, :] / (1 + self.beta)
        lse = torch.where(some, stats.lse, torch.zeros_like(stats.lse))
        reweighted = n.log() + lse[..., 0, :] - lse[..., 1, :]
        floor = n.log() - 1 / self.temperature
        if self.tau_plus:
            false = math.log(self.tau_plus) + n.log() + positive
            gap = false - reweighted
            inside = gap < 0
            debiased = reweighted + torch.log(-torch.expm1(torch.where(inside, gap, -torch.ones_like(gap))))
            debiased = torch.where(inside, debiased - math.log1p(-self.tau_plus), floor)
        else:
            debiased = reweighted
        clamped = some & (debiased <= floor)
        total = torch.where(clamped, floor, debiased)
        return torch.where(some, softplus_gap(total, positive), torch.zeros_like(total)), clamped


class CrossModalHCL(HCL):
    """HCL between two modalities: a row's negatives are the other modality's B - 1 other samples.

    Equations as `HCL`, averaged over both directions; tau_plus = beta = 0 is the symmetric InfoNCE. The code this comes
    from (class MM_HNL, read without the name of its repository) differs: it keeps n = 2 B - 2 although a row has B - 1
    negatives (at cos 0.9, T 0.5 every row then sits on the clamp and no negative gets a gradient), and its positives
    [2 B, 1] meet its negatives [2 B] as a matrix, so that every row's positive stands against all rows' negatives. Here
    n is counted and rows keep to themselves.

    Args:
        temperature, tau_plus, beta: T (0.1), 0.1, 1.0.

    Source: Choi et al. 2023, multimodal hard negatives for activity recognition (skeleton and inertial sensors).

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(CrossModalHCL(temperature=1.0, tau_plus=0.0, beta=0.0)(z, z).item(), 4)
    0.7437
    """

    card = ObjectiveCard(
        paper="Multimodal HNL (HAR) 2023",
        needs="pairs; optional group",
        engine="contrast_stats(two scales, columns)",
        status="equation",
        checked="written-out equation (the released code mixes rows); beta = tau+ = 0 gives InfoNCE",
    )

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        tau_plus: float = 0.1,
        beta: float = 1.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, tau_plus=tau_plus, beta=beta, **engine)

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the rows of both directions."""
        a, b = self.embed(za, zb)
        drop = Self() if group is None else SameLabel(group)
        stats = self.stats(a, b, scale=self._scales(a), positive=Diagonal(), exclude=drop, columns=True)
        return self._mean(stats, stats.columns)
