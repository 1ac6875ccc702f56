"""`export`: an encoder as ONNX or a torch.export program, checked number by number against its source."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.data.batch import rows
from counterpoint.common.errors import InputError
from counterpoint.common.rng import preserved_rng
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.run_folder import system_name

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}  # with the endings that say so


@dataclass(frozen=True)
class ExportReport:
    """What was written, its inputs and outputs, and the largest difference from the source model."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    largest_difference: float
    checked_batches: tuple[int, ...]


class Encoder(nn.Module):
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


def export(
    system: Any,
    path: str | Path,
    format: str | None = None,
    modality: str | None = None,
    batch: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write the encoder (in evaluation mode, on the CPU, batch size free) and compare it with the source.

    Args:
        system: a trained system.
        path: the file; its ending says the format unless `format` does.
        format: `onnx` (`.onnx`) or `torch` (a torch.export program, `.pt2`).
        modality: which embedding; None exports all of them, with all their inputs.
        batch: example inputs (at least two samples); else the first samples of the system's data.
        tolerance: largest allowed difference of an embedding's entry, on the example and on a smaller batch.

    Raises:
        InputError: the format is unknown, a package is missing, the model cannot be traced, or the numbers differ.
    """
    path = Path(path)
    format = _format(path, format)
    device, training = next(system.parameters()).device, system.training
    system.cpu().eval()
    try:
        with preserved_rng(), torch.no_grad():
            return _export(system, path, format, modality, batch or example_batch(system), tolerance)
    finally:
        system.to(device).train(training)


def _format(path: Path, given: str | None) -> str:
    """The format meant by an ending and a name, which may not contradict each other.

    >>> _format(Path("encoder.pt2"), None)
    'torch'
    """
    if given is not None and given not in FORMATS:
        raise InputError(f"format {given!r} is not one of {', '.join(FORMATS)}")
    meant = next((name for name, ending in FORMATS.items() if path.suffix == ending), given)
    if meant is None:
        raise InputError(f"{path}: end the name in {' or '.join(FORMATS.values())}, or name the format")
    if given is not None and given != meant:
        raise InputError(
            f"{path}: ends as {meant} files do, but format is {given}; {given} files end in {FORMATS[given]}"
        )
    return meant


def example_batch(system: Any, size: int = 4) -> dict[str, Any]:
    """The first samples of the system's validation (else training) data."""
    datasets: Datasets = system.datasets()
    source = datasets.val if datasets.val is not None else datasets.train
    return source.collate([source[i] for i in range(min(size, len(source)))])


class _Watched(dict):
    """A batch that remembers which entries were read."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        super().__init__(batch)
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Any:
        if name not in self.read:
            self.read.append(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.extend({name} - set(self.read))
        return super().get(name, default)


def _export(
    system: Any, path: Path, format: str, modality: str | None, batch: Mapping[str, Any], tolerance: float
) -> ExportReport:
    watched = _Watched(batch)
    expected = system.encode(watched, modality)
    if modality is not None and modality not in expected:
        raise InputError(f"modality {modality!r} is not one of {', '.join(expected)}")
    names, outputs = tuple(watched.read), tuple(f"{name}_embedding" for name in expected)
    odd = [n for n in names if not isinstance(batch[n], Tensor)]
    if odd:
        raise InputError(
            f"{path}: {type(system).__name__} reads {odd[0]} as a {type(batch[odd[0]]).__name__}, and {format} "
            "models take tensors alone; export the weights as .safetensors, or write vectors with `embed`"
        )
    if rows(batch) < 2:
        raise InputError("export needs an example batch of at least two samples")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        encoder, program = _program(system, batch, names, modality, {})
        needed = _reaching(program, names)
        if needed and needed != names:
            idle = {n: batch[n] for n in names if n not in needed}
            encoder, program = _program(system, batch, needed, modality, idle)
            names = needed
        if format == "torch":
            torch.export.save(program, path)
            run = torch.export.load(path).module()
        else:
            run = _onnx(program, path, names, outputs, _metadata(system, modality))
    except InputError:
        raise
    except Exception as error:  # the tracers raise dozens of types; the user needs the sentence
        raise InputError(
            f"{type(system).__name__} cannot be exported ({' '.join(str(error).split())[:300]})"
        ) from error
    tensors = tuple(batch[n] for n in names)
    worst, sizes = 0.0, (rows(batch), rows(batch) - 1)
    for size in sizes:
        part = tuple(t[:size] for t in tensors)
        for name, mine, theirs in zip(outputs, encoder(*part), run(*part)):
            worst = max(worst, float((mine - torch.as_tensor(theirs)).abs().max()))
            if not worst <= tolerance:
                path.unlink(missing_ok=True)
                raise InputError(
                    f"the exported {name} differs from the source by {worst:.2g} (tolerance {tolerance:g})"
                )
    return ExportReport(path, names, outputs, worst, sizes)


def _program(
    system: Any, batch: Mapping[str, Any], names: Sequence[str], modality: str | None, idle: Mapping[str, Tensor]
) -> tuple[Encoder, Any]:
    encoder = Encoder(system, names, modality, idle)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in names)
    tensors = tuple(batch[n] for n in names)
    return encoder, torch.export.export(encoder, tensors, dynamic_shapes=(shapes,), strict=False)


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


def _metadata(system: Any, modality: str | None) -> dict[str, str]:
    """What a user of the file needs to make its inputs, as the text that ONNX metadata hold."""
    return {
        "counterpoint.system": system_name(system),
        "counterpoint.modality": modality or "",
        "counterpoint.preprocessing": json.dumps(system.preprocessing(), ensure_ascii=False),
    }


def _onnx(
    program: Any, path: Path, names: Sequence[str], outputs: Sequence[str], metadata: Mapping[str, str]
) -> Any:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX export needs the package {error.name}: pip install 'counterpoint[export]'") from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would list the packages that it can do without
    written = torch.onnx.export(program, input_names=list(names), output_names=list(outputs), verbose=False)
    written.model.metadata_props.update(metadata)
    _name_axes(written.model.graph)
    written.save(str(path))
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    return lambda *tensors: session.run(None, {n: t.numpy() for n, t in zip(inputs, tensors)})


def _name_axes(graph: Any) -> None:
    """The free axis is called `batch`, not by the tracer's number."""
    symbol = str(graph.inputs[0].shape[0].value)
    for value in [*graph.inputs, *(out for node in graph.all_nodes() for out in node.outputs)]:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                value.shape[axis] = re.sub(rf"\b{re.escape(symbol)}\b", "batch", str(size.value))
