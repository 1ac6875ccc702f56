"""Reduced checks of the papers' claims on simulated scenes, all arms on the same scenes and seeds.

A seed draws weights, batches and masks; the scenes are the same for all arms and seeds. Sizes are those of a laptop
(CROMA of width 64 on chips of 32 pixels), so that a verdict is one about these sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.metrics import logistic_probe
from counterpoint.common.metrics.power import probe_shares
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import override
from counterpoint.common.trainers.claims import Measured
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import train_quietly
from counterpoint.geospatial.configs import CromaConfig, MDiCoConfig, OpticalMAEConfig
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.demo import SIZES
from counterpoint.geospatial.mdico import MDiCo
from counterpoint.geospatial.scene_files import write_scenery

SCENES, EPOCHS = 240, 20
Run = Callable[[Path | None, str, int], Any]


@cache
def _scenes() -> tuple[tempfile.TemporaryDirectory, Path]:
    folder = tempfile.TemporaryDirectory()
    return folder, write_scenery(Path(folder.name, "scenes"), SCENES, 96, seed=2024).manifest


def _trained(cls: Any, config: Any, seed: int, steps: bool = True, **changes: Any) -> OpenRun:
    sizes = {k: v for k, v in SIZES.items() if hasattr(config, k)}
    settings = {**sizes, "data.manifest": str(_scenes()[1]), "train.max_epochs": EPOCHS, **changes}
    system = train_quietly(cls, override(config, settings), seed, steps=steps)
    return OpenRun.of(system).drawing(1, seed)


def retrieval_check(data: Path | None, arm: str, seed: int) -> float:
    """R@10 of radar -> optical among all test chips."""
    run = _trained(Croma, CromaConfig(), seed, steps=arm != "untrained")
    encoded = run.encoded()
    similar = encoded.vectors["s1"] @ encoded.vectors["s2"].T
    better = (similar > similar.diagonal()[:, None]).sum(1)
    tied = (similar == similar.diagonal()[:, None]).sum(1) - 1
    return float(((better + tied / 2) < 10).float().mean())


def probe_check(data: Path | None, arm: str, seed: int) -> Measured:
    """Accuracy of a linear probe of the commonest class of land cover on unseen places."""
    from counterpoint.geospatial.baselines import OpticalMAE

    name = "joint"
    if arm == "optical-mae":
        run, name = _trained(OpticalMAE, OpticalMAEConfig(), seed), "s2"
    else:
        off = {"contrast alone": {"reconstruction": 0.0}, "reconstruction alone": {"contrast": 0.0}}.get(arm, {})
        run = _trained(Croma, CromaConfig(), seed, **off)
    return _probed(run, name, seed)


def _probed(run: OpenRun, name: str, seed: int) -> Measured:
    known, asked = run.features("train"), run.features()
    labels = [run.samples(s).column("label") for s in ("train", "test")]
    probe = logistic_probe(
        known.vectors[name], labels[0], asked.vectors[name], labels[1], groups=asked.groups,
        train_groups=known.groups, c_grid=(0.01, 0.1, 1.0), n_boot=0, seed=seed,
    )  # fmt: skip
    return Measured(float(probe.scores.metrics["accuracy"]), probe_shares(probe, "accuracy"))


def one_sensor_check(data: Path | None, arm: str, seed: int) -> float:
    """Accuracy by radar alone of MDiCo, and of the same network trained without the other sensor's terms."""
    off = {} if arm == "MDiCo" else {"contrast": 0.0, "discriminative": 0.0, "auxiliary": 0.0}
    config = override(MDiCoConfig(), {"width": 16, "dim": 64})
    run = _trained(MDiCo, config, seed, **off)
    system, chips = run.system, run.samples("test")
    found = [system.predict(chips.collate([chips[i]]))["s1"].argmax(-1).item() for i in range(len(chips))]
    truth = [system.classes.index(v) if v in system.classes else -1 for v in chips.column("label")]
    return float(np.mean(np.asarray(found) == np.asarray(truth)))


_CROMA, _MDICO = "Fuller et al., NeurIPS 2023", "Mena et al., Machine Learning 2025"
_DATA = f"{SCENES} simulated scenes of 96 pixels (synthetic), a quarter of the places held out"
CHECKS: dict[str, tuple[Claim, Run]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("croma-retrieval", "radar finds its optical chip of an unseen place more often than untrained",
                  "untrained", "CROMA", "R@10", source="", data=_DATA),
            retrieval_check,
        ),
        (
            Claim("croma-optical", "joint features classify unseen places better than those of an optical MAE",
                  "optical-mae", "CROMA", "accuracy", source=_CROMA, data=_DATA, effect=0.024),
            probe_check,
        ),
        (
            Claim("croma-contrast", "both terms make joint features a point better than the contrast alone",
                  "contrast alone", "CROMA", "accuracy", source=_CROMA, data=_DATA, effect=0.01),
            probe_check,
        ),
        (
            Claim("croma-reconstruction", "both terms make joint features a point better than the reconstruction alone",
                  "reconstruction alone", "CROMA", "accuracy", source=_CROMA, data=_DATA, effect=0.01),
            probe_check,
        ),
        (
            Claim("mdico-radar", "co-learning raises the accuracy of radar alone by a point",
                  "radar's own terms", "MDiCo", "accuracy", source=_MDICO, data=_DATA, effect=0.01),
            one_sensor_check,
        ),
    )
}  # fmt: skip
