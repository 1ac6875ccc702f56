"""`evaluate RUN`: the figures of a checkpoint on a split, with pool sizes, chance and intervals by group."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from counterpoint.common.cli.options import call, jsonable
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Outcome, Vertical


def evaluate(command: Call) -> int:
    """Run the verb."""
    return call(command.program, evaluate_run, command.argv, command.vertical)


def evaluate_run(
    vertical: Vertical,
    run: Path,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    protocols: tuple[str, ...] = (),
    label: str | None = None,
    limit: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 128,
    out: Path | None = None,
) -> Outcome:
    """Evaluate the checkpoint of RUN with every protocol its data allow: retrieval between modalities in both
    directions, label-free measures, probes and neighbours where there are labels, and the system's own.

    Args:
        run: the run's folder.
        checkpoint: which weights.
        split: train, val or test.
        manifest: evaluate on this manifest instead of the run's own data.
        protocols: only these protocols, e.g. retrieval,knn; one that the data do not allow is then an error.
        label: field of the samples that holds their label; needed by probes, neighbours and clustering.
        limit: use only the first samples of each split.
        bootstrap: resamples of the 95 % intervals; groups (patient, piece, scene, ...) are drawn, not rows.
        seed: seed of everything drawn.
        batch_size: samples encoded at a time.
        out: the JSON file; RUN/evaluation-SPLIT.json unless given.
    """
    from counterpoint.common.cli.encode import encode_run
    from counterpoint.common.cli.measure import lines_of, measure

    options = {"manifest": manifest, "batch_size": batch_size, "limit": limit, "label": label}
    encoded = encode_run(run, checkpoint, split, **options)
    others = {}
    if label is not None:
        others = {name: encode_run(run, checkpoint, name, **options) for name in ("train", "val") if name != split}
    evaluation = measure(vertical, encoded, others, protocols=protocols, n_boot=bootstrap, seed=seed)
    target = out or run / f"evaluation-{split}.json"
    figures = {
        "run": str(run),
        "system": type(encoded.system).__name__,
        "checkpoint": checkpoint,
        "split": split,
        "manifest_hash": getattr(getattr(encoded.dataset, "manifest", None), "hash", None),
        "left_out": [{"id": name, "reason": reason} for name, reason in encoded.left_out],
        **evaluation.as_dict(),
    }
    write_json(figures, target)
    what = f"{len(encoded)} samples of {split}, {len(set(encoded.groups))} groups"
    head = f"{type(encoded.system).__name__}, {checkpoint} checkpoint: {what}"
    return Outcome(figures, (head, "", *lines_of(evaluation), "", f"wrote {target}"), {"evaluation": target})


def write_json(figures: dict, target: Path) -> None:
    """Write JSON under a temporary name, then rename: a reader never sees half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(jsonable(figures), indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)
