"""Reduced checks of the papers' claims on the phantom (synthetic): both arms on the same volumes, seeds and steps.

VELVET-Med's abstract claims that hierarchical contrast and self-supervision of either modality help where pairs are
few. No figure of it is readable to us, so the effects are ours: .03 of AUROC for what the levels should add (attributes
are local), and the same for what masked modelling should add at a quarter of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import override
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import train_quietly
from counterpoint.medical.configs import CTDataConfig, VelvetMedConfig
from counterpoint.medical.data import CTData, load_ct
from counterpoint.medical.findings import protocols
from counterpoint.medical.velvet_med import VelvetMed

PAPER = "Zhang et al., VELVET-Med, arXiv 2508.12108, 2025"
PAIRS, FEW, TEST = 1200, 300, 600
EPOCHS = 5
ARMS = {
    "report only": {"report": 1.0, "sentence": 0.0, "word": 0.0, "mim": 0.0, "mlm": 0.0},
    "three levels": {"report": 1.0, "sentence": 0.5, "word": 0.25, "mim": 0.0, "mlm": 0.0},
    "all terms": {"report": 1.0, "sentence": 0.5, "word": 0.25, "mim": 1.0, "mlm": 1.0},
}

LEVELS = Claim(
    name="velvet-med-levels",
    statement=f"With {PAIRS} synthetic pairs, contrast at three levels finds attributes better than at the report's",
    baseline="report only",
    method="three levels",
    metric="mean zero-shot AUROC of attributes",
    source=PAPER,
    data="CT phantom (synthetic)",
    effect=0.03,
)
FEW_PAIRS = Claim(
    name="velvet-med-few-pairs",
    statement=f"With {FEW} synthetic pairs, masked modelling of both modalities beats contrast alone at findings",
    baseline="three levels",
    method="all terms",
    metric="mean zero-shot AUROC of findings",
    source=PAPER,
    data="CT phantom (synthetic)",
    effect=0.03,
)


def velvet_arm(pairs: int, protocol: str, data: Path | None, arm: str, seed: int, *, epochs: int = EPOCHS) -> float:
    """The mean AUROC of one arm; both see the same pairs in as many steps. The phantoms are generated, so `data` is not
    used; the volumes are the same for every seed, which decides weights, batches and masks."""
    config = override(VelvetMedConfig(), VelvetMedConfig.presets["small"])
    changes = {"data.volumes": pairs, "data.val_volumes": 20, "data.test_volumes": TEST}
    config = override(config, changes | {"weights": ARMS[arm], "train.max_epochs": epochs})
    system = train_quietly(VelvetMed, config, seed, _phantoms(config.data))
    run = OpenRun.of(system)
    run.n_boot = 2
    return protocols(run)[protocol].metrics["mean"]


@lru_cache(maxsize=1)
def _phantoms(config: CTDataConfig) -> CTData:
    """All arms and seeds have the same volumes."""
    return load_ct(config)


CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float]]] = {
    LEVELS.name: (LEVELS, partial(velvet_arm, PAIRS, "zero-shot attributes")),
    FEW_PAIRS.name: (FEW_PAIRS, partial(velvet_arm, FEW, "zero-shot findings")),
}
