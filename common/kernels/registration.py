"""The engine as PyTorch operators: `counterpoint::contrast` and its backward, with shapes for the compiler.

A `Problem` travels through the operators as tensors and integers. Second derivatives come from the dense formula:
exact, in rows x columns memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoint.common.kernels import dense, eager
from counterpoint.common.kernels.backends import backend_named
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.packing import DIFFERENTIABLE, TENSORS, pack, second_order, unpack
from counterpoint.common.kernels.problem import Problem, RawStats, Upstream

__all__ = ["contrast"]

_SAVED = ("shift", "sum", "mean", "col_shift", "col_sum", "col_mean", "own", "rest", "col_rest")
_UPSTREAM = ("lse", "positive", "mean", "col_lse", "col_mean")


def contrast(problem: Problem, backend: str, deterministic: bool) -> Outputs:
    """The differentiable statistics of a problem by the named backend.

    As an operator for the compiler, which knows shapes; else as an autograd function, which may keep its tiles.
    """
    if not torch.compiler.is_compiling():
        return eager.statistics(problem, backend_named(backend, deterministic), keep=backend == "tiled")
    masks, layout = pack(problem)
    named = [getattr(problem, name) for name in TENSORS]
    lse, positive, mean, count, col_lse, col_mean, col_count = _contrast(*named, masks, layout, backend, deterministic)[
        :7
    ]
    return Outputs(
        lse,
        None if problem.positive is None else positive,
        mean if problem.mean else None,
        count,
        col_lse if problem.columns else None,
        col_mean if problem.columns and problem.mean else None,
        col_count if problem.columns else None,
    )


# ---- forward --------------------------------------------------------------------------------------------------------


@torch.library.custom_op("counterpoint::contrast", mutates_args=())
def _contrast(
    q: Tensor,
    k: Tensor,
    scale: Tensor,
    col_scale: Tensor | None,
    row_bias: Tensor | None,
    col_bias: Tensor | None,
    positive: Tensor | None,
    valid_cols: Tensor | None,
    score_floor: Tensor | None,
    masks: Sequence[Tensor],
    layout: Sequence[int],
    backend: str,
    deterministic: bool,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor
]:
    """lse, positive, mean, count, the columns' lse, mean, count; then what is saved of sums. Absent ones are empty."""
    named = (q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor)
    problem = unpack(named, masks, layout)
    stats = backend_named(backend, deterministic).forward(problem)
    nothing = problem.scale.new_empty

    def given(t: Tensor | None) -> Tensor:
        return nothing(0) if t is None else t

    column = problem.columns
    return (
        stats.lse,
        given(stats.positive),
        given(stats.mean),
        stats.count,
        stats.col_lse if column else nothing(0),
        given(stats.col_mean),
        stats.col_count if column else nothing(0, dtype=torch.int64),
        stats.shift,
        stats.sum,
        given(stats.col_shift),
        given(stats.col_sum),
        given(stats.own),
        given(stats.rest),
        given(stats.col_rest),
    )


@_contrast.register_fake
def _(
    q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor, masks, layout, backend, deterministic
):
    (n, s, r), c = scale.shape, k.shape[1]
    columns, mean = layout[:2]
    row, col, nothing = (n, s, r), (n, s, c), (0,)
    named = positive is not None and backend != "triton"

    def new(*shape, dtype=scale.dtype):
        return scale.new_empty(shape, dtype=dtype)

    return (
        new(*row),
        new(*(nothing if positive is None else row)),
        new(*(row if mean else nothing)),
        new(n, r, dtype=torch.int64),
        new(*(col if columns else nothing)),
        new(*(col if columns and mean else nothing)),
        new(*((n, c) if columns else nothing), dtype=torch.int64),
        new(*row),
        new(*row),
        new(*(col if columns else nothing)),
        new(*(col if columns else nothing)),
        new(*(row if named else nothing)),
        new(*(row if named else nothing)),
        new(*(col if named and columns and layout[5] else nothing)),
    )


def _setup(ctx, inputs, output):
    named, (masks, layout, backend, deterministic) = inputs[:9], inputs[9:]
    _, _, mean, count, _, col_mean, col_count, shift, total, col_shift, col_sum, own, rest, col_rest = output
    ctx.mark_non_differentiable(count, col_count, shift, total, col_shift, col_sum, own, rest, col_rest)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*named, *masks, shift, total, mean, col_shift, col_sum, col_mean, own, rest, col_rest,
                          count, col_count)  # fmt: skip
    ctx.masks, ctx.layout, ctx.backend, ctx.deterministic = len(masks), layout, backend, deterministic


