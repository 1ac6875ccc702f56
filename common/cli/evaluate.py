"""`evaluate RUN`: the figures of a checkpoint on a split, with pool sizes, chance and intervals by group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.cli.options import call, jsonable
from counterpoint.common.cli.simple import table
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Outcome, Vertical
from counterpoint.common.lazy import resolve


def evaluate(command: Call) -> int:
    """Run the verb."""
    return call(command.program, evaluate_run, command.argv, command.vertical)


def evaluate_run(
    vertical: Vertical,
    run: Path,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    limit: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 128,
) -> Outcome:
    """Evaluate the checkpoint of RUN: retrieval between its modalities in both directions, label-free measures of each,
    and the system's own protocols. Written to RUN/evaluation-SPLIT.json.

    Args:
        run: the run's folder.
        checkpoint: which weights.
        split: train, val or test.
        manifest: evaluate on this manifest instead of the run's own data.
        limit: use only the first samples of the split.
        bootstrap: resamples of the 95 % intervals; groups (patient, piece, scene, ...) are drawn, not rows.
        seed: seed of the resampling.
        batch_size: samples encoded at a time.
    """
    from counterpoint.common.cli.encode import encode_run

    encoded = encode_run(run, checkpoint, split, manifest=manifest, batch_size=batch_size, limit=limit)
    results = measure(vertical, encoded, bootstrap=bootstrap, seed=seed)
    figures = {
        "run": str(run),
        "system": type(encoded.system).__name__,
        "checkpoint": checkpoint,
        "split": split,
        "samples": len(encoded),
        "groups": len(set(encoded.groups)),
        "left_out": [{"id": name, "reason": reason} for name, reason in encoded.left_out],
        "data_hash": getattr(getattr(encoded.dataset, "manifest", None), "hash", None),
        "seed": seed,
        "bootstrap": bootstrap,
        **jsonable(results),
    }
    target = run / f"evaluation-{split}.json"
    target.write_text(json.dumps(jsonable(figures), indent=2) + "\n", encoding="utf-8")
    head = f"{type(encoded.system).__name__}, {checkpoint} checkpoint: {len(encoded)} samples of {split}, " + (
        f"{figures['groups']} groups"
    )
    return Outcome(figures, (head, "", *report_lines(results), "", f"wrote {target}"), {"evaluation": target})


def measure(vertical: Vertical, encoded: Any, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """All results of encoded samples: `retrieval`, `label_free` and `protocols`, each name -> result."""
    from counterpoint.common.cli.encode import entry_of, modality_pairs
    from counterpoint.common.metrics import label_free, retrieval

    results: dict[str, dict[str, Any]] = {"retrieval": {}, "label_free": {}, "protocols": {}}
    for a, b in modality_pairs(encoded):
        both = retrieval(
            encoded.vectors[a],
            encoded.vectors[b],
            groups=encoded.groups,
            ks=(1, 5, 10, 25),
            names=(a, b),
            n_boot=bootstrap,
            seed=seed,
        )
        for way in (both.a_to_b, both.b_to_a):
            results["retrieval"][f"{way.name} (pool {way.pool})"] = way
    for name, vectors in encoded.vectors.items():
        results["label_free"][name] = label_free(vectors, seed=seed)
    entry = entry_of(vertical, encoded.system)
    if entry is not None and entry.protocols is not None:
        results["protocols"] = dict(resolve(entry.protocols)(encoded.system, encoded.dataset, encoded.vectors))
    return {name: found for name, found in results.items() if found}


def report_lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """The results as aligned tables for people."""
    blocks: list[str] = []
    rows = []
    for way in results.get("retrieval", {}).values():
        for metric in ("R@1", "R@10", "R@25", "MRR", "median_rank"):
            if metric in way.metrics:
                interval, chance = way.intervals.get(metric), way.chance.get(metric)
                spread = f"{interval.low:.3g} .. {interval.high:.3g}" if interval else ""
                level = f"{chance:.3g}" if chance is not None else ""
                rows.append((way.name, str(way.pool), metric, f"{way.metrics[metric]:.3g}", spread, level))
    if rows:
        blocks += [*table(("retrieval", "pool", "metric", "value", "95 % interval", "chance"), rows), ""]
    rows = [
        (name, str(m.n), str(m.dim), f"{m.rankme:.1f}", f"{m.uniformity:.2f}", f"{m.mean_cosine:.2f}")
        for name, m in results.get("label_free", {}).items()
    ]
    if rows:
        blocks += [*table(("label-free", "samples", "dim", "RankMe", "uniformity", "mean cosine"), rows), ""]
    for name, result in results.get("protocols", {}).items():
        blocks.append(f"{name}: {json.dumps(jsonable(result)) if isinstance(result, dict) else result}")
    return blocks[:-1] if blocks and not blocks[-1] else blocks
