"""`export RUN`: the encoder for others, checked number by number against its source."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome


def export(
    run: Path,
    out: Path,
    format: Literal["auto", "onnx", "torch", "folder"] = "auto",
    modality: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    tolerance: float = 1e-4,
) -> Outcome:
    """Write the encoder of RUN as ONNX, as a torch.export program, or as a folder of safetensors and JSON.

    Args:
        run: the run's folder.
        out: the file to write (.onnx, .pt2), or the folder (from_pretrained reads it back).
        format: onnx (extra export), torch or folder; auto goes by the ending, and a name without one is a folder.
        modality: which embedding; all of them unless given.
        checkpoint: which weights.
        tolerance: largest difference from the source that is allowed.
    """
    from counterpoint.common.trainers import load_run
    from counterpoint.common.trainers.exporting import export
    from counterpoint.common.trainers.pretrained import save_pretrained

    system = load_run(run, checkpoint)
    if modality is not None and modality not in system.modalities:
        raise no_such("modality", modality, system.modalities)
    if format == "folder" or (format == "auto" and not out.suffix):
        target = save_pretrained(system, out)
        return Outcome({"path": str(target)}, (f"wrote {target}",), {"model": target})
    system.stage = list(system.stages())[-1]
    report = export(system, out, None if format == "auto" else format, modality, tolerance=tolerance)
    figures = {
        "path": str(report.path),
        "inputs": report.inputs,
        "outputs": report.outputs,
        "largest_difference": report.largest_difference,
        "checked_batches": report.checked_batches,
    }
    words = f"{', '.join(report.inputs)} -> {', '.join(report.outputs)}"
    checked = f"largest difference from the source {report.largest_difference:.2g}"
    return Outcome(figures, (f"wrote {report.path}: {words}", checked), {"model": report.path})
