"""One loss term per datum for two and more views: DHEL, MV-InfoNCE, MV-DHEL."""

from itertools import combinations
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import SameLabel, Self
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["DHEL", "MVDHEL", "MVInfoNCE"]

_PAPER = "Multi-View CL 2025"


class _MultiView(Objective):
    def __init__(
        self,
        temperature: Temperature = 0.2,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)

    def _views(self, views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if len(views) < 2:
            raise ValueError(f"{type(self).__name__} needs at least two views, got {len(views)}")
        return self.embed(*views)

    def _own_view(self, z: tuple[Tensor, ...], group: Tensor | None) -> tuple[Tensor, Tensor]:
        """Per datum: the log-sum-exps against the own view's other data, summed over views; are there any?"""
        drop = Self() if group is None else SameLabel(group)
        rows = [self.stats(v, v, scale=self.logit_scale(), exclude=drop) for v in z]
        return torch.stack([s.lse for s in rows]).sum(0), rows[0].count > 0


class MVDHEL(_MultiView):
    """Negatives from the same view only, all view pairs in one positive term (MV-DHEL).

        l_i = sum_v log sum_{j != i} exp(z_iv . z_jv / T) - log sum_{v < w} exp(z_iv . z_iw / T)

    A sum of log-sum-exps, never the logarithm of a product of sums (which overflows in float32 for 8 views). A single
    row has no negatives and counts as zero. The README of the code writes ordered pairs and j = i too: constants apart.

    Args:
        temperature: T or a `LogitScale`; 0.2.

    Source: "A Principled Framework for Multi-View Contrastive Learning", 2025.

    >>> import torch
    >>> z = torch.eye(3)
    >>> round(MVDHEL(temperature=1.0)(z, z).item(), 4)   # 2 log 2 - 1
    0.3863
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="V >= 2 views; optional group",
        engine="contrast_stats(Self) per view",
        status="official numbers",
        checked="official numbers (three views); finite where the product form overflows",
    )

    def forward(
        self, *views: Float[Tensor, "batch dim"], group: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, ""]:
        """Mean over data."""
        z = self._views(views)
        scale = self.logit_scale()
        negatives, some = self._own_view(z, group)
        pairs = torch.stack([scale * dots(v, w) for v, w in combinations(z, 2)])
        return self.mean(negatives - torch.logsumexp(pairs, 0), some)


class DHEL(MVDHEL):
    """Two views, negatives from the same view only (decoupled hyperspherical energy loss).

        l_i = sum_{v = 1, 2} log sum_{j != i} exp(z_iv . z_jv / T) - z_i1 . z_i2 / T

    Args:
        temperature: T or a `LogitScale`.

    Source: as `MVDHEL`, of which it is the case of two views.

    >>> import torch
    >>> round(DHEL(temperature=1.0)(torch.eye(3), torch.eye(3)).item(), 4)
    0.3863
    """

    card = ObjectiveCard(
        paper="DHEL 2024",
        needs="two views; optional group",
        engine="contrast_stats(Self) per view",
        status="official numbers",
        checked="official numbers",
    )

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over data (`index` is not used)."""
        return super().forward(za, zb, group=group)


class MVInfoNCE(_MultiView):
    """All views of all data in one denominator per datum (MV-InfoNCE).

        l_i = log sum_v sum_{(j, m) != (i, v)} exp(z_iv . z_jm / T) - log sum_{v != w} exp(z_iv . z_iw / T)

    `per_view=True` is the code's variant CL_1: only other views in the denominator and one term per view,
        l_iv = log sum_{j, m != v} exp(z_iv . z_jm / T) - log sum_{m != v} exp(z_iv . z_im / T),
    which is also what the README's equation of MV-InfoNCE excludes.

    Args:
        temperature: T or a `LogitScale`.

    Source: as `MVDHEL`.

    >>> import torch
    >>> z = torch.eye(3)
    >>> round(MVInfoNCE(temperature=1.0)(z, z).item(), 4)   # log(2 (e + 4)) - log(2 e)
    0.9048
    """

    card = ObjectiveCard(
        paper=_PAPER,
        needs="V >= 2 views; optional group",
        engine="contrast_stats over all views",
        status="official numbers",
        checked="official numbers (pakoromilas/Multi-View-CL c26ae77), CL_1 with per_view",
    )

    def __init__(
        self,
        temperature: Temperature = 0.2,
        *,
        per_view: bool = False,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.per_view = per_view

    def forward(
        self, *views: Float[Tensor, "batch dim"], group: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, ""]:
        """Mean over data (and over views with `per_view`)."""
        z = self._views(views)
        scale, n = self.logit_scale(), len(z)
        cross = torch.stack([scale * dots(z[v], z[w]) for v in range(n) for w in range(n) if v != w]).unflatten(
            0, (n, n - 1)
        )
        # Data are left out by their own position (or group) in every view; their positives come back from `cross`.
        position = self.sample_ids(z[0]) if group is None else group
        if self.per_view:
            others = [torch.cat(z[:v] + z[v + 1 :]) for v in range(n)]
            negatives = torch.stack([self._drop(z[v], others[v], position, n - 1) for v in range(n)])
            positives = torch.logsumexp(cross, 1)
            return self.mean(torch.logaddexp(negatives, positives) - positives)
        everyone = torch.cat(z)
        negatives = self._drop(everyone, everyone, position, n).unflatten(0, (n, len(z[0])))
        everything = torch.cat([negatives[:, None], cross], 1).flatten(0, 1)
        return self.mean(torch.logsumexp(everything, 0) - torch.logsumexp(cross.flatten(0, 1), 0))

    def _drop(self, q: Tensor, k: Tensor, ids: Tensor, copies: int) -> Float[Tensor, "rows"]:
        rows = ids.repeat(len(q) // max(len(ids), 1))
        return self.stats(q, k, scale=self.logit_scale(), exclude=SameLabel(rows, ids.repeat(copies))).lse
