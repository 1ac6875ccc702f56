"""A `Problem` as the tensors and integers that a PyTorch operator's schema admits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from counterpoint.common.kernels.problem import Band, Columns, CsrPairs, Labels, Primitive, Problem

__all__ = ["DIFFERENTIABLE", "TENSORS", "pack", "second_order", "unpack"]

TENSORS = ("q", "k", "scale", "col_scale", "row_bias", "col_bias", "positive", "valid_cols", "score_floor")
DIFFERENTIABLE = TENSORS[:6]

_KINDS = (Band, Columns, Labels, CsrPairs)


def pack(problem: Problem) -> tuple[list[Tensor], list[int]]:
    """Mask tensors, and integers: the flags, the diagonal, then for each primitive its role, kind and number."""
    layout = [int(f) for f in (problem.columns, problem.mean, problem.same, problem.uniform, problem.fast)]
    layout += [int(problem.diagonal is not None), problem.diagonal or 0]
    masks: list[Tensor] = []
    for role, primitives in enumerate((problem.exclude, problem.only)):
        for primitive in primitives:
            number = 0
            if isinstance(primitive, Band):
                number = primitive.offset
            elif isinstance(primitive, Columns):
                masks.append(primitive.idx)
            elif isinstance(primitive, Labels):
                masks += [primitive.row, primitive.col]
            else:
                masks += [primitive.ptr, primitive.col]
                number = primitive.start
            layout += [role, _KINDS.index(type(primitive)), number]
    return masks, layout


def unpack(named: Sequence[Tensor | None], masks: Sequence[Tensor], layout: Sequence[int]) -> Problem:
    columns, mean, same, uniform, fast, has_diagonal, diagonal = layout[:7]
    rest = iter(masks)
    roles: tuple[list[Primitive], list[Primitive]] = ([], [])
    for at in range(7, len(layout), 3):
        role, kind, number = layout[at : at + 3]
        if kind == 0:
            primitive = Band(number)
        elif kind == 1:
            primitive = Columns(next(rest))
        elif kind == 2:
            primitive = Labels(next(rest), next(rest))
        else:
            primitive = CsrPairs(next(rest), next(rest), number)
        roles[role].append(primitive)
    given = dict(zip(TENSORS, named))
    if same:
        given["k"] = given["q"]
    return Problem(
        **given,
        diagonal=diagonal if has_diagonal else None,
        exclude=tuple(roles[0]),
        only=tuple(roles[1]),
        columns=bool(columns),
        mean=bool(mean),
        same=bool(same),
        uniform=bool(uniform),
        fast=bool(fast),
    )


def second_order(
    function: Callable[[Problem], Sequence[Tensor | None]],
    named: Sequence[Tensor | None],
    masks: Sequence[Tensor],
    layout: Sequence[int],
    upstream: Sequence[Tensor | None],
    downstream: Sequence[Tensor | None],
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Derivatives of sum(gradients * downstream) by differentiating a dense formula twice.

    `gradients` are those of sum(function(problem) * upstream) with respect to the differentiable tensors. Returns the
    derivatives with respect to the nine named tensors and to `upstream`.
    """
    same = bool(layout[2])
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_(i < 6) for i, t in enumerate(named)]
        if same:
            leaves[1] = leaves[0]
        upstream = [None if g is None else g.detach().requires_grad_() for g in upstream]
        outputs = function(unpack(leaves, masks, layout))
        pairs = [(value, g) for value, g in zip(outputs, upstream) if g is not None]
        inputs = {i: t for i, t in enumerate(leaves[:6]) if t is not None and not (same and i == 1)}
        first = torch.autograd.grad(
            [value for value, _ in pairs],
            list(inputs.values()),
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
        chosen = [(f, downstream[i]) for f, i in zip(first, inputs) if f is not None and f.requires_grad]
        chosen = [(f, g.to(f.dtype)) for f, g in chosen if g is not None]
        wanted = list(inputs.values()) + [g for g in upstream if g is not None]
        second = [None] * len(wanted)
        if chosen:
            second = torch.autograd.grad([f for f, _ in chosen], wanted, [g for _, g in chosen], allow_unused=True)
    of_inputs, rest = dict(zip(inputs, second)), iter(second[len(inputs) :])
    return [of_inputs.get(i) for i in range(9)], [None if g is None else next(rest) for g in upstream]
