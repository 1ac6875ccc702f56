"""SigLIP: every pair is its own yes-or-no question."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, SameLabel, pair_sum
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import LogitScale, Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["SigLIP"]


class SigLIP(Objective):
    """Sigmoid loss: each pair of the batch is classified as matching or not (SigLIP).

        L = mean_i sum_j softplus(-y_ij (t s_ij + b)),    y_ii = 1, y_ij = -1,    t = exp(t'), t' = log 10, b = -10

    The sum runs over all columns, the mean over rows: the value grows with the batch, as in the paper. Pairs that share
    a `group` id are left out, the positive stays.

    Args:
        temperature: 1 / t; by default a learnable `LogitScale(0.1)` without an upper bound.
        bias, learnable_bias: start of b, and whether it is a parameter.

    Source: Zhai et al. 2023.

    >>> import torch
    >>> z = torch.eye(2)
    >>> round(SigLIP()(z, z).item(), 4)    # log 2 + softplus(-10)
    0.6932
    """

    card = ObjectiveCard(
        paper="SigLIP 2023",
        needs="pairs; optional group",
        engine="pair_sum(softplus)",
        status="official numbers",
        checked="official numbers (open_clip copy in fast_clip)",
    )

    def __init__(
        self,
        temperature: Temperature | None = None,
        *,
        bias: float = -10.0,
        learnable_bias: bool = True,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        free = LogitScale(0.1, max_scale=float("inf"), min_scale=0.0) if temperature is None else temperature
        self.logit_scale = as_scale(free)
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable_bias)

    def forward(
        self,
        za: Float[Tensor, "batch dim"],
        zb: Float[Tensor, "batch dim"],
        *,
        index: Int[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over rows of the sum over columns."""
        a, b = self.embed(za, zb)
        scale, bias = self.logit_scale(), self.bias.to(a.dtype)
        arguments = {
            "fn": "softplus",
            "scale": scale,
            "row_bias": bias.expand(len(a)),
            "distributed": self.distributed,
            "backend": self.backend,
        }
        if group is None:
            return self.mean(pair_sum(a, b, positive=Diagonal(), **arguments))
        negatives = pair_sum(a, b, exclude=SameLabel(group), **arguments)
        return self.mean(negatives + F.softplus(-(scale * dots(a, b) + bias)))
