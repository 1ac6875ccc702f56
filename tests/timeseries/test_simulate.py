"""The generator is seeded, says that it is synthetic, and is hard in the way real cohorts are."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.manifest import load_windows, write_signals
from counterpoint.timeseries.simulate import DEVICES, corrupt_pairs, ecg, eeg, har, simulated
from counterpoint.timeseries.splits import split_patients, split_windows_at_random


def spectrum_accuracy(windows):
    """A strong plain classifier: logistic regression on amplitude spectra."""
    x = np.abs(np.fft.rfft(windows.stack(), axis=1))[:, :40].reshape(len(windows), -1)
    train = (windows.frame["split"] == "train").to_numpy()
    label = windows.frame["label"].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(x[train], label[train])
    return model.score(x[~train], label[~train])


@pytest.mark.parametrize("channels", [6, 12])
def test_a_random_window_split_looks_much_better_than_a_patient_split(channels):
    windows = ecg(patients=30, trials=3, windows=6, channels=channels).normalized("trial")
    shares = {"train": 0.6, "test": 0.4}
    leaking = spectrum_accuracy(split_windows_at_random(windows, shares))
    honest = spectrum_accuracy(split_patients(windows, shares))
    assert leaking > 0.85
    assert leaking - honest > 0.15


@pytest.mark.parametrize("kind", ["ecg", "eeg", "har"])
def test_seeded_labelled_and_of_the_stated_sizes(kind):
    sizes = {"subjects": 4, "windows": 2} if kind == "har" else {"patients": 4, "trials": 2, "windows": 3}
    first, again, other = simulated(kind, 1, **sizes), simulated(kind, 1, **sizes), simulated(kind, 2, **sizes)
    assert first.synthetic
    np.testing.assert_array_equal(first.stack(), again.stack())
    assert not np.array_equal(first.stack(), other.stack())
    assert np.isfinite(first.stack()).all()
    assert first.frame["group"].nunique() == 4
    with pytest.raises(InputError, match="choose one of ecg, eeg, har"):
        simulated("emg")


def test_ecg_disease_raises_st_and_inverts_t_in_few_leads():
    windows = ecg(patients=60, trials=1, windows=4, length=512)
    sick = (windows.frame["label"] == "infarct").to_numpy()
    x = windows.stack()
    x = x - np.median(x, axis=1, keepdims=True)
    low = np.percentile(x, 2, axis=1)  # an inverted T pulls a lead's low end down
    moved = np.abs(low[sick].mean(0) - low[~sick].mean(0))
    assert moved.max() < low[~sick].std(0).max()  # smaller than the patients' own spread


def test_eeg_alpha_peak_falls_with_age_and_disease():
    windows = eeg(patients=60, trials=1, windows=8)
    x = np.stack(windows.signals)
    power = (np.abs(np.fft.rfft(x, axis=1)) ** 2).mean(2)
    frequency = np.fft.rfftfreq(x.shape[1], 1 / windows.fs)
    band = (frequency > 6.9) & (frequency < 13)
    excess = np.maximum(power[:, band] * frequency[band] ** 1.3, 0) ** 2
    peak = (excess * frequency[band]).sum(1) / excess.sum(1)
    first = windows.frame.drop_duplicates("signal")
    age = windows.extra["age"][first.index]
    sick = (first["label"] == "disease").to_numpy()
    assert np.corrcoef(peak[~sick], age[~sick])[0, 1] < -0.5
    assert peak[sick].mean() < peak[~sick].mean() - 0.3


def test_har_devices_share_motion_near_ones_more_and_skeletons_follow():
    windows = har(subjects=4, trials=1)
    assert windows.stack().shape[2] == 6 * len(DEVICES)
    assert windows.extra["skeleton"].shape == (len(windows), 150, 15, 3)
    assert 0 < np.isnan(windows.extra["skeleton"]).mean() < 0.1
    active = windows.frame["label"].isin(["walk", "run"]).to_numpy()
    x = windows.stack()[active].reshape(active.sum(), 150, 5, 6)
    strength = np.linalg.norm(x[..., :3], axis=-1)
    strength -= strength.mean(1, keepdims=True)
    near = (strength[:, :, 0] * strength[:, :, 1]).sum(1) / np.linalg.norm(strength[:, :, 0], axis=1)
    assert near.mean() > 0


def test_bad_pairs_are_what_their_flags_say():
    x = np.random.default_rng(0).normal(size=(50, 20, 2)).astype(np.float32)
    second, noisy, faulty = corrupt_pairs(x, 0.1, 0.2, seed=1)
    assert (noisy.sum(), faulty.sum(), (noisy & faulty).sum()) == (5, 10, 0)
    same = (second == x).all((1, 2))
    np.testing.assert_array_equal(same, ~(noisy | faulty))
    others = [any((second[i] == x[j]).all() for j in range(50) if j != i) for i in np.flatnonzero(faulty)]
    assert all(others)


def test_written_signals_come_back_and_stay_labelled_synthetic(tmp_path):
    path = write_signals(tmp_path, simulated("ecg", seed=3, patients=4, trials=2, windows=2))
    windows = load_windows(SignalConfig(manifest=str(path), length=256, step=256, normalize="none"))
    assert windows.synthetic
    np.testing.assert_array_equal(windows.stack(), simulated("ecg", 3, patients=4, trials=2, windows=2).stack())


@pytest.mark.parametrize("name", ["../../x", "a/b", "CON", "é" * 300, "a.b", "%"])
def test_ids_of_recordings_become_files_of_their_own_folder(tmp_path, name):
    windows = ecg(patients=2, trials=1, windows=1, length=64, fs=64.0, seed=0)
    first = windows.frame["record"].iloc[0]
    windows.frame["record"] = windows.frame["record"].replace(first, name)
    out = tmp_path / "a" / "b" / "out"
    table = Manifest.load(write_signals(out, windows))
    held = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert held == {path for path in out.rglob("*") if path.is_file()}
    assert name in list(table.frame["id"])
    assert all(table.file(file).is_file() for file in table.frame["file"])
