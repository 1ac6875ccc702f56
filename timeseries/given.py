"""Series handed over in Python, as scikit-learn's users have them: each row of an array is one window, whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.config_files import override
from counterpoint.common.vertical import Given
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.preprocess import missing_as_nan, usable_channels
from counterpoint.timeseries.reading import filtered
from counterpoint.timeseries.windows import WindowSet

_UNUSABLE = "is flat or more than half missing in every channel"
# Settings of `data` that say how recordings become windows, or which to read: X has no use for them.
_OF_FILES = ("manifest", "aliases", "step", "beats", "events", "windows_per_trial", "cache")


def samples_from(x: Any, config: Any, groups: Sequence[str], split: Sequence[str], assets: Assets | None) -> Given:
    """Series [n, length] or [n, channels, length]: one sample a row, which is its own trial and recording.

    NaN is missing, and padding at the end; infinite values are missing. A series whose every channel is flat or more
    than half missing makes no sample. `data.fs` states the rate in hertz, which only the filters ask for; `data.leads`
    names the channels. The group is the patient.

    Raises:
        InputError: other shapes than those, or than the training's; settings that only recordings in files have.
    """
    signals = _signals(x)
    form = None if assets is None else SignalForm.of(assets)
    if form is not None and signals.shape[1] != config.data.length:
        raise InputError(
            f"X has series of {signals.shape[1]} samples and the encoder was trained on {config.data.length}; give as "
            "many (NaN at the end where a series is shorter)"
        )
    data = _settings(config.data, signals.shape[1]) if form is None else config.data
    leads = _leads(signals.shape[2], data, form)
    signals, infinite = missing_as_nan(signals.reshape(-1, len(leads)))
    signals = signals.reshape(len(x), -1, len(leads))
    rate = data.fs or 1.0
    series = tuple(filtered(_without_padding(one), rate, data) for one in signals)
    usable = [bool(usable_channels(one).any()) for one in series]
    left_out = {row: _UNUSABLE for row, kept in enumerate(usable) if not kept}
    if not any(usable):
        return Given(None, config, left_out)
    present = np.stack([usable_channels(one, min_finite=0.0) for one in series])
    frame = pd.DataFrame({"id": [str(row) for row in range(len(series))], "group": list(groups), "split": list(split)})
    frame = frame.assign(trial=frame["id"], record=frame["id"], label="", start=0, signal=np.arange(len(series)))
    windows = WindowSet(series, frame[usable].reset_index(drop=True), data.length, rate, leads, present)
    return Given(
        replace(windows, units=data.units).normalized(data.normalize, form),
        override(config, {"data": {"length": data.length}}),
        left_out,
        (f"{infinite.sum()} infinite values in X are taken as missing",) if infinite.any() else (),
    )


def _signals(x: Any) -> Float32[np.ndarray, "series samples channels"]:
    if not isinstance(x, np.ndarray):
        raise InputError(f"X holds {type(x[0]).__name__} values; give an array of numbers, (n, length) or "
                         "(n, channels, length), with NaN at the end of shorter series")  # fmt: skip
    if x.ndim not in (2, 3) or not x.size:
        raise InputError(f"X has shape {x.shape}; give (n, length) or (n, channels, length)")
    if x.shape[-1] < 2:
        raise InputError("X has series of 1 sample (n_features = 1); the shortest are of 2")
    x = x[:, None] if x.ndim == 2 else x
    with np.errstate(over="ignore"):  # beyond float32: infinite, and told as such
        return np.ascontiguousarray(x.transpose(0, 2, 1), np.float32)


def _settings(data: SignalConfig, length: int) -> SignalConfig:
    """The data's settings for windows that are whole series."""
    plain = SignalConfig()
    for name in _OF_FILES:
        if getattr(data, name) != getattr(plain, name):
            raise InputError(f"data.{name} says how recordings in files become windows; X holds the windows themselves")
    if data.length not in (0, plain.length, length):
        raise InputError(f"data.length is {data.length} and the series of X have {length} samples; leave it out")
    if data.normalize == "patient":
        raise InputError(
            "data.normalize=patient scales what belongs to one patient together, and transform is not told to whom a "
            "series belongs; give trial, window, train or none"
        )
    if data.fs is None and any(edge is not None for edge in (data.low, data.high, data.notch)):
        raise InputError("data.low, data.high and data.notch are in hertz; give data.fs, the sampling rate of X, too")
    return replace(data, length=length)


def _leads(channels: int, data: SignalConfig, form: SignalForm | None) -> tuple[str, ...]:
    known = form.leads if form is not None else data.leads
    if known and len(known) != channels:
        what = "the encoder was trained on" if form is not None else "data.leads names"
        raise InputError(f"X has series of {channels} channels and {what} {len(known)}: {', '.join(known)}")
    return tuple(known) or tuple(f"channel{j + 1}" for j in range(channels))


def _without_padding(x: Float32[np.ndarray, "samples channels"]) -> Float32[np.ndarray, "recorded channels"]:
    """The series up to its last sample that is not missing in every channel."""
    recorded = np.flatnonzero(np.isfinite(x).any(1))
    return x[: recorded[-1] + 1] if len(recorded) else x
