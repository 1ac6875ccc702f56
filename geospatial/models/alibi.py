"""Attention with linear biases over two dimensions: how far apart patches lie, in place of a learnt position.

Press et al., "Train Short, Test Long" (ALiBi), ICLR 2022; Fuller et al., CROMA, NeurIPS 2023 (2D-ALiBi, X-ALiBi).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def alibi_slopes(heads: int) -> Float[Tensor, " heads"]:
    """The heads' slopes: a geometric series from 2^(-8/heads) with that ratio; between powers of two, the series of the
    lower power and every other slope of the next one.

    >>> alibi_slopes(8).tolist()[:3]
    [0.5, 0.25, 0.125]
    """

    def series(n: int) -> list[float]:
        if n & (n - 1) == 0:
            start = 2.0 ** (-8.0 / n)
            return [start ** (i + 1) for i in range(n)]
        lower = 1 << (n.bit_length() - 1)
        return series(lower) + series(2 * lower)[0::2][: n - lower]

    return torch.tensor(series(heads))


def grid_positions(rows: int, cols: int) -> Float[Tensor, "patches 2"]:
    """Row and column of every patch, row by row.

    >>> grid_positions(1, 2).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).reshape(-1, 2).float()


def alibi_bias(
    slopes: Float[Tensor, " heads"], queries: Float[Tensor, "*batch q 2"], keys: Float[Tensor, "*batch k 2"]
) -> Float[Tensor, "*batch heads q k"]:
    """bias_h(p, q) = -slope_h ||p - q||, the Euclidean distance counted in patches.

    Of patches that were kept by a mask, give the positions of those alone: the bias is that part of the whole table.
    Queries of one sensor and keys of the other give X-ALiBi.

    >>> p = grid_positions(3, 3)
    >>> round(alibi_bias(alibi_slopes(16), p, p)[0, 0, 8].item(), 5)
    -2.0
    """
    difference = queries.unsqueeze(-2) - keys.unsqueeze(-3)
    distance = difference.square().sum(-1).sqrt()
    return -slopes[:, None, None] * distance.unsqueeze(-3)


def kept(positions: Float[Tensor, "patches 2"], ids: Int[Tensor, "batch kept"]) -> Float[Tensor, "batch kept 2"]:
    """Positions of the patches that were kept."""
    return positions[ids]


def sincos_2d(rows: int, cols: int, dim: int) -> Float[Tensor, "patches dim"]:
    """Fixed sine-cosine embedding of grid positions, as in MAE: the first half of the width is the column's, the second
    the row's, each half sines then cosines.

    >>> sincos_2d(2, 2, 8).shape
    torch.Size([4, 8])
    """
    if dim % 4:
        raise ValueError(f"dim must be divisible by 4, got {dim}")
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    row, col = grid_positions(rows, cols).double().unbind(-1)

    def waves(x: Tensor) -> Tensor:
        angles = x[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], -1)

    return torch.cat([waves(col), waves(row)], -1).float()


def grid_side(patches: int) -> int:
    """Side of a square grid of patches; `ValueError` where it is none."""
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches make no square grid; give rows and columns")
    return side
