"""PHG-MAE's own figures: land cover by many masks against one pass, and how far the masks lie apart."""

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
from counterpoint.geospatial.phg_mae import PHGMAE
from counterpoint.geospatial.protocols import numbered, protocols, run_chips

KINDS = ("all modalities, one pass", "ensemble of masks", "single masks")


def ensemble_protocols(run: OpenRun) -> dict[str, Result]:
    """Those of every system, and the ensemble's."""
    return protocols(run) | mask_ensembles(run)


def mask_ensembles(run: OpenRun) -> dict[str, Result]:
    """Land cover by the system's own last layer: from all modalities in one pass, as mean over masks, and by the masks
    one at a time; then what the spread across masks says: its mean over pixels, where the ensemble is right and where
    it is wrong.

    Masks are drawn from the run's seed and are the same for every chip.
    """
    chips, system = run_chips(run), run.system
    if chips is None or not chips.has_landcover or not isinstance(system, PHGMAE) or not system.classes:
        return {}
    codes, count = system.classes, len(system.classes)
    names = tuple(class_name(code, chips.legend) for code in codes)
    tables: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    spread: list[np.ndarray] = []
    groups: list[str] = []
    device = next(system.parameters()).device
    total = len(chips) if run.limit is None else min(run.limit, len(chips))
    for start in range(0, total, min(run.batch_size, 64)):
        samples = [chips[i] for i in range(start, min(start + min(run.batch_size, 64), total))]
        batch = to_device(chips.collate(samples), device)
        target = numbered(batch["landcover"].cpu(), codes)
        groups += list(batch["group"])
        found = system.ensemble(batch, seed=run.seed)
        said = found.probabilities.argmax(1).cpu()
        tables[KINDS[0]].append(confusion_of(system.with_all(batch).argmax(1).cpu(), target, count))
        tables[KINDS[1]].append(confusion_of(said, target, count))
        single = sum(confusion_of(one.cpu(), target, count) for one in _each_mask(system, batch, run.seed))
        tables[KINDS[2]].append(np.asarray(single))
        spread.append(_sums(found.spread.cpu(), found.disagreement.cpu(), said, target))
    options = {"groups": np.asarray(groups), "n_boot": run.n_boot, "seed": run.seed}
    scores: dict[str, Result] = {
        f"land cover, {kind}": score_dense(np.concatenate(t), names, **options) for kind, t in tables.items()
    }
    return scores | {"land cover, spread across masks": _spread_scores(np.concatenate(spread), options)}


@torch.no_grad()
def _each_mask(system: PHGMAE, batch: dict, seed: int) -> list[torch.Tensor]:
    images, _, there = system.stacked(batch)
    sets = system.drawn(system.config.masks, torch.Generator().manual_seed(seed)).to(images.device) & there
    sets |= there & ~sets.any(1, keepdim=True)
    return [system.predicted(images, s.expand(len(images), -1))[1].argmax(1) for s in sets]


def _sums(spread: torch.Tensor, apart: torch.Tensor, said: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """[batch, 6] sums of spread and disagreement and numbers of pixels, where right, then where wrong."""
    parts = []
    for where in ((said == target) & (target >= 0), (said != target) & (target >= 0)):
        parts += [(x * where).sum((1, 2)) for x in (spread, apart)] + [where.sum((1, 2))]
    return torch.stack([p.double() for p in parts], 1).numpy()


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
