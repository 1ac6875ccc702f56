"""Mod-X: continual contrastive learning that keeps the old model's off-diagonal structure."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Gibbs
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["ModX"]


class ModX(Objective):
    """CLIP on new data plus the old model's similarity distribution where it was right (Mod-X).

        L = CLIP(new) + alpha / 2 sum_directions sum_i 1[old arg-max of row i is i] KL(P_old,i || P_new,i)
        P = softmax_j(s_ij)                                            (raw cosines: no temperature)

    As in the official code the KL is summed over rows, so that its weight per row grows with the batch (there: 280
    rows, alpha 20); `mean_kl=True` averages instead (then alpha B is the same weight). Rows on which the old model was
    wrong are left out. The diagonal stays inside the softmax.

    Call with za, zb and the old model's old_a, old_b for the same batch.

    Args:
        temperature: of the CLIP term.
        alpha: 20 in the published script.

    The loop over phases, with the old model as start and teacher, is `counterpoint.common.trainers.continual`.

    Source: Ni et al. 2023.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(ModX(temperature=1.0)(z, z, z, z).item(), 4)      # nothing forgotten: InfoNCE
    0.7437
    """

    card = ObjectiveCard(
        paper="Mod-X 2023",
        needs="the old model's embeddings",
        engine="contrast_stats(mean, columns), target_scores(Gibbs), topk_scores",
        status="official numbers",
        checked="official numbers (ZixuanNi/Mod-X a6a2f6c)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        alpha: float = 20.0,
        mean_kl: bool = False,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.contrast = InfoNCE(temperature, **engine)
        self.alpha, self.mean_kl = alpha, mean_kl

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        old_a: Float[Tensor, "batch old_dim"],
        old_b: Float[Tensor, "batch old_dim"],
    ) -> Float[Tensor, ""]:
        """CLIP plus the weighted distillation; the share of rows kept is `monitors["kept"]`."""
        return self.contrast(za, zb) + self.distil(za, zb, old_a, old_b)

    def distil(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        old_a: Float[Tensor, "batch old_dim"],
        old_b: Float[Tensor, "batch old_dim"],
    ) -> Float[Tensor, ""]:
        """The weighted distillation alone."""
        a, b = self.embed(za, zb)
        old_a, old_b = self.embed(old_a.detach(), old_b.detach())
        new = self.stats(a, b, columns=True)
        old = self.stats(old_a, old_b, mean=True, columns=True)
        kl, kept = 0.0, []
        sides = ((a, b, old_a, old_b, new, old), (b, a, old_b, old_a, new.columns, old.columns))
        for q, k, old_q, old_k, now, before in sides:
            score, _ = self.target(q, k, Gibbs(old_q, old_k))
            rows = (now.lse - score) - (before.lse - before.mean)
            best = self.best(old_q, old_k, 1)[0][:, 0]
            right = dots(old_q, old_k) >= best - 1e-6  # a tie counts as right
            kept.append(right)
            kl = kl + torch.where(right, rows, torch.zeros_like(rows)).sum() / 2
        self.monitors["kept"] = torch.cat(kept).float().mean()
        # Averaged over ranks, each rank's share of a sum counts once: hence the number of ranks.
        return self.alpha * (self.mean_over(kl, len(a)) if self.mean_kl else kl * self.world)
