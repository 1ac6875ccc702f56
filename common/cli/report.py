"""`report RUN...`: one HTML file that shows a run, or compares several."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Outcome, Vertical


def report(command: Call) -> int:
    """Run the verb."""
    return call(command.program, report_run, command.argv, command.vertical)


def report_run(
    vertical: Vertical,
    run: Path,
    out: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    limit: int | None = 2000,
    examples: int = 6,
    seed: int = 0,
) -> Outcome:
    """Write what there is to see of RUN into one HTML file: figures with intervals, curves, an embedding map, retrieved
    examples, collapse monitors, configuration and environment.

    Args:
        run: the run's folder.
        out: the file to write; RUN/report.html unless given.
        checkpoint: which weights.
        split: train, val or test.
        limit: use only the first samples of the split; null for all.
        examples: queries in the gallery.
        seed: seed of the resampling and of the choice of examples.
    """
    from counterpoint.common.cli.encode import encode_run
    from counterpoint.common.cli.measure import measure
    from counterpoint.common.cli.page import fill
    from counterpoint.common.report import Report

    encoded = encode_run(run, checkpoint, split, limit=limit)
    evaluation = measure(vertical, encoded, seed=seed)
    name = type(encoded.system).__name__
    page = Report(f"{name}: {run.name}", f"{len(encoded)} samples of {split}, {checkpoint} checkpoint")
    fill(page, vertical, encoded, evaluation, run, examples=examples, seed=seed)
    page.reproduce(
        [f"counterpoint {vertical.name} pretrain --resume {run}", f"counterpoint {vertical.name} report {run}"]
    )
    target = page.write(out or run / "report.html")
    return Outcome({"report": str(target)}, (f"wrote {target}",), {"report": target})
