"""SUMMIT's own figures: land cover of the new places before and after, and how good its pseudo-labels are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import Scores
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.metrics.segmentation import score_dense
from counterpoint.common.runs.opened import OpenRun
from counterpoint.geospatial.data.legend import class_name
from counterpoint.geospatial.decoder import confusion_of
from counterpoint.geospatial.protocols import own_figures, protocols, run_chips, training_tables
from counterpoint.geospatial.summit import SENSORS, Summit

LABELS = "pseudo-labels"


def adaptation_protocols(run: OpenRun) -> dict[str, Result]:
    """Those of every system, and the segmenters'."""
    return protocols(run) | segmenter_scores(run)


def segmenter_scores(run: OpenRun) -> dict[str, Result]:
    """Land cover by each segmenter and by their mean, adapted and as they came; of the pseudo-labels the share of
    pixels that have one (`coverage`) and that of them which are right (`precision`). Places that
    overlap with training places, those of `source` among them, are left out.
    """
    chips, system = run_chips(run), run.system
    if chips is None or not chips.has_landcover or not isinstance(system, Summit):
        return {}
    names = tuple(class_name(code, chips.legend) for code in system.classes)
    ways = {"adapted": True, "as they came": False} if system.config.source else {"": True}

    def figures(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        target = system.targets(batch).reshape(batch["landcover"].shape).cpu()
        made = {}
        for way, adapted in ways.items():
            for sensor, p in system.predict(batch, adapted).items():
                name = f"land cover by the segmenters, {', '.join(filter(None, (sensor, way)))}"
                made[name] = torch.from_numpy(confusion_of(p.argmax(1).cpu(), target, len(names)))
        if system.config.source and set(SENSORS) <= set(batch):
            said = system.pseudo_labels(batch).reshape(target.shape).cpu()
            known = target >= 0
            parts = (known, known & (said >= 0), known & (said == target))
            made[LABELS] = torch.stack([x.sum((1, 2)) for x in parts], 1)
        return made

    source = [system.config.source] if system.config.source else []
    try:
        found, groups = own_figures(run, chips, figures, training_tables(run, source))
    except InputError as error:
        return {"land cover by the segmenters": NotRun(str(error))}
    options = {"groups": groups, "n_boot": run.n_boot, "seed": run.seed}
    scores: dict[str, Result] = {n: score_dense(t, names, **options) for n, t in found.items() if n != LABELS}
    return scores | ({LABELS: _label_scores(found[LABELS].astype(np.float64), options)} if LABELS in found else {})


def _label_scores(sums: np.ndarray, options: dict) -> Scores:
    def figures(weight: np.ndarray) -> dict[str, float]:
        known, labelled, right = weight @ sums
        return {"coverage": float(labelled / known) if known else float("nan"),
                "precision": float(right / labelled) if labelled else float("nan")}  # fmt: skip

    intervals = bootstrap_weights(figures, len(sums), options["groups"], n=options["n_boot"], seed=options["seed"])
    metrics = {name: i.value for name, i in intervals.items()}
    return Scores(len(sums), metrics, dict.fromkeys(metrics, float("nan")), intervals)
