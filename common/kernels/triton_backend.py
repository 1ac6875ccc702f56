"""The fused backend: statistics and gradients of a `Problem` by Triton kernels.

Memory beyond inputs and gradients: O(rows + columns) statistics, column partials of at most about `PARTIAL_BYTES` and,
for wide features, one block of softmax weights of at most `WEIGHT_BYTES`. Never rows x columns.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from counterpoint.common.kernels.problem import Gradients, Problem, RawStats, Upstream, tensors
from counterpoint.common.kernels.triton_backward import Sums, fused_kernel, side_kernel, weights_kernel
from counterpoint.common.kernels.triton_forward import Partial, merge_kernel, positive_kernel, stats_kernel
from counterpoint.common.kernels.triton_launch import (
    INTERPRET,
    SIDE_MAX_DIM,
    constant_shift,
    keep_of,
    one_exponential,
    processors,
    symmetric,
    terms_of,
    tile,
    unsupported,
)
from counterpoint.common.kernels.triton_tiles import Positive, Side

__all__ = ["PARTIAL_BYTES", "WEIGHT_BYTES", "TritonBackend"]

PARTIAL_BYTES = 256 * 2**20
WEIGHT_BYTES = 512 * 2**20
MERGE_BLOCK = 256


@dataclass(frozen=True)
class TritonBackend:
    """Answers problems with fused kernels.

    `deterministic=False` lets narrow features (D <= 256) use atomic additions: 8 instead of 10 R C D operations, and
    last digits that differ between runs.
    """

    deterministic: bool = True

    def unsupported(self, problem: Problem) -> str | None:
        """Why this problem needs another backend; None when it does not."""
        return unsupported(problem)

    def forward(self, problem: Problem) -> RawStats:
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
            _statistics(problem, n, _at(row, n), _at(col, n), half, one_exp)
            if half:
                _merge(_at(col, n), _at(row, n), rows, 0, parts=1)
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
        batch, _, rows, cols, dim = problem.shape
        device, half = problem.q.device, symmetric(problem)
        unit = _unit(problem, upstream)

        def like(t: Tensor | None) -> Tensor | None:
            return None if t is None else torch.zeros(t.shape, device=device)

        out = Gradients(
            q=torch.zeros(batch, rows, dim, device=device),
            k=None if half else torch.zeros(batch, cols, dim, device=device),
            scale=like(problem.scale),
            col_scale=like(problem.col_scale),
            row_bias=like(problem.row_bias),
            col_bias=like(problem.col_bias),
        )
        row = _side(saved.shift, saved.sum, saved.mean, upstream.lse, upstream.mean, unit)
        col = None
        if upstream.col_lse is not None or upstream.col_mean is not None:
            col = _side(saved.col_shift, saved.col_sum, saved.col_mean, upstream.col_lse, upstream.col_mean, unit)
        if half:  # columns are rows: both sides' derivatives belong to one statistic, met from either end of a pair
            row = row if col is None else _added(row, col)
            col = row
        one_exp = col is not None and constant_shift(saved.shift, saved.shift if half else saved.col_shift)
        for n in range(batch):
            q, k, part = problem.q[n].contiguous(), problem.k[n].contiguous(), _part(out, n)
            positive = _positive(problem, upstream, unit, n)
            what = (terms_of(problem, n), keep_of(problem, n), _at(row, n), _at(col, n), positive)
            if dim > SIDE_MAX_DIM:
                _by_blocks(q, k, what, part, half, one_exp)
            elif half or self.deterministic:
                _by_side(q, k, what, part, half, one_exp, rows=True)
                if not half:
                    _by_side(q, k, what, part, half, one_exp, rows=False)
            else:
                _fused(q, k, what, part, one_exp)
        for t in tensors(out).values():
            t.mul_(unit)
        if half:
            out.scale.mul_(0.5)  # every pair was met from both ends
        elif problem.same:
            out.q += out.k
            out.k = None
        return out


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


def _at(record: Partial | Side | None, n: int) -> Partial | Side | None:
    """Batch element n."""
    return None if record is None else type(record)(*(None if t is None else t[n] for t in record))


def _statistics(problem: Problem, n: int, row: Partial, col: Partial | None, half: bool, one_exp: bool) -> None:
    """Row (and column) statistics of batch element n, merged into `row` and `col`."""
    _, scales, rows, cols, dim = problem.shape
    q, k = problem.q[n].contiguous(), problem.k[n].contiguous()
    terms, keep, shape = terms_of(problem, n), keep_of(problem, n), tile("stats", q.dtype, dim)
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


# ---- backward -------------------------------------------------------------------------------------------------------


def _unit(problem: Problem, upstream: Upstream) -> Tensor:
    """What the derivatives are divided by inside the kernels, so that half-precision weights keep their range.

    A mean over a million rows makes upstream derivatives of 1e-6, and float16 ends at 6e-8.
    """
    one = torch.ones((), device=problem.q.device)
    if problem.q.dtype == torch.float32:
        return one
    size = problem.scale.abs().amax()
    if problem.col_scale is not None:
        size = size * problem.col_scale.abs().amax()
    logit = [t.abs().amax() * size for t in (upstream.lse, upstream.col_lse, upstream.positive) if t is not None]
    score = [t.abs().amax() for t in (upstream.mean, upstream.col_mean) if t is not None]
    largest = sum(logit + score, torch.zeros((), device=problem.q.device))
    if problem.q.dtype == torch.float16:
        largest = largest / 64
    return torch.where(largest > 0, largest, one)


def _side(
    shift: Tensor, total: Tensor, mean: Tensor | None, lse: Tensor | None, mean_grad: Tensor | None, unit: Tensor
) -> Side:
    def per_sum(gradient: Tensor) -> Tensor:
        return torch.where(total > 0, gradient / (total * unit), 0.0)

    weight = torch.zeros_like(total) if lse is None else per_sum(lse)
    if mean_grad is None:
        return Side(shift.contiguous(), weight)
    return Side(shift.contiguous(), weight, mean.contiguous(), per_sum(mean_grad))


def _added(a: Side, b: Side) -> Side:
    mean_grads = [t for t in (a.mean_grad, b.mean_grad) if t is not None]
    mean = b.mean if a.mean is None else a.mean
    return Side(a.shift, a.lse + b.lse, mean, sum(mean_grads[1:], mean_grads[0]) if mean_grads else None)


def _positive(problem: Problem, upstream: Upstream, unit: Tensor, n: int) -> Positive | None:
    if problem.positive is None or upstream.positive is None:
        return None
    return Positive(problem.positive[n].to(torch.int32).contiguous(), (upstream.positive[n] / unit).contiguous())


class _Part(NamedTuple):
    """The gradients of one batch element."""

    q: Tensor
    k: Tensor | None
    scale: Tensor
    col_scale: Tensor | None
    row_bias: Tensor | None
    col_bias: Tensor | None


def _part(out: Gradients, n: int) -> _Part:
    return _Part(*(None if (t := getattr(out, name)) is None else t[n] for name in _Part._fields))


def _sums(out: _Part, parts_row: int, n_rows: int, parts_col: int, n_cols: int, row: bool, col: bool) -> Sums:
    """Buffers for the sums that `out` asks for."""
    scales, device = out.scale.shape[0], out.q.device

    def buffer(wanted: bool, parts: int, n: int) -> Tensor | None:
        return torch.zeros(parts, scales, n, device=device) if wanted else None

    return Sums(
        row_scale=buffer(row, parts_row, n_rows),
        row_bias=buffer(row and out.row_bias is not None, parts_row, n_rows),
        col_scale=buffer(col and out.col_scale is not None, parts_col, n_cols),
        col_bias=buffer(col and out.col_bias is not None, parts_col, n_cols),
    )


ALL = slice(None)


def _collect(sums: Sums, out: _Part, rows: slice = ALL, cols: slice = ALL, times: float = 1.0) -> None:
    if sums.row_scale is not None:
        out.scale[:, rows].add_(sums.row_scale.sum(0), alpha=times)
    if sums.row_bias is not None:
        out.row_bias[:, rows] += sums.row_bias.sum(0)
    if sums.col_scale is not None:
        out.col_scale[cols] += sums.col_scale.sum((0, 1))
    if sums.col_bias is not None:
        out.col_bias[:, cols] += sums.col_bias.sum(0)


def _splits(tiles: int, walk: int, q: Tensor) -> int:
    """How many programs share one tile's walk, so that few tiles still fill the device."""
    return max(1, min(walk, 2 * processors(q.device) // tiles))


def _by_side(q: Tensor, k: Tensor, what: tuple, out: _Part, half: bool, one_exp: bool, rows: bool) -> None:
    """Gradient of one side, each program owning a tile of it."""
    shape, scales = tile("side", q.dtype, q.shape[1]), out.scale.shape[0]
    if not rows:
        shape = shape.turned()
    n_rows, n_cols = q.shape[0], k.shape[0]
    row_tiles, col_tiles = triton.cdiv(n_rows, shape.rows), triton.cdiv(n_cols, shape.cols)
    tiles, walk = (row_tiles, col_tiles) if rows else (col_tiles, row_tiles)
    splits = _splits(tiles, walk, q)
    partial = torch.empty(splits, n_rows if rows else n_cols, q.shape[1], device=q.device)
    sums = _sums(out, splits, n_rows, splits, n_cols, row=rows, col=not rows)
    side_kernel[(tiles, splits)](
        q, k, partial, *what, sums, n_rows, n_cols, q.shape[1], splits,
        S=scales, ROWS=rows, ONE_EXP=one_exp, SYMMETRIC=half, **shape.meta(q),
    )  # fmt: skip
    (out.q if rows else out.k).add_(partial[0] if splits == 1 else partial.sum(0))
    _collect(sums, out)


def _fused(q: Tensor, k: Tensor, what: tuple, out: _Part, one_exp: bool) -> None:
    """Both sides from one walk; the rows' part by atomic additions, whose order is not fixed."""
    shape, scales = tile("side", q.dtype, q.shape[1]).turned(), out.scale.shape[0]
    walk, tiles = triton.cdiv(q.shape[0], shape.rows), triton.cdiv(k.shape[0], shape.cols)
    splits = _splits(tiles, walk, q)
    partial = torch.empty(splits, *k.shape, device=q.device)
    sums = _sums(out, 1, q.shape[0], splits, k.shape[0], row=True, col=True)
    fused_kernel[(tiles, splits)](
        q, k, out.q, partial, *what, sums, q.shape[0], k.shape[0], q.shape[1], splits,
        S=scales, ONE_EXP=one_exp, **shape.meta(q),
    )  # fmt: skip
    out.k.add_(partial[0] if splits == 1 else partial.sum(0))
    _collect(sums, out)


def _by_blocks(q: Tensor, k: Tensor, what: tuple, out: _Part, half: bool, one_exp: bool) -> None:
    """Block by block: one kernel writes the softmax weights W, two library products use them.

    Square blocks make the products compute-bound. A symmetric problem visits the blocks on and above the diagonal.
    """
    shape, scales = tile("weights", q.dtype, q.shape[1]), out.scale.shape[0]
    side = max(128, int(math.sqrt(WEIGHT_BYTES / q.element_size())) // 128 * 128)
    for i in range(0, q.shape[0], side):
        rows = slice(i, min(i + side, q.shape[0]))
        for j in range(i if half else 0, k.shape[0], side):
            cols = slice(j, min(j + side, k.shape[0]))
            n_rows, n_cols = rows.stop - i, cols.stop - j
            weights = torch.empty(n_rows, n_cols, dtype=torch.float32 if INTERPRET else q.dtype, device=q.device)
            grid = (triton.cdiv(n_cols, shape.cols), triton.cdiv(n_rows, shape.rows))
            sums = _sums(out, grid[0], n_rows, grid[1], n_cols, row=True, col=not half)
            weights_kernel[grid](
                q, k, weights, *what, sums, q.shape[0], k.shape[0], q.shape[1], i, j, n_rows, n_cols,
                S=scales, ONE_EXP=one_exp, SYMMETRIC=half, **shape.meta(q),
            )  # fmt: skip
            out.q[rows] += _product(weights, k[cols])
            if not half:
                out.k[cols] += _product(weights.t(), q[rows])
            elif j > i:
                out.q[cols] += _product(weights.t(), q[rows])
            _collect(sums, out, rows, cols, times=2.0 if half and j > i else 1.0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b, accumulated and returned in float32."""
    if b.dtype == torch.float32:
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32) if b.is_cuda else a.float() @ b.float()
