"""Time columns of tables: numbers in any unit, epochs, dates, repeated stamps. A clock gives the sampling rate."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError

UNITS = {
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "millis": 1e-3,
    "milliseconds": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "microseconds": 1e-6, "ns": 1e-9,
    "nanoseconds": 1e-9, "min": 60.0, "minutes": 60.0,
}  # fmt: skip
_NAMES = (
    "time|t|timestamp|timestamps|time_stamp|datetime|date_time|date|seconds|secs|elapsed|elapsed_time|seconds_elapsed|"
    "unix|unix_time|unixtime|unix_timestamp|epoch|epoch_time|utc|clock|sample_time|sampletime|system_time|local_time"
)
_CLOCK = re.compile(rf"({_NAMES})(_(?P<unit>s|sec|seconds|ms|msec|millis|us|ns))?")
_EPOCHS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def clock_unit(name: Any) -> str | None:
    """The unit that a time column's name states (empty where it states none); None for a column that is no clock.

    >>> clock_unit("Time [ms]"), clock_unit("timestamp"), clock_unit("seconds"), clock_unit("II [mV]")
    ('ms', '', 's', None)
    """
    plain = str(name).strip().strip("'\"").casefold()
    bracket = re.fullmatch(r"(.*?)\s*[\[(]([^\])]*)[\])]", plain)
    plain, stated = (bracket.group(1), bracket.group(2).strip()) if bracket else (plain, "")
    found = _CLOCK.fullmatch(re.sub(r"[\s.\-]+", "_", plain.strip()))
    if not found:
        return None
    if stated in UNITS:
        return stated
    if found.group("unit"):
        return found.group("unit")
    return "s" if found.group(1) in ("seconds", "secs", "seconds_elapsed") else ""


def clock_rate(
    path: Path, name: str, values: Any, fs: float | None, rows: np.ndarray, decimal: str = "."
) -> tuple[float, list[str]]:
    """The rate (hertz) that a time column says, and what was assumed, in words.

    `rows` are the file's line numbers; `fs` is what the user says, to be confirmed within 1 %. A clock may jitter by
    half a step around a regular grid, and may be so coarse that several samples share a stamp.

    Raises `InputError` naming the row where the clock stands still, goes back or jumps.
    """
    seconds, said = _seconds(path, name, values, fs, rows, decimal)
    if len(seconds) < 2:
        raise InputError(f"{path}: one row has no rate; a recording needs two or more")
    steps = np.diff(seconds)
    if (steps < 0).any():
        at = int(np.flatnonzero(steps < 0)[0])
        hour = abs(steps[at] + 3600) < 60
        why = " by an hour (the end of summer time?); write times with their UTC offset" if hour else "; sort the rows"
        raise InputError(
            f"{path}, row {rows[at + 1]}: column {name} must rise from row to row but goes back{why}, or split the file"
        )
    measured, more = _repeated(path, name, seconds, rows) if (steps == 0).any() else _regular(path, seconds, rows)
    said += more
    if fs is not None and abs(measured - fs) > 0.01 * fs:
        raise InputError(
            f"{path}: the time column says {measured:g} Hz where {fs:g} Hz were given (--fs, or the manifest's "
            "column fs)"
        )
    if said:
        said = [f"{measured:.6g} Hz from column {name}: {'; '.join(said)}"]
    return float(fs or measured), said


def _seconds(path: Path, name: str, values: Any, fs: float | None, rows: np.ndarray, decimal: str):
    """The clock in seconds from its first value, and what was assumed."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values):
        _known(path, name, values.isna().to_numpy(), values, rows)
        return (values - values.iloc[0]).dt.total_seconds().to_numpy(float), []
    if pd.api.types.is_timedelta64_dtype(values):
        _known(path, name, values.isna().to_numpy(), values, rows)
        return (values - values.iloc[0]).dt.total_seconds().to_numpy(float), []
    if not pd.api.types.is_numeric_dtype(values):
        text = values.astype("string").str.strip().str.strip("'\"")
        numbers = pd.to_numeric(text.str.replace(",", ".") if decimal == "," else text, errors="coerce")
        if numbers.isna().mean() > 0.5:
            return _dates(path, name, text, rows)
        values = numbers
    whole = np.asarray(values)
    exact = whole.dtype.kind in "iu"  # nanoseconds since 1970 do not fit into a float64
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    _known(path, name, ~np.isfinite(numbers), values, rows)
    offset = (whole - whole[0]).astype(float) if exact else numbers - numbers[0]
    stated = clock_unit(name) or ""
    if stated:
        return offset * UNITS[stated], ([f"in {stated}"] if UNITS[stated] != 1 else [])
    for unit, scale in _EPOCHS:
        if 1e8 <= numbers[0] * scale < 1e10:
            return offset * scale, [f"read as epoch {unit}"]
    rate = (len(offset) - 1) / offset[-1] if len(offset) > 1 and offset[-1] > 0 else np.nan
    if fs is not None and np.isfinite(rate):
        for unit, scale in _EPOCHS:
            if abs(rate / scale - fs) <= 0.01 * fs:
                return offset * scale, ([] if unit == "s" else [f"read as {unit}, which agrees with fs={fs:g}"])
    doubt = [f"read as seconds; if they are not, write the unit into its name, as {name} [ms]"] if rate < 2 else []
    return offset, doubt


