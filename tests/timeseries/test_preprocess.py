"""Conditioning keeps what lies in the band, removes what does not, and never mixes units of normalization."""

import numpy as np
import pytest

from counterpoint.common.errors import InputError
from counterpoint.timeseries.preprocess import Normalizer, bandpass, notch, resample, usable_channels


def sine(frequency, fs, seconds=10.0):
    return np.sin(2 * np.pi * frequency * np.arange(int(fs * seconds)) / fs).astype(np.float32)


@pytest.mark.parametrize(("fs", "target"), [(360, 250), (1000, 128), (100, 256), (125, 500)])
def test_resampling_keeps_a_sine_and_the_duration(fs, target):
    y = resample(sine(3, fs), fs, target)
    assert len(y) == 10 * target
    inner = slice(target, 9 * target)
    np.testing.assert_allclose(y[inner], sine(3, target)[inner], atol=0.01)


def test_resampling_removes_what_would_alias():
    assert np.abs(resample(sine(60, 250), 250, 50)[50:-50]).max() < 0.02
    assert np.abs(sine(60, 250)[::5]).max() > 0.9  # decimation alone keeps it, at a false 10 Hz


def test_resampling_keeps_constants_and_gaps():
    assert np.allclose(resample(np.full(500, 3.0, np.float32), 250, 100), 3.0, atol=1e-3)
    x = sine(2, 250)
    x[500:600] = np.nan
    y = resample(x, 250, 125)
    assert np.isnan(y[250:300]).all()
    assert np.isfinite(y[:249]).all()
    assert np.isfinite(y[301:]).all()


def test_filters_pass_and_stop_without_delay():
    low, high = sine(0.2, 250, 40), sine(10, 250, 40)
    passed = bandpass(np.stack([low + high], 1), 250, 1.0, 40.0)[:, 0]
    inner = slice(1000, -1000)
    np.testing.assert_allclose(passed[inner], high[inner], atol=0.02)
    mains = notch(np.stack([high + sine(50, 250, 40)], 1), 250, 50.0)[:, 0]
    np.testing.assert_allclose(mains[inner], high[inner], atol=0.03)


def test_filter_errors_name_the_band():
    x = np.zeros((100, 1), np.float32)
    with pytest.raises(InputError, match=r"limit high 200 Hz lies outside \(0, 125\) Hz"):
        bandpass(x, 250, 1, 200)
    with pytest.raises(InputError, match="limit low 30 Hz is not below high 20 Hz"):
        bandpass(x, 250, 30, 20)
    with pytest.raises(InputError, match="notch at 60 Hz"):
        notch(x, 100, 60)


def test_flat_and_empty_channels_are_not_usable():
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    x[:, 1], x[:, 2], x[:60, 3] = 2.5, np.nan, np.nan
    assert usable_channels(x).tolist() == [True, False, False, False]


def test_training_statistics_do_not_see_the_test_signals():
    generator = np.random.default_rng(0)
    train = [generator.normal(2, 3, (200, 2)).astype(np.float32) for _ in range(3)]
    far = generator.normal(1000, 50, (200, 2)).astype(np.float32)
    alone = Normalizer("train").fit(train, [True] * 3)
    together = Normalizer("train").fit([*train, far], [True, True, True, False])
    np.testing.assert_array_equal(alone.mean, together.mean)
    np.testing.assert_allclose(together.mean, np.concatenate(train).mean(0), rtol=1e-5)
    np.testing.assert_allclose(together.std, np.concatenate(train).std(0), rtol=1e-4)


def test_own_statistics_do_not_see_other_patients():
    generator = np.random.default_rng(0)
    x = [generator.normal(m, s, (300, 1)).astype(np.float32) for m, s in ((0, 1), (5, 2), (50, 9))]
    mean, std = Normalizer("patient").statistics(x, ["a", "a", "b"])
    changed, _ = Normalizer("patient").statistics([x[0], x[1], x[2] * 7], ["a", "a", "b"])
    np.testing.assert_array_equal(mean[:2], changed[:2])
    np.testing.assert_allclose(mean[0], np.concatenate(x[:2]).mean(0), rtol=1e-5)
    np.testing.assert_allclose(std[0], np.concatenate(x[:2]).std(0), rtol=1e-5)
    own, _ = Normalizer("record").statistics(x)
    assert len(np.unique(own)) == 3


def test_normalizer_says_what_is_wrong():
    with pytest.raises(InputError, match="'zscore' is unknown; choose one of none, window"):
        Normalizer("zscore")
    with pytest.raises(ValueError, match="before fit"):
        Normalizer("train").statistics([np.zeros((3, 1))])
    with pytest.raises(InputError, match="found no training record"):
        Normalizer("train").fit([np.zeros((3, 1))], [False])
