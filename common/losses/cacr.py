"""CACR: contrastive attraction and contrastive repulsion by conditional transport."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Self
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["CACR"]


class CACR(Objective):
    """Pull far positives hardest, push near negatives hardest (CACR).

        CA = (1 / V) sum_v mean_i sum_{w != v} softmax_w(t+ d_vw^2) d_vw^2,        d_vw = |z_iv - z_iw|
        CR = -mean_{v < w} mean_i sum_{j != i} softmax_j(-t- d_ij^2) d_ij^2,       d_ij = |z_iv - z_jw|
        L  = alpha CA + beta CR

    Gradients pass through the weights. CR needs the first moment of a softmax, the engine's `mean`: on the sphere
    CR = -(2 - 2 E[s]) with p = softmax(2 t- s). A single row repels nothing.

    Args:
        alpha, beta: weights of the two terms (1).
        t_plus, t_minus: sharpness of the two conditional distributions (1, 1).

    Raises `ValueError` for fewer than two views.

    Source: Zheng et al. 2021; the code of the small-scale experiments (the ImageNet code detaches the weights).

    >>> import torch
    >>> z = torch.eye(3)
    >>> CACR()(z, z).item()        # attraction 0, all negatives at squared distance 2
    -2.0
    """

    card = ObjectiveCard(
        paper="CACR 2021",
        needs="V >= 2 views",
        engine="contrast_stats(mean, Self) per view pair",
        status="official numbers",
        checked="official numbers (attraction and repulsion, three views)",
    )

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        t_plus: float = 1.0,
        t_minus: float = 1.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.alpha, self.beta, self.t_plus, self.t_minus = alpha, beta, t_plus, t_minus

    def forward(self, *views: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """alpha CA + beta CR."""
        if len(views) < 2:
            raise ValueError(f"CACR needs at least two views, got {len(views)}")
        z = self.embed(*views)
        attraction, repulsion = self.attraction(*z), self.repulsion(*z)
        self.monitors.update(attraction=attraction.detach(), repulsion=repulsion.detach())
        return self.alpha * attraction + self.beta * repulsion

    def attraction(self, *z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """CA of the views as given."""
        stack = torch.stack(z)
        terms = []
        for v in range(len(z)):
            others = torch.cat([stack[:v], stack[v + 1 :]])
            distance = (stack[v] - others).square().sum(-1)
            terms.append(self.mean((torch.softmax(self.t_plus * distance, 0) * distance).sum(0)))
        return torch.stack(terms).mean()

    def repulsion(self, *z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """CR of the views as given."""
        terms = []
        for v in range(len(z)):
            for w in range(v + 1, len(z)):
                # |q - k|^2 = |q|^2 - 2 (q.k - |k|^2 / 2): one more dimension turns it into an inner product.
                q = torch.cat([z[v], torch.ones_like(z[v][:, :1])], 1)
                k = torch.cat([z[w], -z[w].square().sum(1, keepdim=True) / 2], 1)
                stats = self.stats(q, k, scale=2 * self.t_minus, exclude=Self(), mean=True)
                distance = z[v].square().sum(1) - 2 * stats.mean
                terms.append(-self.mean(distance, stats.count > 0))
        return torch.stack(terms).mean()
