"""The linear and the hard contrastive loss; the ordinary one between them is NT-Xent."""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Self
from counterpoint.common.kernels import Uniform as UniformTarget
from counterpoint.common.losses.base import Objective, dots, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["HardContrastive", "SimpleContrastive"]


class HardContrastive(Objective):
    """NT-Xent whose denominator keeps only each row's hardest negatives (hard contrastive loss).

        l_i = log( e^{s+ / T} + sum_{j : s_ij >= s_alpha(i)} e^{s_ij / T} ) - s+ / T

    s_alpha(i) is the row's score that a share `keep` of its negatives reaches or exceeds; keep = 1 is NT-Xent. The rule
    that picks the threshold is our reading: no code of the authors was found (repositories, threads and pages searched
    by title, authors and terms). The threshold carries no gradient.

    Args:
        temperature: T or a `LogitScale` (0.3).
        keep: share of negatives kept, rounded up to at least one.

    Raises `ValueError` for a `keep` outside (0, 1].

    Source: Wang and Liu 2021, "Understanding the Behaviour of Contrastive Loss".

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(HardContrastive(temperature=1.0, keep=1.0)(z, z).item(), 4)
    1.1654
    """

    card = ObjectiveCard(
        paper="Understanding the Behaviour of CL 2021",
        needs="two views",
        engine="topk_scores, contrast_stats(score_floor)",
        status="our reading",
        checked="written-out equation (quantile rule: our reading, no code public); keep = 1 gives NT-Xent",
    )

    def __init__(
        self,
        temperature: Temperature = 0.3,
        *,
        keep: float = 0.1,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        self.logit_scale, self.keep = as_scale(temperature), keep

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the 2 B rows."""
        a, b = self.embed(za, zb)
        z, scale = torch.cat([a, b]), self.logit_scale()
        exclude = [Self(), Diagonal(len(a)), Diagonal(-len(a))]
        positive = scale * dots(a, b).repeat(2)
        negatives = self.count(z) - 2
        if negatives < 1:
            return self.mean(positive * 0)
        values, _ = self.best(z, z, math.ceil(self.keep * negatives), exclude=exclude)
        # The floor is lowered by rounding's width: the same score computed twice must pass its own floor.
        floor = values[:, -1] - 1e-6 if z.dtype == torch.float32 else values[:, -1] - 1e-12
        lse = self.stats(z, z, scale=scale, exclude=exclude, score_floor=floor).lse
        return self.mean(softplus_gap(lse, positive))


class SimpleContrastive(Objective):
    """The linear contrastive loss, without a softmax: no preference for hard negatives.

        l_i = -s+ + lam sum_{j != i, i+} s_ij          over the 2 B rows

    Linear time. Useful as the reference that lacks hardness awareness, not as a training objective.

    Args:
        lam: weight of the negatives.

    Source: Wang and Liu 2021.

    >>> import torch
    >>> SimpleContrastive(lam=1.0)(torch.eye(3), torch.eye(3)).item()
    -1.0
    """

    card = ObjectiveCard(
        paper="Understanding the Behaviour of CL 2021",
        needs="two views",
        engine="target_scores(Uniform)",
        status="equation",
        checked="written-out equation",
    )

    def __init__(self, lam: float = 1.0, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.lam = lam

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the 2 B rows."""
        a, b = self.embed(za, zb)
        z, positive = torch.cat([a, b]), dots(a, b).repeat(2)
        everything = self.count(z) * self.target(z, z, UniformTarget())[0]
        return self.mean(-positive + self.lam * (everything - positive - dots(z, z)))
