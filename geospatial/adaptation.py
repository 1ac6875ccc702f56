"""SUMMIT's own figures: land cover of the new places before and after, and how good its pseudo-labels are."""

from __future__ import annotations

import numpy as np
import torch

from counterpoint.common.data.batch import to_device
from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import Scores
from counterpoint.common.metrics.result import Result
from counterpoint.common.metrics.segmentation import score_dense
from counterpoint.common.runs.opened import OpenRun
from counterpoint.geospatial.data.legend import class_name
from counterpoint.geospatial.decoder import confusion_of
from counterpoint.geospatial.protocols import protocols, run_chips
from counterpoint.geospatial.summit import Summit


def adaptation_protocols(run: OpenRun) -> dict[str, Result]:
    """Those of every system, and the segmenters'."""
    return protocols(run) | segmenter_scores(run)


def segmenter_scores(run: OpenRun) -> dict[str, Result]:
    """Land cover by each segmenter and by their mean, adapted and as they came; of the pseudo-labels the share of
    pixels that have one (`coverage`) and that of them which are right (`precision`)."""
    chips, system = run_chips(run), run.system
    if chips is None or not chips.has_landcover or not isinstance(system, Summit):
        return {}
    names = tuple(class_name(code, chips.legend) for code in system.classes)
    tables: dict[str, list[np.ndarray]] = {}
    labels: list[np.ndarray] = []
    groups: list[str] = []
    device = next(system.parameters()).device
    total, step = len(chips) if run.limit is None else min(run.limit, len(chips)), min(run.batch_size, 64)
    ways = {"adapted": True, "as they came": False} if system.config.source else {"": True}
    for start in range(0, total, step):
        batch = to_device(chips.collate([chips[i] for i in range(start, min(start + step, total))]), device)
        target = system.targets(batch).reshape(batch["landcover"].shape).cpu()
        groups += list(batch["group"])
        for way, adapted in ways.items():
            for sensor, p in system.predict(batch, adapted).items():
                name = f"land cover by the segmenters, {', '.join(filter(None, (sensor, way)))}"
                tables.setdefault(name, []).append(confusion_of(p.argmax(1).cpu(), target, len(names)))
        if system.config.source:
            with torch.no_grad():
                said = system.pseudo_labels(batch).reshape(target.shape).cpu()
            known = target >= 0
            parts = (known, known & (said >= 0), known & (said == target))
            labels.append(torch.stack([x.sum((1, 2)) for x in parts], 1).double().numpy())
    options = {"groups": np.asarray(groups), "n_boot": run.n_boot, "seed": run.seed}
    found: dict[str, Result] = {n: score_dense(np.concatenate(t), names, **options) for n, t in tables.items()}
    return found | ({"pseudo-labels": _label_scores(np.concatenate(labels), options)} if labels else {})


def _label_scores(sums: np.ndarray, options: dict) -> Scores:
    def figures(weight: np.ndarray) -> dict[str, float]:
        known, labelled, right = weight @ sums
        return {"coverage": float(labelled / known) if known else float("nan"),
                "precision": float(right / labelled) if labelled else float("nan")}  # fmt: skip

    intervals = bootstrap_weights(figures, len(sums), options["groups"], n=options["n_boot"], seed=options["seed"])
    metrics = {name: i.value for name, i in intervals.items()}
    return Scores(len(sums), metrics, dict.fromkeys(metrics, float("nan")), intervals)
