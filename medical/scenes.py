"""Volumes alone as samples, scaled to 0..1, with their label maps where they have them; labels carried along a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from counterpoint.common.data.contents import contents_of
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.samples import options_hash
from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_columns
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.runs.opened import OpenRun
from counterpoint.medical.configs import CTDataConfig
from counterpoint.medical.data import PREPARED, CTData, load_prepared
from counterpoint.medical.flow import folding, warp
from counterpoint.medical.rows import RowSamples

ATLASES = 5


class Scenes(RowSamples):
    """The volumes of a split: `volume` [x, y, z] in 0..1, by its own lowest and highest value; where `labelled`, and
    where the data have label maps, also `labels` [x, y, z]."""

    def __init__(self, data: CTData, split: str, config: CTDataConfig, labelled: bool = False) -> None:
        self.data, self.config, self.rows, self.labelled = data, config, data.rows(split), labelled
        self.manifest, self.synthetic = data.manifest, synthetic_part(data.manifest)
        self.left_out = data.left_out.get(split, ())
        self.frame = data.manifest.frame.iloc[self.rows]
        self.columns = tuple(self.frame.columns)

    def __getitem__(self, position: int) -> dict[str, Any]:
        data, affine = load_prepared(self.data.volumes[self.rows[position]])
        known = {"index": position, "id": self.ids[position], "group": self.groups[position]}
        if self.labelled and "labels" in self.columns:
            known["labels"] = self.data.label_map(self.rows[position], self.config.recipe)
        return {**known, "volume": torch.from_numpy(unit_scale(data)), "affine": torch.from_numpy(affine)}

    @cached_property
    def hash(self) -> str:
        table = replace(self.manifest, frame=self.frame)
        return options_hash(table.hash, sizes=contents_of(table).sizes, prepared=PREPARED)

    def labels(self, position: int) -> Int[Tensor, "x y z"]:
        """The label map of a volume on the recipe's grid (nearest voxel, 0 outside), from the file in column
        `labels`."""
        name = self.frame["labels"].iloc[position] if "labels" in self.columns else ""
        if not isinstance(name, str) or not name:
            raise InputError(f"{self.ids[position]}: no label map named in column 'labels'")
        return self.data.label_map(self.rows[position], self.config.recipe)


def unit_scale(data: np.ndarray) -> np.ndarray:
    """(value - lowest) / (highest - lowest), float32.

    >>> unit_scale(np.array([1, 2, 3])).tolist()
    [0.0, 0.5, 1.0]
    """
    values = data.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-6)


def dice(a: Int[Tensor, "x y z"], b: Int[Tensor, "x y z"], label: int) -> float:
    """2 |A and B| / (|A| + |B|); NaN where neither has the label.

    >>> dice(torch.tensor([[[1, 1]]]), torch.tensor([[[1, 0]]]), 1)
    0.6666666666666666
    """
    x, y = a == label, b == label
    total = int(x.sum() + y.sum())
    return 2 * int((x & y).sum()) / total if total else float("nan")


@dataclass(frozen=True)
class Propagation(Result):
    """How well labels of atlases, carried along the learnt flow, cover those of other patients.

    Attributes:
        metrics: `Dice` (mean over labels, targets and atlases), `Dice of label k`, `folding`.
        chance: the same without any flow: the atlas laid over the target as it is.
        intervals: 95 % bootstrap intervals over the targets' patients.
        notes: how many atlases and targets.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


@torch.no_grad()
def propagate_organs(
    system: Any, atlases: Scenes, targets: Scenes, count: int = ATLASES, n_boot: int = 1000, seed: int = 0
) -> Propagation:
    """Warp the labels of `count` training volumes (drawn at random) to every target."""
    order = torch.randperm(len(atlases), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    chosen = [(atlases[i]["volume"], atlases.labels(i)) for i in order]
    kinds = sorted({int(k) for _, labels in chosen for k in labels.unique()} - {0})
    if not kinds:
        raise InputError("the atlases' label maps hold no label but 0")
    device = next(system.parameters()).device
    with_flow: dict[str, list[float]] = {f"Dice of label {k}": [] for k in kinds} | {"Dice": [], "folding": []}
    without: dict[str, list[float]] = {name: [] for name in with_flow}
    for t in range(len(targets)):
        x, truth = targets[t]["volume"].to(device), targets.labels(t)
        fx = system.unet(x[None, None])
        moved: dict[str, list[float]] = {name: [] for name in with_flow}
        still: dict[str, list[float]] = {name: [] for name in with_flow}
        for volume, labels in chosen:
            flow = system.deform(system.unet(volume.to(device)[None, None]), fx)
            carried = warp(labels.to(device)[None, None].float(), flow, "nearest")[0, 0].round().long().cpu()
            for there, found in ((moved, carried), (still, labels)):
                values = [dice(found, truth, k) for k in kinds]
                for k, value in zip(kinds, values):
                    there[f"Dice of label {k}"].append(value)
                there["Dice"].append(float(np.nanmean(values)))
            moved["folding"].append(float(folding(flow)))
            still["folding"].append(0.0)
        for name in with_flow:
            with_flow[name].append(float(np.nanmean(moved[name])))
            without[name].append(float(np.nanmean(still[name])))
    columns = {name: torch.tensor(values, dtype=torch.float64) for name, values in with_flow.items()}
    intervals = bootstrap_columns(columns, targets.groups, n=n_boot, seed=seed)
    chance = {name: float(np.mean(values)) for name, values in without.items()}
    notes = [f"{len(chosen)} atlases of the training split, {len(targets)} targets; chance: the atlas as it lies"]
    return Propagation({k: i.value for k, i in intervals.items()}, chance, intervals, notes)


def protocols(run: OpenRun) -> Mapping[str, Result]:
    """Label propagation, where the data have label maps (column `labels`)."""
    targets = run.samples()
    if "labels" not in targets.columns:
        return {"label propagation": NotRun("needs label maps: a column `labels` (`data import nifti --masks FOLDER`)")}
    return {
        "label propagation": propagate_organs(
            run.system.eval(), run.samples("train"), targets, n_boot=run.n_boot, seed=run.seed
        )
    }
