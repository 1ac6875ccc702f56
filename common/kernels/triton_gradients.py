"""Gradients of a problem from the fused backward kernels: which kernel, in which pieces, into which buffers."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from counterpoint.common.kernels.problem import Gradients, Problem, Upstream, tensors
from counterpoint.common.kernels.triton_backward import Sums, fused_kernel, side_kernel, weights_kernel
from counterpoint.common.kernels.triton_launch import INTERPRET, SIDE_MAX_DIM, at, keep_of, processors, terms_of, tile
from counterpoint.common.kernels.triton_tiles import PositiveColumn, UpstreamSide

__all__ = ["WEIGHT_BYTES", "Work", "added", "side_of", "unit_of"]

WEIGHT_BYTES = 512 * 2**20  # one block of softmax weights, for features wider than SIDE_MAX_DIM


@dataclass(frozen=True)
class Work:
    """A problem with everything its backward kernels read."""

    problem: Problem
    row: UpstreamSide  # [batch, S, rows]
    col: UpstreamSide | None
    positive: Tensor | None  # derivative of the positives' logits
    unit: Tensor
    half: bool  # symmetric: see triton_launch.symmetric
    one_exp: bool
    fn: str = "softmax"
    needs_k: bool = True

    def gradients(self, deterministic: bool) -> Gradients:
        problem, device = self.problem, self.problem.q.device

        def like(t: Tensor | None, wanted: bool = True) -> Tensor | None:
            return torch.zeros(t.shape, device=device) if wanted and t is not None else None

        out = Gradients(
            q=like(problem.q),
            k=like(problem.k, not self.half and (self.needs_k or problem.same)),
            scale=like(problem.scale),
            col_scale=like(problem.col_scale),
            row_bias=like(problem.row_bias),
            col_bias=like(problem.col_bias),
        )
        for n in range(problem.shape[0]):
            block = self._block(out, n)
            if problem.shape[4] > SIDE_MAX_DIM[problem.q.dtype]:
                block.by_blocks()
            elif deterministic or block.out.k is None:
                block.by_side(rows=True)
                if any(t is not None for t in (block.out.k, block.out.col_scale, block.out.col_bias)):
                    block.by_side(rows=False)
            else:
                block.fused()
        for t in tensors(out).values():
            t.mul_(self.unit)
        if self.half:
            out.scale.mul_(0.5)  # every pair was met from both ends
        elif problem.same:
            out.q += out.k
            out.k = None
        return out

    def _block(self, out: Gradients, n: int) -> "_Block":
        """Batch element n."""
        problem = self.problem
        positive = None
        if problem.positive is not None and (self.positive is not None or self.fn != "softmax"):
            gradient = None if self.positive is None else self.positive[n].contiguous()
            positive = PositiveColumn(problem.positive[n].to(torch.int32).contiguous(), gradient)
        return _Block(
            q=problem.q[n].contiguous(),
            k=problem.k[n].contiguous(),
            what=(terms_of(problem, n), keep_of(problem, n), at(self.row, n), at(self.col, n), positive),
            out=_Part(*(None if (t := getattr(out, name)) is None else t[n] for name in _Part._fields)),
            half=self.half,
            meta={"S": problem.shape[1], "ONE_EXP": self.one_exp, "FN": self.fn},
        )


class _Part(NamedTuple):
    """The gradients of one batch element."""

    q: Tensor
    k: Tensor | None
    scale: Tensor
    col_scale: Tensor | None
    row_bias: Tensor | None
    col_bias: Tensor | None


@dataclass(frozen=True)
class _Block:
    """One batch element: adds its gradients to `out`."""

    q: Tensor
    k: Tensor
    what: tuple  # terms, keep, row side, column side, positive
    out: _Part
    half: bool
    meta: dict[str, Any]

    def by_side(self, rows: bool) -> None:
        """Gradient of one side, each program owning a tile of it."""
        q, k, out = self.q, self.k, self.out
        shape = tile("side", q.dtype, q.shape[1])
        n_rows, n_cols, dim = q.shape[0], k.shape[0], q.shape[1]
        row_tiles, col_tiles = triton.cdiv(n_rows, shape.rows), triton.cdiv(n_cols, shape.cols)
        tiles, walk = (row_tiles, col_tiles) if rows else (col_tiles, row_tiles)
        splits = _splits(tiles, walk, q)
        partial = torch.empty(splits, n_rows if rows else n_cols, dim, device=q.device)
        sums = self._sums(splits if rows else 0, n_rows, 0 if rows else splits, n_cols)
        side_kernel[(tiles, splits)](
            q, k, partial, *self.what, sums, n_rows, n_cols, dim, splits,
            ROWS=rows, SYMMETRIC=self.half, **self.meta, **shape.meta(q),
        )  # fmt: skip
        home = out.q if rows else out.k
        if home is not None:
            home.add_(partial[0] if splits == 1 else partial.sum(0))
        self._collect(sums)

    def fused(self) -> None:
        """Both sides from one walk; the rows' part by atomic additions, whose order is not fixed."""
        q, k, out = self.q, self.k, self.out
        shape = tile("fused", q.dtype, q.shape[1])
        walk, tiles = triton.cdiv(q.shape[0], shape.rows), triton.cdiv(k.shape[0], shape.cols)
        splits = _splits(tiles, walk, q)
        partial = torch.empty(splits, *k.shape, device=q.device)
        sums = self._sums(1, q.shape[0], splits, k.shape[0])
        fused_kernel[(tiles, splits)](
            q, k, out.q, partial, *self.what, sums, q.shape[0], k.shape[0], q.shape[1], splits,
            **self.meta, **shape.meta(q),
        )  # fmt: skip
        out.k.add_(partial[0] if splits == 1 else partial.sum(0))
        self._collect(sums)

    def by_blocks(self) -> None:
        """Block by block: one kernel writes the softmax weights W, two library products use them.

        Square blocks make the products compute-bound. A symmetric problem visits the blocks on and above the diagonal.
        """
        q, k, out = self.q, self.k, self.out
        shape = tile("mirrored" if self.half else "weights", q.dtype, q.shape[1])
        side = max(128, int(math.sqrt(WEIGHT_BYTES / q.element_size())) // 128 * 128)
        for i in range(0, q.shape[0], side):
            rows = slice(i, min(i + side, q.shape[0]))
            for j in range(i if self.half else 0, k.shape[0], side):
                cols = slice(j, min(j + side, k.shape[0]))
                n_rows, n_cols = rows.stop - i, cols.stop - j
                weights = torch.empty(n_rows, n_cols, dtype=torch.float32 if INTERPRET else q.dtype, device=q.device)
                grid = (triton.cdiv(n_cols, shape.cols), triton.cdiv(n_rows, shape.rows))
                sums = self._sums(grid[0], n_rows, 0 if self.half else grid[1], n_cols)
                weights_kernel[grid](
                    q, k, weights, *self.what, sums, q.shape[0], k.shape[0], q.shape[1], i, j, n_rows, n_cols,
                    SYMMETRIC=self.half, **self.meta, **shape.meta(q),
                )  # fmt: skip
                out.q[rows] += _product(weights, k[cols])
                if out.k is not None:
                    out.k[cols] += _product(weights.t(), q[rows])
                elif self.half and j > i:
                    out.q[cols] += _product(weights.t(), q[rows])
                self._collect(sums, rows, cols, times=2.0 if self.half and j > i else 1.0)

    def _sums(self, row_parts: int, n_rows: int, col_parts: int, n_cols: int) -> Sums:
        """Buffers for the sums that `out` asks for; 0 parts: not on that side."""

        def buffer(parts: int, n: int, wanted: bool = True) -> Tensor | None:
            return torch.zeros(parts, self.meta["S"], n, device=self.q.device) if parts and wanted else None

        out = self.out
        return Sums(
            row_scale=buffer(row_parts, n_rows),
            row_bias=buffer(row_parts, n_rows, out.row_bias is not None),
            col_scale=buffer(col_parts, n_cols, out.col_scale is not None),
            col_bias=buffer(col_parts, n_cols, out.col_bias is not None),
        )

    def _collect(self, sums: Sums, rows: slice = slice(None), cols: slice = slice(None), times: float = 1.0) -> None:
        out = self.out
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


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b, accumulated and returned in float32."""
    if b.dtype == torch.float32:
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32) if b.is_cuda else a.float() @ b.float()


def unit_of(problem: Problem, upstream: Upstream) -> Tensor:
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


def side_of(
    shift: Tensor, total: Tensor, mean: Tensor | None, lse: Tensor | None, mean_grad: Tensor | None, unit: Tensor
) -> UpstreamSide:
    def per_sum(gradient: Tensor) -> Tensor:
        return torch.where(total > 0, gradient / (total * unit), 0.0)

    weight = torch.zeros_like(total) if lse is None else per_sum(lse)
    if mean_grad is None:
        return UpstreamSide(shift.contiguous(), weight)
    return UpstreamSide(shift.contiguous(), weight, mean.contiguous(), per_sum(mean_grad))


def added(a: UpstreamSide, b: UpstreamSide) -> UpstreamSide:
    mean_grads = [t for t in (a.mean_grad, b.mean_grad) if t is not None]
    mean = b.mean if a.mean is None else a.mean
    return UpstreamSide(a.shift, a.lse + b.lse, mean, sum(mean_grads[1:], mean_grads[0]) if mean_grads else None)
