"""Supervised contrastive learning."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import SameLabel, Self
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SupCon"]


class SupCon(Objective):
    """All samples of my class are positives (supervised contrastive loss, "out" form).

        l_i = log sum_{a != i} exp(s_ia / T) - 1/|P(i)| sum_{p in P(i)} s_ip / T

    over the rows of [za; zb], P(i) the other rows with the same label. Class sums make the positive term linear in the
    batch. A row without positives counts as zero. Without zb the rows of za are taken alone.

    Args:
        temperature: T or a `LogitScale` (0.1 in the paper; the reference code's 0.07 / base 0.07 cancels).

    Source: Khosla et al. 2020, equation 2.

    >>> import torch
    >>> z = torch.eye(2)
    >>> round(SupCon(temperature=1.0)(z, z, label=torch.tensor([0, 1])).item(), 4)   # log(e + 2) - 1
    0.5514
    """

    card = ObjectiveCard(
        paper="SupCon 2020",
        needs="labels",
        engine="contrast_stats(Self), target_scores(SameLabel)",
        status="official numbers",
        checked="official numbers (HobbitLong/SupContrast 66a8fe5), rows without positives included",
    )

    def __init__(
        self,
        temperature: Temperature = 0.1,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"] | None = None,
        *,
        label: Int[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Mean over all rows."""
        views = self.embed(za) if zb is None else self.embed(za, zb)
        z, label = torch.cat(views), label.repeat(len(views))
        scale = self.logit_scale()
        denominator = self.stats(z, z, scale=scale, exclude=Self())
        score, mass = self.target(z, z, SameLabel(label, exclude_self=True))
        return self.mean(denominator.lse - scale * score / mass.clamp_min(1), mass > 0)
