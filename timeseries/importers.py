"""The field's own folders into a manifest: WFDB, EDF, tables and arrays, UCR/UEA. What is left out is listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.readers.ucr import Collection, read_ucr
from counterpoint.timeseries.record import Record


def import_recordings(
    source: Path, out: Path, suffixes: Iterable[str], patient: str = "record", label: str = "", fs: float | None = None
) -> ImportReport:
    """Every recording below `source` as one manifest row; files stay where they are, paths are relative to `out`.

    `patient` says who a recording belongs to: each its own (`record`), its folder (`folder`), or a header field.
    `label` names a header field that holds the class. A recording that cannot be read is rejected with its reason.
    """
    wanted = tuple(suffixes)
    source = _existing(source, wanted)
    files = [source] if source.is_file() else _below(source, wanted)
    if not files:
        raise InputError(f"{source}: no {' or '.join(wanted)} file in it")
    rows, rejected, names, notes = [], [], set(), []
    parts = _segments(files)
    for file in track(files, "reading recordings", len(files)):
        if file in parts:
            continue  # read through its master header
        try:
            record = read_record(file, fs)
            if not record.channels:
                raise InputError("holds annotations but no signals")
            name = _name(file, source)
            if name in names:  # `a/b.hea` beside `a-b.hea`, or `r.csv` beside `r.npz`
                name = file.relative_to(source).as_posix()
            group = name if patient == "record" else _group(record, file, patient)
            if label and label.lower() not in record.meta:
                raise InputError(f"its header has no field {label!r}; it has {', '.join(record.meta) or 'none'}")
        except InputError as error:
            rejected.append(Rejected(str(file), str(error).removeprefix(f"{file}: ")))
            continue
        names.add(name)
        notes += record.notes
        rows.append({
            "id": name, "group": group, "file": os.path.relpath(file, out),
            "fs": max(c.fs for c in record.channels) if fs is None else fs,
            "label": record.meta.get(label.lower(), "") if label else "", "leads": " ".join(record.names),
            "units": " ".join(c.unit or "-" for c in record.channels), "seconds": round(record.duration, 3),
            "events": len(record.annotations),
        })  # fmt: skip
    more = [f"and {len(notes) - 8} more such notes"] if len(notes) > 8 else []
    return _save(out, rows, rejected, "; ".join([*notes[:8], *more]))


def _existing(source: Path, suffixes: tuple[str, ...]) -> Path:
    """The source itself, or the file behind a record's name without suffix, as WFDB tools take it."""
    if source.exists():
        return source
    for suffix in suffixes:
        if source.with_name(source.name + suffix).is_file():
            return source.with_name(source.name + suffix)
    raise InputError(f"{source}: no such file or folder")


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of these kinds in a folder and all below it; a link that leads nowhere is listed, to be rejected."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes and not f.is_dir())


def _segments(files: list[Path]) -> set[Path]:
    """Headers that are segments of a multi-segment record listed in the same folder."""
    found = set()
    for file in files:
        if file.suffix.lower() != ".hea" or not file.is_file():
            continue
        lines = [line for line in file.read_text(errors="replace").splitlines() if line and not line.startswith("#")]
        if lines and re.match(r"\S+/\d+\s", lines[0]):
            found |= {file.with_name(f"{line.split()[0]}.hea") for line in lines[1:] if line.split()[0] != "~"}
    return found


def _group(record: Record, file: Path, patient: str) -> str:
    if patient == "folder":
        return file.parent.name
    if patient.lower() not in record.meta:
        raise InputError(f"its header has no field {patient!r}; it has {', '.join(record.meta) or 'none'}")
    return record.meta[patient.lower()]


def _name(file: Path, source: Path) -> str:
    if source.is_file():
        return file.stem
    inside = file.relative_to(source).with_suffix("")
    return inside.as_posix().replace("/", "-")


def _save(out: Path, rows: list[dict], rejected: list[Rejected], note: str = "") -> ImportReport:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.parquet"
    if rows:
        Manifest.from_rows(rows, out, {"rejected": len(rejected)}).save(path)
    return ImportReport(path, len(rows), tuple(rejected), note)


def import_archive(source: Path, out: Path, fs: float = 1.0) -> ImportReport:
    """A UCR/UEA data set: `<name>_TRAIN` and `<name>_TEST` files (.ts, .arff, .txt, .tsv) or a folder with one pair.

    The archive's own split is kept (TRAIN, TEST). Its series have no patients: every one is its own group, so the
    score says nothing about new subjects.
    """
    suffixes = (".ts", ".arff", ".txt", ".tsv")
    source = _existing(source, suffixes)
    folder = source if source.is_dir() else source.parent
    stems: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        found = re.fullmatch(r"(.+)_(TRAIN|TEST)", file.stem, flags=re.IGNORECASE)
        if found and file.suffix.lower() in suffixes and (source.is_dir() or found.group(1) in source.stem):
            stems.setdefault(found.group(1), {}).setdefault(found.group(2).lower(), file)
    if len(stems) != 1:
        some = ", ".join(stems) or "no <name>_TRAIN and <name>_TEST files"
        raise InputError(f"{source}: found {some}; name one data set by one of its files")
    (name, files), rows = next(iter(stems.items())), []
    for split, file in files.items():
        part: Collection = read_ucr(file)
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / f"{split}.npy", part.x)
        for i, label in enumerate(part.labels):
            row = {
                "id": f"{name}-{split}-{i}",
                "split": split,
                "file": f"{split}.npy",
                "row": i,
                "fs": fs,
                "label": label,
            }
            if part.target is not None:
                row["target"] = float(part.target[i])
            rows.append(row)
    note = "The archive names no subjects: scores on its split say nothing about new ones."
    return _save(out, rows, [], note)


def check_row(row: dict, root: Path) -> None:
    """Read a manifest row's recording; raise what is wrong with it (`data check`)."""
    from counterpoint.timeseries.preprocess import usable_channels

    if not row.get("file"):
        raise InputError("no file; the column file names the recording")
    number, rate = row.get("row"), row.get("fs")
    record = read_record(
        root / row["file"], None if rate is None else float(rate), None if number is None else int(number)
    )
    if not record.channels:
        raise InputError("holds annotations but no signals")
    for channel in record.channels:
        if usable_channels(channel.data[:, None])[0]:
            return
    raise InputError("every channel is flat or mostly missing")
