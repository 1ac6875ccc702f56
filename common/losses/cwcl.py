"""CWCL: continuously weighted positives from a frozen modality."""

from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Affine, Diagonal
from counterpoint.common.kernels.spec import Target
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["CWCL"]


class CWCL(Objective):
    """Every column is a positive, as much as the frozen modality finds the two samples alike (CWCL).

        w_ij = (1 + <p_i, p_j>) / 2
        L = mean_i [ sum_j w_ij / (sum_j w_ij) (lse_i - s_ij / T) ]  +  CLIP in the other direction

    The weighted direction runs from the frozen (reference) modality p to the trained one; the total is the sum of both
    directions, so with identity weights it is twice the symmetric InfoNCE. The weighted term takes linear time.

    Call with frozen [batch, dim], trained [batch, dim] and optionally `teacher`, the frozen modality's features that
    weigh (default: `frozen` itself), or `targets`, any other target of the engine.

    Args:
        temperature: T or a `LogitScale` (0.07).

    Source: Srinivasa et al. 2023; the weights and the one-sidedness confirmed by a paper that restates them (CellCLIP).
    No code of the authors is public (searched by title, arXiv number and equation); ports of others weigh otherwise.

    >>> import torch
    >>> z = torch.eye(2)
    >>> round(CWCL(temperature=1.0)(z, z).item(), 4)    # w = [[1, .5], [.5, 1]]: lse - 2/3 + lse - 1
    0.9599
    """

    card = ObjectiveCard(
        paper="CWCL 2023",
        needs="a frozen modality (teacher features)",
        engine="contrast_stats(columns), target_scores(Affine)",
        status="equation",
        checked="written-out equation; identity weights give CLIP (no code of the authors is public)",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale = as_scale(temperature)

    def forward(
        self,
        frozen: Float[Tensor, "batch dim"],
        trained: Float[Tensor, "batch dim"],
        *,
        teacher: Float[Tensor, "batch features"] | None = None,
        targets: Target | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows of the weighted direction plus mean over rows of the plain one."""
        p, q = self.embed(frozen, trained)
        if targets is None:
            e = p.detach() if teacher is None else self.embed(teacher.detach())[0]
            targets = Affine(e, e, 0.5, 0.5)
        scale = self.logit_scale()
        stats = self.stats(p, q, scale=scale, positive=Diagonal(), columns=True)
        score, mass = self.target(p, q, targets)
        weighted = stats.lse - scale * score / mass
        return self.mean(weighted) + self.mean(stats.columns.lse - stats.columns.positive)
