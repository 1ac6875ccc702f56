"""One entrance for single recordings, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers.arrays import read_numpy, read_table
from counterpoint.timeseries.readers.edf import read_edf
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

    `fs` (hertz) is needed by array files that do not state their rate; `row` picks one series of an array [N, T, C].
    Raises `InputError` naming the file and the remedy.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.with_name(path.name + ".hea").exists():
        path, suffix = path.with_name(path.name + ".hea"), ".hea"
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: no reader for {suffix or 'files without suffix'}; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the manifest's file column and its folder")
    if suffix in (".hea", ".edf"):
        return SUFFIXES[suffix](path)
    return SUFFIXES[suffix](path, fs=fs, row=row)
