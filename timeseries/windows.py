"""Windows over recordings, with the ids every sample carries: patient > record/trial > window > time step.

A `WindowSet` holds whole signals and a table of (signal, start); a window is a slice made when it is asked for, so
that overlapping windows cost no memory and 24 hours of ECG stay one array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int

from counterpoint.common.data.samples import BadSample, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.labels import class_names
from counterpoint.timeseries.place import Place
from counterpoint.timeseries.preprocess import (
    MIN_FINITE,
    MIN_RANGE,
    Normalizer,
    check_level,
    missing_as_nan,
    usable_channels,
)

if TYPE_CHECKING:
    from counterpoint.timeseries.form import SignalForm

COLUMNS = ("id", "group", "trial", "record", "label", "split", "start")


def window_starts(samples: int, length: int, step: int) -> Int[np.ndarray, " windows"]:
    """First samples of all windows of `length` that fit, every `step`; a shorter remainder is left out.

    >>> window_starts(1280, 256, 128).tolist()
    [0, 128, 256, 384, 512, 640, 768, 896, 1024]
    """
    if length < 1 or step < 1:
        raise ValueError(f"window_starts: length and step must be positive, got {length} and {step}")
    return np.arange(0, samples - length + 1, step)


def _usable_windows(x: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Windows with at least one usable channel (the test of `usable_channels`, many windows at a time)."""
    out = np.zeros(len(starts), bool)
    if not len(starts) or not len(x):
        return out
    length = min(length, len(x))  # what is padding is not judged
    if all(np.isfinite(x[first : first + (1 << 17)]).all() for first in range(0, len(x), 1 << 17)):
        # Two samples of a window that differ are proof enough; the few windows without proof are searched below.
        out = (np.abs(x[starts] - x[starts + length // 3]) > MIN_RANGE).any(1)
    open_ = np.flatnonzero(~out)
    view = np.lib.stride_tricks.sliding_window_view(x, length, axis=0)
    per_chunk = max((1 << 19) // (length * x.shape[1]), 1)
    for first in range(0, len(open_), per_chunk):
        rows = open_[first : first + per_chunk]
        chunk = view[starts[rows]]
        # fmax and fmin ignore NaN unless all is NaN; then the range is NaN and the comparison False.
        varies = np.fmax.reduce(chunk, axis=-1) - np.fmin.reduce(chunk, axis=-1) > MIN_RANGE
        finite = np.isfinite(chunk).mean(-1) >= MIN_FINITE
        out[rows] = (varies & finite).any(1)
    return out


@dataclass(frozen=True)
class WindowSet:
    """Windows [length, channels] over `signals`; `frame` has one row a window, `signal` and `start` (samples) place it.

    Columns of `frame`: id (unique), group (patient), trial, record, label, split, start, signal. `present` [signals,
    channels] says which leads each signal really has anywhere, `present_of` which a window has; windows keep NaN where
    nothing was recorded and, as padding, behind the end of a signal shorter than they are. `steps` holds the class of
    every time step of each signal (`events.step_classes`), where annotations were asked for. `apart`: a patient in two
    splits would be a leak; not so where the manifest was split by time or place, and checked for that when it was read.
    `rows`: the manifest row of each signal, where some were left out; `left_out`: these, by their split.

    >>> x = np.arange(20, dtype=np.float32).reshape(10, 2)
    >>> windows = WindowSet.build([x], length=4, step=2, rows=[{"id": "r1", "group": "p1"}], fs=4.0)
    >>> len(windows), windows[1].shape, windows.frame.group.unique().tolist()
    (4, (4, 2), ['p1'])
    """

    signals: tuple[np.ndarray, ...]
    frame: pd.DataFrame
    length: int
    fs: float
    leads: tuple[str, ...]
    present: Bool[np.ndarray, "signals channels"]
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    mean: Float[np.ndarray, "signals channels"] | None = None
    std: Float[np.ndarray, "signals channels"] | None = None
    per_window: bool = False
    units: tuple[str, ...] = ()
    steps: tuple[np.ndarray, ...] | None = None
    apart: bool = True
    rows: tuple[int, ...] = ()
    left_out: Mapping[str, tuple[BadSample, ...]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        signals: Sequence[np.ndarray],
        length: int,
        step: int,
        rows: Sequence[dict],
        fs: float,
        leads: Sequence[str] = (),
        starts: Sequence[np.ndarray] | None = None,
        labels: Sequence[Sequence[str]] | None = None,
        synthetic: bool = False,
        pad: bool = False,
    ) -> WindowSet:
        """Cut every signal: regularly by `length` and `step`, or at the given `starts` (beats) with their `labels`.

        `rows` describe the signals (id, group, trial, label, split). Every window is judged by itself: one without a
        usable channel (all flat or NaN) is left out and counted in `notes`. With `pad` a signal shorter than `length`
        is one window whose end is padding: NaN, which the encoders mask.
        """
        if len(rows) != len(signals):
            raise ValueError(f"WindowSet.build: {len(rows)} rows for {len(signals)} signals")
        widths = {x.shape[1] for x in signals}
        if len(widths) != 1:
            raise InputError(
                f"recordings have {', '.join(map(str, sorted(widths)))} channels; name common leads "
                "(--data.leads)"
            )
        tables, notes, clean = [], [], []
        for i, (x, row) in enumerate(zip(signals, rows)):
            x, infinite = missing_as_nan(x)
            clean.append(x)
            if infinite.any():
                notes.append(f"{row['id']}: {infinite.sum()} infinite samples, taken as missing")
            room = max(len(x), length) if pad else len(x)
            begin = window_starts(room, length, step) if starts is None else np.asarray(starts[i], int)
            keep = (begin >= 0) & (begin + length <= room)
            usable = keep.copy()
            usable[keep] = _usable_windows(x, begin[keep], length)
            dropped = int(keep.sum() - usable.sum())
            if dropped:
                notes.append(f"{row['id']}: {dropped} of {len(begin)} windows are flat or empty in every channel")
            if len(x) < length and not pad:
                notes.append(f"{row['id']}: {len(x)} samples, shorter than one window of {length}")
            begin = begin[usable]
            table = pd.DataFrame({"start": begin})
            table["id"] = [f"{row['id']}:{s}" for s in begin]
            for name in ("group", "trial", "record", "split"):
                default = "" if name == "split" else row["id"]
                table[name] = str(row.get(name) if row.get(name) not in (None, "") else default)
            table["label"] = class_names([row.get("label")])[0]
            if labels is not None:
                table["label"] = np.asarray(labels[i], object)[usable]
            table["signal"] = i
            tables.append(table)
        frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*COLUMNS, "signal"])
        present = [usable_channels(x, min_finite=0.0) for x in clean]
        present = np.stack(present) if present else np.zeros((0, 0), bool)
        names = tuple(leads) or tuple(f"channel{j + 1}" for j in range(next(iter(widths))))
        return cls(tuple(clean), frame, length, float(fs), names, present, synthetic, tuple(notes))

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def content_hash(self) -> str:
        """Identity of what the windows hold: the signals' values, and how windows are cut and scaled."""
        kept = (self.signals, self.present, self.mean, self.std, self.steps)
        return values_hash([kept, self.length, self.fs, self.leads, self.per_window])

    def __getitem__(self, i: int) -> Float32[np.ndarray, "length channels"]:
        return self._cut(int(self.frame["signal"].iat[i]), int(self.frame["start"].iat[i]))

    def steps_of(self, i: int) -> Int[np.ndarray, " length"]:
        """The class of every time step of a window; -1, unknown, in its padding."""
        assert self.steps is not None
        start = int(self.frame["start"].iat[i])
        return _grown(self.steps[int(self.frame["signal"].iat[i])][start : start + self.length], self.length, -1)

    def present_of(self, i: int) -> Bool[np.ndarray, " channels"]:
        """Which leads a window has: recorded in at least half of it (padding aside), and not flat in all the signal."""
        signal, start = int(self.frame["signal"].iat[i]), int(self.frame["start"].iat[i])
        x = self.signals[signal][start : start + self.length]
        return self.present[signal] & (np.isfinite(x).mean(0) >= MIN_FINITE)

    def place(self, i: int) -> Place:
        """Where a window was cut."""
        signal, start = int(self.frame["signal"].iat[i]), int(self.frame["start"].iat[i])
        whole = len(self.signals[signal])
        end = min(start + self.length, whole)
        return Place(str(self.frame["record"].iat[i]), start / self.fs, end / self.fs, whole / self.fs, self.leads)

    def lacking(self) -> dict[int, dict[str, int]]:
        """Per signal: the leads that some of its windows lack, with the number of those windows."""
        found: dict[int, dict[str, int]] = {}
        for i, rows in self.frame.groupby("signal")["start"]:
            x = self.signals[i]
            counts = np.full(len(self.leads), len(rows)) * ~self.present[i]
            if not all(np.isfinite(x[first : first + (1 << 17)]).all() for first in range(0, len(x), 1 << 17)):
                begin = rows.to_numpy()
                end = np.minimum(begin + self.length, len(x))
                for j in np.flatnonzero(self.present[i]):
                    total = np.concatenate([[0], np.cumsum(np.isfinite(x[:, j]))])
                    counts[j] = int(((total[end] - total[begin]) < MIN_FINITE * (end - begin)).sum())
            if counts.any():
                found[int(i)] = {lead: int(n) for lead, n in zip(self.leads, counts) if n}
        return found

    def whole(self, signal: int, samples: int | None = None) -> Float32[np.ndarray, "samples channels"]:
        """The first samples of a signal, scaled as its windows are; absent leads are zero."""
        x = self._scaled(self.signals[signal][:samples], signal)
        return np.where(self.present[signal], x, np.float32(0))

    def _cut(self, signal: int, start: int) -> np.ndarray:
        x = self._scaled(self.signals[signal][start : start + self.length], signal)
        return _grown(x, self.length, np.nan)

    def _scaled(self, x: np.ndarray, signal: int) -> np.ndarray:
        if self.mean is not None:
            x = ((x - self.mean[signal]) / self.std[signal]).astype(np.float32)
        elif self.per_window:
            finite = np.isfinite(x)
            count = np.maximum(finite.sum(0), 1)
            x = x - np.where(finite, x, 0).sum(0) / count
            std = np.sqrt(np.square(np.where(finite, x, 0)).sum(0) / count)
            x = (x / np.where(std > 1e-8, std, 1)).astype(np.float32)
        return x

    def stack(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "windows length channels"]:
        """Copy the named windows (all by default) into one array."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, int)
        start = self.frame["start"].to_numpy()[chosen].tolist()
        signal = self.frame["signal"].to_numpy()[chosen].tolist()
        out = np.empty((len(chosen), self.length, len(self.leads)), np.float32)
        for n, (s, i) in enumerate(zip(start, signal)):
            out[n] = self._cut(i, s)
        return out

    def subset(self, keep: np.ndarray | Sequence[int]) -> WindowSet:
        """The windows named by a mask or by row numbers; signals are shared, not copied."""
        rows = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, int)
        extra = {name: values[rows] for name, values in self.extra.items()}
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True), extra=extra)

    def where(self, **values: str) -> WindowSet:
        """The windows whose columns equal the given values: `windows.where(split="train")`."""
        keep = np.ones(len(self), bool)
        for name, value in values.items():
            keep &= (self.frame[name] == value).to_numpy()
        return self.subset(keep)

    def pseudo_trials(self, count: int) -> WindowSet:
        """Every `count` neighbouring windows of a recording make one trial, named `<record>:<number>`.

        >>> x = np.arange(24, dtype=np.float32)[:, None]
        >>> windows = WindowSet.build([x], length=4, step=4, rows=[{"id": "r1"}], fs=4.0)
        >>> windows.pseudo_trials(4).frame["trial"].tolist()
        ['r1:0', 'r1:0', 'r1:0', 'r1:0', 'r1:1', 'r1:1']
        """
        if count < 1:
            raise InputError(f"--data.windows_per_trial is {count}; a trial holds one window or more")
        number = self.frame.groupby("signal").cumcount() // count
        return replace(self, frame=self.frame.assign(trial=self.frame["record"] + ":" + number.astype(str)))

    def normalized(self, level: str, form: SignalForm | None = None) -> WindowSet:
        """Scale at the stated level (see `Normalizer`): applied when a window is cut, the signals stay as they are.

        Level `train` takes the mean and deviation of `form`, if it is given: they were learnt once, for good.
        """
        if check_level(level) in ("none", "window"):
            return replace(self, mean=None, std=None, per_window=level == "window")
        first = self.frame.drop_duplicates("signal").set_index("signal")
        used = [i in first.index for i in range(len(self.signals))]
        train = [ok and first.at[i, "split"] == "train" for i, ok in enumerate(used)]
        column = {"trial": "trial", "record": "record", "patient": "group", "train": "group"}[level]
        key = [first.at[i, column] if ok else f"unused-{i}" for i, ok in enumerate(used)]
        if form is None:
            scale = Normalizer(level).fit(self.signals, train)
        elif level == "train" and form.mean is None:
            raise InputError("the system was trained on windows handed to it that no training scale was learnt from; "
                             "choose another --data.normalize, or train it on a manifest")  # fmt: skip
        else:
            scale = Normalizer(level, form.mean, form.std)
        mean, std = scale.statistics(self.signals, key)
        return replace(self, mean=mean, std=std, per_window=False)

    def counts(self) -> pd.DataFrame:
        """Windows, trials and patients per split and class: what a report has to say before any score."""
        grouped = self.frame.groupby(["split", "label"], sort=True)
        columns = {"windows": ("id", "size"), "trials": ("trial", "nunique"), "patients": ("group", "nunique")}
        return grouped.agg(**columns).reset_index()


def _grown(x: np.ndarray, length: int, value: float) -> np.ndarray:
    """Padded at the end to `length` steps."""
    if len(x) == length:
        return x
    return np.concatenate([x, np.full((length - len(x), *x.shape[1:]), value, x.dtype)])


def r_peaks(x: Float[np.ndarray, " time"], fs: float) -> Int[np.ndarray, " beats"]:
    """Find R peaks in one ECG lead: band-pass, slope energy over 120 ms, adaptive threshold, 250 ms refractory time.

    After Pan & Tompkins, "A real-time QRS detection algorithm", IEEE TBME 1985, run off-line (zero-phase filters; the
    threshold follows the median of the energy's local maxima over ten seconds instead of a running estimate).
    """
    from scipy import ndimage, signal

    from counterpoint.timeseries.preprocess import bandpass

    x = np.asarray(x, np.float32)
    if len(x) < fs:
        return np.zeros(0, int)
    qrs = bandpass(x[:, None], fs, 5.0, min(20.0, 0.45 * fs))[:, 0]
    qrs = np.nan_to_num(qrs)
    energy = ndimage.uniform_filter1d(np.gradient(qrs) ** 2, max(int(0.12 * fs), 1))
    span = int(1.5 * fs)
    envelope = ndimage.maximum_filter1d(energy, span)[:: max(span // 4, 1)]
    local = ndimage.median_filter(envelope, size=min(27, len(envelope)), mode="nearest")
    threshold = np.interp(np.arange(len(x)), np.arange(len(local)) * max(span // 4, 1), local) * 0.25
    peaks, _ = signal.find_peaks(energy, height=np.maximum(threshold, 1e-12), distance=max(int(0.25 * fs), 1))
    reach = max(int(0.08 * fs), 1)
    # Nearer to an end than a QRS is wide, the filter's transient can pass for a slope, and a beat would be cut anyway.
    peaks = peaks[(peaks >= reach) & (peaks < len(x) - reach)]
    refined = [p - min(reach, p) + int(np.abs(qrs[max(p - reach, 0) : p + reach + 1]).argmax()) for p in peaks]
    return np.unique(np.asarray(refined, int))


BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")


def beat_starts(
    peaks: Int[np.ndarray, " beats"], fs: float, before: float = 0.25, after: float = 0.45
) -> tuple[Int[np.ndarray, " beats"], int]:
    """First samples and common length (samples) of windows around R peaks, `before` and `after` in seconds.

    >>> beat_starts(np.array([100, 400]), 100.0)[0].tolist(), beat_starts(np.array([100, 400]), 100.0)[1]
    ([75, 375], 70)
    """
    return np.asarray(peaks, int) - round(before * fs), round(before * fs) + round(after * fs)
