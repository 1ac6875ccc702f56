"""Figures per recording beside those per window, on tables worked out by hand and from the command line's protocols."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.tasks import one_class_each, probe_patients, score_series

TABLE = (  # series, class, probability of class a
    ("r1", "a", 0.9), ("r1", "a", 0.4), ("r1", "a", 0.4),  # mean .567: right, though two windows of three are wrong
    ("r2", "b", 0.2), ("r2", "b", 0.6),  # mean .4: right
    ("r3", "b", 0.9),  # wrong
    ("r4", "a", 0.7), ("r4", "a", 0.7), ("r4", "a", 0.0), ("r4", "a", 0.0),  # mean .35: wrong
)  # fmt: skip


def columns():
    series, label, p = zip(*TABLE)
    return np.stack([p, 1 - np.array(p)], 1), list(label), list(series)


def test_a_series_has_the_mean_probability_of_its_windows():
    p, label, series = columns()
    found = score_series(p, label, series, ("a", "b"), n_boot=200)
    assert found.n == 4
    assert found.metrics["accuracy"] == 0.5
    # Of pairs (a, b) of series, .567 and .35 of a against .4 and .9 of b: one of four is in order.
    assert found.metrics["auroc"] == pytest.approx(1 / 4)
    assert found.intervals["accuracy"].groups == 4
    assert np.mean([(a > 0.5) == (y == "a") for a, y in zip(p[:, 0], label)]) == pytest.approx(0.4)  # by windows


def test_order_and_repetition_of_windows_change_nothing():
    p, label, series = columns()
    whole = score_series(p, label, series, ("a", "b"), n_boot=20)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(p)), 3))
    again = score_series(p[order], [label[i] for i in order], [series[i] for i in order], ("a", "b"), n_boot=20)
    assert again.metrics == pytest.approx(whole.metrics)


def test_intervals_resample_the_patients_of_the_series():
    p, label, series = columns()
    owner = {"r1": "x", "r2": "x", "r3": "y", "r4": "y"}
    found = score_series(p, label, series, ("a", "b"), [owner[s] for s in series], n_boot=50)
    interval = found.intervals["accuracy"]
    assert (interval.groups, interval.low, interval.high) == (2, 0.0, 1.0)  # x is right twice, y wrong twice


def test_a_series_of_two_classes_or_patients_is_refused():
    p, label, series = columns()
    with pytest.raises(InputError, match="series r1: windows of class 'a' and 'b'"):
        score_series(p, [*label[:2], "b", *label[3:]], series, ("a", "b"))
    with pytest.raises(InputError, match="series r4: windows of group 'r4' and 'other'"):
        score_series(p, label, series, ("a", "b"), [*series[:-1], "other"])


def test_probes_give_both_and_leave_out_what_has_no_meaning():
    parts = {"train": 0.5, "val": 0.25, "test": 0.25}
    windows = split_patients(ecg(patients=16, trials=1, windows=4, length=64), parts)
    sick = torch.tensor((windows.frame["label"] == "infarct").to_numpy())
    z = torch.randn(len(windows), 4, generator=torch.Generator().manual_seed(0)) + 1.5 * sick[:, None]
    (found,) = probe_patients(z, windows, (1.0,), n_boot=20)
    test = windows.frame[windows.frame["split"] == "test"]
    assert found.series.n == test["record"].nunique() < found.scores.n == len(test)
    assert found.series.metrics["accuracy"] >= found.scores.metrics["accuracy"]  # four windows vote
    stages = windows.frame["label"].where(windows.frame["start"] > 0, "other")
    mixed = replace(windows, frame=windows.frame.assign(label=stages))
    assert not one_class_each(mixed)
    assert probe_patients(z, mixed, (1.0,), n_boot=5)[0].series is None
    single = windows.subset(np.flatnonzero((windows.frame["start"] == 0).to_numpy()))
    assert not one_class_each(single)
