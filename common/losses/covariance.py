"""Company without negatives: VICReg, Barlow Twins and W-MSE look at dimensions instead of pairs."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective, row_mean
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.draws import permutation
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["VICReg", "BarlowTwins", "WMSE"]


def _off_diagonal_squares(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, ""]:
    return matrix.square().sum() - matrix.diagonal().square().sum()


class VICReg(Objective):
    """Invariance, variance, covariance (VICReg).

        L = w_i mean (a - b)^2 + w_v/2 sum_views mean_d relu(1 - std_d) + w_c sum_views sum_{d != e} C_de^2 / D

    std_d = sqrt(var_d + eps), var and C unbiased (over B - 1), over the batch of all ranks. One row gives the
    invariance term alone. Embeddings are raw (`normalize=False`).

    Args:
        invariance, variance, covariance: w_i, w_v, w_c (25, 25, 1).
        eps: 1e-4.

    Source: Bardes et al. 2021.

    >>> import torch
    >>> z = torch.tensor([[1., 1.], [-1., 1.], [1., -1.], [-1., -1.]])     # std > 1, no covariance
    >>> VICReg()(z, z).item()
    0.0
    """

    card = ObjectiveCard(
        paper="VICReg 2021",
        needs="two views",
        engine="none (dim x dim)",
        status="official numbers",
        checked="official numbers (facebookresearch/vicreg 4e12602)",
    )
    normalizes = False

    def __init__(
        self,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        eps: float = 1e-4,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.invariance, self.variance, self.covariance, self.eps = invariance, variance, covariance, eps

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """The weighted sum."""
        a, b = (self.union(z) for z in self.embed(za, zb))
        loss = self.invariance * row_mean((a - b).square())
        if len(a) > 1:
            for z in (a, b):
                z = z - z.mean(0)
                covariance = z.T @ z / (len(z) - 1)
                std = torch.sqrt(covariance.diagonal() + self.eps)
                loss = loss + self.variance / 2 * F.relu(1 - std).mean()
                loss = loss + self.covariance * _off_diagonal_squares(covariance) / z.shape[1]
        return loss


class BarlowTwins(Objective):
    """Cross-correlation of the two views' dimensions towards the identity (Barlow Twins).

        C_de = mean_i a'_id b'_ie,   L = sum_d (1 - C_dd)^2 + lam sum_{d != e} C_de^2

    a', b' standardised per dimension over the batch (biased variance, eps 1e-5). Fewer than two rows give zero.
    Barlow's image-text form (BarLIP) is this with 0.025 in front.

    Args:
        lam: 0.0051.

    Source: Zbontar et al. 2021.

    >>> import torch
    >>> z = torch.tensor([[1., 1.], [-1., 1.], [1., -1.], [-1., -1.]])
    >>> BarlowTwins()(z, z).item() < 1e-8
    True
    """

    card = ObjectiveCard(
        paper="Barlow Twins 2021",
        needs="two views",
        engine="none (dim x dim)",
        status="official numbers",
        checked="official numbers (facebookresearch/barlowtwins 8e8d284)",
    )
    normalizes = False

    def __init__(self, lam: float = 0.0051, *, eps: float = 1e-5, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.lam, self.eps = lam, eps

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """One number per batch."""
        a, b = (self.union(z) for z in self.embed(za, zb))
        if len(a) < 2:
            return (a.sum() + b.sum()) * 0
        a, b = ((z - z.mean(0)) / torch.sqrt(z.var(0, unbiased=False) + self.eps) for z in (a, b))
        correlation = a.T @ b / len(a)
        return (1 - correlation.diagonal()).square().sum() + self.lam * _off_diagonal_squares(correlation)


class WMSE(Objective):
    """Distance of the two views after whitening the batch (W-MSE).

        whitened = W (z - mean), W W^T = cov^-1 (Cholesky),  L = mean_i |norm(a_i) - norm(b_i)|^2 = 2 - 2 cos

    Whitening sees sub-batches of `group_size` rows of both views together (a random partition, drawn `repeats` times);
    leftover rows join no sub-batch. A batch smaller than one sub-batch raises.

    Args:
        group_size: rows of the two views per whitening, more than the dimension (paper: twice it; 0: all rows).
        repeats: partitions averaged.
        eps: shrinkage towards the identity, (1 - eps) cov + eps I.
        separate: whiten the rows of each view by themselves, as the official code does; together (the default) half
            the rows are enough.

    Source: Ermolov et al. 2021.

    >>> import torch
    >>> z = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> WMSE()(z, z).item() < 1e-6
    True
    """

    card = ObjectiveCard(
        paper="W-MSE 2021",
        needs="two views",
        engine="none (dim x dim)",
        status="official numbers",
        checked="official numbers (htdt/self-supervised d9662c8) with separate; whiteness",
    )

    def __init__(
        self,
        *,
        group_size: int = 0,
        repeats: int = 1,
        eps: float = 0.0,
        separate: bool = False,
        generator: torch.Generator | None = None,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.group_size, self.repeats, self.eps, self.generator = group_size, repeats, eps, generator
        self.separate = separate

    def forward(self, za: Float[Tensor, "batch dim"], zb: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """Mean over the rows that took part."""
        a, b = (self.union(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z) for z in (za, zb))
        size = (self.group_size // 2) or len(a)
        if not len(a):
            return (a.sum() + b.sum()) * 0
        if size > len(a) or (1 if self.separate else 2) * size <= a.shape[1]:
            counted = "each view by itself" if self.separate else "both views count"
            raise ValueError(
                f"whitening {a.shape[1]} dimensions needs sub-batches of more rows than that ({counted}), within"
                f" the batch: got a batch of {len(a)} and group_size {2 * size}"
            )
        losses = []
        for _ in range(self.repeats):
            order = (
                self.agreed(permutation(len(a), self.generator, a.device))
                if size < len(a)
                else torch.arange(size, device=a.device)
            )
            for start in range(0, len(a) - size + 1, size):
                rows = order[start : start + size]
                if self.separate:
                    x, y = whiten(a[rows], self.eps), whiten(b[rows], self.eps)
                else:
                    x, y = whiten(torch.cat([a[rows], b[rows]]), self.eps).chunk(2)
                if self.normalize:
                    x, y = unit(x, dim=-1), unit(y, dim=-1)
                losses.append((x - y).square().sum(-1))
        return row_mean(torch.cat(losses))


def whiten(z: Float[Tensor, "rows dim"], eps: float = 0.0) -> Float[Tensor, "rows dim"]:
    """Rows with zero mean and identity covariance (unbiased), by the Cholesky factor of the covariance.

    >>> import torch
    >>> z = whiten(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double())
    >>> torch.allclose(z.T @ z / 49, torch.eye(3).double())
    True
    """
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    covariance = (1 - eps) * covariance + eps * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(factor, z.T, upper=False).T
