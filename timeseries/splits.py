"""Patient-safe splits and label fractions, and the random-window split that shows why they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from counterpoint.common.data import Manifest, check_leakage, split_by_group
from counterpoint.common.errors import InputError
from counterpoint.timeseries.windows import WindowSet


def split_patients(windows: WindowSet, shares: Mapping[str, float] | None = None, seed: int = 0) -> WindowSet:
    """Give every patient to one split, stratified by class, and make sure that every split has every class.

    Patients go to the split that lacks most of their labels (`common.data.split_by_group`).
    """
    split = split_by_group(Manifest(windows.frame), shares, seed, stratify="label").frame
    for name, members in split.groupby("split"):
        missing = sorted(set(split["label"]) - set(members["label"]) - {""})
        if missing:
            patients = split.loc[split["label"] == missing[0], "group"].nunique()
            raise InputError(
                f"split {name} would hold no patient of class {missing[0]}: {patients} patient(s) have it; "
                "merge classes, drop a split, or add patients"
            )
    return replace(windows, frame=split)


def split_windows_at_random(windows: WindowSet, shares: Mapping[str, float], seed: int = 0) -> WindowSet:
    """Split windows regardless of patients. LEAKS by construction: only to measure how much such a split flatters."""
    order = np.random.default_rng(seed).permutation(len(windows))
    bounds = np.rint(np.cumsum(list(shares.values()))[:-1] * len(order)).astype(int)
    column = np.empty(len(order), object)
    for name, rows in zip(shares, np.split(order, bounds)):
        column[rows] = name
    return replace(windows, frame=windows.frame.assign(split=column))


def check_patients(windows: WindowSet) -> None:
    """Raise `LeakageError` when one patient stands in two splits, naming him and both (see `WindowSet.apart`)."""
    if windows.apart:
        check_leakage(Manifest(windows.frame))


def label_fraction(
    windows: WindowSet, fraction: float, by: str = "patient", seed: int = 0
) -> Bool[np.ndarray, " windows"]:
    """Which labelled windows may be used when only `fraction` of the labels is at hand, class by class.

    `by="patient"`: all windows of a share of the patients (at least one a class), the hospital's situation.
    `by="window"`: a share of each class's windows from all patients, as COMET's code counts it; easier, because every
    patient is seen. Say which one a score used.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"label fraction {fraction:g} must lie in (0, 1]")
    if by not in ("patient", "window"):
        raise InputError(f"label fraction by {by!r} is unknown; choose patient or window")
    frame = windows.frame
    unit = frame["group"] if by == "patient" else pd.Series(np.arange(len(frame)), index=frame.index)
    generator = np.random.default_rng(seed)
    keep = np.zeros(len(frame), bool)
    for label in sorted(frame["label"].unique()):
        if label == "":
            continue
        members = frame["label"] == label
        units = np.sort(unit[members].unique())
        chosen = generator.permutation(units)[: max(1, round(fraction * len(units)))]
        keep |= (members & unit.isin(chosen)).to_numpy()
    return keep
