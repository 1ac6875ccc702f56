"""What the checks of claims stand on: simulated scenes (synthetic) that all arms and seeds share, and trained systems.

A seed draws weights, batches, masks and turns; the scenes stay. Training places and held-out places are scenes of
different seeds of the simulator. Trainings are kept for the time of the process, so that claims which share an arm
train it once.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from counterpoint.common.data import Manifest
from counterpoint.common.metrics.power import group_shares
from counterpoint.common.metrics.segmentation import mean_iou
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import override
from counterpoint.common.trainers.claims import Measured
from counterpoint.common.trainers.throwaway import train_quietly
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.scene_files import write_scenery

PLACES, SIDE = 60, 128
UNSEEN, UNSEEN_SIDE = 150, 64
WINTER = 100
VIT = {"encoder": {"dim": 64, "depth": 4, "heads": 8, "patch_size": 4}, "decoder": {"dim": 64, "heads": 4}}
"""Encoders of the transformers, on chips of 32 pixels."""
STEPS = {"data": {"size": 32}, "train": {"batch_size": 32, "max_epochs": 10}, "optim": {"lr": 1e-3}}
DATA = (
    f"simulated scenes (synthetic): {PLACES} of {SIDE} pixels to train on, held-out ones of {UNSEEN_SIDE} pixels, "
    "chips of 32"
)


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def _as_split(manifest: Path, split: str) -> Manifest:
    table = Manifest.load(manifest)
    return replace(table, frame=table.frame.assign(split=split)).save(manifest.with_name("one-split.parquet"))


@cache
def known_places() -> Manifest:
    """The training places."""
    return _as_split(write_scenery(Path(_folder().name, "known"), PLACES, SIDE, seed=2024).manifest, "train")


@cache
def unseen_places(count: int) -> Manifest:
    """Held-out places, four chips of 32 pixels each."""
    made = write_scenery(Path(_folder().name, f"unseen-{count}"), count, UNSEEN_SIDE, seed=4048)
    return _as_split(made.manifest, "test")


@cache
def winter_places() -> Manifest:
    """A region of its own in January, half of it to adapt to and half held out."""
    made = write_scenery(Path(_folder().name, "winter"), WINTER, UNSEEN_SIDE, seasons=3, seed=6072)
    table = Manifest.load(made.manifest)
    frame = table.frame[table.frame["s2_time"].astype(str).str.startswith("2021-01")].reset_index(drop=True)
    half = np.where(np.arange(len(frame)) % 2 == 0, "train", "test")
    return replace(table, frame=frame.assign(split=half)).save(made.manifest.with_name("winter.parquet"))


_kept: dict[tuple, Any] = {}


def trained(cls: Any, seed: int, changes: dict[str, Any], steps: bool = True, out: Path | None = None) -> Any:
    """A system trained on `known_places` (or on the manifest that `changes` names), once a process.

    `steps=False` leaves its initial weights."""
    key = (cls.__name__, seed, repr(changes), steps)
    if key not in _kept:
        settings = {"data": {**STEPS["data"], "manifest": str(known_places().path)}, "train": STEPS["train"]}
        config = override(override(override(cls.Config(), settings), {"optim": STEPS["optim"]}), changes)
        with torch.set_grad_enabled(True):  # the trainer leaves gradients on; outside they are as before
            _kept[key] = train_quietly(cls, config, seed, steps=steps, out=out)
    return _kept[key]


def run_folder(name: str) -> Path:
    """A folder for a run that another one starts from."""
    return Path(_folder().name, "runs", name)


def held_out(system: Any, places: int) -> OpenRun:
    """The system beside its training chips and those of so many held-out places."""
    chips = Chips(unseen_places(places), system.cut(system.config, system.form.bands), system.form)
    return OpenRun(system, {"train": system.evaluation_datasets().train, "test": chips}).drawing(1, 0)


def by_place(values: Float[np.ndarray, " chips"], groups: list[str]) -> Measured:
    """The mean of a figure of chips, by place; all places have equally many chips."""
    names = np.asarray(groups)
    return Measured.of({str(g): float(np.mean(values[names == g])) for g in np.unique(names)})


def iou_by_place(confusions: Int[np.ndarray, "chips classes classes"], groups: list[str]) -> Measured:
    """The mean intersection over union, and every place's share in it."""
    table = confusions.astype(np.float64)
    return Measured.of(group_shares(lambda w: mean_iou(np.tensordot(w, table, 1)), len(table), groups))
