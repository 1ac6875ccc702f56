"""Statistics as autograd functions: what PyTorch differentiates when no compiler looks on.

They serve one process and the ranks of a process group alike (a group cannot travel through an operator's schema, and
messages must leave in the same order on every rank, which a compiler may not promise).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.kernels import dense
from counterpoint.common.kernels.budget import fits
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.problem import Gradients, Problem, RawStats, Upstream

__all__ = ["dense_gradients", "inputs_of", "pair_sums", "statistics", "transformed"]

INPUTS = ("q", "k", "scale", "col_scale", "row_bias", "col_bias")
SAVED = ("shift", "sum", "mean", "col_shift", "col_sum", "col_mean", "own", "rest", "col_rest")


def statistics(problem: Problem, backend: Any, *, keep: bool = False, twice: bool = True) -> Outputs:
    """The differentiable statistics of a problem by a backend.

    keep: the backend may keep its tiles for the backward pass, within the budget. twice: second derivatives are those
    of the dense formula; otherwise an error.
    """
    keep = keep and torch.is_grad_enabled() and fits(problem)
    return Outputs(*_Statistics.apply(backend, problem, (keep, twice), *inputs_of(problem)))


def pair_sums(problem: Problem, fn: str, backend: Any) -> Tensor:
    """Pair sums [batch, rows] by a backend, differentiable once."""
    return _PairSums.apply(backend, fn, problem, *inputs_of(problem))


def transformed(*inputs: Tensor | None) -> bool:
    """Whether torch.func or forward-mode differentiation looks on: the dense formula serves them."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.autograd.forward_ad._current_level < 0:
        return False
    return any(t is not None and torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in inputs)


def inputs_of(problem: Problem) -> list[Tensor | None]:
    inputs = [getattr(problem, name) for name in INPUTS]
    if problem.same:
        inputs[1] = None
    return inputs


def _with(problem: Problem, inputs: tuple[Tensor | None, ...]) -> Problem:
    given = dict(zip(INPUTS, inputs, strict=True))
    if problem.same:
        given["k"] = given["q"]
    return replace(problem, **given)


def _returned(grads: Gradients, inputs: tuple[Tensor | None, ...], needs: tuple[bool, ...]) -> list[Tensor | None]:
    found = (getattr(grads, name) for name in INPUTS)
    return [g.to(t.dtype) if need and g is not None else None for g, t, need in zip(found, inputs, needs, strict=True)]


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, backend: Any, problem: Problem, how: tuple[bool, bool], *inputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        keep, ctx.twice = how
        with torch.autocast(problem.q.device.type, enabled=False):
            plain = _with(problem, tuple(None if t is None else t.detach() for t in inputs))
            stats = backend.forward(plain, keep=True) if keep and any(ctx.needs_input_grad) else backend.forward(plain)
        ctx.backend, ctx.problem = backend, plain
        ctx.tiles = None if stats.kept is None else [len(tiles) for tiles in stats.kept]
        tiles = [tile for tiles in stats.kept or () for tile in tiles]
        ctx.save_for_backward(*inputs, stats.count, stats.col_count, *(getattr(stats, name) for name in SAVED), *tiles)
        ctx.set_materialize_grads(False)
        if stats.col_count is None:
            ctx.mark_non_differentiable(stats.count)
            return stats.lse, stats.positive, stats.mean, stats.count, None, None, None
        ctx.mark_non_differentiable(stats.count, stats.col_count)
        return stats.lse, stats.positive, stats.mean, stats.count, stats.col_lse, stats.col_mean, stats.col_count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, (count, col_count), sums, tiles = saved[:6], saved[6:8], saved[8:17], list(saved[17:])
        needs = ctx.needs_input_grad[3:]
        lse, positive, mean, _, col_lse, col_mean, _ = grads
        quiet = [lse, positive, mean, col_lse, col_mean]
        if ctx.problem.masked:
            quiet = [_quiet(lse, count), positive, _quiet(mean, count), _quiet(col_lse, col_count),
                     _quiet(col_mean, col_count)]  # fmt: skip
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            if not ctx.twice:
                raise RuntimeError("no second derivatives (create_graph=True) across ranks")
            return None, None, None, *dense_gradients(_with(ctx.problem, inputs), inputs, quiet, needs)
        kept = None
        if ctx.tiles is not None:
            rest = iter(tiles)
            kept = [[next(rest) for _ in range(length)] for length in ctx.tiles]
        stats = RawStats(**dict(zip(SAVED, sums, strict=True)), count=count, col_count=col_count, kept=kept)
        upstream = Upstream(*quiet, needs_q=needs[0], needs_k=needs[1])
        with torch.autocast(ctx.problem.q.device.type, enabled=False):
            found = ctx.backend.backward(ctx.problem, stats, upstream)
        return None, None, None, *_returned(found, inputs, needs)


def dense_gradients(
    problem: Problem, inputs: tuple[Tensor | None, ...], upstream: list[Tensor | None], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients that can be differentiated further, by the dense formula."""
    outputs = dense.statistics(problem)
    values = (outputs.lse, outputs.positive, outputs.mean, outputs.col_lse, outputs.col_mean)
    pairs = [(v, g) for v, g in zip(values, upstream) if v is not None and g is not None and v.requires_grad]
    wanted = [i for i, need in enumerate(needs) if need and inputs[i] is not None]
    result: list[Tensor | None] = [None] * len(inputs)
    if pairs and wanted:
        outputs, given = zip(*pairs)
        found = torch.autograd.grad(outputs, [inputs[i] for i in wanted], given, create_graph=True, allow_unused=True)
        for i, gradient in zip(wanted, found):
            result[i] = gradient
    return result


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: Any, fn: str, problem: Problem, *inputs: Tensor | None) -> Tensor:
        ctx.backend, ctx.fn = backend, fn
        ctx.problem = _with(problem, tuple(None if t is None else t.detach() for t in inputs))
        ctx.save_for_backward(*inputs)
        return backend.pair_sum_forward(ctx.problem, fn)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # raises if one was changed in place since
        found = ctx.backend.pair_sum_backward(ctx.problem, ctx.fn, grad)
        return None, None, None, *_returned(found, inputs, ctx.needs_input_grad[3:])


def _quiet(gradient: Tensor | None, count: Tensor | None) -> Tensor | None:
    """Rows without columns have no gradient, whatever came from downstream of their -inf."""
    return None if gradient is None else gradient.masked_fill((count == 0)[:, None], 0.0)
