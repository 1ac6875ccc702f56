"""Differentiable statistics over the ranks of a process group.

These are `torch.autograd.Function`s and not PyTorch operators: a process group cannot travel through an operator's
schema, and messages must leave in the same order on every rank, which a compiler may not promise. Under torch.compile
they run eagerly.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.problem import Gradients, Problem, RawStats, Upstream
from counterpoint.common.kernels.ring import distributed_backend

__all__ = ["pair_sums", "statistics"]

_INPUTS = ("q", "k", "scale", "col_scale", "row_bias", "col_bias")
_SAVED = ("shift", "sum", "mean", "col_shift", "col_sum", "col_mean")


@torch.compiler.disable
def statistics(problem: Problem, mode: str, process_group: Any, local: Any) -> Outputs:
    """The statistics of the local rows against all ranks' keys, and of the local columns against all ranks' rows."""
    backend = distributed_backend(mode, process_group, local)
    return Outputs(*_Statistics.apply(backend, problem, *(getattr(problem, name) for name in _INPUTS)))


@torch.compiler.disable
def pair_sums(problem: Problem, fn: str, mode: str, process_group: Any, local: Any) -> Tensor:
    """Pair sums [batch, rows] of the local rows over all ranks' keys."""
    backend = distributed_backend(mode, process_group, local)
    return _PairSums.apply(backend, fn, problem, *(getattr(problem, name) for name in _INPUTS))


def _detached(problem: Problem, inputs: tuple[Tensor | None, ...]) -> Problem:
    given = {name: None if t is None else t.detach() for name, t in zip(_INPUTS, inputs, strict=True)}
    return replace(problem, **given)


def _returned(grads: Gradients, inputs: tuple[Tensor | None, ...], needs: tuple[bool, ...]) -> list[Tensor | None]:
    found = (getattr(grads, name) for name in _INPUTS)
    return [g.to(t.dtype) if need and g is not None else None for g, t, need in zip(found, inputs, needs, strict=True)]


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: Any, problem: Problem, *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.backend, ctx.problem = backend, _detached(problem, inputs)
        stats = backend.forward(ctx.problem)
        ctx.save_for_backward(*inputs, stats.count, stats.col_count, *(getattr(stats, name) for name in _SAVED))
        ctx.set_materialize_grads(False)
        if stats.col_count is None:
            ctx.mark_non_differentiable(stats.count)
            return stats.lse, stats.positive, stats.mean, stats.count, None, None, None
        ctx.mark_non_differentiable(stats.count, stats.col_count)
        return stats.lse, stats.positive, stats.mean, stats.count, stats.col_lse, stats.col_mean, stats.col_count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, (count, col_count), saved = ctx.saved_tensors[:6], ctx.saved_tensors[6:8], ctx.saved_tensors[8:]
        stats = RawStats(**dict(zip(_SAVED, saved, strict=True)), count=count, col_count=col_count)
        lse, positive, mean, _, col_lse, col_mean, _ = grads
        needs = ctx.needs_input_grad[2:]
        upstream = Upstream(
            lse=_quiet(lse, count),
            positive=positive,
            mean=_quiet(mean, count),
            col_lse=_quiet(col_lse, col_count),
            col_mean=_quiet(col_mean, col_count),
            needs_q=needs[0],
            needs_k=needs[1],
        )
        found = ctx.backend.backward(ctx.problem, stats, upstream)
        return None, None, *_returned(found, inputs, needs)


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: Any, fn: str, problem: Problem, *inputs: Tensor | None) -> Tensor:
        ctx.backend, ctx.fn, ctx.problem = backend, fn, _detached(problem, inputs)
        ctx.save_for_backward(*inputs)
        return backend.pair_sum_forward(ctx.problem, fn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # raises if one was changed in place since
        found = ctx.backend.pair_sum_backward(ctx.problem, ctx.fn, grad)
        return None, None, None, *_returned(found, inputs, ctx.needs_input_grad[3:])


def _quiet(gradient: Tensor | None, count: Tensor | None) -> Tensor | None:
    """Rows without columns have no gradient, whatever came from downstream of their -inf."""
    return None if gradient is None else gradient.masked_fill((count == 0)[:, None], 0.0)
