"""Signal conditioning with scipy: resampling, zero-phase filters, channel checks, and normalization by level.

scipy.signal is imported where it is used: with its dependencies it takes 65 MB that reading and windowing do without.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Float32

from counterpoint.common.errors import InputError


def _bridge(x: Float[np.ndarray, " time"]) -> tuple[np.ndarray, np.ndarray]:
    """Fill NaN by linear interpolation so that a filter can run; the mask says where to put NaN back."""
    gaps = ~np.isfinite(x)
    if not gaps.any():
        return x, gaps
    if gaps.all():
        return np.zeros_like(x), gaps
    time = np.arange(len(x))
    return np.where(gaps, np.interp(time, time[~gaps], x[~gaps]), x).astype(x.dtype), gaps


def resample(x: Float[np.ndarray, " time"], fs: float, target: float) -> Float32[np.ndarray, " resampled"]:
    """Resample one channel from `fs` to `target` hertz with scipy's anti-aliased polyphase filter.

    A sine below both Nyquist rates keeps its amplitude; one above the new Nyquist rate disappears. NaN gaps are
    bridged for the filter and restored at the new rate. The output has ceil(time * target / fs) samples.

    >>> resample(np.ones(100, np.float32), 100.0, 50.0).shape
    (50,)
    """
    from scipy import signal

    x = np.asarray(x, np.float32)
    if fs <= 0 or target <= 0:
        raise ValueError(f"resample: rates must be positive, got fs={fs}, target={target}")
    if fs == target or not len(x):
        return x
    ratio = Fraction(target / fs).limit_denominator(10_000)
    filled, gaps = _bridge(x)
    # The filter would see a step from zero at both ends; the padding type keeps a constant signal constant.
    y = signal.resample_poly(filled, ratio.numerator, ratio.denominator, padtype="line").astype(np.float32)
    if gaps.any():
        source = np.minimum(np.rint(np.arange(len(y)) * fs / target).astype(int), len(x) - 1)
        y[gaps[source]] = np.nan
    return y


def bandpass(
    x: Float[np.ndarray, "time channels"], fs: float, low: float | None, high: float | None, order: int = 4
) -> Float32[np.ndarray, "time channels"]:
    """Zero-phase Butterworth filter between `low` and `high` hertz (either may be None); NaN gaps are restored.

    >>> t = np.arange(1000) / 250
    >>> slow = np.sin(2 * np.pi * 0.1 * t)[:, None].astype(np.float32)
    >>> bool(np.abs(bandpass(slow, 250.0, 2.0, 40.0)).max() < 0.1)
    True
    """
    from scipy import signal

    nyquist = fs / 2
    for name, edge in (("low", low), ("high", high)):
        if edge is not None and not 0 < edge < nyquist:
            raise InputError(f"band-pass {name}={edge:g} Hz lies outside (0, {nyquist:g}) Hz, half the {fs:g} Hz rate")
    if low is None and high is None:
        return np.asarray(x, np.float32)
    if low is not None and high is not None:
        if low >= high:
            raise InputError(f"band-pass low={low:g} Hz is not below high={high:g} Hz")
        sos = signal.butter(order, (low, high), "bandpass", fs=fs, output="sos")
    elif low is not None:
        sos = signal.butter(order, low, "highpass", fs=fs, output="sos")
    else:
        sos = signal.butter(order, high, "lowpass", fs=fs, output="sos")
    return _zero_phase(sos, x)


def notch(
    x: Float[np.ndarray, "time channels"], fs: float, frequency: float = 50.0, quality: float = 30.0
) -> Float32[np.ndarray, "time channels"]:
    """Zero-phase notch at the mains frequency (50 or 60 Hz)."""
    from scipy import signal

    if not 0 < frequency < fs / 2:
        raise InputError(f"notch at {frequency:g} Hz lies outside (0, {fs / 2:g}) Hz, half the {fs:g} Hz rate")
    return _zero_phase(signal.tf2sos(*signal.iirnotch(frequency, quality, fs=fs)), x)


def _zero_phase(sos: np.ndarray, x: np.ndarray) -> np.ndarray:
    from scipy import signal

    out = np.empty(x.shape, np.float32)
    padlen = min(3 * (2 * len(sos) + 1), max(len(x) - 1, 0))
    for j in range(x.shape[1]):
        filled, gaps = _bridge(np.asarray(x[:, j], np.float64))
        out[:, j] = signal.sosfiltfilt(sos, filled, padlen=padlen)
        out[gaps, j] = np.nan
    return out


MIN_FINITE, MIN_RANGE = 0.5, 1e-7


def usable_channels(
    x: Float[np.ndarray, "time channels"], min_finite: float = MIN_FINITE, min_range: float = MIN_RANGE
) -> Bool[np.ndarray, " channels"]:
    """Channels with enough finite samples and some variation: a loose electrode records a constant, or NaN.

    >>> usable_channels(np.array([[0.0, 1.0], [0.0, 2.0], [0.0, np.nan]], np.float32)).tolist()
    [False, True]
    """
    count = np.zeros(x.shape[1], int)
    lowest, highest = np.full((2, x.shape[1]), np.nan, np.float32)
    for first in range(0, len(x), 1 << 17):  # pieces that stay in the processor's cache
        piece = np.ascontiguousarray(x[first : first + (1 << 17)].T)  # reductions along memory are ten times faster
        count += np.isfinite(piece).sum(1)
        # fmin and fmax ignore NaN as long as anything else is there.
        lowest = np.fmin(lowest, np.fmin.reduce(piece, 1))
        highest = np.fmax(highest, np.fmax.reduce(piece, 1))
    with np.errstate(invalid="ignore"):
        return (count >= max(min_finite * len(x), 1)) & (highest - lowest > min_range)


LEVELS = ("none", "window", "trial", "record", "patient", "train")


def check_level(level: str) -> str:
    """Return a known normalization level, or raise `InputError` with the list."""
    if level not in LEVELS:
        raise InputError(f"normalization level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    return level


@dataclass(frozen=True)
class Normalizer:
    """Standard scaling per channel at a stated level, z = (x - mean) / std, NaN ignored.

    `trial`, `record` and `patient` take the statistics of the signal's own unit (`key`), so nothing is learnt from
    other patients. `train` learns one mean and deviation from the training signals alone and applies it everywhere;
    asking for it before `fit` is an error. `none` and `window` leave signals alone (a window is scaled when it is
    cut; that removes amplitude information). Constant channels are centred and left unscaled.

    >>> x = [np.array([[0.0], [2.0]], np.float32), np.array([[10.0], [14.0]], np.float32)]
    >>> scaler = Normalizer("train").fit(x, train=[True, False])
    >>> mean, std = scaler.statistics(x)
    >>> ((x[1] - mean[1]) / std[1]).ravel().tolist()
    [9.0, 13.0]
    """

    level: str
    mean: Float[np.ndarray, " channels"] | None = None
    std: Float[np.ndarray, " channels"] | None = None

    def __post_init__(self):
        check_level(self.level)

    def fit(self, signals: Sequence[np.ndarray], train: Sequence[bool]) -> Normalizer:
        """Learn the `train` level's statistics from the signals marked as training; other levels need none."""
        if self.level != "train":
            return self
        chosen = [x for x, keep in zip(signals, train) if keep]
        if not chosen:
            raise InputError("normalization level 'train' found no training record; mark rows with split=train")
        return Normalizer(self.level, *_moments(chosen))

    def statistics(
        self, signals: Sequence[np.ndarray], key: Sequence[Hashable] | None = None
    ) -> tuple[Float[np.ndarray, "signals channels"], Float[np.ndarray, "signals channels"]]:
        """Mean and deviation to apply to each signal; signals with one `key` share theirs (default: each alone)."""
        channels = signals[0].shape[1] if len(signals) else 0
        if self.level in ("none", "window"):
            return np.zeros((len(signals), channels)), np.ones((len(signals), channels))
        if self.level == "train":
            if self.mean is None:
                raise ValueError("Normalizer('train').statistics before fit(signals, train)")
            return np.tile(self.mean, (len(signals), 1)), np.tile(self.std, (len(signals), 1))
        keys = list(range(len(signals))) if key is None else list(key)
        members: dict[Hashable, list[np.ndarray]] = {}
        for k, x in zip(keys, signals):
            members.setdefault(k, []).append(x)
        moments = {k: _moments(group) for k, group in members.items()}
        return np.stack([moments[k][0] for k in keys]), np.stack([moments[k][1] for k in keys])


def _moments(signals: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pooled mean and deviation per channel, NaN left out; a constant channel gets deviation 1. Two passes, chunked."""
    pieces = [x[i : i + (1 << 18)] for x in signals for i in range(0, len(x), 1 << 18)]
    count = np.maximum(sum(np.isfinite(x).sum(0) for x in pieces), 1)
    mean = sum(np.nansum(x, 0, dtype=np.float64) for x in pieces) / count
    std = np.sqrt(sum(np.nansum(np.square(x - mean), 0, dtype=np.float64) for x in pieces) / count)
    return mean, np.where(std > 1e-8, std, 1.0)
