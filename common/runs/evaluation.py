"""`evaluate RUN`: the figures of a checkpoint on a split, with pool sizes, chance and intervals by group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from counterpoint.common.errors import InputError
from counterpoint.common.output import table, write_json
from counterpoint.common.vertical import Outcome, Vertical


def evaluate(
    run: Path,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    protocols: tuple[str, ...] = (),
    label: str | None = None,
    prompts: Path | None = None,
    described_in: str | None = None,
    against: Path | None = None,
    baseline: Literal["auto", "untrained", "none"] = "auto",
    corrupt: tuple[str, ...] = (),
    severities: tuple[float, ...] = (0.25, 0.5, 1.0),
    settings: tuple[str, ...] = (),
    layers: bool = False,
    reweight: float | None = None,
    limit: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 128,
    out: Path | None = None,
    *,
    vertical: Vertical | None = None,
) -> Outcome:
    """Evaluate the checkpoint of RUN with every protocol its data allow: retrieval between modalities in both
    directions, label-free measures, probes and neighbours where there are labels, and the system's own. The vectors of
    another encoder need no RUN: see `evaluate --embeddings --help`.

    Args:
        run: the run's folder.
        checkpoint: which weights.
        split: train, val or test.
        manifest: evaluate on this manifest instead of the run's own data.
        protocols: only these protocols, e.g. retrieval,knn; one that the data do not allow is then an error. Only by
            name: efficiency (1, 10, 100 % of the labels), missing (a modality is gone), control (shuffled labels).
        label: field of the samples or column of the manifest that holds their label; needed by probes, neighbours and
            clustering.
        prompts: JSON or YAML file that maps each class to descriptions of it (files beside it, or texts); they are
            encoded and averaged, and samples are classified by the nearest class without any training (zeroshot).
        described_in: modality of the descriptions; the system's first one unless given.
        against: another run; figures are then also compared with its, sample by sample.
        baseline: untrained measures a network of the same shape with its initial weights beside the run's; auto does so
            where at most 2000 samples are to be encoded, none never.
        corrupt: corruptions of the inputs (noise, hide, cut, quantize) under which the figures are measured again.
        severities: how strong; noise and quantize in standard deviations of the sample, hide and cut in shares of it.
        settings: settings of the evaluation that are taken otherwise than the run was configured with, as in
            ranking.convention=mmrec; which there are is said by the system (`pretrain SYSTEM --help`).
        layers: also measure what goes into the projection heads and every layer's output.
        reweight: with layers, the last one also with its dimension k multiplied by this number to the power k.
        limit: use only the first samples of each split.
        bootstrap: resamples of the 95 % intervals; groups (patient, piece, scene, ...) are drawn, not rows.
        seed: seed of everything drawn.
        batch_size: samples encoded at a time.
        out: the JSON file; RUN/evaluation-SPLIT.json unless given.
        vertical: the vertical of the run's system; looked up among the installed ones unless given.
    """
    from counterpoint.common.metrics import compare_evaluations, json_ready
    from counterpoint.common.runs.encode import copied, trained_on, vertical_of_run
    from counterpoint.common.runs.layers import layered
    from counterpoint.common.runs.measure import comparison_lines, examine, lines_of, not_paired
    from counterpoint.common.runs.robust import check_corruptions, corrupted
    from counterpoint.common.trainers.finetuning import FinetuneSystem, Labelled

    check_corruptions(corrupt, severities)
    vertical = vertical or vertical_of_run(run)
    options = {
        "manifest": manifest,
        "protocols": protocols,
        "label": label,
        "prompts": prompts,
        "described_in": described_in,
        "limit": limit,
        "batch_size": batch_size,
        "n_boot": bootstrap,
        "seed": seed,
        "settings": settings,
    }
    seen = examine(vertical, run, checkpoint, split, baseline=baseline, **options)
    encoded, evaluation = seen.encoded, seen.evaluation
    if corrupt:
        more = corrupted(seen, corrupt, severities, batch_size=batch_size, seed=seed)
        evaluation = replace(evaluation, results={**evaluation.results, **more})
    if layers:
        more = layered(seen, reweight, batch_size=batch_size, n_boot=bootstrap, seed=seed)
        evaluation = replace(evaluation, results={**evaluation.results, **more})
    elif reweight is not None:
        raise InputError("--reweight says how the last layer is measured a second time: give --layers too")
    target = out or run / f"evaluation-{split}.json"
    figures = {
        "run": str(run),
        "system": type(encoded.system).__name__,
        "checkpoint": checkpoint,
        "split": split,
        "data": encoded.dataset.hash,
        "synthetic": encoded.synthetic,
        **({"settings": list(settings)} if settings else {}),
        "left_out": [{"id": name, "reason": reason} for name, reason in encoded.left_out],
        **evaluation.as_dict(),
    }
    warning = trained_on(run, encoded)
    figures |= {"trained_on": warning} if warning else {}
    twins = copied(encoded.system, split)
    figures |= {"copies": twins} if twins else {}
    what = f"{len(encoded)} samples of {split}, {len(set(encoded.groups))} groups"
    lines = [f"{type(encoded.system).__name__}, {checkpoint} checkpoint: {what}"]
    lines += [f"SYNTHETIC data: {encoded.synthetic}"] if encoded.synthetic else []
    lines += [f"WARNING: {warning}"] if warning else []
    lines += [f"note: {twins}"] if twins else []
    lines += ["", *lines_of(evaluation, seen.untrained)]
    if isinstance(encoded.system, FinetuneSystem) and isinstance(encoded.dataset, Labelled):
        head = figures["head"] = encoded.system.scores(encoded.dataset)
        what = f"the head of this run on the labelled samples of {split}, calibrated as it predicts:"
        rows = [
            (name, f"{i['value']:.3g}", "" if i["low"] is None else f"{i['low']:.3g} .. {i['high']:.3g}",
             str(i["n"]), str(i["groups"]))
            for name, i in head.get("intervals", {}).items()
            if i["value"] is not None
        ]  # fmt: skip
        lines += ["", what, *table(("metric", "value", "95 % interval", "samples", "groups"), rows)]
        lines += [f"note: head: {note}" for note in head.get("notes", ())]
    if seen.untrained is not None:
        found = compare_evaluations(seen.untrained, seen.evaluation, n_boot=bootstrap, seed=seed)
        values = {f"{name}: {metric}": i.value for name, metric, i, _ in seen.untrained.figures()}
        figures["untrained"] = {"values": json_ready(values), "differences": [c.as_dict() for c in found]}
        if found:
            lines += ["", *comparison_lines(found, "an untrained network of the same shape", str(run))]
    if against is not None:
        other = examine(vertical, against, checkpoint, split, **options)
        if reason := not_paired(seen, other):
            raise InputError(f"--against {against}: {reason}; --manifest gives both the same data")
        found = compare_evaluations(other.evaluation, evaluation, n_boot=bootstrap, seed=seed)
        figures["against"] = {"run": str(against), "differences": [c.as_dict() for c in found]}
        lines += ["", *comparison_lines(found, str(against), str(run))]
    write_json(figures, target)
    return Outcome(figures, (*lines, "", f"wrote {target}"), {"evaluation": target})
