"""CLIP's contrast of a small batch on a CPU: all logits are one tile, with few operations beside its three products.

In so small a batch the many small operations of the general sweep cost as much as the products do. The statistics are
the same: two features' rows, one scale, nothing left out, positives on the diagonal or none.
"""

import contextlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import precision
from counterpoint.common.kernels.budget import kept_budget
from counterpoint.common.kernels.eager import dense_gradients, transformed
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.spec import Diagonal
from counterpoint.common.kernels.sweep import LN2, LOG2E, forced_tiles, headroom, row_dots

__all__ = ["PAIRS", "fits_one_tile", "statistics"]

# Beyond, tiles that stay in a core's cache are as fast (benchmarks/engine.py --kept).
PAIRS = 2048 * 2048

Statistics = tuple[Float[Tensor, "rows"] | None, Float[Tensor, "rows"] | None, Float[Tensor, "columns"] | None]


def fits_one_tile(q: Tensor, k: Tensor, scale: float | Tensor, diagonal: bool) -> bool:
    """Whether the features are of this kind, and nobody but plain reverse-mode differentiation looks on."""
    if not (isinstance(q, Tensor) and isinstance(k, Tensor) and q.dim() == k.dim() == 2) or q is k:
        return False
    rows, columns, dtype = len(q), len(k), q.dtype
    if q.shape[1] != k.shape[1] or not rows or not columns or (diagonal and rows != columns):
        return False
    if dtype not in (torch.float32, torch.float64) or rows * columns > min(PAIRS, kept_budget() // dtype.itemsize):
        return False
    tensors = [q, k, scale] if isinstance(scale, Tensor) else [q, k]
    if any(t.dtype != dtype or t.device.type != "cpu" for t in tensors) or (len(tensors) == 3 and scale.dim()):
        return False
    if torch.compiler.is_compiling() or transformed(*tensors):
        return False
    return not (precision.is_fast() or forced_tiles())


def statistics(
    q: Float[Tensor, "rows dim"],
    k: Float[Tensor, "columns dim"],
    scale: float | Float[Tensor, ""],
    diagonal: bool,
    columns: bool,
) -> Statistics | None:
    """Differentiable (lse, positive, the columns' lse); None where the logits do not fit under one exponential."""
    with _wide():
        found = _OneTile.apply(q, k, scale, diagonal, columns)
    return None if found[0] is None else found


def _wide() -> contextlib.AbstractContextManager:
    """Products keep their type under autocast, too."""
    on = torch.is_autocast_enabled("cpu")
    return torch.autocast("cpu", enabled=False) if on else contextlib.nullcontext()


class _OneTile(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, scale: float | Tensor, diagonal: bool, columns: bool) -> Statistics:
        e = torch.mm(q * (scale * LOG2E), k.t())
        low, high = (bound.item() for bound in e.aminmax())
        limit = headroom(q.dtype) * LOG2E
        if not high - low <= 2 * limit:  # also where a logit is not a number
            return None, None, None
        shift = 0.0 if low >= -limit and high <= limit else high - limit
        positive = e.diagonal() * LN2 if diagonal else None
        if shift:
            e.sub_(shift)
        e.exp2_()
        if diagonal:  # the others' sums are kept apart, so that 1 - p is known where p rounds to 1
            own = e.diagonal().clone()
            e.diagonal().zero_()
        rest, col_rest = e.sum(1), e.sum(0) if columns else None
        total = rest + own if diagonal else rest
        col_total = col_rest + own if diagonal and columns else col_rest
        ctx.save_for_backward(q, k, scale if isinstance(scale, Tensor) else None, e, rest, total, col_rest, col_total)
        ctx.number, ctx.diagonal, ctx.columns = None if isinstance(scale, Tensor) else scale, diagonal, columns
        ctx.set_materialize_grads(False)
        lse, col_lse = total.log(), col_total.log() if columns else None
        if shift:
            lse.add_(shift * LN2)
            if columns:
                col_lse.add_(shift * LN2)
        return lse, positive, col_lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """With A = g_lse / sum and B its counterpart down the columns, d loss / d logit_ij = e_ij (A_i + B_j).

        At the positive it is (g_positive + g_lse + g_col_lse) - A rest - B col_rest: the others' share, never 1 less a
        number that rounds to 1.
        """
        q, k, scale, e, rest, total, col_rest, col_total = ctx.saved_tensors
        of_q, of_k, of_scale = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            return *_again(ctx, q, k, scale, grads), None, None
        scale = ctx.number if scale is None else scale
        lse, positive, col_lse = grads
        row = None if lse is None else lse / total
        column = None if col_lse is None else col_lse / col_total
        if row is not None and column is not None:
            weight = torch.add(row[:, None], column).mul_(e)
        elif row is None and column is None:
            weight = torch.zeros_like(e)
        else:
            weight = e * (row[:, None] if column is None else column)
        if ctx.diagonal:
            # First what cancels exactly in a cross-entropy, then the others' share.
            own = torch.zeros_like(rest) if positive is None else positive
            for given in (lse, col_lse):
                own = own if given is None else own + given
            for factor, others in ((row, rest), (column, col_rest)):
                own = own if factor is None else torch.addcmul(own, factor, others, value=-1)
            weight.diagonal().copy_(own)
        with _wide():
            grad_k = torch.mm(weight.t(), q * scale) if of_k else None
            grad_q = torch.mm(weight, k) if of_q or of_scale else None
        grad_scale = row_dots(q, grad_q).sum() if of_scale else None
        return grad_q.mul_(scale) if of_q else None, grad_k, grad_scale, None, None


def _again(ctx: Any, q: Tensor, k: Tensor, scale: Tensor | None, grads: tuple[Tensor | None, ...]) -> list:
    """Gradients that can be differentiated further, by the dense formula."""
    positive = Diagonal() if ctx.diagonal else None
    number = ctx.number if scale is None else scale
    problem, _, _ = flatten(q, k, scale=number, positive=positive, columns=ctx.columns)
    lse, own, col_lse = (None if g is None else g[None, None] for g in grads)
    return dense_gradients(problem, (q, k, scale), [lse, own, None, col_lse, None], ctx.needs_input_grad[:3])
