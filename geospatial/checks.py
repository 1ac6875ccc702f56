"""Reduced checks of the papers' claims on simulated scenes (synthetic), all arms on the same scenes and seeds.

Sizes are those of a laptop (CROMA of width 64, ten epochs of 960 chips of 32 pixels), so that a verdict is one about
these sizes. What a claim calls its effect is the size in its statement; that of `croma-optical` is the gain of a linear
probe over SatMAE in CROMA's abstract.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from counterpoint.common.metrics import logistic_probe
from counterpoint.common.metrics.power import probe_shares
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers.claims import Claim, Measured
from counterpoint.geospatial.baselines import OpticalMAE
from counterpoint.geospatial.check_scenes import DATA, UNSEEN, VIT, by_place, held_out, trained
from counterpoint.geospatial.checks_dense import DENSE, batches, gallery_hits
from counterpoint.geospatial.checks_wider import WIDE
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.mdico import MDiCo

# CROMA ----------------------------------------------------------------------------------------------------------------

CHANCE = "0.03125"
WITHOUT = {"contrast alone": {"reconstruction": 0.0}, "reconstruction alone": {"contrast": 0.0}}


def croma(arm: str, seed: int) -> Any:
    """CROMA, one of its terms alone, or its weights before training."""
    return trained(Croma, seed, VIT | WITHOUT.get(arm, {}), steps=arm != "untrained")


def retrieval_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """32-way R@1 of radar -> optical on unseen places; chance is itself."""
    if arm == CHANCE:
        return Measured(float(arm))
    return gallery_hits(held_out(croma(arm, seed), groups))


def probe_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """Accuracy of a linear probe of the commonest class of land cover on unseen places."""
    optical = arm == "optical MAE"
    system = trained(OpticalMAE, seed, VIT) if optical else croma(arm, seed)
    return _probed(held_out(system, groups), "s2" if optical else "joint", seed)


def _probed(run: OpenRun, name: str, seed: int) -> Measured:
    known, asked = run.features("train"), run.features()
    labels = [run.samples(s).column("label") for s in ("train", "test")]
    probe = logistic_probe(
        known.vectors[name], labels[0], asked.vectors[name], labels[1], groups=asked.groups,
        train_groups=known.groups, c_grid=(0.01, 0.1, 1.0), n_boot=0, seed=seed,
    )  # fmt: skip
    return Measured(float(probe.scores.metrics["accuracy"]), probe_shares(probe, "accuracy"))


# MDiCo ----------------------------------------------------------------------------------------------------------------

TERMS = {
    "radar's own terms": {"contrast": 0.0, "discriminative": 0.0, "auxiliary": 0.0},
    "no contrast": {"contrast": 0.0},
}


def mdico(arm: str, seed: int) -> Any:
    """MDiCo, or the same network without some of its terms."""
    return trained(MDiCo, seed, {"width": 16, "dim": 64, "train.max_epochs": 20} | TERMS.get(arm, {}))


@torch.no_grad()
def one_sensor_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """Accuracy by radar alone."""
    system = mdico(arm, seed)
    right, names = [], []
    for batch in batches(held_out(system, groups)):
        found = system.predict({k: v for k, v in batch.items() if not k.startswith("s2")})["s1"].argmax(-1)
        right.append((found == system.targets(batch)).numpy())
        names += batch["group"]
    return by_place(np.concatenate(right).astype(float), names)


@torch.no_grad()
def sensor_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """How often a linear classifier, fitted on the training chips' shared or specific parts, tells their sensor."""
    system = mdico("MDiCo", seed)
    run = held_out(system, groups)
    parts = []
    for split in ("train", "test"):
        chips, found = run.samples(split), []
        for start in range(0, len(chips), 64):
            batch = chips.collate([chips[i] for i in range(start, min(start + 64, len(chips)))])
            found.append(torch.stack([p[arm] for p in system.parts(batch).values()]))
        parts.append(torch.cat(found, 1).numpy())
    known, asked = parts
    sensor = np.repeat(np.arange(len(known)), known.shape[1])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(known.reshape(len(sensor), -1), sensor)
    told = np.stack([model.predict(x) == i for i, x in enumerate(asked)])
    return by_place(told.mean(0), list(run.samples("test").groups))


_CROMA, _MDICO = "Fuller et al., NeurIPS 2023", "Mena et al., Machine Learning 2025"
CHECKS: dict[str, tuple[Claim, Callable[..., Any]]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("croma-retrieval", "training makes radar find its optical chip among 32 a quarter oftener",
                  "untrained", "CROMA", "32-way R@1", source="", data=DATA, effect=0.25, held_out=UNSEEN),
            retrieval_check,
        ),
        (
            Claim("croma-untrained", "before training radar finds its optical chip at most two points above chance",
                  CHANCE, "untrained", "32-way R@1", higher_is_better=False, margin=-0.02, source="", data=DATA,
                  held_out=UNSEEN),
            retrieval_check,
        ),
        (
            Claim("croma-optical", "joint features classify unseen places better than those of an optical MAE",
                  "optical MAE", "CROMA", "accuracy", source=_CROMA, data=DATA, effect=0.024, held_out=UNSEEN),
            probe_check,
        ),
        (
            Claim("croma-contrast", "both terms make joint features a point better than the contrast alone",
                  "contrast alone", "CROMA", "accuracy", source=_CROMA, data=DATA, effect=0.01, held_out=UNSEEN),
            probe_check,
        ),
        (
            Claim("croma-reconstruction", "both terms make joint features a point better than the reconstruction alone",
                  "reconstruction alone", "CROMA", "accuracy", source=_CROMA, data=DATA, effect=0.01,
                  held_out=UNSEEN),
            probe_check,
        ),
        (
            Claim("mdico-radar", "co-learning raises the accuracy of radar alone by a point",
                  "radar's own terms", "MDiCo", "accuracy", source=_MDICO, data=DATA, effect=0.01, held_out=UNSEEN),
            one_sensor_check,
        ),
        (
            Claim("mdico-contrast", "the contrast of shared parts raises the accuracy of radar alone by a point",
                  "no contrast", "MDiCo", "accuracy", source=_MDICO, data=DATA, effect=0.01, held_out=UNSEEN),
            one_sensor_check,
        ),
        (
            Claim("mdico-shared", "shared parts tell the sensor less well than specific ones, by ten points",
                  "specific", "shared", "accuracy of the sensor", higher_is_better=False, source=_MDICO, data=DATA,
                  effect=0.1, held_out=UNSEEN),
            sensor_check,
        ),
    )
} | WIDE | DENSE  # fmt: skip
