"""Probes hold patients out, events and anomalies are scored by their written rules."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.trainers import create_system, override
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.detection import (
    adjust_for_delay,
    anomaly_scores,
    anomaly_threshold,
    event_scores,
    flagged,
    windows_to_steps,
)
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients, split_windows_at_random
from counterpoint.timeseries.tasks import probe_patients, similar_beats
from counterpoint.timeseries.ts2vec import TS2Vec


@pytest.fixture(scope="module")
def windows():
    split = {"train": 0.5, "val": 0.25, "test": 0.25}
    return split_patients(ecg(patients=16, trials=1, windows=4, length=64), split)


def test_probe_reads_a_given_class_and_not_patients(windows):
    generator = torch.Generator().manual_seed(0)
    sick = torch.tensor((windows.frame["label"] == "infarct").to_numpy())
    informative = torch.randn(len(windows), 6, generator=generator) + 4 * sick[:, None]
    results = probe_patients(informative, windows, (1.0, 0.25), n_boot=50)
    assert [r.fraction for r in results] == [1.0, 0.25]
    assert results[0].probe.scores.metrics["auroc"] > 0.99
    assert results[0].patients.metrics["accuracy"] == 1.0
    assert results[1].labelled_patients == 2
    patient = torch.tensor(windows.frame["group"].astype("category").cat.codes.to_numpy(), dtype=torch.long)
    identity = torch.nn.functional.one_hot(patient, 16).float()
    assert probe_patients(identity, windows, (1.0,), n_boot=10)[0].probe.scores.metrics["accuracy"] <= 0.75


@pytest.mark.parametrize("by", ["patient", "window"])
def test_a_share_of_the_labels_holds_no_label_of_the_validation_patients(windows, by):
    """Wrong labels on all validation windows change nothing at 25 %, and are learnt from at 100 %."""
    frame = windows.frame
    sick = torch.tensor((frame["label"] == "infarct").to_numpy())
    z = torch.randn(len(windows), 4, generator=torch.Generator().manual_seed(1)) + sick[:, None]
    other = {"infarct": "healthy", "healthy": "infarct"}
    wrong = frame["label"].where(frame["split"] != "val", frame["label"].map(other))
    results = [
        probe_patients(z, replace(windows, frame=frame.assign(label=label)), (1.0, 0.25), by, n_boot=5)
        for label in (frame["label"], wrong)
    ]
    whole, part = ([r[i].probe.predictions for r in results] for i in (0, 1))
    np.testing.assert_array_equal(part[0], part[1])
    assert not np.array_equal(whole[0], whole[1])
    train = (frame["split"] == "train").sum()
    assert results[0][1].labelled_windows == pytest.approx(0.25 * train, abs=2)
    assert results[0][0].labelled_windows == train + (frame["split"] == "val").sum()


def test_val_can_be_scored_and_train_cannot(windows):
    z = torch.randn(len(windows), 3, generator=torch.Generator().manual_seed(0))
    (found,) = probe_patients(z, windows, (1.0,), split="val", n_boot=5)
    assert found.scores.n == (windows.frame["split"] == "val").sum()
    assert found.labelled_windows == (windows.frame["split"] == "train").sum()
    with pytest.raises(InputError, match="score val or test"):
        probe_patients(z, windows, (1.0,), split="train")


def test_probe_refuses_leaking_splits_and_missing_labels(windows):
    z = torch.randn(len(windows), 3)
    with pytest.raises(LeakageError, match="split by group"):
        probe_patients(z, split_windows_at_random(windows, {"train": 0.5, "test": 0.5}))
    with pytest.raises(InputError, match="split test has no labelled window"):
        probe_patients(
            z[: (windows.frame.split != "test").sum()], windows.subset((windows.frame.split != "test").to_numpy())
        )


def test_event_scores_count_touched_events():
    truth = np.zeros(20, bool)
    truth[2:5] = truth[10:14] = True
    score = np.zeros(20)
    score[4] = score[17] = 1.0
    found = event_scores([score], [truth], [flagged(score, 0.5)], ["p"], n_boot=5)
    assert (found.true_events, found.found_events, found.said_events, found.steps) == (2, 1, 2, 20)
    figures = found.scores.metrics
    assert [figures[f"event_{name}"] for name in ("recall", "precision", "f1")] == [0.5, 0.5, 0.5]
    assert figures["step_f1"] == pytest.approx(2 / (2 + 6 + 1))
    perfect = event_scores([truth.astype(float)], [truth], [truth], ["p"], n_boot=5).scores.metrics
    assert set(perfect.values()) == {1.0}
    assert not flagged(score, 0.5, min_length=2).any()


def test_flagging_everything_finds_no_rare_event():
    truth = np.zeros(100, bool)
    truth[10:14] = truth[50:54] = True
    everything = np.ones(100, bool)
    scores = event_scores([np.zeros(100)], [truth], [everything], ["p"], n_boot=5).scores
    assert (scores.metrics["event_recall"], scores.metrics["event_precision"]) == (1.0, 0.0)
    assert (scores.metrics["auroc"], scores.metrics["auprc"]) == (0.5, pytest.approx(0.08))
    assert all(scores.metrics[name] == pytest.approx(scores.chance[name]) for name in scores.metrics)


def test_event_intervals_resample_patients():
    """Two patients, one found and one missed: recall is anything from 0 to 1, however many recordings they have."""
    truth = np.zeros(10, bool)
    truth[3:5] = True
    said = [truth] * 4 + [np.zeros(10, bool)] * 4
    found = event_scores([t.astype(float) for t in said], [truth] * 8, said, ["a"] * 4 + ["b"] * 4, n_boot=200)
    recall = found.scores.intervals["event_recall"]
    assert (recall.value, recall.low, recall.high, recall.groups) == (0.5, 0.0, 1.0, 2)


def test_steps_average_the_windows_that_cover_them():
    steps = windows_to_steps(np.array([1.0, 3.0]), np.array([0, 2]), 4, 8)
    assert steps.tolist() == [1, 1, 2, 2, 3, 3, 0, 0]


def test_late_detection_loses_the_whole_segment():
    truth = np.array([0, 1, 1, 1, 1, 0], bool)
    late = np.array([0, 0, 0, 1, 0, 0], bool)
    assert adjust_for_delay(late, truth, 1).tolist() == [False] * 6
    assert adjust_for_delay(late, truth, 2).tolist() == truth.tolist()


def test_anomaly_score_sees_the_past_only_and_a_spike(windows):
    changes = {
        "encoder": {"dim": 8, "hidden": 8, "depth": 3},
        "train": {"batch_size": 4, "accelerator": "cpu"},
        "data": {"length": 64},
    }
    system = create_system(TS2Vec, override(TS2VecConfig(), changes), windows)
    x = np.sin(np.arange(150)[:, None] / 5 + np.arange(12)).astype(np.float32)
    x += 0.01 * np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    x[100] += 10
    score = anomaly_scores(system, x, context=40)
    assert score.argmax() == 100
    assert score[100] > anomaly_threshold(score[:90])
    changed = x.copy()
    changed[120:] = 0
    np.testing.assert_allclose(anomaly_scores(system, changed, context=40)[:120], score[:120], rtol=1e-3, atol=1e-4)


def test_similar_beats_leave_the_query_out(windows):
    label = torch.tensor((windows.frame["label"] == "infarct").to_numpy()).float()
    z = torch.stack([label, 1 - label], 1) + 0.01 * torch.randn(len(windows), 2)
    found = similar_beats(z, windows, n_boot=20)
    assert found.metrics["R@1"] == 1.0
    assert found.pool == len(windows) - 1


def test_every_row_of_a_vertical_uses_the_label_asked_for(windows):
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.trainers import create_system
    from counterpoint.timeseries.configs import SignalConfig, TS2VecConfig
    from counterpoint.timeseries.protocols import protocols
    from counterpoint.timeseries.ts2vec import TS2Vec

    halves = np.where(windows.frame["start"] < windows.frame["start"].median(), "early", "late")
    windows = replace(windows, frame=windows.frame.assign(trial=halves))
    system = create_system(TS2Vec, TS2VecConfig(data=SignalConfig(length=windows.length)), windows)
    by_half = protocols(OpenRun.of(system, label="trial"))["probe, 100 % of labels by patient"]
    assert by_half.scores.classes == ("early", "late")
    by_class = protocols(OpenRun.of(system))["probe, 100 % of labels by patient"]
    assert set(by_class.scores.classes) == set(windows.frame["label"])
    named = protocols(OpenRun.of(system, label="group"))
    assert {r.reason for r in named.values()} == {"group is another name of the patients: no other one can carry it"}
