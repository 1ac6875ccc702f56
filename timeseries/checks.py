"""Reduced checks of the papers' claims, both arms on the same data and seeds (`counterpoint timeseries reproduce`).

Cohorts are the embedded generator's, so these checks say that a method does on synthetic patients what its paper says
it does on real ones; GunPoint and BasicMotions are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.metrics import ridge_probe
from counterpoint.common.trainers import Datasets, Stage, override
from counterpoint.common.trainers.reproduce import Claim
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


def svm_accuracy(system: SignalSystem, windows: WindowSet) -> float:
    """TS2Vec's protocol: an RBF machine on whole-series representations, C by 5-fold cross-validation."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    z, label = system.embed_windows(windows).numpy(), windows.frame["label"].to_numpy(str)
    train = (windows.frame["split"] == "train").to_numpy()
    grid = {"C": [10.0**k for k in range(-4, 5)] + [np.inf]}
    search = GridSearchCV(SVC(), grid, cv=5).fit(z[train], label[train])
    return float(search.score(z[~train], label[~train]))


def ts2vec_archive(name: str, suffix: str, data: Path | None, arm: str, seed: int) -> float:
    """Accuracy of the full-scale TS2Vec (200 steps of 8 series) on an archive, or the threshold itself."""
    if arm != "TS2Vec":
        return float(arm)
    windows = archive(sample_data(data, "timeseries", "ucr_uea"), name, suffix)
    changes = {"data.normalize": "none", "train.max_steps": 200}
    return svm_accuracy(train_quietly(TS2Vec, override(TS2VecConfig(), changes), seed, windows), windows)


# COMET against its two lower levels ------------------------------------------------------------------------------


def cohort(seed: int, patients: int = 30) -> WindowSet:
    """Generated ECG at 64 Hz, windows of 2 s, split by patient."""
    windows = ecg(patients=patients, trials=4, windows=6, length=128, fs=64.0, seed=seed)
    return split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, seed).normalized("trial")


def comet_labels(data: Path | None, arm: str, seed: int) -> float:
    """Macro F1 on held-out patients of a probe with the labels of 10 % of the training windows, as the paper counts.

    240 steps (40 epochs). The labelled windows come from all training patients; no label of the validation patients is
    used.
    """
    windows = cohort(seed)
    levels = {"patient": 0.25, "trial": 0.25} if arm == "COMET" else {"patient": 0.0, "trial": 0.0}
    small = {key: value for key, value in Comet.presets["small"].items() if key != "data"}
    config = override(CometConfig(), {**small, "train.max_epochs": 40, "train.batch_size": 64, **levels})
    system = train_quietly(Comet, config, seed, windows)
    found = probe_patients(system.embed_windows(windows), windows, (0.1,), by="window", seed=seed, n_boot=0)[0]
    return found.probe.scores.metrics["macro_f1"]


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


def _planted(seed: int, mined: bool, cls: type[DBPM] = PlantedDBPM) -> tuple[DBPM, WindowSet]:
    windows = cohort(seed)
    changes = {
        "encoder": SMALL, "train": {"batch_size": 64, "max_epochs": 14}, "optim.lr": 1e-3, "projection": 64,
        "jitter": 0.2, "scaling": 0.3, "mining": {"warmup": 6} if mined else None,
    }  # fmt: skip
    return train_quietly(cls, override(DBPMSystemConfig(), changes), seed, windows), windows


def dbpm_flags(kind: str, data: Path | None, arm: str, seed: int) -> float:
    """Precision of the pairs flagged as `noisy` or `faulty` (0 without any), or three times the planted share."""
    if arm != "DBPM":
        return 3 * (NOISY if kind == "noisy" else FAULTY)
    system, _ = _planted(seed, mined=True)
    system.miner.close(system.config.train.max_epochs)
    flags = dict(zip(("noisy", "faulty"), system.miner.flags()))[kind]
    flagged = flags[: len(system.planted)].cpu().numpy()
    return float(getattr(system.planted, kind)[flagged].mean()) if flagged.any() else 0.0


def dbpm_probe(cls: type[DBPM], data: Path | None, arm: str, seed: int) -> float:
    """AUROC of a probe with all labels on held-out patients, after training on corrupted or on clean pairs."""
    system, windows = _planted(seed, arm == "DBPM", cls)
    found = probe_patients(system.embed_windows(windows), windows, (1.0,), seed=seed, n_boot=0)[0]
    return found.probe.scores.metrics["auroc"]


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


def slow_cohort(seed: int) -> WindowSet:
    """Generated ECG at 25 Hz (the official code's rate), windows of 8 s: a rate cannot be read from two beats."""
    windows = ecg(patients=30, trials=4, windows=6, length=200, fs=25.0, seed=seed)
    return split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, seed).normalized("trial")


