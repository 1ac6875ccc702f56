"""The property study: five MoleculeNet sets, random and scaffold splits, every arm on the same splits and seeds.

Arms that read vectors (`untrained`, `GraphCL`, `KCL`, `KCL, knowledge view`) are frozen and measured by a linear probe
whose penalty is chosen on the validation molecules. `from scratch` trains KCL's plain encoder on the labels alone;
`KCL, fine-tuned` does the same from KCL's weights. `ECFP + forest` learns nothing about molecules beforehand.

Pretraining sees the molecules of all five sets without labels, TEST MOLECULES INCLUDED (transductive): the figures of
the pretrained arms are about the molecules at hand, and say less about others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.trainers import override
from counterpoint.common.trainers.throwaway import sample_data, train_quietly
from counterpoint.graphs.configs import GraphCLConfig, KCLConfig
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.molecules.properties import (
    Arm,
    PropertyTask,
    ecfp_forest,
    from_scratch,
    probe_arm,
    score,
    split_task,
)
from counterpoint.graphs.molecules.reader import read_molecules
from counterpoint.graphs.molecules.vectors import features_of

SETS = ("bbbp", "bace", "esol", "freesolv", "lipo")
SPLIT_KINDS = ("random", "scaffold")
EPOCHS = 5
ARMS = ("untrained", "from scratch", "GraphCL", "KCL", "KCL, knowledge view", "KCL, fine-tuned", "ECFP + forest")
DATA = f"MoleculeNet; pretrained {EPOCHS} epochs on the union of 5 sets, test molecules included without labels"


@cache
def load_task(data: Path | None, name: str) -> PropertyTask:
    """The first label column of a set; unparsable rows and duplicates are left out as `read_molecules` does."""
    table = read_molecules(sample_data(data, "graphs", "molecules") / f"{name}.csv")
    return PropertyTask.of(name, table.frame["smiles"].tolist(), table.frame[table.tasks[0]].to_numpy(float))


@lru_cache(maxsize=3)
def pretrained(data: Path | None, method: str, seed: int) -> Any:
    """The system after `EPOCHS` epochs on the union of the sets, preset `small`, last weights (never chosen by labels);
    `untrained`: KCL's plain encoder with random weights."""
    cls, config = (GraphCL, GraphCLConfig()) if method == "GraphCL" else (KCL, KCLConfig())
    smiles = sorted({s for name in SETS for s in load_task(data, name).smiles})
    union = Manifest(pd.DataFrame({"id": [str(i) for i in range(len(smiles))], "smiles": smiles}))
    config = override(config, {**cls.presets["small"], "train.max_epochs": EPOCHS})
    return train_quietly(cls, config, seed, manifest=union, steps=method != "untrained")


def arm_of(data: Path | None, name: str, seed: int) -> Arm:
    """The arm called `name`, one of `ARMS`."""
    if name == "ECFP + forest":
        return ecfp_forest
    if name == "from scratch":
        return from_scratch(lambda: copy.deepcopy(pretrained(data, "untrained", seed).gcn))
    if name == "KCL, fine-tuned":
        return from_scratch(lambda: copy.deepcopy(pretrained(data, "KCL", seed).gcn))
    if name not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(ARMS)}, got {name!r}")
    method, _, view = name.partition(", ")
    return probe_arm(_features(data, method, seed, "knowledge" if view else "molecule"))


@lru_cache(maxsize=4)
def _features(data: Path | None, method: str, seed: int, modality: str) -> Callable[..., torch.Tensor]:
    return features_of(pretrained(data, method, seed), modality)


def figure(data: Path | None, task: str, how: str, arm: str, seed: int) -> float:
    """AUROC or RMSE on the test molecules of one split; `seed` draws the split, the weights and the order."""
    loaded = load_task(data, task)
    split = split_task(loaded, how, seed)
    return score(loaded, arm_of(data, arm, seed)(loaded, split, seed), split["test"])