def _known(path: Path, name: str, bad: np.ndarray, values: Any, rows: np.ndarray) -> None:
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}, row {rows[at]}: column {name} holds no time ({values.iloc[at]!r}); "
            "every sample needs its time, or remove the column and give --fs"
        )


def _dates(path: Path, name: str, text: Any, rows: np.ndarray):
    """Dates, or times of day; the latter may pass midnight."""
    import pandas as pd

    text = text.str.replace(r"[,:](\d{3,9})$", r".\1", regex=True)  # 09:24:51,040 and 09:24:51:040
    text = text.str.replace(r"(:\d{2}),(\d)", r"\1.\2", regex=True)
    if text.str.fullmatch(r"\d{1,4}(:\d{1,2}){1,2}(\.\d*)?").mean() > 0.5:
        short = text.str.count(":") == 1  # minutes:seconds, as WFDB tools write it
        seconds = pd.to_timedelta(text.where(~short, "00:" + text), errors="coerce").dt.total_seconds().to_numpy(float)
        _known(path, name, ~np.isfinite(seconds), text, rows)
        days = np.concatenate([[0], np.cumsum(np.diff(seconds) < -43200)])
        said = ["times of day"] + (["midnight passed"] if days[-1] else [])
        return seconds - seconds[0] + 86400.0 * days, said
    parsed = None
    for options in ({}, {"dayfirst": True}, {"format": "ISO8601"}, {"format": "mixed"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                parsed = pd.to_datetime(text, errors="coerce", utc=True, **options)
            except (ValueError, OverflowError, TypeError):
                continue
        if not parsed.isna().any():
            break
    if parsed is None or parsed.isna().all():
        raise InputError(
            f"{path}, row {rows[0]}: column {name} holds no time that can be read ({text.iloc[0]!r}); write seconds, "
            "or dates like 2018-07-05 09:24:51.040"
        )
    _known(path, name, parsed.isna().to_numpy(), text, rows)
    return (parsed - parsed.iloc[0]).dt.total_seconds().to_numpy(float), ["read as dates"]


def _regular(path: Path, seconds: np.ndarray, rows: np.ndarray) -> tuple[float, list[str]]:
    """A clock that rises at every row: regular within 1 % a step, or within half a step of a regular grid."""
    steps = np.diff(seconds)
    step = float(np.median(steps))
    worst = int(np.abs(steps - step).argmax())
    mean = float(seconds[-1] / len(steps))
    uneven = abs(steps[worst] - step) > 0.01 * step + 1e-9
    off = np.abs(seconds - mean * np.arange(len(seconds))).max()
    if uneven and (off > 0.5 * mean or steps[worst] > 1.6 * step):
        jump = steps[worst]
        hour = "; the beginning of summer time?" if abs(jump - 3600 - step) < 60 else ""
        raise InputError(
            f"{path}, row {rows[worst + 1]}: time jumps by {jump:g} s where the step is {step:g} s{hour}; "
            "fill the gap with empty values or split the file there"
        )
    # The mean step is immune to stamps rounded to milliseconds.
    jitter = np.abs(steps - mean).max() / mean
    said = [f"steps vary by up to {100 * jitter:.0f} %, taken as regular"] if uneven and jitter > 0.02 else []
    return 1 / mean, said


def _repeated(path: Path, name: str, seconds: np.ndarray, rows: np.ndarray) -> tuple[float, list[str]]:
    """Several samples share a stamp: the clock is coarser than the rate; every stamp has as many samples (or +1)."""
    begin = np.flatnonzero(np.concatenate([[True], np.diff(seconds) > 0]))
    first = int(np.flatnonzero(np.diff(seconds) == 0)[0]) + 1
    inner, stamps = np.diff(begin)[1:], seconds[begin][1:]  # the first and last stamp may be incomplete
    if len(inner) < 3 or (np.median(inner) < 2 and np.count_nonzero(inner > 1) < 10):
        raise InputError(
            f"{path}, row {rows[first]}: column {name} must rise by one step from row to row but repeats a stamp; "
            "remove the doubled row, or remove the column and give --fs"
        )
    gaps = np.diff(stamps)
    tick = float(np.median(gaps))
    rate = float(inner.sum() / (stamps[-1] - stamps[0]))
    odd = np.abs(inner - rate * gaps) > 1.01
    jump = gaps > 1.6 * tick
    if odd.any() or (jump.any() and np.median(inner) >= 2):
        at = int(np.flatnonzero(odd | jump)[0])
        raise InputError(
            f"{path}, row {rows[begin[at + 1]]}: this stamp of column {name} has {inner[at]} samples where "
            f"{rate * tick:g} are usual; samples are missing or doubled there, fill or split the file"
        )
    return rate, [f"{np.median(inner):g} samples share each stamp of {tick:g} s"]
