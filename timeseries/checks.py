"""Reduced checks of the papers' claims, both arms on the same data and seeds (`counterpoint timeseries reproduce`).

Cohorts are the embedded generator's, so these checks say that a method does on synthetic patients what its paper says
it does on real ones; GunPoint and BasicMotions are real. What a claim calls its effect is the size in its statement;
where that names none: for dbpm-probe the lower half of the one to three points that the paper reports; for
frame-projections-rate 15 % of an error of 10 beats a minute, the paper's 15 to 20 %; for the two archives how far the
published figure lies above the threshold; for flags how far three times their share lies above it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.metrics import probe_shares, ridge_probe
from counterpoint.common.trainers import Datasets, Stage, override
from counterpoint.common.trainers.reproduce import Claim, Measured
from counterpoint.common.trainers.throwaway import sample_data, train_quietly
from counterpoint.timeseries.augment import time_warped
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.comet import Comet
from counterpoint.timeseries.configs import CometConfig, DBPMSystemConfig, FrameProjectionsConfig, TS2VecConfig
from counterpoint.timeseries.dbpm import DBPM
from counterpoint.timeseries.frame_projections import FrameProjections
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.plumbing import PLUMBING
from counterpoint.timeseries.readers.ucr import read_ucr
from counterpoint.timeseries.simulate import corrupt_pairs, ecg
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.tasks import probe_patients
from counterpoint.timeseries.ts2vec import TS2Vec
from counterpoint.timeseries.windows import WindowSet

SMALL = {"dim": 64, "hidden": 32, "depth": 6}


# TS2Vec on two real archives -------------------------------------------------------------------------------------


def archive(folder: Path, name: str, suffix: str) -> WindowSet:
    """An archive's two parts as whole-series windows; multichannel sets are standardized by the training part."""
    signals, rows = [], []
    for split in ("train", "test"):
        part = read_ucr(folder / f"{name}_{split.upper()}{suffix}")
        signals += list(part.x)
        rows += [{"id": f"{split}{i}", "label": label, "split": split} for i, label in enumerate(part.labels)]
    length = len(signals[0])
    windows = WindowSet.build(signals, length, length, rows, 1.0)
    return windows.normalized("train") if signals[0].shape[1] > 1 else windows


