"""`counterpoint::pair_sum` and its backward as PyTorch operators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoint.common.kernels import dense
from counterpoint.common.kernels.backends import backend_named
from counterpoint.common.kernels.packing import DIFFERENTIABLE, TENSORS, pack, second_order, unpack
from counterpoint.common.kernels.problem import Problem

__all__ = ["pair_sums"]


def pair_sums(problem: Problem, fn: str, backend: str) -> Tensor:
    """The differentiable pair sums [batch, rows] of a problem by the named backend."""
    masks, layout = pack(problem)
    return _pair_sum(*(getattr(problem, name) for name in TENSORS), masks, layout, fn, backend)


@torch.library.custom_op("counterpoint::pair_sum", mutates_args=())
def _pair_sum(
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
    fn: str,
    backend: str,
) -> Tensor:
    named = (q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor)
    return backend_named(backend, True).pair_sum_forward(unpack(named, masks, layout), fn)


@_pair_sum.register_fake
def _(
    q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor, masks, layout, fn, backend
):  # fmt: skip
    return scale.new_empty(scale.shape[0], scale.shape[2])


def _setup(ctx, inputs, output):
    named, (masks, layout, fn, backend) = inputs[:9], inputs[9:]
    ctx.save_for_backward(*named, *masks)
    ctx.masks, ctx.layout, ctx.fn, ctx.backend = len(masks), layout, fn, backend


def _backward(ctx, grad):
    named, masks = ctx.saved_tensors[:9], ctx.saved_tensors[9:]
    found = _pair_sum_backward(*named, list(masks), ctx.layout, ctx.fn, ctx.backend, grad)
    needs = ctx.needs_input_grad[:6]
    given = [g if need and t is not None else None for g, need, t in zip(found, needs, named)]
    if ctx.layout[2]:
        given[1] = None
    return *given, None, None, None, [None] * ctx.masks, None, None, None


torch.library.register_autograd("counterpoint::pair_sum", _backward, setup_context=_setup)


@torch.library.custom_op("counterpoint::pair_sum_backward", mutates_args=())
def _pair_sum_backward(
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
    fn: str,
    backend: str,
    upstream: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    named = (q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor)
    problem = unpack(named, masks, layout)
    found = backend_named(backend, True).pair_sum_backward(problem, fn, upstream)
    gradients = [(getattr(found, name), getattr(problem, name)) for name in DIFFERENTIABLE]
    return tuple(scale.new_empty(0) if g is None else g.to(like.dtype) for g, like in gradients)


@_pair_sum_backward.register_fake
def _(
    q, k, scale, col_scale, row_bias, col_bias, positive, valid_cols, score_floor, masks, layout, fn, backend, upstream
):  # fmt: skip
    given = [q, None if layout[2] else k, scale, col_scale, row_bias, col_bias]
    return tuple(scale.new_empty(0) if t is None else t.new_empty(t.shape) for t in given)


def _setup_second(ctx, inputs, output):
    named, (masks, layout, fn, _, upstream) = inputs[:9], inputs[9:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*named, *masks, upstream)
    ctx.masks, ctx.layout, ctx.fn = len(masks), layout, fn


def _second_backward(ctx, *grads):
    tensors = ctx.saved_tensors
    named, masks, upstream = tensors[:9], tensors[9 : 9 + ctx.masks], tensors[9 + ctx.masks :]
    of_named, of_upstream = second_order(
        lambda problem: [dense.pair_sums(problem, ctx.fn)], named, masks, ctx.layout, upstream, grads
    )
    return *of_named, [None] * ctx.masks, None, None, None, *of_upstream


torch.library.register_autograd("counterpoint::pair_sum_backward", _second_backward, setup_context=_setup_second)
