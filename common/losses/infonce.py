"""InfoNCE, the loss of CPC, CLIP and ALIGN."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import (
    ContrastStats,
    Diagonal,
    SameLabel,
    Uniform,
    merge,
)
from counterpoint.common.kernels.spec import Target
from counterpoint.common.losses.base import Objective, softplus_gap
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["InfoNCE"]


class InfoNCE(Objective):
    """Which row of the other voice is mine? Cross-entropy of the paired row among the batch's (CPC, CLIP, ALIGN).

        l_i = log sum_j exp(s_ij / T) - s_ii / T,      L = mean_i (l_i(a -> b) + l_i(b -> a)) / 2

    With label smoothing e the target of row i is (1 - e) [j = i] + e / C. Rows that share a `group` id (patient, piece,
    molecule) are not each other's negatives: they leave the denominator, the positive stays.

    Args:
        temperature: T, or a `LogitScale` to learn it (`InfoNCE(LogitScale(0.07))` is CLIP).
        symmetric: average both directions (CLIP); otherwise rows of `za` only (CPC, MoCo).
        label_smoothing: e, in [0, 1).

    Call with za [batch, dim], zb [batch, dim]. One-directional only: zb may hold further columns behind the batch's
    (mined hard negatives); `group` then has one id per column. A single row without other columns has loss 0.

    Raises `ValueError` for a `label_smoothing` outside [0, 1) for unpaired rows where it is symmetric,
    and for fewer keys than rows.

    Source: van den Oord et al. 2018; Radford et al. 2021; Jia et al. 2021 (label smoothing 0.1).

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(InfoNCE(temperature=1.0)(z, z).item(), 4)   # log(e + 3) - 1
    0.7437
    """

    card = ObjectiveCard(
        paper="CPC 2018, CLIP 2021, ALIGN 2021",
        needs="pairs; optional group, queue, soft targets",
        engine="contrast_stats(columns), target_scores, merge",
        checked="official numbers (open_clip copy in fast_clip), incl. distillation targets",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        symmetric: bool = True,
        label_smoothing: float = 0.0,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.logit_scale = as_scale(temperature)
        self.symmetric, self.label_smoothing = symmetric, label_smoothing

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "columns dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "columns"] | None = None,
        targets: Target | tuple[Target, Target] | None = None,
        queue: FeatureQueue | tuple[FeatureQueue, FeatureQueue] | None = None,
        weight: Float[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean of `row_losses`, each multiplied by `weight` where it is given (`index` is not used)."""
        losses = self.row_losses(za, zb, group=group, targets=targets, queue=queue)
        return self.mean(losses if weight is None else losses * weight)

    def row_losses(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "columns dim"],
        *,
        group: Int[Tensor, "columns"] | None = None,
        targets: Target | tuple[Target, Target] | None = None,
        queue: FeatureQueue | tuple[FeatureQueue, FeatureQueue] | None = None,
    ) -> Float[Tensor, "batch"]:
        """One loss per pair.

        `targets`: what replaces the one-hot target, as the engine's target objects (a teacher's `Gibbs`, `Weighted`,
        `SameLabel`, ...): one for both directions, or (a -> b, b -> a). Over ranks what they say of columns is this
        rank's, and column numbers count over the union (as for `target_scores`).
        `queue`: further negatives: keys of b, or (keys of a, keys of b).
        """
        a, b = self.embed(za, zb)
        if self.symmetric and len(a) != len(b):
            raise ValueError(f"a symmetric loss needs paired rows, got {len(a)} and {len(b)}")
        if len(a) > len(b):
            raise ValueError(f"every row of za needs its key in zb: za has {len(a)} rows, zb only {len(b)}")
        queue_a, queue_b = queue if isinstance(queue, tuple) else (None, queue)
        target_ab, target_ba = targets if isinstance(targets, tuple) else (targets, targets)
        scale = self.logit_scale()
        exclude = None if group is None else SameLabel(group[: len(a)], group)
        stats = self.stats(a, b, scale=scale, positive=Diagonal(), exclude=exclude, columns=self.symmetric)
        losses = self._direction(a, b, stats, scale, group, target_ab, queue_b)
        if self.symmetric:
            losses = (losses + self._direction(b, a, stats.columns, scale, group, target_ba, queue_a)) / 2
        return losses

    def _direction(
        self,
        q: Tensor,
        k: Tensor,
        stats: ContrastStats,
        scale: float | Tensor,
        group: Tensor | None,
        target: Target | None,
        queue: FeatureQueue | None,
    ) -> Float[Tensor, "batch"]:
        positive, rows = stats.positive, None if group is None else group[: len(q)]
        if queue is not None and len(queue):
            keys = self.embed(queue.keys.to(q.dtype))[0]
            exclude = None if group is None else SameLabel(rows, queue.ids)
            extra = self.local_stats(q, keys, scale=scale, exclude=exclude)
            stats = merge(stats, extra)
        # A group's columns, the positive among them, are left out of the engine's sum: softplus brings the positive
        # back without ever subtracting it from a total.
        losses = stats.lse - positive if group is None else softplus_gap(stats.lse, positive)
        if self.label_smoothing:
            uniform = self._uniform(q, k, rows, group, queue)
            losses = losses + self.label_smoothing * (positive - scale * uniform)
        if target is not None:
            score, mass = self.target(q, k, target)
            losses = mass * (losses + positive) - scale * score
        return losses

    def _uniform(
        self, q: Tensor, k: Tensor, rows: Tensor | None, group: Tensor | None, queue: FeatureQueue | None
    ) -> Float[Tensor, "batch"]:
        """Mean raw score over the columns of the denominator."""
        if group is None and not (queue is not None and len(queue)):
            return self.target(q, k, Uniform())[0]
        # At scale 0 the softmax is uniform over whatever columns are kept, on all ranks.
        exclude = None if group is None else SameLabel(rows, group)
        flat = self.stats(q, k, scale=0.0, exclude=exclude, mean=True)
        total, count = flat.mean * flat.count, flat.count.to(q.dtype)
        if group is not None:
            total, count = total + (q * k[: len(q)]).sum(-1), count + 1
        if queue is not None and len(queue):
            keys = self.embed(queue.keys.to(q.dtype))[0]
            more = self.local_stats(
                q, keys, scale=0.0, exclude=None if group is None else SameLabel(rows, queue.ids), mean=True
            )
            total, count = total + more.mean * more.count, count + more.count
        return total / count.clamp_min(1)

    @torch.no_grad()
    def effective_negatives(
        self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "batch"]:
        """exp(entropy) of each row's softmax: how many columns it is really compared with (a monitor)."""
        a, b = self.embed(za, zb)
        scale = self.logit_scale()
        stats = self.stats(a, b, scale=scale, mean=True)
        return torch.exp(stats.lse - scale * stats.mean)