def svm_accuracy(system: SignalSystem, windows: WindowSet) -> Measured:
    """TS2Vec's protocol: an RBF machine on whole-series representations, C by 5-fold cross-validation."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    z, label = system.embed_windows(windows).numpy(), windows.frame["label"].to_numpy(str)
    train = (windows.frame["split"] == "train").to_numpy()
    grid = {"C": [10.0**k for k in range(-4, 5)] + [np.inf]}
    search = GridSearchCV(SVC(), grid, cv=5).fit(z[train], label[train])
    right = search.predict(z[~train]) == label[~train]
    return Measured.of(dict(zip(windows.frame["id"][~train], right.astype(float).tolist())))


def ts2vec_archive(name: str, suffix: str, data: Path | None, arm: str, seed: int) -> float | Measured:
    """Accuracy of the full-scale TS2Vec (200 steps of 8 series) on an archive, or the threshold itself. Every test
    series is a group."""
    if arm != "TS2Vec":
        return float(arm)
    windows = archive(sample_data(data, "timeseries", "ucr_uea"), name, suffix)
    changes = {"data.normalize": "none", "train.max_steps": 200}
    return svm_accuracy(train_quietly(TS2Vec, override(TS2VecConfig(), changes), seed, windows), windows)


# Generated cohorts -------------------------------------------------------------------------------------------------

HELD_OUT_SEED = 2**31 - 1  # no check trains with it
PILOT_PATIENTS = 250


def with_held_out(patients: Callable[..., WindowSet], seed: int, groups: int) -> WindowSet:
    """18 patients to train on and 6 to choose by, drawn anew for every seed, and `groups` test patients that all seeds
    and arms share, so that seeds and patients are crossed. Scaled by trial."""
    own = split_patients(patients(patients=24, seed=seed), {"train": 0.75, "val": 0.25}, seed)
    test = _held_out(patients, groups)
    frame = test.frame.assign(split="test", signal=test.frame["signal"] + len(own.signals))
    for column in ("id", "group", "trial", "record"):
        frame[column] = "test-" + frame[column]
    extra = {name: np.concatenate([own.extra[name], values]) for name, values in test.extra.items()}
    both = replace(
        own, signals=own.signals + test.signals, frame=pd.concat([own.frame, frame], ignore_index=True),
        present=np.concatenate([own.present, test.present]), extra=extra,
    )  # fmt: skip
    return both.normalized("trial")


@lru_cache(maxsize=1)
def _held_out(patients: Callable[..., WindowSet], groups: int) -> WindowSet:
    return patients(patients=groups, seed=HELD_OUT_SEED)


def patient_shares(z: Tensor, windows: WindowSet, metric: str, seed: int, **options: Any) -> Measured:
    """A figure of a probe on the test patients, by patient."""
    found = probe_patients(z, windows, seed=seed, n_boot=0, **options)[0]
    return Measured(found.probe.scores.metrics[metric], probe_shares(found.probe, metric))


# COMET against its two lower levels ------------------------------------------------------------------------------

cohort = partial(ecg, trials=4, windows=6, length=128, fs=64.0)
"""Generated ECG at 64 Hz, windows of 2 s."""


def comet_labels(data: Path | None, arm: str, seed: int, groups: int = PILOT_PATIENTS) -> Measured:
    """Macro F1 on held-out patients of a probe with the labels of 10 % of the training windows, as the paper counts.

    240 steps (40 epochs). The labelled windows come from all training patients; no label of the validation patients is
    used.
    """
    windows = with_held_out(cohort, seed, groups)
    levels = {"patient": 0.25, "trial": 0.25} if arm == "COMET" else {"patient": 0.0, "trial": 0.0}
    small = {key: value for key, value in Comet.presets["small"].items() if key != "data"}
    config = override(CometConfig(), {**small, "train.max_epochs": 40, "train.batch_size": 64, **levels})
    system = train_quietly(Comet, config, seed, windows)
    return patient_shares(system.embed_windows(windows), windows, "macro_f1", seed, fractions=(0.1,), by="window")



# DBPM on planted bad pairs -----------------------------------------------------------------------------------------

NOISY = FAULTY = 0.1


class PlantedPairs(WindowDataset):
    """Training windows of which known shares are noise in both views, or show another window in the second."""

    def __init__(self, windows: WindowSet, of: WindowSet, seed: int, views: Callable[[dict], dict] | None = None):
        super().__init__(windows, of, views)
        second, self.noisy, self.faulty = corrupt_pairs(windows.stack(), NOISY, FAULTY, seed)
        self.second = torch.from_numpy(second)

    def __getitem__(self, position: int) -> Any:
        sample = super().__getitem__(position)
        second = self.second[position]
        x = second if self.noisy[position] else sample["x"]
        return {**sample, "x": x, "second": second}


class PlantedDBPM(DBPM):
    """DBPM trained on planted pairs."""

    def datasets(self) -> Datasets:
        part = self.windows.where(split="train")
        self.planted = PlantedPairs(part, self.windows, self.config.train.seed, self.draw_views)
        return Datasets(self.planted)


def _planted(seed: int, mined: bool, groups: int, cls: type[DBPM] = PlantedDBPM) -> tuple[DBPM, WindowSet]:
    windows = with_held_out(cohort, seed, groups)
    changes = {
        "encoder": SMALL, "train": {"batch_size": 64, "max_epochs": 14}, "optim.lr": 1e-3, "projection": 64,
        "jitter": 0.2, "scaling": 0.3, "mining": {"warmup": 6} if mined else None,
    }  # fmt: skip
    return train_quietly(cls, override(DBPMSystemConfig(), changes), seed, windows), windows


@cache  # both checks look at one and the same system
def _flagged(seed: int) -> dict[str, float]:
    """Precision of the pairs flagged as noisy and as faulty, 0 where none is."""
    system, _ = _planted(seed, mined=True, groups=2)  # what is flagged are training pairs
    system.miner.close(system.config.train.max_epochs)
    found = {}
    for kind, flags in zip(("noisy", "faulty"), system.miner.flags()):
        flagged = flags[: len(system.planted)].cpu().numpy()
        found[kind] = float(getattr(system.planted, kind)[flagged].mean()) if flagged.any() else 0.0
    return found


def dbpm_flags(kind: str, data: Path | None, arm: str, seed: int) -> float:
    """Precision of the pairs flagged as `noisy` or `faulty` (0 without any), or three times the planted share."""
    if arm != "DBPM":
        return 3 * (NOISY if kind == "noisy" else FAULTY)
    return _flagged(seed)[kind]


def dbpm_probe(
    cls: type[DBPM], data: Path | None, arm: str, seed: int, groups: int = PILOT_PATIENTS
) -> Measured:
    """AUROC of a probe with all labels on held-out patients, after training on corrupted or on clean pairs."""
    system, windows = _planted(seed, arm == "DBPM", groups, cls)
    return patient_shares(system.embed_windows(windows), windows, "auroc", seed, fractions=(1.0,))


# Frame projections on a rate task ----------------------------------------------------------------------------------


class WarpContrast(FrameProjections):
    """The comparison: the same time encoder and NT-Xent, views made by time warping (wrong for a rate task)."""

    def stages(self) -> Sequence[Stage]:
        return (Stage("warp", trains=("encoders.time", "projectors.time")),)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        views = {}
        for name in ("first", "second"):
            x = time_warped(batch["x"].nan_to_num(), 0.4).transpose(1, 2)
            views[name] = torch.nn.functional.normalize(self.projectors["time"](self.encoders["time"](x)), dim=-1)
        return views

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"warp": self.objective(embeddings["first"], embeddings["second"])}


WarpContrast.loss_weights = {}


slow_cohort = partial(ecg, trials=4, windows=6, length=200, fs=25.0)
"""Generated ECG at 25 Hz (the official code's rate), windows of 8 s: a rate cannot be read from two beats."""


@cache  # both checks look at one and the same system
def _frames(arm: str, seed: int, groups: int) -> tuple[Tensor, WindowSet]:
    """Vectors of the windows after 240 steps of contrast and 60 of the mappers."""
    windows = with_held_out(slow_cohort, seed, groups)
    cls = FrameProjections if arm == "frame projections" else WarpContrast
    changes = {"width": 16, "dim": 64, "frequencies": 16, "mapper_epochs": 10 if cls is FrameProjections else 0,
               "train": {"batch_size": 64, "max_epochs": 40}}  # fmt: skip
    system = train_quietly(cls, override(FrameProjectionsConfig(), changes), seed, windows)
    return system.embed_windows(windows), windows



def frames_label(data: Path | None, arm: str, seed: int, groups: int = PILOT_PATIENTS) -> Measured:
    """AUROC of a probe with all labels on held-out patients."""
    z, windows = _frames(arm, seed, groups)
    return patient_shares(z, windows, "auroc", seed, fractions=(1.0,))


def frames_rate(data: Path | None, arm: str, seed: int, groups: int = PILOT_PATIENTS) -> Measured:
    """Mean absolute error (beats per minute) of a ridge probe for heart rate on held-out patients."""
    z, windows = _frames(arm, seed, groups)
    rate = windows.extra["heart_rate"]
    part = {name: (windows.frame["split"] == name).to_numpy() for name in SPLITS}
    probe = ridge_probe(
        z[part["train"]], rate[part["train"]], z[part["test"]], rate[part["test"]], val=z[part["val"]],
        val_targets=rate[part["val"]], groups=windows.frame["group"][part["test"]].tolist(), n_boot=0,
    )  # fmt: skip
    return Measured(probe.scores.metrics["MAE"], probe_shares(probe, "MAE"))


Run = Callable[..., float | Measured]
_TS2VEC = "Yue et al., AAAI 2022"
_PAIRS = "generated ECG (synthetic), pairs of 18 patients"
_ECG = "generated ECG (synthetic), 24 patients to learn from, as many held-out patients as the plan asks for"
_DBPM, _FRAMES = "Lan et al., ICLR 2024", "Learning Without Augmenting, NeurIPS 2025"
_SLOW = f"{_ECG}, windows of 8 s at 25 Hz"
CHECKS: dict[str, tuple[Claim, Run]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("ts2vec-gunpoint", "an SVM on TS2Vec representations reaches .95 (published re-run .983)", "0.95",
                  "TS2Vec", "accuracy", source=_TS2VEC, data="GunPoint (real), full-scale configuration", effect=0.033),
            partial(ts2vec_archive, "GunPoint", ".txt"),
        ),
        (
            Claim("ts2vec-basicmotions", "an SVM on TS2Vec representations reaches .95 (published re-run .975)", "0.95",
                  "TS2Vec", "accuracy", source=_TS2VEC, data="BasicMotions (real), full-scale configuration",
                  effect=0.025),
            partial(ts2vec_archive, "BasicMotions", ".arff"),
        ),
        (
            Claim("comet-ten-percent", "with labels of 10 % of the training windows, four levels beat sample + "
                  "observation by 2 points of F1", "sample + observation", "COMET", "macro F1", margin=0.02,
                  source="Wang et al., NeurIPS 2023", data=_ECG, held_out=PILOT_PATIENTS),
            comet_labels,
        ),
        (
            Claim("dbpm-noisy", "pairs flagged as noisy hold planted noise at more than three times its share", "0.3",
                  "DBPM", "precision", source=_DBPM, data=f"{_PAIRS}, 10 % noise + 10 % mismatched", effect=0.2),
            partial(dbpm_flags, "noisy"),
        ),
        (
            Claim("dbpm-faulty", "pairs flagged as faulty hold mismatched pairs at more than three times their share",
                  "0.3", "DBPM", "precision", source=_DBPM, data=f"{_PAIRS}, 10 % noise + 10 % mismatched", effect=0.2),
            partial(dbpm_flags, "faulty"),
        ),
        (
            Claim("dbpm-probe", "mining helps the probe when training pairs are corrupted", "plain", "DBPM", "AUROC",
                  source=_DBPM, data=f"{_ECG}, 10 % noise + 10 % mismatched", effect=0.02, held_out=PILOT_PATIENTS),
            partial(dbpm_probe, PlantedDBPM),
        ),
        (
            Claim("dbpm-clean", "mining costs the probe at most one point when training pairs are clean", "plain",
                  "DBPM", "AUROC", margin=-0.01, source=_DBPM, data=_ECG, held_out=PILOT_PATIENTS),
            partial(dbpm_probe, DBPM),
        ),
        (
            Claim("frame-projections-rate", "without augmentations heart rate is read better than after time-warp "
                  "contrast", "time-warp contrast", "frame projections", "mean absolute error (beats/min)",
                  higher_is_better=False, source=_FRAMES, data=_SLOW, effect=1.5, held_out=PILOT_PATIENTS),
            frames_rate,
        ),
        (
            Claim("frame-projections-label", "elsewhere (diagnosis) it is at most one point below time-warp contrast",
                  "time-warp contrast", "frame projections", "AUROC", margin=-0.01,
                  source=_FRAMES, data=_SLOW, held_out=PILOT_PATIENTS),
            frames_label,
        ),
    )
} | PLUMBING  # fmt: skip
