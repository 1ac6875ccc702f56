"""M3CoL: contrastive learning on mixed samples across modalities."""

from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.common.kernels import Weighted
from counterpoint.common.losses.base import dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["MixCo", "SoftClip"]


class MixCo(InfoNCE):
    """Mixed rows should find both of their sources in the other modality (M3CoL's MixCo term).

        row i (embedding of b_i x_i + (1 - b_i) x_perm(i)):  target b_i at column i, 1 - b_i at column perm(i)
        L = (CE(rows) + CE(columns)) / 2

    Columns use the transposed targets as they are (their mass b_j + 1 - b_{perm^-1(j)} need not be 1), as in the
    official code. A fixed point of perm gets mass 1 on itself (the code loses it).

    Call with mixed [batch, dim], other [batch, dim], perm [batch], mixing [batch]; mix inputs outside, never in place,
    and (with `distributed`) within each rank.

    Args:
        temperature: T (0.1).

    Source: Kumar et al. 2024. Their schedule: MixCo first, `SoftClip` later; mixing ~ Beta(0.15, 0.15).

    >>> import torch
    >>> z, same = torch.eye(4), torch.ones(4)
    >>> round(MixCo(temperature=1.0)(z, z, perm=torch.tensor([1, 2, 3, 0]), mixing=same).item(), 4)   # InfoNCE
    0.7437
    """

    card = ObjectiveCard(
        paper="M3CoL 2024",
        needs="mixed inputs, their permutation and weights",
        engine="contrast_stats(columns), target_scores(Weighted)",
        status="official numbers",
        checked="official numbers",
    )

    def __init__(
        self,
        temperature: Temperature = 0.1,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)

    def forward(
        self,
        mixed: Float[Tensor, "batch dim"],
        other: Float[Tensor, "batch dim"],
        *,
        perm: Int[Tensor, "batch"],
        mixing: Float[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Mean over rows and columns."""
        here = torch.arange(len(mixed), device=mixed.device)
        mixing = torch.where(perm == here, 1.0, mixing.to(torch.promote_types(mixed.dtype, torch.float32)))
        back, first = torch.argsort(perm), self.own(mixed).start
        rows = Weighted(first + torch.stack([here, perm], 1), torch.stack([mixing, 1 - mixing], 1))
        columns = Weighted(first + torch.stack([here, back], 1), torch.stack([mixing, 1 - mixing[back]], 1))
        return self.mean(self.row_losses(mixed, other, targets=(rows, columns)))


class SoftClip(InfoNCE):
    """CLIP with targets from one modality's own similarities (M3CoL's later phase).

        t_ij = softmax_j(y_i . y_j / sharpness),   L = (CE(rows, t) + CE(columns, t)) / 2

    Both directions use the same row-normalised targets, and the gradient flows through them, as in the official code.
    The targets are an attention over the batch, of rows x dim numbers. Call with za, zb [batch, dim]; targets come
    from zb, or from `teacher`, which gets no gradient.

    Args:
        temperature: T (0.125).
        sharpness: temperature of the targets (0.125).

    Source: Kumar et al. 2024.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(SoftClip(temperature=1.0, sharpness=1e-3)(z, z).item(), 4)    # sharp targets: InfoNCE
    0.7437
    """

    card = ObjectiveCard(
        paper="M3CoL 2024",
        needs="pairs",
        engine="contrast_stats(columns), attention",
        status="official numbers",
        checked="official numbers",
    )

    def __init__(
        self,
        temperature: Temperature = 0.125,
        *,
        sharpness: float = 0.125,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(temperature, **engine)
        self.sharpness = sharpness

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        teacher: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows and columns."""
        (a, b), scale = self.embed(za, zb), self.logit_scale()
        y = b if teacher is None else self.embed(teacher.detach())[0].to(b.dtype)
        stats = self.stats(a, b, scale=scale, columns=True)
        everyone = self.union(y)

        def aimed(keys: Tensor) -> Tensor:
            """sum_j t_ij key_j."""
            return scaled_dot_product_attention(
                y[None, None], everyone[None, None], self.union(keys)[None, None], scale=1 / self.sharpness
            )[0, 0]

        rows = stats.lse - scale * dots(a, aimed(b))
        columns = stats.columns.lse - scale * dots(b, aimed(a))
        return self.mean((rows + columns) / 2)
