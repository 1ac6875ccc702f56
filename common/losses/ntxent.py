"""NT-Xent, the loss of SimCLR, for two views and for more."""

from itertools import combinations
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["MultiViewNTXent", "NTXent"]


class NTXent(Objective):
    """The other view among all 2 B - 1 other rows of the batch, own view included (SimCLR).

        l_i = log sum_{j != i} exp(s_ij / T) - s_{i, i+} / T          over the 2 B rows of [za; zb]

    Rows that share a `group` id are not each other's negatives. A single pair has loss 0.

    Args:
        temperature: T or a `LogitScale`.

    Source: Chen et al. 2020. Also the contrastive part of ScatSimCLR, CVRL, BSS and the audio-sheet pretraining.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(NTXent(temperature=1.0)(z, z).item(), 4)   # log(e + 6) - 1
    1.1654
    """

    card = ObjectiveCard(
        paper="SimCLR 2020",
        needs="two views; optional group",
        engine="contrast_stats(Self, columns) x 3, merge",
        checked="official numbers (Multi-View-CL: pairwise over three views)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.5,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        weight: Float[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean of `row_losses`, each multiplied by `weight` where it is given (`index` is not used)."""
        losses = self.row_losses(za, zb, group=group)
        return self.mean(losses if weight is None else losses * weight)

    def row_losses(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """One loss per pair: the mean of its two rows."""
        a, b = self.embed(za, zb)
        return self._pair(a, b, group)

    def _pair(self, a: Tensor, b: Tensor, group: Tensor | None) -> Float[Tensor, "batch"]:
        rows = self.two_views(a, b, scale=self.logit_scale(), group=group, keep_positive=True)
        per_row = [s.lse - s.positive if group is None else softplus_gap(s.lse, s.positive) for s in rows]
        return (per_row[0] + per_row[1]) / 2


class MultiViewNTXent(NTXent):
    """NT-Xent for V views: averaged over view pairs, or each view against the mean of the others.

        pairs:    L = mean_{v < w} NTXent(z_v, z_w)
        average:  L = mean_v NTXent(z_v, mean_{w != v} z_w)     (the mean is not renormalised, as in the official code)

    Args:
        temperature: T or a `LogitScale` (0.5).
        average: each view against the mean of the others, instead of view pairs.

    Raises `ValueError` for fewer than two views.

    Source: the pairwise and averaging baselines of "A Principled Framework for Multi-View Contrastive Learning", 2025.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(MultiViewNTXent(temperature=1.0)(z, z, z).item(), 4)
    1.1654
    """

    card = ObjectiveCard(
        paper="Multi-View CL baselines 2025",
        needs="V >= 2 views; optional group",
        engine="as NTXent, per pair",
        checked="official numbers (ntxent_pwe, ntxent_avg)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.5,
        *,
        average: bool = False,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.average = average

    def forward(
        self, *views: Float[Tensor, "batch dim"], group: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, ""]:
        """The mean over pairs (or over views) and rows."""
        if len(views) < 2:
            raise ValueError(f"MultiViewNTXent needs at least two views, got {len(views)}")
        z = self.embed(*views)
        if self.average:
            total = torch.stack(z).sum(0)
            pairs = [(v, (total - v) / (len(z) - 1)) for v in z]
        else:
            pairs = list(combinations(z, 2))
        return self.mean(torch.stack([self._pair(v, w, group) for v, w in pairs]))
