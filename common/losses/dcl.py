"""Decoupled contrastive learning: the positive leaves the denominator."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["DCL", "DCLW"]


class DCL(Objective):
    """NT-Xent without the positive in its own denominator (decoupled contrastive loss).

        l_i = log sum_{j != i, i+} exp(s_ij / T) - w_i s_{i, i+} / T,     w_i = 1

    over the 2 B rows of [za; zb] (mean; the paper and its code sum the two directions: twice this value). The loss has
    no lower bound at zero: well trained it is near log(2 B - 2) - 2 / T. A row without negatives counts as zero.

    Args:
        temperature: T or a `LogitScale`.
        symmetric: rows of both views (default) or of `za` alone.

    Source: Yeh et al. 2021. The linked code excludes by adding log 1e-45, which leaks at T <= 0.005; here pairs are
    left out exactly.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(DCL(temperature=1.0)(z, z).item(), 4)   # log 6 - 1
    0.7918
    """

    card = ObjectiveCard(
        paper="DCL 2021",
        needs="two views; optional group",
        engine="contrast_stats(Self, columns) x 3, merge",
        status="official numbers",
        checked="official numbers (one direction)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.1,
        *,
        symmetric: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)
        self.symmetric = symmetric

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
        rows = self.two_views(a, b, scale=self.logit_scale(), group=group)
        weight = self.positive_weight((a * b).sum(-1))
        losses = [self.mean(s.lse - weight * s.positive, s.count > 0) for s in rows]
        return (losses[0] + losses[1]) / 2 if self.symmetric else losses[0]

    def positive_weight(self, scores: Float[Tensor, "batch"]) -> float | Float[Tensor, "batch"]:
        """w_i; a subclass may let it depend on the positive scores."""
        return 1.0


class DCLW(DCL):
    """DCL with a von Mises-Fisher weight that favours hard positives.

        w_i = 2 - B softmax_i(s_{i, i+} / sigma)       (the softmax runs over the whole batch, on all ranks)

    The weight is not detached, as in the linked code.

    Args:
        sigma: width of the weighting (0.5 in the linked code).
        temperature, symmetric: as `DCL`.

    Source: Yeh et al. 2021.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(DCLW(temperature=1.0)(z, z).item(), 4)   # equal positives: w = 1
    0.7918
    """

    card = ObjectiveCard(
        paper="DCL 2021",
        needs="two views; optional group",
        engine="contrast_stats(Self, columns) x 3, merge",
        status="official numbers",
        checked="official numbers (raminnakhli/Decoupled-Contrastive-Learning 0b9b76d), one direction",
    )

    def __init__(
        self,
        temperature: Temperature = 0.1,
        *,
        sigma: float = 0.5,
        symmetric: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, symmetric=symmetric, **engine)
        self.sigma = sigma

    def positive_weight(self, scores: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """2 - B softmax(scores / sigma)."""
        everyone = self.union(scores / self.sigma)
        return 2 - len(everyone) * torch.exp(scores / self.sigma - torch.logsumexp(everyone, 0))
