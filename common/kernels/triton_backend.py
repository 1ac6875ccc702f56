"""The fused backend: statistics and gradients of a `Problem` by Triton kernels.

Memory beyond inputs and gradients: O(rows + columns) statistics, column partials of at most about `PARTIAL_BYTES` and,
for wide features, one block of softmax weights (triton_gradients). Never rows x columns.
"""

import math
from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import tiled
from counterpoint.common.kernels.problem import Gradients, Problem, RawStats, Upstream
from counterpoint.common.kernels.refusal import refusal
from counterpoint.common.kernels.triton_forward import Partial, merge_kernel, positive_kernel, stats_kernel
from counterpoint.common.kernels.triton_gradients import Work, added, side_of, unit_of
from counterpoint.common.kernels.triton_launch import (
    asked_precision,
    at,
    constant_shift,
    keep_of,
    one_exponential,
    processors,
    symmetric,
    terms_of,
    tile,
)
from counterpoint.common.kernels.triton_pairs import pair_sums
from counterpoint.common.kernels.triton_tiles import UpstreamSide

__all__ = ["PARTIAL_BYTES", "TritonBackend"]

PARTIAL_BYTES = 256 * 2**20
MERGE_BLOCK = 256


@dataclass(frozen=True)
class TritonBackend:
    """Answers problems with fused kernels.

    `deterministic=False` lets narrow features (SIDE_MAX_DIM) use atomic additions: 8 instead of 10 R C D operations,
    and last digits that differ between runs.
    """

    deterministic: bool = True

    def unsupported(self, problem: Problem) -> str | None:
        """Why this problem needs another backend; None when it does not."""
        return refusal(problem)

    def forward(self, problem: Problem) -> RawStats:
        if problem.empty:  # no grid to launch
            return tiled.forward(problem)
        with asked_precision(problem):
            return self._forward(problem)

    def _forward(self, problem: Problem) -> RawStats:
        batch, scales, rows, cols, _ = problem.shape
        device, half = problem.q.device, symmetric(problem)
        columns = problem.columns or half
        one_exp = one_exponential(problem)
        row = _empty(problem, rows)
        col = _empty(problem, cols) if columns else None
        positive = None
        if problem.positive is not None:
            positive = torch.empty(batch, scales, rows, device=device)
        for n in range(batch):
            _statistics(problem, n, at(row, n), at(col, n), half, one_exp)
            if half:
                _merge(at(col, n), at(row, n), rows, 0, parts=1)
            if positive is not None:
                _positive_logit(problem, n, positive[n])
        if half:
            col = Partial(*(None if t is None else t.clone() for t in row)) if problem.columns else None
        count = torch.full((batch, rows), cols, device=device) if row.count is None else row.count
        stats = RawStats(_finite(row.shift), row.sum, count, positive, _mean(row))
        if col is not None:
            col_count = torch.full((batch, cols), rows, device=device) if col.count is None else col.count
            stats.col_shift, stats.col_sum, stats.col_count = _finite(col.shift), col.sum, col_count
            stats.col_mean = _mean(col)
        return stats

    def backward(self, problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients:
        if problem.empty:
            return tiled.backward(problem, saved, upstream)
        unit = unit_of(problem, upstream)
        half = symmetric(problem)
        row = side_of(saved.shift, saved.sum, saved.mean, upstream.lse, upstream.mean, unit)
        col = None
        if upstream.col_lse is not None or upstream.col_mean is not None:
            col = side_of(saved.col_shift, saved.col_sum, saved.col_mean, upstream.col_lse, upstream.col_mean, unit)
        if half:  # columns are rows: both sides' derivatives belong to one statistic, met from either end of a pair
            row = row if col is None else added(row, col)
            col = row
        one_exp = col is not None and constant_shift(saved.shift, saved.shift if half else saved.col_shift)
        positive = None if problem.positive is None or upstream.positive is None else upstream.positive / unit
        work = Work(problem, row, col, positive, unit, half, one_exp, needs_k=upstream.needs_k)
        with asked_precision(problem):
            return work.gradients(self.deterministic)

    def pair_sum_forward(self, problem: Problem, fn: str) -> Float[Tensor, "batch rows"]:
        if problem.empty:
            return tiled.pair_sum_forward(problem, fn)
        with asked_precision(problem):
            return pair_sums(problem, fn)

    def pair_sum_backward(self, problem: Problem, fn: str, upstream: Float[Tensor, "batch rows"]) -> Gradients:
        if problem.empty:
            return tiled.pair_sum_backward(problem, fn, upstream)
        unit = unit_of(problem, Upstream(lse=upstream[:, None]))
        row = UpstreamSide(shift=None, lse=(upstream[:, None] / unit).contiguous())
        work = Work(problem, row, None, None, unit, half=False, one_exp=False, fn=fn)
        with asked_precision(problem):
            return work.gradients(self.deterministic)


# ---- forward --------------------------------------------------------------------------------------------------------


def _empty(problem: Problem, length: int, parts: int | None = None) -> Partial:
    """Statistics of no entries for [batch, S, length], or buffers for `parts` partials of one batch element."""
    batch, scales, *_ = problem.shape
    device = problem.q.device
    shape = (batch, scales, length) if parts is None else (parts, scales, length)
    counts, integer = ((batch, length), torch.int64) if parts is None else ((parts, length), torch.int32)
    return Partial(
        shift=torch.full(shape, -math.inf, device=device),
        sum=torch.zeros(shape, device=device),
        weighted=torch.zeros(shape, device=device) if problem.mean else None,
        count=torch.zeros(counts, dtype=integer, device=device) if problem.masked else None,
    )


def _statistics(problem: Problem, n: int, row: Partial, col: Partial | None, half: bool, one_exp: bool) -> None:
    """Row (and column) statistics of batch element n, merged into `row` and `col`."""
    _, scales, rows, cols, dim = problem.shape
    q, k = problem.q[n].contiguous(), problem.k[n].contiguous()
    terms, keep, shape = terms_of(problem, n), keep_of(problem, n), tile("triangle" if half else "stats", q.dtype, dim)
    tiles, col_tiles = triton.cdiv(rows, shape.rows), triton.cdiv(cols, shape.cols)
    at_once = tiles
    if col is not None:
        numbers = 2 * scales + scales * problem.mean + problem.masked
        at_once = max(1, min(tiles, PARTIAL_BYTES // (4 * numbers * cols)))
    splits = max(1, min(col_tiles, 4 * processors(q.device) // at_once))
    for first in range(0, tiles, at_once):
        start = first * shape.rows
        chunk = min(rows - start, at_once * shape.rows)
        grid = (triton.cdiv(chunk, shape.rows), splits)
        row_part = _empty(problem, chunk, splits)
        col_part = None if col is None else _empty(problem, cols, grid[0])
        if one_exp and col_part is not None:
            col_part.shift.zero_()
        stats_kernel[grid](
            q, k, terms, keep, row_part, col_part, rows, cols, dim, start, chunk, splits,
            S=scales, TRIANGLE=half, ONE_EXP=one_exp, **shape.meta(q),
        )  # fmt: skip
        _merge(row_part, row, chunk, start, splits)
        if col is not None:
            _merge(col_part, col, cols, 0, grid[0])


def _merge(part: Partial, whole: Partial, n: int, start: int, parts: int) -> None:
    """part[parts, S, n] into whole[S, length] at `start`."""
    scales, length = whole.sum.shape
    merge_kernel[(triton.cdiv(n, MERGE_BLOCK),)](part, whole, parts, n, start, length, S=scales, BLOCK=MERGE_BLOCK)


def _finite(shift: Tensor) -> Tensor:
    return torch.where(shift == -math.inf, 0.0, shift)


def _mean(total: Partial) -> Tensor | None:
    return None if total.weighted is None else torch.where(total.sum > 0, total.weighted / total.sum, 0.0)


def _positive_logit(problem: Problem, n: int, out: Tensor) -> None:
    _, scales, rows, cols, dim = problem.shape
    q, k, named = problem.q[n].contiguous(), problem.k[n].contiguous(), problem.positive[n].to(torch.int32)
    meta = {"S": scales, "BM": 32, "BD": min(128, max(16, triton.next_power_of_2(dim)))}
    positive_kernel[(triton.cdiv(rows, 32),)](q, k, named, out, terms_of(problem, n), rows, cols, dim, **meta)
