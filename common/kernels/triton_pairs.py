"""Fused additive pair statistics: sum_j fn(logit_ij), with fn(-logit) at the positive. Their gradients share the
softmax statistics' backward kernels (`FN` there)."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels.problem import Problem
from counterpoint.common.kernels.triton_launch import keep_of, processors, terms_of, tile
from counterpoint.common.kernels.triton_tiles import (
    PositiveColumn,
    kept_entries,
    pair_logits,
    tile_scores,
    tile_softplus,
)

__all__ = ["pair_sums"]


@triton.jit
def pair_sum_kernel(
    Q, K, OUT, terms, keep, positive, R, C, D, splits,
    FN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """OUT[splits, R], grid (row tiles, splits): every splits-th column tile."""
    split = tl.program_id(1)
    om = tl.program_id(0) * BM + tl.arange(0, BM)
    total = tl.zeros([BM], tl.float32)
    for t in range(split, tl.cdiv(C, BN), splits):
        on = t * BN + tl.arange(0, BN)
        s = tile_scores(Q, K, om, on, R, C, D, BM, BN, BD, PRECISION, UPCAST)
        kept = kept_entries(s, keep, om, on, R, C, BM, BN)
        x, _ = pair_logits(s, kept, 0, terms, positive, om, on, R, C)
        if FN == "softplus":
            value = tile_softplus(x)
        else:
            value = 1.0 / (1.0 + tl.exp(-x))
        total += tl.sum(tl.where(kept, value, 0.0), 1)
    tl.store(OUT + tl.cast(split, tl.int64) * R + om, total, mask=om < R)


def pair_sums(problem: Problem, fn: str) -> Float[Tensor, "batch rows"]:
    """sum_{j kept} fn(logit_ij) of every row."""
    batch, _, rows, cols, dim = problem.shape
    out = torch.empty(batch, rows, device=problem.q.device)
    shape = tile("stats", problem.q.dtype, dim)
    tiles = triton.cdiv(rows, shape.rows)
    splits = max(1, min(triton.cdiv(cols, shape.cols), 4 * processors(out.device) // tiles))
    for n in range(batch):
        q, k = problem.q[n].contiguous(), problem.k[n].contiguous()
        positive = None
        if problem.positive is not None:
            positive = PositiveColumn(problem.positive[n].to(torch.int32).contiguous(), None)
        parts = torch.empty(splits, rows, device=out.device)
        pair_sum_kernel[(tiles, splits)](
            q, k, parts, terms_of(problem, n), keep_of(problem, n), positive, rows, cols, dim, splits,
            FN=fn, **shape.meta(q),
        )  # fmt: skip
        out[n] = parts.sum(0)
    return out
