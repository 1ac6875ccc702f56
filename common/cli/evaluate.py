"""`evaluate RUN`: the figures of a checkpoint on a split, with pool sizes, chance and intervals by group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from counterpoint.common.cli.options import call
from counterpoint.common.cli.simple import table
from counterpoint.common.cli.suggest import no_such
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Outcome, Vertical
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve

if TYPE_CHECKING:
    from counterpoint.common.cli.encode import Encoded
    from counterpoint.common.metrics import Evaluation


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
        protocols: only these protocols, e.g. [retrieval,knn]; one that the data do not allow is then an error.
        label: field of the samples that holds their label; needed by probes, neighbours and clustering.
        limit: use only the first samples of each split.
        bootstrap: resamples of the 95 % intervals; groups (patient, piece, scene, ...) are drawn, not rows.
        seed: seed of everything drawn.
        batch_size: samples encoded at a time.
        out: the JSON file; RUN/evaluation-SPLIT.json unless given.
    """
    from counterpoint.common.cli.encode import encode_run

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


def measure(
    vertical: Vertical,
    encoded: Encoded,
    others: dict[str, Encoded] | None = None,
    *,
    protocols: tuple[str, ...] = (),
    n_boot: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate encoded samples; `others` are the splits that probes learn from."""
    from counterpoint.common.cli.encode import entry_of
    from counterpoint.common.metrics import Split, evaluate
    from counterpoint.common.metrics.evaluate import PROTOCOLS

    for name in protocols:
        if name not in PROTOCOLS:
            raise no_such("protocol", name, PROTOCOLS)

    def split(part: Encoded | None) -> Split | None:
        return None if part is None else Split(part.vectors, part.labels, part.groups)

    others = others or {}
    try:
        evaluation = evaluate(
            split(encoded),
            split(others.get("train")),
            split(others.get("val")),
            protocols=protocols or "auto",
            ks=(1, 5, 10, 25),
            seed=seed,
            n_boot=n_boot,
        )
    except ValueError as error:
        # Labels that do not fit the protocol asked for: the user chose both.
        raise InputError(str(error)) from error
    entry = entry_of(vertical, encoded.system)
    if entry is None or entry.protocols is None or protocols:
        return evaluation
    if encoded.left_out:
        reason = f"{len(encoded.left_out)} samples could not be read"
        return replace(evaluation, skipped={**evaluation.skipped, "the system's own": reason})
    own = resolve(entry.protocols)(encoded.system, encoded.dataset, encoded.vectors)
    return replace(evaluation, results={**evaluation.results, **own})


def lines_of(evaluation: Evaluation) -> list[str]:
    """The figures as aligned tables for people."""
    rows = [
        (name, metric, f"{i.value:.3g}", f"{i.low:.3g} .. {i.high:.3g}", "" if chance is None else f"{chance:.3g}")
        for name, metric, i, chance in evaluation.figures()
    ]
    lines = table(("protocol", "metric", "value", "95 % interval", "chance"), rows) if rows else []
    free = [
        (name, str(m.n), str(m.dim), f"{m.rankme:.1f}", f"{m.uniformity:.2f}", f"{m.mean_cosine:.2f}")
        for name, m in evaluation.results.items()
        if hasattr(m, "rankme")
    ]
    if free:
        lines += ["", *table(("label-free", "samples", "dim", "RankMe", "uniformity", "mean cosine"), free)]
    if evaluation.skipped:
        lines += ["", *(f"not run: {name}: {reason}" for name, reason in evaluation.skipped.items())]
    return lines


def write_json(figures: dict, target: Path) -> None:
    """Write JSON under a temporary name, then rename: a reader never sees half a file."""
    import json
    import os

    from counterpoint.common.cli.options import jsonable

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(jsonable(figures), indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)