def _backward(ctx, *grads):
    tensors = ctx.saved_tensors
    named, masks, rest = tensors[:9], tensors[9 : 9 + ctx.masks], tensors[9 + ctx.masks :]
    saved, count, col_count = rest[:9], rest[9], rest[10]
    g_lse, g_positive, g_mean, _, g_col_lse, g_col_mean = grads[:6]
    upstream = [
        _quiet(g_lse, count),
        g_positive,
        _quiet(g_mean, count),
        _quiet(g_col_lse, col_count),
        _quiet(g_col_mean, col_count),
    ]
    needs = [bool(n) for n in ctx.needs_input_grad[:6]]
    found = _contrast_backward(
        *named, list(masks), ctx.layout, ctx.backend, ctx.deterministic, *saved, *upstream, needs
    )
    given = [g if need and t is not None else None for g, need, t in zip(found, needs, named)]
    if ctx.layout[2]:  # self-similarity: all of it is in q's
        given[1] = None
    return *given, None, None, None, [None] * ctx.masks, None, None, None


def _quiet(gradient: Tensor | None, count: Tensor) -> Tensor | None:
    """Rows without columns have no gradient, whatever came from downstream of their -inf."""
    if gradient is None or gradient.numel() == 0:
        return None
    return gradient.masked_fill((count == 0)[:, None], 0.0)


torch.library.register_autograd("counterpoint::contrast", _backward, setup_context=_setup)


# ---- backward -------------------------------------------------------------------------------------------------------


@torch.library.custom_op("counterpoint::contrast_backward", mutates_args=())
def _contrast_backward(
    q: Tensor,
    k: Tensor,
    scale: Tensor,
    col_scale: Tensor | None,
    row_bias: Tensor | None,
    col_bias: Tensor | None,
    positive: Tensor | None,
    valid_cols: Tensor | None,
    score_floor: Tensor | None,
    masks: Sequence[Tensor],
    layout: Sequence[int],
    backend: str,
    deterministic: bool,
    shift: Tensor,
    total: Tensor,
    mean: Tensor,
    col_shift: Tensor,
    col_sum: Tensor,
    col_mean: Tensor,
    own: Tensor,
    rest: Tensor,
    col_rest: Tensor,
    g_lse: Tensor | None,
    g_positive: Tensor | None,
    g_mean: Tensor | None,
    g_col_lse: Tensor | None,
    g_col_mean: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, scale, col_scale, row_bias, col_bias; absent ones are empty."""
    named = (q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor)
    problem = unpack(named, masks, layout)
    values = (shift, total, mean, col_shift, col_sum, col_mean, own, rest, col_rest)
    given = {name: (t if t.numel() else None) for name, t in zip(_SAVED, values)}
    saved = RawStats(**given, count=None)
    upstream = Upstream(g_lse, g_positive, g_mean, g_col_lse, g_col_mean, needs_q=needs[0], needs_k=needs[1])
    found = backend_named(backend, deterministic).backward(problem, saved, upstream)
    result = []
    for name in DIFFERENTIABLE:
        gradient, like = getattr(found, name), getattr(problem, name)
        result.append(scale.new_empty(0) if gradient is None else gradient.to(like.dtype))
    if not needs[1]:
        result[1] = scale.new_empty(0)
    return tuple(result)


@_contrast_backward.register_fake
def _(
    q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor, masks, layout, backend,
    deterministic, shift, total, mean, col_shift, col_sum, col_mean, own, rest, col_rest,
    g_lse, g_positive, g_mean, g_col_lse, g_col_mean, needs,
):  # fmt: skip
    given = [q, None if layout[2] or not needs[1] else k, scale, col_scale, row_bias, col_bias]
    return tuple(scale.new_empty(0) if t is None else t.new_empty(t.shape) for t in given)


def _setup_second(ctx, inputs, output):
    named, (masks, layout, _, _) = inputs[:9], inputs[9:13]
    upstream = inputs[22:27]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*named, *masks, *upstream)
    ctx.masks, ctx.layout = len(masks), layout


def _second_backward(ctx, *grads):
    tensors = ctx.saved_tensors
    named, masks, upstream = tensors[:9], tensors[9 : 9 + ctx.masks], tensors[9 + ctx.masks :]

    def function(problem: Problem) -> list[Tensor | None]:
        outputs = dense.statistics(problem)
        return [getattr(outputs, name) for name in _UPSTREAM]

    of_named, of_upstream = second_order(function, named, masks, ctx.layout, upstream, grads)
    return *of_named, [None] * ctx.masks, None, None, None, *([None] * 9), *of_upstream, None


torch.library.register_autograd("counterpoint::contrast_backward", _second_backward, setup_context=_setup_second)
