"""`export`: an encoder as ONNX or a torch.export program, checked number by number against its source."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.data.batch import rows
from counterpoint.common.errors import InputError
from counterpoint.common.formats import Format, export_formats
from counterpoint.common.lazy import resolve
from counterpoint.common.rng import preserved_rng
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.pretrained import save_pretrained
from counterpoint.common.trainers.run_folder import system_name
from counterpoint.common.trainers.tracing import Traced, described, trace, variants


@dataclass(frozen=True)
class ExportReport:
    """What was written and, of a format that runs, how it compares with the source model.

    Attributes:
        inputs, outputs: their names.
        largest_difference: from the source's embeddings, over all checks.
        checked_batches: sizes of the batches that were compared.
        shapes: of every input, in words: free axes by their names, the others with their sizes.
        checked_lengths: other lengths of the free axes that were compared.
        notes: sentences that the user must see.
    """

    path: Path
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    largest_difference: float = 0.0
    checked_batches: tuple[int, ...] = ()
    shapes: Mapping[str, str] = field(default_factory=dict)
    checked_lengths: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def export(
    system: Any,
    path: str | Path,
    format: str | None = None,
    modality: str | None = None,
    batch: Any = None,
    tolerance: float = 1e-4,
    formats: Mapping[str, Format] | None = None,
) -> ExportReport:
    """Write the encoder (in evaluation mode, on the CPU, batch size free) and compare it with the source.

    Axes that the system declares free (`System.inputs`, the time of a signal) stay free, as far as the encoder takes
    other lengths, and are compared at two of them.

    Args:
        system: a trained system.
        path: the file; its ending says the format unless `format` does.
        format: `onnx` (`.onnx`), `torch` (a torch.export program, `.pt2`), or another one of `formats`.
        modality: which embedding; None exports all of them, with all their inputs.
        batch: example inputs (at least two samples); else the first samples of the system's data.
        tolerance: largest allowed difference of an embedding's entry, on the example, a smaller batch, other lengths.
        formats: what there is by name; the suite's and other packages' unless given (`common.formats`).

    Raises:
        InputError: the format is unknown, a package is missing, the model cannot be traced, or the numbers differ.
    """
    path = Path(path)
    known = export_formats() if formats is None else formats
    write = resolve(known[format_of(path, format, known)].write)
    device, training = next(system.parameters()).device, system.training
    system.cpu().eval()
    try:
        with preserved_rng(), torch.no_grad():
            return write(system, path, modality=modality, batch=batch, tolerance=tolerance)
    finally:
        system.to(device).train(training)


def format_of(path: Path, given: str | None, known: Mapping[str, Format]) -> str:
    """The format meant by an ending and a name, which may not contradict each other.

    >>> format_of(Path("encoder.pt2"), None, export_formats())
    'torch'
    """
    if given is not None and given not in known:
        raise no_such("format", given, known)
    endings = {name: f.suffix for name, f in known.items() if f.suffix}
    fitting = [name for name, ending in endings.items() if path.name.endswith(ending)]
    if given in fitting:
        return given
    meant = max(fitting, key=lambda name: len(endings[name]), default=given)
    if meant is None:
        raise InputError(f"{path}: end the name in {' or '.join(endings.values())}, or name the format")
    if given is not None and given != meant:
        raise InputError(
            f"{path}: ends as {meant} files do, but format is {given}; {given} is {known[given].ending}"
        )
    return meant


def write_folder(system: Any, path: Path, **_: Any) -> ExportReport:
    """The format `folder`: see `save_pretrained`."""
    return ExportReport(save_pretrained(system, path))


def write_onnx(system: Any, path: Path, **options: Any) -> ExportReport:
    """The format `onnx`."""
    return _export(system, path, "onnx", **options)


def write_torch(system: Any, path: Path, **options: Any) -> ExportReport:
    """The format `torch`."""
    return _export(system, path, "torch", **options)


def example_batch(system: Any, size: int = 4) -> Any:
    """What the system gives as an example, else the first samples of its validation (else training) data."""
    if (own := system.example()) is not None:
        return own
    datasets: Datasets = system.datasets()
    source = datasets.val if datasets.val is not None else datasets.train
    return source.collate([source[i] for i in range(min(size, len(source)))])


class _Watched(dict):
    """A batch that remembers which entries were read."""

    def __init__(self, batch: Any) -> None:
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
    system: Any, path: Path, format: str, *, modality: str | None, batch: Any, tolerance: float
) -> ExportReport:
    batch = example_batch(system) if batch is None else batch
    if not isinstance(batch, Mapping):
        raise InputError(
            f"{path}: a batch of {type(system).__name__} is one {type(batch).__name__}, and {format} models take "
            "tensors alone; export the weights as .safetensors, or write vectors with `embed`"
        )
    watched = _Watched(batch)
    expected = system.encode(watched, modality)
    if modality is not None and modality not in expected:
        raise InputError(f"modality {modality!r} is not one of {', '.join(expected)}")
    names, outputs = tuple(n for n in watched.read if n in batch), tuple(f"{name}_embedding" for name in expected)
    odd = [n for n in names if not isinstance(batch[n], Tensor)]
    if odd:
        raise InputError(
            f"{path}: {type(system).__name__} reads {odd[0]} as a {type(batch[odd[0]]).__name__}, and {format} "
            "models take tensors alone; export the weights as .safetensors, or write vectors with `embed`"
        )
    whole = bool(names) and all(n in system.inputs and system.inputs[n].first != "batch" for n in names)
    if not whole and rows(batch) < 2:
        raise InputError("export needs an example batch of at least two samples")
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = {n: system.inputs[n].free_axes() for n in names if n in system.inputs and system.inputs[n].free_axes()}
    try:
        traced, why = trace(system, batch, names, modality, wanted)
        run = _written(traced, path, format, outputs, system, modality)
    except InputError:
        raise
    except Exception as error:  # the tracers raise dozens of types; the user needs the sentence
        raise InputError(
            f"{type(system).__name__} cannot be exported ({' '.join(str(error).split())[:300]})"
        ) from error
    tensors = tuple(batch[n] for n in traced.names)
    sizes = () if whole else (rows(batch), rows(batch) - 1)  # a graph is no row of a batch
    checks = [("the example", tensors)] if whole else []
    checks += [(f"{size} samples", tuple(t[:size] for t in tensors)) for size in sizes]
    others = variants(batch, traced.free)
    checks += [(said, tuple(({**batch, **other})[n] for n in traced.names)) for said, other in others]
    lengths = tuple(int(said.removeprefix("length ")) for said, _ in others if said.startswith("length "))
    worst = 0.0
    for said, part in checks:
        try:
            pairs = list(zip(outputs, traced.encoder(*part), run(*part)))
        except Exception as error:  # of the program or its runtime
            path.unlink(missing_ok=True)
            raise InputError(f"the exported file fails at {said} ({' '.join(str(error).split())[:300]})") from error
        for name, mine, theirs in pairs:
            worst = max(worst, float((mine - torch.as_tensor(theirs)).abs().max()))
            if not worst <= tolerance:
                path.unlink(missing_ok=True)
                raise InputError(
                    f"the exported {name} differs from the source by {worst:.2g} at {said} (tolerance {tolerance:g})"
                )
    shapes = {n: described(batch[n], traced.free.get(n, {}), system.inputs.get(n)) for n in traced.names}
    notes = tuple(f"{n}: {axis} is fixed: {why}" for n in traced.names for axis in wanted.get(n, {}).values() if why)
    return ExportReport(path, traced.names, outputs, worst, sizes, shapes, lengths, notes)


def _written(
    traced: Traced, path: Path, format: str, outputs: Sequence[str], system: Any, modality: str | None
) -> Callable[..., Any]:
    """Write the program; returns the function that runs what was written."""
    if format == "torch":
        torch.export.save(traced.program, path, extra_files=_metadata(system, modality))
        return torch.export.load(path).module()
    return _onnx(traced, path, outputs, _metadata(system, modality))


def _metadata(system: Any, modality: str | None) -> dict[str, str]:
    """What a user of the file needs to make its inputs, as text: ONNX metadata, extra files of a torch.export
    program (`torch.export.load(path, extra_files={name: ""})` fills them in)."""
    return {
        "counterpoint.system": system_name(system),
        "counterpoint.modality": modality or "",
        "counterpoint.preprocessing": json.dumps(system.preprocessing(), ensure_ascii=False),
    }


def _onnx(traced: Traced, path: Path, outputs: Sequence[str], metadata: Mapping[str, str]) -> Callable[..., Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX export needs the package {error.name}: pip install 'counterpoint[export]'") from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would list the packages that it can do without
    names = list(traced.names)
    written = torch.onnx.export(traced.program, input_names=names, output_names=list(outputs), verbose=False)
    written.model.metadata_props.update(metadata)
    _name_axes(written.model.graph, {names.index(n): axes for n, axes in traced.free.items()})
    written.save(str(path))
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    return lambda *tensors: session.run(None, {n: t.numpy() for n, t in zip(inputs, tensors)})


def _name_axes(graph: Any, free: Mapping[int, Mapping[int, str]]) -> None:
    """The free axes are called `batch` and as the system calls them, not by the tracer's numbers."""
    first = graph.inputs[0].shape[0]  # a number where the input is a graph's and not free
    meant = {} if isinstance(first, int) else {str(first.value): "batch"}
    for number, axes in free.items():
        meant |= {str(graph.inputs[number].shape[axis].value): name for axis, name in axes.items()}
    if not meant:
        return
    symbols = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in meant))
    for value in [*graph.inputs, *(out for node in graph.all_nodes() for out in node.outputs)]:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:  # unknown sizes are not all the same one
                value.shape[axis] = symbols.sub(lambda found: meant[found[0]], str(size.value))
