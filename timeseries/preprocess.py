"""Signal conditioning with scipy: resampling, zero-phase filters, channel checks, and normalization by level.

scipy.signal is imported where it is used: with its dependencies it takes 65 MB that reading and windowing do without.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from counterpoint.common.errors import InputError

_PIECE = 1 << 17  # samples that stay in the processor's cache


def missing_as_nan(
    x: Float[np.ndarray, "time channels"],
) -> tuple[Float32[np.ndarray, "time channels"], Int[np.ndarray, " channels"]]:
    """Values that are no finite float32 numbers are missing values: NaN. Returns the signal and the count per channel.

    The count is of the infinite ones alone. A signal without any comes back as it is, not copied.

    >>> x, infinite = missing_as_nan(np.array([[1.0, np.inf], [np.nan, 2.0]], np.float32))
    >>> x.tolist(), infinite.tolist()
    ([[1.0, nan], [nan, 2.0]], [0, 1])
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32 is as little a measurement as an infinite one
        x = x if x.dtype == np.float32 else np.asarray(x, np.float32)
    infinite = np.zeros(x.shape[1], int)
    for first in range(0, len(x), _PIECE):
        piece = x[first : first + _PIECE]
        if not np.isfinite(piece).all():
            infinite += np.isinf(piece).sum(0)
    if infinite.any():
        x = np.where(np.isinf(x), np.float32(np.nan), x)
    return x, infinite


_SENTINELS = np.array([s * v for v in (99, 999, 9999, 99999, 999999, 32768, 65535) for s in (1, -1)] + [32767], float)


def sentinel(x: Float[np.ndarray, " time"]) -> float | None:
    """A value that looks like a mark for "missing": -999 and the like, repeated, far from all other values.

    >>> sentinel(np.array([0.1, 0.2, -999, -999, 0.3], np.float32))
    -999.0
    """
    finite = x[np.isfinite(x)]
    if not len(finite):
        return None
    for value in (float(finite.min()), float(finite.max())):
        if value not in _SENTINELS or np.count_nonzero(finite == value) < 2:
            continue
        rest = finite[finite != value]
        if len(rest) and np.abs(rest - value).min() > 3 * max(float(np.ptp(rest)), 1e-6):
            return value
    return None


def missing_notes(x: Float[np.ndarray, "time channels"], names: Sequence[str]) -> list[str]:
    """What a signal lacks, in words: missing samples per channel, and values that look like marks for missing ones."""
    lost = [int(len(x) - np.isfinite(x[:, j]).sum()) for j in range(x.shape[1])]
    found = []
    if any(lost):
        some = ", ".join(f"{name} {count}" for name, count in zip(names, lost) if count)
        found.append(f"missing samples of {len(x)}: {some}")
    for j, name in enumerate(names):
        value = sentinel(x[:, j])
        if value is not None:
            found.append(
                f"channel {name} is {value:g} in {int((x[:, j] == np.float32(value)).sum())} samples, far from its "
                "other values; if that marks missing ones, leave them empty"
            )
    return found


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
            raise InputError(
                f"band-pass limit {name} {edge:g} Hz lies outside (0, {nyquist:g}) Hz, half the {fs:g} Hz "
                "rate"
            )
    if low is None and high is None:
        return np.asarray(x, np.float32)
    if low is not None and high is not None:
        if low >= high:
            raise InputError(f"band-pass limit low {low:g} Hz is not below high {high:g} Hz")
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
    for first in range(0, len(x), _PIECE):
        piece = np.ascontiguousarray(x[first : first + _PIECE].T)  # reductions along memory are ten times faster
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
    """Standard scaling per channel at a stated level, z = (x - mean) / std, of finite values alone.

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
            raise InputError("normalization level 'train' found no training record; run `data split` on the manifest")
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
    """Pooled mean and deviation per channel of the finite values; a constant channel gets 1. Two passes, chunked."""

    def pieces():
        for x in signals:
            for i in range(0, len(x), 1 << 18):
                piece = x[i : i + (1 << 18)]
                finite = np.isfinite(piece)
                yield (piece if finite.all() else np.where(finite, piece, np.nan)), finite

    count = np.maximum(sum(finite.sum(0) for _, finite in pieces()), 1)
    mean = sum(np.nansum(x, 0, dtype=np.float64) for x, _ in pieces()) / count
    std = np.sqrt(sum(np.nansum(np.square(x - mean), 0, dtype=np.float64) for x, _ in pieces()) / count)
    return mean, np.where(std > 1e-8, std, 1.0)
