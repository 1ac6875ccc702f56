"""Signals that already are arrays: .npy and .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Channel, Record


def read_numpy(path: Path | str, fs: float | None = None, row: int | None = None) -> Record:
    """Read `.npy` [time, channels] or [series, time, channels] (pick one by `row`), or `.npz` with key `x`.

    An `.npz` may add `fs` (hertz), `leads` (names) and `units`. A one-dimensional array is one channel.
    Object arrays are refused: reading them would unpickle.
    """
    path = Path(path)
    extra: dict[str, np.ndarray] = {}
    try:
        check_npy(path)
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if "x" not in archive:
                    raise InputError(f"{path}: no array named x; found {', '.join(archive.files) or 'nothing'}")
                x = archive["x"]
                extra = {key: archive[key] for key in ("fs", "leads", "units") if key in archive}
        else:
            x = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable_numpy(path, error) from error
    notes = []
    if x.ndim == 3 and row is None:
        raise InputError(f"{path}: holds {len(x)} series; name one by the manifest's row column (0-{len(x) - 1})")
    if row is not None:
        if x.ndim != 3 or not 0 <= row < len(x):
            held = f"rows 0-{len(x) - 1}" if x.ndim == 3 else "a single recording"
            raise InputError(f"{path}: row {row} asked for but the file holds {held}")
        x = x[row]
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or not x.size or x.dtype.kind not in "iuf":
        raise InputError(f"{path}: {x.dtype} array of shape {x.shape}; real numbers [time, channels] are expected")
    names = [str(name) for name in np.atleast_1d(extra.get("leads", [f"channel{j + 1}" for j in range(x.shape[1])]))]
    units = [str(unit) for unit in np.atleast_1d(extra.get("units", [""] * x.shape[1]))]
    if len(names) != x.shape[1] or len(units) != x.shape[1]:
        turn = "; the array looks like [channels, time], save it transposed" if len(names) == x.shape[0] else ""
        raise InputError(f"{path}: {len(names)} lead names and {len(units)} units for {x.shape[1]} channels{turn}")
    if x.shape[1] > x.shape[0] and "leads" not in extra:
        if x.shape[1] >= 8 * x.shape[0] and x.shape[1] > 256:
            raise InputError(
                f"{path}: {x.shape[0]} time steps of {x.shape[1]} channels; [time, channels] is expected and this "
                "looks like [channels, time]: save it transposed, or name the channels (leads in an .npz)"
            )
        notes.append(f"{x.shape[0]} time steps of {x.shape[1]} channels, more channels than steps; is it transposed?")
    rate = _rate(path, extra["fs"]) if "fs" in extra else fs
    if rate is None or not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{path}: the sampling rate is unknown; give the import --fs, or fs in the manifest or .npz")
    if fs is not None and abs(rate - fs) > 0.01 * fs:
        raise InputError(
            f"{path}: its array fs says {rate:g} Hz where {fs:g} Hz were given (--fs, or the manifest's column "
            "fs)"
        )
    with np.errstate(over="ignore"):  # beyond float32: infinite, which counts as missing
        block = np.ascontiguousarray(x, np.float32)
    if row is not None:
        block = _own_length(block)
    channels = tuple(Channel(n, u, rate, block[:, j]) for j, (n, u) in enumerate(zip(names, units)))
    name = path.stem if row is None else f"{path.stem}-{row}"
    return Record(name, channels, source=path, block=block, notes=tuple(notes))


def _own_length(block: np.ndarray) -> np.ndarray:
    """A series of an array of series without the NaN that pads it to the longest one."""
    recorded = np.flatnonzero(~np.isnan(block).all(1))
    return block[: recorded[-1] + 1] if len(recorded) else block


def _rate(path: Path, value: np.ndarray) -> float:
    try:
        rate = float(np.asarray(value).reshape(()))
    except (ValueError, TypeError):
        rate = np.nan
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{path}: its array fs is {str(value)[:40]}; one positive number of hertz is expected")
    return rate

