"""Checks of claims about maps, dense features and batches: PHG-MAE, SUMMIT, Gram anchoring, Sample4Geo.

Sizes and learning rates were fixed before any of these was run. SUMMIT is adapted for ten epochs with a learning rate
of 1e-4: the authors take 1e-5 for a hundred thousand steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from counterpoint.common.kernels import unit
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers.claims import Claim, Measured
from counterpoint.common.trainers.gram_anchor import DenseFeatures
from counterpoint.geospatial.baselines import SensorTowers
from counterpoint.geospatial.check_scenes import (
    DATA,
    UNSEEN,
    VIT,
    WINTER,
    by_place,
    held_out,
    iou_by_place,
    run_folder,
    trained,
    winter_places,
)
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.decoder import confusion_of
from counterpoint.geospatial.phg_mae import PHGMAE
from counterpoint.geospatial.protocols import numbered
from counterpoint.geospatial.sample4geo import Sample4Geo
from counterpoint.geospatial.summit import Summit


def batches(run: OpenRun) -> Iterator[dict[str, Any]]:
    """The test chips in batches."""
    chips = run.samples("test")
    for start in range(0, len(chips), 64):
        yield chips.collate([chips[i] for i in range(start, min(start + 64, len(chips)))])


# PHG-MAE --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ensemble_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """Mean intersection over union of the land cover by 16 masks, by one pass of all modalities, or by masks alone."""
    system = trained(PHGMAE, seed, {"filters": 8})
    run = held_out(system, groups)
    tables, names = [], []
    for batch in batches(run):
        target = numbered(batch["landcover"], system.classes)
        count = len(system.classes)
        if arm == "ensemble of 16 masks":
            together = system.together(system.by_masks(batch, seed=seed))
            tables.append(confusion_of(together.probabilities.argmax(1), target, count))
        elif arm == "one pass":
            tables.append(confusion_of(system.with_all(batch).argmax(1), target, count))
        else:
            tables.append(sum(confusion_of(one.argmax(1), target, count) for one in system.by_masks(batch, seed=seed)))
        names += batch["group"]
    return iou_by_place(np.concatenate(tables), names)


# SUMMIT ---------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def region_check(data: Path | None, arm: str, seed: int) -> Measured:
    """Mean intersection over union, on January's held-out places, of the mean of both segmenters as they came from
    July's, or after adaptation to January's other places without labels."""
    scaled = {"filters": 8, "flips": True}
    first = run_folder(f"summit-{seed}")
    trained(Summit, seed, scaled, out=first)
    new = {"source": str(first), "checkpoint": "last", "data.manifest": str(winter_places().path), "optim.lr": 1e-4}
    system = trained(Summit, seed, scaled | new)
    run = OpenRun(system, {"test": _winter_test(system)})
    tables, names = [], []
    for batch in batches(run):
        said = system.predict(batch, arm == "SUMMIT")["joint"]
        target = numbered(batch["landcover"], system.classes)
        tables.append(confusion_of(said.argmax(1), target, len(system.classes)))
        names += batch["group"]
    return iou_by_place(np.concatenate(tables), names)


def _winter_test(system: Any) -> Chips:
    return Chips(winter_places().select(split="test"), system.cut(system.config, system.form.bands), system.form)


# Gram anchoring -------------------------------------------------------------------------------------------------------


def _anchored(arm: str, seed: int) -> Any:
    """Two towers of which the optical tokens are anchored from epoch 4 on; with weight 0 the anchor is taken and has no
    effect, so that both arms are held against the same earlier weights."""
    gram = {"modality": "s2", "start": 4, "weight": 0.0 if arm == "no anchor" else 2.0}
    return trained(SensorTowers, seed, {"encoder": VIT["encoder"], "train.plugins": {"gram_anchor": gram}})


@torch.no_grad()
def gram_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """Correlation over a chip's pairs of patches of their cosines with those under the weights of epoch 4."""
    system = _anchored(arm, seed)
    named = {f"system.{k}": v for k, v in system.plugins["gram_anchor"].anchor.items()}
    values, names = [], []
    for batch in batches(held_out(system, groups)):
        now, then = (
            _cosines(x) for x in (system.dense_features(batch), functional_call(DenseFeatures(system), named, (batch,)))
        )
        now, then = (x - x.mean(1, keepdim=True) for x in (now, then))
        values.append(((now * then).sum(1) / (now.norm(dim=1) * then.norm(dim=1)).clamp_min(1e-12)).numpy())
        names += batch["group"]
    return by_place(np.concatenate(values), names)


def _cosines(dense: dict[str, Tensor]) -> Tensor:
    x = unit(dense["s2"].flatten(1, 2), dim=-1)
    rows, cols = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return (x @ x.mT)[:, rows, cols].double()


