"""`export RUN`: the encoder for others, checked number by number against its source."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.formats import export_formats
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical


def export(
    run: Path,
    out: Path,
    format: str = "auto",
    modality: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    tolerance: float = 1e-4,
    *,
    vertical: Vertical | None = None,
) -> Outcome:
    """Write the encoder of RUN for others: as ONNX, as a torch.export program, as a folder of safetensors and JSON, or
    in another registered format.

    Args:
        run: the run's folder.
        out: the file to write (.onnx, .pt2), or the folder (from_pretrained reads it back).
        format: one of the formats listed below; auto goes by the ending, and a name without one is a folder.
        modality: which embedding; all of them unless given.
        checkpoint: which weights.
        tolerance: largest difference from the source that is allowed.
        vertical: the vertical of the run's system; looked up among the installed ones unless given.
    """
    from counterpoint.common.runs.encode import vertical_of_run
    from counterpoint.common.trainers import load_run
    from counterpoint.common.trainers.exporting import export, format_of

    known = export_formats((vertical or vertical_of_run(run)).export_formats)
    given = None if format == "auto" else format
    name = "folder" if given is None and not out.suffix else format_of(out, given, known)
    system = load_run(run, checkpoint)
    if modality is not None and modality not in system.modalities:
        raise no_such("modality", modality, system.modalities)
    system.stage = list(system.stages())[-1]
    report = export(system, out, name, modality, tolerance=tolerance, formats=known)
    if not report.inputs:
        figures = {"path": str(report.path), "format": name}
        return Outcome(figures, (f"wrote {report.path}", *report.notes), {"model": report.path})
    figures = {
        "path": str(report.path),
        "format": name,
        "shapes": report.shapes,
        "checked_lengths": report.checked_lengths,
        "notes": report.notes,
        "inputs": report.inputs,
        "outputs": report.outputs,
        "largest_difference": report.largest_difference,
        "checked_batches": report.checked_batches,
    }
    words = f"{', '.join(f'{n} {shape}' for n, shape in report.shapes.items())} -> {', '.join(report.outputs)}"
    at = f", also at lengths {', '.join(map(str, report.checked_lengths))}" if report.checked_lengths else ""
    checked = f"largest difference from the source {report.largest_difference:.2g}{at}"
    lines = (f"wrote {report.path}: {words}", checked, *(f"note: {said}" for said in report.notes))
    return Outcome(figures, lines, {"model": report.path})
