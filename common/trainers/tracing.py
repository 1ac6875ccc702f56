"""An encoder as a program of tensors alone: only the inputs it needs, with the batch and the declared lengths free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.trainers.inputs import Input

#: Axes of an input, by place, that may have another length at every call, with their names.
Free = Mapping[str, Mapping[int, str]]

_SYMBOLIC = 1 << 31  # a bound beyond it is none


class EncoderProgram(nn.Module):
    """`system.encode` for one modality as a module of tensors: inputs by position, one embedding per output.

    `idle` are entries that `encode` reads but whose values reach none of the outputs: constants stand in for them.
    """

    def __init__(
        self, system: Any, inputs: Sequence[str], modality: str | None, idle: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.system, self.inputs, self.modality = system, tuple(inputs), modality
        self.idle = {name: value[:1] for name, value in (idle or {}).items()}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        batch, rows = dict(zip(self.inputs, tensors)), tensors[0].shape[0]  # `len` would fix the size
        batch |= {name: value.expand(rows, *value.shape[1:]) for name, value in self.idle.items()}
        return tuple(self.system.encode(batch, self.modality).values())


@dataclass(frozen=True)
class Traced:
    """The encoder of the inputs that count (`names`), its program, which of their axes are free beside the batch."""

    encoder: EncoderProgram
    program: Any
    names: tuple[str, ...]
    free: Free = field(default_factory=dict)


def trace(
    system: Any, batch: Mapping[str, Any], names: Sequence[str], modality: str | None, wanted: Free
) -> tuple[Traced, str]:
    """(program, why the wanted axes are not free, if they are not).

    They are where the encoder itself takes other lengths, and where tracing binds the program to no range of them.
    """
    if not wanted:
        return _traced(system, batch, names, modality, {}), ""
    try:
        for _, other in variants(batch, wanted):
            system.encode({**batch, **other}, modality)
    except Exception as error:  # whatever a fixed layer says of another length
        return _traced(system, batch, names, modality, {}), f"the encoder takes no other ({_first_words(error)})"
    try:
        found = _traced(system, batch, names, modality, wanted)
        bound = _bound(found, [other for _, other in variants(batch, wanted)])
    except Exception as error:
        bound = _first_words(error)
    if bound:
        return _traced(system, batch, names, modality, {}), f"tracing binds it ({bound})"
    return found, ""


def _traced(
    system: Any, batch: Mapping[str, Any], names: Sequence[str], modality: str | None, free: Free
) -> Traced:
    encoder, program = _program(system, batch, names, modality, {}, free)
    needed = _reaching(program, names)
    if needed and needed != tuple(names):
        idle = {n: batch[n] for n in names if n not in needed}
        encoder, program = _program(system, batch, needed, modality, idle, free)
        names = needed
    return Traced(encoder, program, tuple(names), {n: axes for n, axes in free.items() if n in names})


def _program(
    system: Any,
    batch: Mapping[str, Any],
    names: Sequence[str],
    modality: str | None,
    idle: Mapping[str, Tensor],
    free: Free,
) -> tuple[EncoderProgram, Any]:
    encoder = EncoderProgram(system, names, modality, idle)
    anything = torch.export.Dim.AUTO
    first = {n: {0: torch.export.Dim("batch")} if _batched(system, n) else {} for n in names}
    shapes = tuple({**first[n], **dict.fromkeys(free.get(n, {}), anything)} for n in names)
    tensors = tuple(batch[n] for n in names)
    return encoder, torch.export.export(encoder, tensors, dynamic_shapes=(shapes,), strict=False)


def _batched(system: Any, name: str) -> bool:
    """Whether an input has a row for each sample."""
    known = system.inputs.get(name)
    return known is None or known.first == "batch"


def _bound(traced: Traced, others: Sequence[Mapping[str, Tensor]]) -> str:
    """What ties a free axis to a length or to a range of lengths; empty where any from the shortest of the others on
    will do."""
    nodes = {node.name: node for node in traced.program.graph.nodes}
    for name, placed in zip(traced.names, traced.program.graph_signature.user_inputs):
        for axis, called in traced.free.get(name, {}).items():
            size = nodes[placed].meta["val"].shape[axis]
            if isinstance(size, int):
                return f"to {called} = {size}"
            limits = traced.program.range_constraints.get(size.node.expr)
            shortest = min(other[name].shape[axis] for other in others)
            if limits is None or not limits.upper > _SYMBOLIC or limits.lower > shortest:
                return f"to a range of {called}"
    return ""


def _reaching(program: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The inputs whose values reach an output: a system may embed every modality and hand out one."""
    nodes = {node.name: node for node in program.graph.nodes}
    seen: set[Any] = set()
    waiting = [node for node in program.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += node.all_input_nodes
    inputs = program.graph_signature.user_inputs
    return tuple(name for name, placed in zip(names, inputs) if nodes.get(placed) in seen)


def variants(batch: Mapping[str, Any], free: Free) -> list[tuple[str, dict[str, Tensor]]]:
    """(in words, the inputs with other lengths of their free axes), to be checked beside the example.

    Of a graph there are only more nodes, which nothing names, and fewer or more edges, since edges name nodes.
    """
    own = {called: batch[name].shape[axis] for name, axes in free.items() for axis, called in axes.items()}
    rows = {called for axes in free.values() for axis, called in axes.items() if axis == 0}
    if not own:
        return []
    changed = [{name: max(2 * n // 3 + 1, 2) for name, n in own.items()}, {k: n + n // 2 + 1 for k, n in own.items()}]
    if rows:
        changed[0] |= {name: 2 * own[name] + 1 for name in rows}
    else:  # all axes are one and the same length's
        changed = [dict.fromkeys(own, next(iter(sizes.values()))) for sizes in changed]
    found = []
    for sizes in changed:
        said = ", ".join(f"{n} {name}" for name, n in sizes.items()) if rows else f"length {next(iter(sizes.values()))}"
        found.append((said, {name: resized(batch[name], axes, sizes) for name, axes in free.items()}))
    return found


def resized(value: Tensor, axes: Mapping[int, str], sizes: Mapping[str, int]) -> Tensor:
    """The tensor with other lengths: cut, or begun anew at the end."""
    for axis, name in axes.items():
        value = value.index_select(axis, torch.arange(sizes[name]) % value.shape[axis])
    return value


def described(value: Tensor, free: Mapping[int, str], known: Input | None) -> str:
    """A shape in words.

    >>> described(torch.zeros(2, 256, 3), {1: "time"}, Input("", ("time", "channels"), ("time",)))
    '[batch, time, channels = 3] float32'
    """
    fits = known is not None and len(known.axes) == value.ndim - 1
    called = (known.first, *known.axes) if known is not None and fits else ("batch", *("",) * (value.ndim - 1))
    sizes = [
        free[i] if i in free else name if name == "batch" else f"{name} = {size}" if name else str(size)
        for i, (name, size) in enumerate(zip(called, value.shape))
    ]
    return f"[{', '.join(sizes)}] {str(value.dtype).removeprefix('torch.')}"


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
