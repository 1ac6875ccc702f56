"""Windows keep their ids, never cross recordings, and splits never cross patients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.errors import InputError, LeakageError
from counterpoint.timeseries.splits import check_patients, label_fraction, split_patients, split_windows_at_random
from counterpoint.timeseries.windows import WindowSet, beat_starts, r_peaks, window_starts


def cohort(patients=12, trials=2, samples=120, length=20, step=10):
    """Signals whose values say where they come from: patient * 1e4 + trial * 1e3 + sample."""
    signals, rows = [], []
    for p in range(patients):
        for t in range(trials):
            ramp = p * 1e4 + t * 1e3 + np.arange(samples, dtype=np.float32)
            signals.append(np.stack([ramp, -ramp], 1))
            rows.append({"id": f"p{p}-t{t}", "group": f"p{p}", "label": "sick" if p % 3 == 0 else "well"})
    return WindowSet.build(signals, length, step, rows, fs=10.0)


@given(samples=st.integers(0, 300), length=st.integers(1, 50), step=st.integers(1, 60))
def test_window_starts_are_all_that_fit(samples, length, step):
    starts = window_starts(samples, length, step)
    assert all(s + length <= samples for s in starts)
    assert len(starts) == max(0, (samples - length) // step + 1)


def test_windows_come_from_their_own_recording():
    windows = cohort()
    assert len(windows) == 12 * 2 * 11
    for i in (0, 10, 11, 150, len(windows) - 1):
        row = windows.frame.iloc[i]
        p, t = (int(part[1:]) for part in row["record"].split("-"))
        expected = p * 1e4 + t * 1e3 + row["start"] + np.arange(20)
        np.testing.assert_array_equal(windows[i][:, 0], expected.astype(np.float32))
    np.testing.assert_array_equal(windows.stack([3, 7])[1], windows[7])
    assert windows.frame["id"].is_unique


def test_flat_and_empty_windows_are_left_out_and_counted():
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    x[20:40] = 1.0
    x[60:80] = np.nan
    x[80:100, 0] = np.nan  # one lead is enough
    windows = WindowSet.build([x], 20, 20, [{"id": "r"}], 10.0)
    assert windows.frame["start"].tolist() == [0, 40, 80]
    assert windows.notes == ("r: 2 of 5 windows are flat or empty in every channel",)
    short = WindowSet.build([x, x[:10]], 20, 20, [{"id": "r"}, {"id": "s"}], 10.0)
    assert short.notes[1] == "s: 10 samples, shorter than one window of 20"


def test_normalization_is_applied_when_cut_and_leaves_the_signals():
    windows = cohort()
    for level, unit in (("trial", "trial"), ("patient", "group")):
        scaled = windows.normalized(level)
        rows = np.flatnonzero(scaled.frame[unit] == scaled.frame[unit].iloc[0])
        whole = scaled.signals[0] if unit == "trial" else np.concatenate(scaled.signals[:2])
        expected = (windows.stack(rows) - whole.mean(0)) / whole.std(0)
        np.testing.assert_allclose(scaled.stack(rows), expected, atol=1e-3)
        assert scaled.signals[0] is windows.signals[0]
    one = windows.normalized("window")[5]
    np.testing.assert_allclose([one.mean(), one.std()], [0, 1], atol=1e-5)


def test_train_level_ignores_held_out_patients():
    windows = split_patients(cohort(), {"train": 0.5, "test": 0.5})
    train = windows.where(split="train").frame["signal"].unique()
    expected = np.concatenate([windows.signals[i] for i in train]).mean(0)
    np.testing.assert_allclose(windows.normalized("train").mean[0], expected, rtol=1e-5)


def test_patient_split_holds_patients_together_and_every_class_everywhere():
    windows = split_patients(cohort(), {"train": 0.5, "val": 0.25, "test": 0.25}, seed=3)
    check_patients(windows)
    assert windows.frame.groupby("group")["split"].nunique().max() == 1
    assert (windows.frame.groupby("split")["label"].nunique() == 2).all()
    with pytest.raises(InputError, match=r"would hold no patient of class sick: 1 patient\(s\) have it"):
        split_patients(cohort(patients=3), {"train": 0.4, "val": 0.3, "test": 0.3})


def test_random_window_split_is_caught_as_leakage():
    leaking = split_windows_at_random(cohort(), {"train": 0.5, "test": 0.5})
    with pytest.raises(LeakageError, match="stands in test and train"):
        check_patients(leaking)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_label_fractions_by_patient_and_by_window(fraction):
    windows = cohort(patients=30)
    frame = windows.frame
    by_patient = label_fraction(windows, fraction, "patient", seed=1)
    chosen = set(frame.loc[by_patient, "group"])
    assert by_patient.sum() == frame["group"].isin(chosen).sum()  # whole patients only
    assert len(chosen) == max(1, round(10 * fraction)) + round(20 * fraction)
    by_window = label_fraction(windows, fraction, "window", seed=1)
    assert by_window.sum() == pytest.approx(fraction * len(windows), abs=2)
    for keep in (by_patient, by_window):
        assert set(frame.loc[keep, "label"]) == {"sick", "well"}


def test_label_fraction_errors():
    with pytest.raises(InputError, match=r"fraction 0 must lie in \(0, 1\]"):
        label_fraction(cohort(), 0.0)
    with pytest.raises(InputError, match="choose patient or window"):
        label_fraction(cohort(), 0.5, by="trial")


def test_beats_are_found_in_a_noisy_synthetic_rhythm():
    fs, generator = 250.0, np.random.default_rng(0)
    truth = np.cumsum(generator.uniform(0.6, 1.1, 60))
    time = np.arange(int((truth[-1] + 1) * fs)) / fs
    beat = sum(
        np.exp(-0.5 * ((time - t) / 0.012) ** 2) + 0.3 * np.exp(-0.5 * ((time - t - 0.25) / 0.05) ** 2) for t in truth
    )
    noisy = beat + 0.5 * np.sin(2 * np.pi * 0.3 * time) + 0.05 * generator.normal(size=len(time))
    found = r_peaks(noisy, fs) / fs
    assert len(found) == len(truth)
    assert np.abs(found - truth).max() < 0.02


def test_beat_windows_put_the_peak_in_its_place():
    starts, length = beat_starts(np.array([500, 900]), 360.0, 0.25, 0.45)
    assert (starts + 90).tolist() == [500, 900]
    assert length == 252


@pytest.mark.realdata
def test_beats_of_a_real_record_match_its_annotations(data_dir):
    from counterpoint.timeseries.readers import read_wfdb
    from counterpoint.timeseries.windows import BEAT_SYMBOLS

    record = read_wfdb(data_dir / "timeseries" / "wfdb" / "100")
    found = r_peaks(record.block[:, 0], 360.0)
    events = record.annotations
    truth = events.onset[[label in BEAT_SYMBOLS for label in events.label]] * 360
    nearest = np.abs(truth[:, None] - found).min(1)
    assert (nearest < 0.1 * 360).mean() > 0.995  # sensitivity
    assert abs(len(found) - len(truth)) < 0.005 * len(truth)
