"""Norton: clip-caption contrast whose targets are rectified by optimal transport."""

import math
from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Gibbs, Mix, sinkhorn
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.scale import Temperature
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["Norton"]


class Norton(Objective):
    """Clip-caption contrast whose targets are rectified by optimal transport (Norton's clip term).

        target = b Q + (1 - b) I,   Q = B * Sinkhorn plan of the logits (uniform marginals, 50 iterations)
        L = CE(rows, target) + CE(columns, target)          (the sum, as the code: twice a symmetric mean)

    Features are not normalised and the scale is 1 in the official code. The last half-step of Sinkhorn makes the
    columns' mass exact; rows approach it. Q is never formed.

    Args:
        beta: b (0.3). epsilon, iterations: of the transport (1, 50).
        temperature: T (1).

    The published loss adds 0.1 `NortonParagraph`. Source: Lin et al. 2024.

    >>> import torch
    >>> z = 100 * torch.eye(3)
    >>> Norton()(z, z).item() < 1e-6
    True
    """

    card = ObjectiveCard(
        paper="Norton 2024",
        needs="pairs",
        engine="sinkhorn, contrast_stats(columns), target_scores(Gibbs)",
        status="official numbers",
        checked="official numbers (XLearning-SCU/2024-ICLR-Norton 6c80470), transport plan included",
    )
    normalizes = False

    def __init__(
        self,
        temperature: Temperature = 1.0,
        *,
        beta: float = 0.3,
        epsilon: float = 1.0,
        iterations: int = 50,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.contrast = InfoNCE(temperature, **{**engine, "normalize": False})
        self.beta, self.epsilon, self.iterations = beta, epsilon, iterations

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Sum of both directions' means."""
        a, b = self.embed(za, zb)
        return 2 * self.contrast(a, b, targets=self.targets(a, b))

    def targets(self, a: Tensor, b: Tensor) -> tuple[Mix, Mix]:
        """The rectified targets of both directions."""
        scale = self.contrast.logit_scale()
        scale = (scale.detach() if isinstance(scale, Tensor) else scale) / self.epsilon
        a, b = a.detach(), b.detach()
        size = math.log(max(self.count(a), 1))
        g, f = sinkhorn(b * scale, a, epsilon=1.0, iterations=self.iterations, distributed=self.distributed)
        plan = Gibbs(a, b, scale=scale, row_bias=f + size, col_bias=g, normalized=False)
        back = Gibbs(b, a, scale=scale, row_bias=g + size, col_bias=f, normalized=False)
        parts = [(1 - self.beta, Diagonal())]
        return Mix([(self.beta, plan), *parts]), Mix([(self.beta, back), *parts])
