"""One entrance for single recordings, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError
from counterpoint.timeseries.preprocess import missing_as_nan
from counterpoint.timeseries.readers.arrays import read_numpy
from counterpoint.timeseries.readers.edf import BDF, read_edf
from counterpoint.timeseries.readers.table import read_table
from counterpoint.timeseries.readers.wfdb import read_wfdb
from counterpoint.timeseries.record import Record

SUFFIXES: dict[str, Callable[..., Record]] = {
    ".hea": read_wfdb,
    ".edf": read_edf,
    ".npy": read_numpy,
    ".npz": read_numpy,
    ".csv": read_table,
    ".parquet": read_table,
}


def read_record(path: Path | str, fs: float | None = None, row: int | None = None) -> Record:
    """Read one recording: WFDB header (.hea), EDF/EDF+ (.edf), NumPy (.npy, .npz), CSV or Parquet table.

    Infinite values count as missing ones (NaN), and the record's notes say how many there are. `fs` (hertz) is needed
    by array files that do not state their rate; `row` picks one series of an array [N, T, C].
    Raises `InputError` naming the file and the remedy.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.with_name(path.name + ".hea").exists():
        path, suffix = path.with_name(path.name + ".hea"), ".hea"
    if suffix == ".bdf":
        raise InputError(f"{path}: {BDF}")
    if suffix not in SUFFIXES:
        if unpack := packed(path):
            raise InputError(f"{path}: {unpack}")
        raise InputError(f"{path}: no reader for {suffix or 'files without suffix'}; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the manifest's file column and its folder")
    if suffix in (".hea", ".edf"):
        return _finite(SUFFIXES[suffix](path))
    if fs is not None and not (np.isfinite(fs) and fs > 0):
        raise InputError(f"{path}: the sampling rate fs is {fs:g}; give a positive number of hertz")
    return _finite(SUFFIXES[suffix](path, fs=fs, row=row))


def _finite(record: Record) -> Record:
    """The record with NaN for what is infinite, told in its notes."""
    if record.block is not None:
        block, counts = missing_as_nan(record.block)
        columns = list(block.T)
    else:
        found = [missing_as_nan(channel.data[:, None]) for channel in record.channels]
        block, columns, counts = None, [x[:, 0] for x, _ in found], [int(n[0]) for _, n in found]
    if not any(counts):
        return record
    channels = tuple(replace(c, data=x) if n else c for c, x, n in zip(record.channels, columns, counts))
    if block is not None:
        channels = tuple(replace(c, data=x) for c, x in zip(record.channels, columns))
    some = ", ".join(f"{c.name} {n} of {len(c.data)}" for c, n in zip(channels, counts) if n)
    told = f"infinite samples, taken as missing: {some}"
    return replace(record, channels=channels, block=block, notes=(*record.notes, told))