@cache
def _frames(arm: str, seed: int) -> tuple[FrameProjections, WindowSet]:
    """240 steps of contrast and 60 of the mappers; both checks look at one and the same system."""
    windows = slow_cohort(seed)
    cls = FrameProjections if arm == "frame projections" else WarpContrast
    changes = {"width": 16, "dim": 64, "frequencies": 16, "mapper_epochs": 10 if cls is FrameProjections else 0,
               "train": {"batch_size": 64, "max_epochs": 40}}  # fmt: skip
    return train_quietly(cls, override(FrameProjectionsConfig(), changes), seed, windows), windows


def frames_label(data: Path | None, arm: str, seed: int) -> float:
    """AUROC of a probe with all labels on held-out patients."""
    system, windows = _frames(arm, seed)
    found = probe_patients(system.embed_windows(windows), windows, (1.0,), seed=seed, n_boot=0)[0]
    return found.probe.scores.metrics["auroc"]


def frames_rate(data: Path | None, arm: str, seed: int) -> float:
    """Mean absolute error (beats per minute) of a ridge probe for heart rate on held-out patients."""
    system, windows = _frames(arm, seed)
    z, rate = system.embed_windows(windows), windows.extra["heart_rate"]
    part = {name: (windows.frame["split"] == name).to_numpy() for name in SPLITS}
    probe = ridge_probe(
        z[part["train"]], rate[part["train"]], z[part["test"]], rate[part["test"]],
        val=z[part["val"]], val_targets=rate[part["val"]], n_boot=0,
    )  # fmt: skip
    return probe.scores.metrics["MAE"]


Run = Callable[[Path | None, str, int], float]
_TS2VEC, _ECG = "Yue et al., AAAI 2022", "generated ECG (synthetic), 30 patients, held-out patients"
_SLOW = f"{_ECG}, windows of 8 s at 25 Hz"
CHECKS: dict[str, tuple[Claim, Callable[..., float]]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("ts2vec-gunpoint", "an SVM on TS2Vec representations reaches .95 (published re-run .983)", "0.95",
                  "TS2Vec", "accuracy", source=_TS2VEC, data="GunPoint (real), full-scale configuration"),
            partial(ts2vec_archive, "GunPoint", ".txt"),
        ),
        (
            Claim("ts2vec-basicmotions", "an SVM on TS2Vec representations reaches .95 (published re-run .975)", "0.95",
                  "TS2Vec", "accuracy", source=_TS2VEC, data="BasicMotions (real), full-scale configuration"),
            partial(ts2vec_archive, "BasicMotions", ".arff"),
        ),
        (
            Claim("comet-ten-percent", "with labels of 10 % of the training windows, four levels beat sample + "
                  "observation by 2 points of F1", "sample + observation", "COMET", "macro F1", margin=0.02,
                  source="Wang et al., NeurIPS 2023", data=_ECG),
            comet_labels,
        ),
        (
            Claim("dbpm-noisy", "pairs flagged as noisy hold planted noise at more than three times its share", "0.3",
                  "DBPM", "precision", source="Lan et al., ICLR 2024", data=f"{_ECG}, 10 % noise + 10 % mismatched"),
            partial(dbpm_flags, "noisy"),
        ),
        (
            Claim("dbpm-faulty", "pairs flagged as faulty hold mismatched pairs at more than three times their share",
                  "0.3", "DBPM", "precision", source="Lan et al., ICLR 2024",
                  data=f"{_ECG}, 10 % noise + 10 % mismatched"),
            partial(dbpm_flags, "faulty"),
        ),
        (
            Claim("dbpm-probe", "mining helps the probe when training pairs are corrupted", "plain", "DBPM", "AUROC",
                  source="Lan et al., ICLR 2024", data=f"{_ECG}, 10 % noise + 10 % mismatched"),
            partial(dbpm_probe, PlantedDBPM),
        ),
        (
            Claim("dbpm-clean", "mining costs the probe at most one point when training pairs are clean", "plain",
                  "DBPM", "AUROC", margin=-0.01, source="Lan et al., ICLR 2024", data=_ECG),
            partial(dbpm_probe, DBPM),
        ),
        (
            Claim("frame-projections-rate", "without augmentations heart rate is read better than after time-warp "
                  "contrast", "time-warp contrast", "frame projections", "mean absolute error (beats/min)",
                  higher_is_better=False, source="Learning Without Augmenting, NeurIPS 2025", data=_SLOW),
            frames_rate,
        ),
        (
            Claim("frame-projections-label", "elsewhere (diagnosis) it is at most one point below time-warp contrast",
                  "time-warp contrast", "frame projections", "AUROC", margin=-0.01,
                  source="Learning Without Augmenting, NeurIPS 2025", data=_SLOW),
            frames_label,
        ),
    )
} | PLUMBING  # fmt: skip
