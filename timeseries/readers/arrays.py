"""Signals that already are tables or arrays: CSV and Parquet (one column a channel), .npy and .npz."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from counterpoint.common.data.archives import check_zip
from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Channel, Record

TIME_NAMES = ("time", "t", "timestamp", "seconds", "time_s")
_UNIT = re.compile(r"^(.*?)\s*[\[(]([^\])]*)[\])]\s*$")


def read_table(path: Path | str, fs: float | None = None, row: int | None = None) -> Record:
    """Read a CSV or Parquet table, one row a time step and one numeric column a channel.

    A column called `time` (or t, timestamp, seconds) gives the rate and must be regular within 1 %; without one,
    `fs` is needed. A unit may follow a name in brackets: `II [mV]`.
    """
    import pandas as pd

    path = Path(path)
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError, UnicodeDecodeError) as error:  # pandas' and pyarrow's parser errors derive from these
        raise InputError(f"{path}: not a readable table ({str(error).splitlines()[0]})") from error
    if row is not None:
        raise InputError(f"{path}: a table holds one recording; leave the manifest's row column empty for it")
    if not len(frame):
        raise InputError(f"{path}: the table has no rows")
    time = next((name for name in frame.columns if str(name).casefold() in TIME_NAMES), None)
    if time is not None:
        fs = _rate(path, str(time), frame.pop(time), fs)
    if fs is None:
        raise InputError(f"{path}: no time column and no rate; add a column time (seconds) or give fs in the manifest")
    channels = []
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column):
            bad = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
            at = f", row {bad.index[0] + 2}: {bad.iloc[0]!r}" if len(bad) else ""
            raise InputError(f"{path}, column {name}{at} is not numeric; drop the column or mark gaps as empty")
        found = _UNIT.match(str(name))
        label, unit = found.groups() if found else (str(name), "")
        channels.append(Channel(label, unit, float(fs), column.to_numpy(np.float32)))
    if not channels:
        raise InputError(f"{path}: no signal columns beside the time; one numeric column per channel is expected")
    return Record(path.stem, tuple(channels), source=path)


def _rate(path: Path, name: str, column, fs: float | None) -> float:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        seconds = (column - column.iloc[0]).dt.total_seconds().to_numpy(float)
    else:
        seconds = pd.to_numeric(column, errors="coerce").to_numpy(float)
    steps = np.diff(seconds)
    if len(steps) == 0 or not np.isfinite(steps).all() or (steps <= 0).any():
        bad = int(np.flatnonzero(~np.isfinite(steps) | (steps <= 0))[0]) + 3 if len(steps) else 2
        raise InputError(f"{path}, row {bad}: column {name} must rise by one step in seconds from row to row")
    step = float(np.median(steps))
    worst = int(np.abs(steps - step).argmax())
    if abs(steps[worst] - step) > 0.01 * step + 1e-9:
        raise InputError(
            f"{path}, row {worst + 3}: time jumps by {steps[worst]:g} s where the step is {step:g} s; "
            "fill the gap with empty values or split the file there"
        )
    # The mean step is immune to stamps rounded to milliseconds.
    measured = len(steps) / (seconds[-1] - seconds[0])
    if fs is not None and abs(measured - fs) > 0.01 * fs:
        raise InputError(f"{path}: the time column says {measured:g} Hz but fs={fs:g} was given")
    return float(fs or measured)


def read_numpy(path: Path | str, fs: float | None = None, row: int | None = None) -> Record:
    """Read `.npy` [time, channels] or [series, time, channels] (pick one by `row`), or `.npz` with key `x`.

    An `.npz` may add `fs` (hertz), `leads` (names) and `units`. A one-dimensional array is one channel.
    Object arrays are refused: reading them would unpickle.
    """
    path = Path(path)
    extra: dict[str, np.ndarray] = {}
    try:
        if path.suffix.lower() == ".npz":
            check_zip(path)
            with np.load(path, allow_pickle=False) as archive:
                if "x" not in archive:
                    raise InputError(f"{path}: no array named x; found {', '.join(archive.files) or 'nothing'}")
                x = archive["x"]
                extra = {key: archive[key] for key in ("fs", "leads", "units") if key in archive}
        else:
            x = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except (ValueError, OSError, EOFError, KeyError, SyntaxError, zlib.error, RuntimeError) as error:
        reason = "it holds Python objects" if "pickle" in str(error).lower() else str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable NumPy file ({reason}); save numeric arrays only") from error
    if x.ndim == 3 and row is None:
        raise InputError(f"{path}: holds {len(x)} series; name one by the manifest's row column (0-{len(x) - 1})")
    if row is not None:
        if x.ndim != 3 or not 0 <= row < len(x):
            held = f"rows 0-{len(x) - 1}" if x.ndim == 3 else "a single recording"
            raise InputError(f"{path}: row {row} asked for but the file holds {held}")
        x = x[row]
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or not len(x) or not np.issubdtype(x.dtype, np.number):
        raise InputError(f"{path}: {x.dtype} array of shape {x.shape}; numbers [time, channels] are expected")
    rate = float(extra["fs"]) if "fs" in extra else fs
    if rate is None or rate <= 0:
        raise InputError(f"{path}: the sampling rate is unknown; give fs (hertz) in the manifest or in the .npz")
    block = np.ascontiguousarray(x, np.float32)
    names = [str(name) for name in extra.get("leads", [f"channel{j + 1}" for j in range(x.shape[1])])]
    units = [str(unit) for unit in extra.get("units", [""] * x.shape[1])]
    if len(names) != x.shape[1] or len(units) != x.shape[1]:
        raise InputError(f"{path}: {len(names)} lead names and {len(units)} units for {x.shape[1]} channels")
    channels = tuple(Channel(n, u, rate, block[:, j]) for j, (n, u) in enumerate(zip(names, units)))
    return Record(path.stem if row is None else f"{path.stem}-{row}", channels, source=path, block=block)