# Retrieval ------------------------------------------------------------------------------------------------------------


def gallery_hits(run: OpenRun, ways: int = 32) -> Measured:
    """R@1 of radar -> optical in galleries of `ways` chips drawn once for all arms, ties at their middle rank."""
    encoded = run.encoded()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(encoded.groups)))
    order = order[: len(order) // ways * ways].reshape(-1, ways)
    hits = np.full(len(encoded.groups), np.nan)
    for rows in order:
        hits[rows.numpy()] = _first(encoded.vectors["s1"][rows] @ encoded.vectors["s2"][rows].T).numpy()
    asked = ~np.isnan(hits)
    return by_place(hits[asked], np.asarray(encoded.groups)[asked].tolist())


def place_hits(run: OpenRun) -> Measured:
    """R@1 of radar -> optical among the chips of the same place."""
    encoded = run.encoded()
    groups = np.asarray(encoded.groups)
    hits = np.zeros(len(groups))
    for name in np.unique(groups):
        rows = torch.from_numpy(np.flatnonzero(groups == name))
        hits[rows.numpy()] = _first(encoded.vectors["s1"][rows] @ encoded.vectors["s2"][rows].T).numpy()
    return by_place(hits, groups.tolist())


def _first(similar: Tensor) -> Tensor:
    """Whether each row's own column comes first; among k equal ones by chance, 1/k."""
    own = similar.diagonal()[:, None]
    return (similar <= own).all(1) / (similar == own).sum(1)


CONVNEXT = {"encoder": {"depths": (1, 1, 2), "widths": (32, 64, 128), "patch_size": 2}}


def neighbours_check(
    score: Callable[[OpenRun], Measured], data: Path | None, arm: str, seed: int, groups: int = UNSEEN
) -> Measured:
    """R@1 of Sample4Geo after ten epochs in batches of 32: random ones, or an anchor, its 8 nearest and 8 further."""
    plugins = {} if arm == "random batches" else {"neighbour_batches": {"near": 8, "far": 8, "ranks": 32}}
    system = trained(Sample4Geo, seed, CONVNEXT | {"train.plugins": plugins})
    return score(held_out(system, groups))


def anchored_retrieval(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """32-way R@1 of the towers of `gram_check`."""
    return gallery_hits(held_out(_anchored(arm, seed), groups))


_PHG, _SUMMIT = "Pirvu & Leordeanu, arXiv 2510.10068", "Simons et al., ICCV 2023"
_GRAM, _S4G = "Simeoni et al., DINOv3, 2025", "Deuser et al., ICCV 2023"
DENSE: dict[str, tuple[Claim, Callable[..., Any]]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("phg-mae-ensemble", "16 masks map land cover a point better than one pass of all modalities",
                  "one pass", "ensemble of 16 masks", "mean IoU", source=_PHG, data=DATA, effect=0.01,
                  held_out=UNSEEN),
            ensemble_check,
        ),
        (
            Claim("phg-mae-single", "16 masks map land cover a point better than the same masks one by one",
                  "single masks", "ensemble of 16 masks", "mean IoU", source=_PHG, data=DATA, effect=0.01,
                  held_out=UNSEEN),
            ensemble_check,
        ),
        (
            Claim("summit-region", "adaptation to a new region without labels maps it three points better",
                  "as they came", "SUMMIT", "mean IoU", source=_SUMMIT, effect=0.03,
                  data=f"simulated scenes (synthetic): trained on July, adapted to {WINTER // 2} other places in "
                       "January, scored on as many"),
            region_check,
        ),
        (
            Claim("gram-kept", "Gram anchoring keeps the similarities between patches that training else changes",
                  "no anchor", "anchored", "correlation with epoch 4", source=_GRAM, data=DATA, effect=0.1,
                  held_out=UNSEEN),
            gram_check,
        ),
        (
            Claim("gram-retrieval", "Gram anchoring costs less than two points of retrieval", "no anchor", "anchored",
                  "32-way R@1", margin=-0.02, source=_GRAM, data=DATA, held_out=UNSEEN),
            anchored_retrieval,
        ),
        (
            Claim("sample4geo-hard", "batches of neighbours find a chip among those of its place two points oftener",
                  "random batches", "neighbour batches", "R@1 within a place", source=_S4G, data=DATA, effect=0.02,
                  held_out=UNSEEN),
            partial(neighbours_check, place_hits),
        ),
        (
            Claim("sample4geo-easy", "batches of neighbours cost less than two points among chips of all places",
                  "random batches", "neighbour batches", "32-way R@1", margin=-0.02, source=_S4G, data=DATA,
                  held_out=UNSEEN),
            partial(neighbours_check, gallery_hits),
        ),
    )
}  # fmt: skip
