"""AMCL: several heads, each pair with its own temperature."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.kernels import Diagonal, Self
from counterpoint.common.losses.base import Objective, dots
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["AMCL"]


class AMCL(Objective):
    """Adaptive multi-head contrast: per head the positive against the hardest negative, each with its own temperature.

        l_i = sum_c [ -s+ / T+ + (1/k) sum_{top-k negatives n} s_n / T_n + beta Omega(T+) - beta mean_n Omega(T_n) ]
        T(z, z') = t_min + (t_max - t_min) sigmoid(-phi(z) . phi(z')),     Omega(T) = (d / 2) log T + 1 / T

    phi is a small MLP shared by all heads. hardest = 1 is the published loss; the released package averages the 100
    hardest. The minus before the negatives' regulariser is in the official tables: it rewards extreme temperatures,
    which the bounds contain. Which pairs are hardest carries no gradient.

    Call with za, zb [heads, batch, dim]: the outputs of the projection heads for both views.

    Args:
        dim: width of the heads' outputs; phi is dim - hidden - dim.
        beta: 1e-4 (SimCLR, MoCo), 1e-6 (Barlow Twins) in the released models.
        bounds: (t_min, t_max).

    Source: Wang et al. 2023; loss tables of the official README.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> loss = AMCL(dim=4)
    >>> loss(torch.eye(4).expand(3, 4, 4), torch.eye(4).expand(3, 4, 4)).shape
    torch.Size([])
    """

    card = ObjectiveCard(
        paper="AMCL 2023",
        needs="two views through several heads",
        engine="topk_scores; listed pairs dense",
        status="equation",
        checked="written-out equation",
    )

    def __init__(
        self,
        dim: int,
        *,
        hidden: int | None = None,
        beta: float = 1e-4,
        hardest: int = 1,
        bounds: tuple[float, float] = (1e-5, 2.0),
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.phi = nn.Sequential(nn.Linear(dim, hidden or dim), nn.ReLU(), nn.Linear(hidden or dim, dim))
        self.dim, self.beta, self.hardest, self.bounds = dim, beta, hardest, bounds

    def forward(self, za: Float[Tensor, "heads batch dim"], zb: Float[Tensor, "heads batch dim"]) -> Float[Tensor, ""]:
        """Sum over heads, mean over the 2 B rows."""
        a, b = self.embed(za, zb)
        return sum((self._head(x, y) for x, y in zip(a, b, strict=True)), a.new_zeros(()))

    def _head(self, a: Tensor, b: Tensor) -> Float[Tensor, ""]:
        batch = len(a)
        z, p = torch.cat([a, b]), self.phi(torch.cat([a, b]))
        partner = (torch.arange(2 * batch, device=z.device) + batch) % max(2 * batch, 1)
        everyone, temper = self.union(z), self.union(p)
        t_pos = self._temperature(p, p[partner])
        loss = -dots(z, z[partner]) / t_pos + self.beta * self._omega(t_pos)
        if len(everyone) > 2:
            k = min(self.hardest, len(everyone) - 2)
            _, hard = self.best(z, z, k, exclude=[Self(), Diagonal(batch), Diagonal(-batch)])
            t_neg = self._temperature(p[:, None], temper[hard])
            push = (z[:, None] * everyone[hard]).sum(-1) / t_neg - self.beta * self._omega(t_neg)
            loss = loss + push.mean(1)
        return self.mean(loss)

    def _temperature(self, p: Tensor, other: Tensor) -> Tensor:
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(-(p * other).sum(-1))

    def _omega(self, t: Tensor) -> Tensor:
        return self.dim / 2 * t.log() + 1 / t
