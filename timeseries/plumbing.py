"""Plumbing checks on the real records at hand: every system goes from WFDB files to figures on a held-out record.

Three records with a sound ECG lead II are too few for a claim about patients (lead II of v102s has overflowed its 12
bits). These checks can only show that reading, beat windows, training and scoring work together on real signals, and
whether training adds something to the network it began with: two records without annotations are trained on, the one
whose beats are annotated is held out, and a probe with the labels of its first half looks for atrial premature beats in
its second half.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import logistic_probe
from counterpoint.common.trainers import override
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import sample_data, train_quietly
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.cli import vertical
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.detection import average_precision
from counterpoint.timeseries.manifest import load_windows
from counterpoint.timeseries.windows import WindowSet

UNLABELLED = ("a103l", "s0010_re")
HELD_OUT = "100"
PREMATURE = "A"
# A window reaches back to the beat before: a premature beat is one that comes soon after it.
BEATS = SignalConfig(
    beats=True, beat_before=0.75, beat_after=0.45, fs=100.0, low=0.5, high=40.0, leads=("II",), aliases={"II": "MLII"},
    normalize="record", windows_per_trial=10,
)  # fmt: skip


def record_beats(folder: Path) -> WindowSet:
    """Beats of the three records through the manifest: two for training, record 100 as the test split."""
    rows = [
        {"id": name, "file": str((folder / f"{name}.hea").resolve()), "split": "test" if name == HELD_OUT else "train"}
        for name in (*UNLABELLED, HELD_OUT)
    ]
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "manifest.csv"
        Manifest.from_rows(rows, outside=[folder]).save(path)
        return load_windows(override(BEATS, {"manifest": str(path)}))


def premature_beats(system: SignalSystem, windows: WindowSet) -> float:
    """Average precision of a probe for premature beats: labels of the record's first half, scored on its second."""
    held = windows.where(split="test")
    kind = held.frame["label"].to_numpy(str)
    held = held.subset(np.isin(kind, ("N", PREMATURE)))
    kind, second = held.frame["label"].to_numpy(str), held.frame["start"].to_numpy() / held.fs
    later = second >= second.max() / 2
    if not (kind[later] == PREMATURE).any() or not (kind[~later] == PREMATURE).any():
        raise InputError(f"record {HELD_OUT}: no premature beat in one of its halves; is it MIT-BIH's record?")
    z = system.embed_windows(held)
    probe = logistic_probe(
        z[~later], kind[~later].tolist(), z[later], kind[later].tolist(),
        train_groups=(second[~later] // 60).astype(int), n_boot=0,
    )  # fmt: skip
    score = probe.predictions[:, probe.scores.classes.index(PREMATURE)]
    return average_precision(score, kind[later] == PREMATURE)


def records_check(name: str, data: Path | None, arm: str, seed: int) -> float:
    """The system in its `small` preset, trained on the unlabelled records, or as it was initialised."""
    entry = next(entry for entry in vertical.systems if entry.name == name)
    cls: Any = resolve(entry.system)
    windows = record_beats(sample_data(data, "timeseries", "wfdb"))
    changes = {key: value for key, value in cls.presets["small"].items() if key != "data"}
    config = override(resolve(entry.config)(), changes)
    return premature_beats(train_quietly(cls, config, seed, windows, steps=arm != "untrained"), windows)


def _claim(name: str) -> tuple[Claim, Callable[..., float]]:
    statement = (
        "plumbing, very small: trained on two other records, a probe finds premature beats of record 100 better than "
        "with the untrained network"
    )
    claim = Claim(
        f"{name}-records", statement, "untrained", "trained", "average precision", source="",
        data="3 real PhysioNet records (2 to train, 1 to score), small preset",
    )  # fmt: skip
    return claim, partial(records_check, name)


PLUMBING = {f"{entry.name}-records": _claim(entry.name) for entry in vertical.systems}
