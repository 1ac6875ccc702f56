"""PHG-MAE's own figures: land cover by many masks against one pass, and how far the masks lie apart."""

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
from counterpoint.geospatial.phg_mae import PHGMAE
from counterpoint.geospatial.protocols import numbered, own_figures, protocols, run_chips, training_tables

SPREAD = "spread across masks"
KINDS = ("all modalities, one pass", "ensemble of masks", "single masks")


def ensemble_protocols(run: OpenRun) -> dict[str, Result]:
    """Those of every system, and the ensemble's."""
    return protocols(run) | mask_ensembles(run)


def mask_ensembles(run: OpenRun) -> dict[str, Result]:
    """Land cover by the system's own last layer: from all modalities in one pass, as mean over masks, and by the masks
    one at a time; then what the spread across masks says: its mean over pixels, where the ensemble is right and where
    it is wrong.

    Masks are drawn from the run's seed and are the same for every chip. Places that overlap with training places are
    left out.
    """
    chips, system = run_chips(run), run.system
    if chips is None or not chips.has_landcover or not isinstance(system, PHGMAE) or not system.classes:
        return {}
    codes, count = system.classes, len(system.classes)
    names = tuple(class_name(code, chips.legend) for code in codes)

    def figures(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        target = numbered(batch["landcover"].cpu(), codes)
        each = system.by_masks(batch, seed=run.seed)
        found = system.together(each)
        said = found.probabilities.argmax(1).cpu()
        single = sum(confusion_of(one.argmax(1).cpu(), target, count) for one in each)
        whole = confusion_of(system.with_all(batch).argmax(1).cpu(), target, count)
        tables = dict(zip(KINDS, (whole, confusion_of(said, target, count), single)))
        sums = _sums(found.spread.cpu(), found.disagreement.cpu(), said, target)
        return {kind: torch.from_numpy(table) for kind, table in tables.items()} | {SPREAD: sums}

    try:
        found, groups = own_figures(run, chips, figures, training_tables(run))
    except InputError as error:
        return {"land cover, ensemble of masks": NotRun(str(error))}
    options = {"groups": groups, "n_boot": run.n_boot, "seed": run.seed}
    scores: dict[str, Result] = {f"land cover, {kind}": score_dense(found[kind], names, **options) for kind in KINDS}
    return scores | {f"land cover, {SPREAD}": _spread_scores(found[SPREAD].astype(np.float64), options)}


def _sums(spread: torch.Tensor, apart: torch.Tensor, said: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[batch, 6] sums of spread and disagreement and numbers of pixels, where right, then where wrong."""
    parts = []
    for where in ((said == target) & (target >= 0), (said != target) & (target >= 0)):
        parts += [(x * where).sum((1, 2)) for x in (spread, apart)] + [where.sum((1, 2))]
    return torch.stack([p.double() for p in parts], 1)


def _spread_scores(sums: np.ndarray, options: dict) -> Scores:
    def figures(weight: np.ndarray) -> dict[str, float]:
        s1, a1, n1, s2, a2, n2 = weight @ sums
        ratio = lambda a, n: float(a / n) if n else float("nan")  # noqa: E731
        return {"spread": ratio(s1 + s2, n1 + n2), "disagreement": ratio(a1 + a2, n1 + n2),
                "disagreement where right": ratio(a1, n1), "disagreement where wrong": ratio(a2, n2)}  # fmt: skip

    intervals = bootstrap_weights(figures, len(sums), options["groups"], n=options["n_boot"], seed=options["seed"])
    metrics = {name: i.value for name, i in intervals.items()}
    note = "spread: deviation of a class's probability over the masks; disagreement: share of masks of another class"
    return Scores(len(sums), metrics, dict.fromkeys(metrics, 0.0), intervals, notes=[note])
