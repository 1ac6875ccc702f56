"""`report RUN...`: one HTML file that shows a run, or compares several."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome, Vertical


def report(
    run: Path,
    *others: Path,
    out: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    label: str | None = None,
    limit: int | None = 2000,
    examples: int = 6,
    bootstrap: int = 1000,
    seed: int = 0,
    vertical: Vertical | None = None,
) -> Outcome:
    """Write what there is to see of RUN into one HTML file: figures with intervals, curves, an embedding map, retrieved
    examples, collapse monitors, configuration and environment. With several runs, compare them: figures side by side
    and paired differences from the first run, sample by sample. The vectors of
    another encoder need no RUN: see `report --embeddings --help`.

    Args:
        run: the run's folder.
        *others: further runs, compared with the first one.
        out: the file to write; RUN/report.html unless given, RUN/comparison.html for several runs.
        checkpoint: which weights.
        split: train, val or test.
        manifest: show the runs on this manifest instead of each run's own data.
        label: field of the samples or column of the manifest that holds their label; brings probes and neighbours.
        limit: use only the first samples of each split; null for all.
        examples: queries in the gallery.
        bootstrap: resamples of the 95 % intervals.
        seed: seed of the resampling and of the choice of examples.
        vertical: the vertical of the run's system; looked up among the installed ones unless given.
    """
    from counterpoint.common.report import Report
    from counterpoint.common.runs.encode import vertical_of_run
    from counterpoint.common.runs.measure import examine
    from counterpoint.common.runs.page import fill
    from counterpoint.common.runs.side_by_side import fill_comparison, names_of_runs

    vertical = vertical or vertical_of_run(run)
    runs = [run, *others]
    if len({path.resolve() for path in runs}) < len(runs):
        raise InputError("a run is given twice; a comparison needs different runs")
    names = names_of_runs(runs)
    options = {"manifest": manifest, "limit": limit, "label": label}
    seen = {
        name: examine(vertical, path, checkpoint, split, n_boot=bootstrap, seed=seed, **options)
        for name, path in zip(names, runs)
    }
    first = seen[names[0]]
    groups = len(set(first.encoded.groups))
    what = f"{len(first.encoded):,} samples of {groups:,} groups ({split} split), {checkpoint} checkpoint"
    what += f", labels: {label}" if label is not None else ""
    synthetic = "; ".join(dict.fromkeys(e.encoded.synthetic for e in seen.values() if e.encoded.synthetic))
    if others:
        page = Report(f"{' and '.join(names)} compared", f"On {what}", synthetic=synthetic)
        fill_comparison(page, vertical, seen, dict(zip(names, runs)), examples=examples, n_boot=bootstrap, seed=seed)
    else:
        page = Report(type(first.encoded.system).__name__, f"Run {run}: {what}", synthetic=synthetic)
        fill(page, vertical, first.encoded, first.evaluation, run, examples=examples, seed=seed)
    extra = [f"--{name} {value}" for name, value in (("manifest", manifest), ("label", label)) if value is not None]
    again = " ".join(["counterpoint", vertical.name, "report", *map(str, runs), f"--split {split}", *extra])
    page.reproduce([*(f"counterpoint {vertical.name} pretrain --resume {path}" for path in runs), again])
    target = page.write(out or run / ("comparison.html" if others else "report.html"))
    return Outcome({"report": str(target)}, (f"wrote {target}",), {"report": target})
