"""`merge`: statistics over the union of two disjoint sets of columns (queue, shard, rank, private negatives)."""

import torch
from torch import Tensor

from counterpoint.common.kernels.api import ContrastStats

__all__ = ["merge"]


def merge(a: ContrastStats, b: ContrastStats) -> ContrastStats:
    """Exact statistics of the same rows over the union of a's and b's disjoint columns, differentiable.

        lse = log(exp(lse_a) + exp(lse_b)),   mean = p_a mean_a + p_b mean_b  with  p_x = exp(lse_x - lse)

    A row's positive is looked for in both (it may be named by one of them only); column statistics are concatenated.
    A statistic that one of the two lacks is dropped.

    >>> import torch
    >>> from counterpoint.common.kernels import contrast_stats
    >>> q, k = torch.randn(4, 3), torch.randn(10, 3)
    >>> union = merge(contrast_stats(q, k[:7]), contrast_stats(q, k[7:]))
    >>> torch.allclose(union.lse, contrast_stats(q, k).lse)
    True
    """
    if a.lse.shape != b.lse.shape:
        raise ValueError(f"merge needs the same rows and scales, got {tuple(a.lse.shape)} and {tuple(b.lse.shape)}")
    lse = _logaddexp(a.lse, b.lse)
    mean = None
    if a.mean is not None and b.mean is not None:
        base = lse.masked_fill(lse.isneginf(), 0.0)
        mean = (a.lse - base).exp() * a.mean + (b.lse - base).exp() * b.mean
    given = [s.positive for s in (a, b) if s.positive is not None]
    columns = None
    if a.columns is not None and b.columns is not None:
        columns = _side_by_side(a.columns, b.columns)
    return ContrastStats(lse, sum(given) if given else None, mean, a.count + b.count, columns)


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """logaddexp whose gradient is 0, not NaN, where both are -inf."""
    empty = x.isneginf() & y.isneginf()
    return torch.logaddexp(x.masked_fill(empty, 0.0), y.masked_fill(empty, 0.0)).masked_fill(empty, -torch.inf)


def _side_by_side(a: ContrastStats, b: ContrastStats) -> ContrastStats:
    def cat(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        return None if x is None or y is None else torch.cat([x, y], -1)

    return ContrastStats(cat(a.lse, b.lse), cat(a.positive, b.positive), cat(a.mean, b.mean), cat(a.count, b.count))
