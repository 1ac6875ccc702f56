"""The field's own folders into a manifest: WFDB, EDF, tables and arrays, UCR/UEA. What is left out is listed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.archives import inner_suffix, packed, packed_inside
from counterpoint.common.data.importing import (
    find_files,
    name_files,
    plain_reason,
    read_files,
    require_file,
    save_manifest,
)
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.data.places import Folder, folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.timeseries.attached import with_attached
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.readers.edf import night_of
from counterpoint.timeseries.readers.ucr import Collection, read_ucr
from counterpoint.timeseries.record import Record
from counterpoint.timeseries.reference import Reference

SHOWN = 12
FORMATS = {"wfdb": (".hea",), "edf": (".edf", ".bdf"), "arrays": (".csv", ".parquet", ".npy", ".npz")}
"""Importers of recordings, and the files they take; BDF is refused by name."""
ARCHIVES = (".ts", ".arff", ".txt", ".tsv")


def import_recordings(
    source: Path,
    out: Path,
    format: str,
    patient: str = "record",
    label: str = "",
    fs: float | None = None,
    workers: int = 1,
    table: Path | None = None,
) -> ImportReport:
    """Every recording below `source` as one manifest row; files stay where they are, paths are relative to `out`.

    `patient` says who a recording belongs to: each its own (`record`), its folder (`folder`), or a header field.
    `label` names a header field that holds the class. A recording that cannot be read is rejected with its reason.
    `table` has a row for recordings (`reference.Reference`): its columns stand beside each of them, and `patient` and
    `label` may name one. The two nights of a Sleep-EDF subject are one patient; hypnograms go with their nights.
    """
    found = find_files(_of_format(Path(source), format), FORMATS[format])
    parts = _segments(found.files)  # are read through their master header
    files, alone = _nights([file for file in found.files if file not in parts])
    names, rows, rejected = name_files(files, found.root), [], [*found.rejected, *alone]
    told: dict[str, list[str]] = {}
    reference = None if table is None else Reference.read(Path(table), names)
    listed = () if reference is None else reference.columns
    read = partial(
        recording_facts, patient="record" if patient in listed else patient, label="" if label in listed else label,
        fs=fs,
    )  # fmt: skip
    for file, facts in read_files(read, files, rejected, description="reading recordings", workers=workers):
        name, notes = names[file], facts.notes
        owner = night_of(file)[:5] or name  # both nights of a Sleep-EDF subject
        group = {"record": owner, "folder": file.parent.name}.get(patient, facts.group)
        columns = facts.columns
        if reference is not None:
            group = reference.owner(name, patient) if patient in listed else group
            columns = columns | reference.facts(name, label)
            notes = notes if name in reference.row_of else (*notes, f"has no row in {Path(table).name}")
        for text in notes:
            told.setdefault(text, []).append(name)
        rows.append({"id": name, "group": group, "file": os.path.relpath(file, out), **columns})
    taken = folders_of((Path(out, row["file"]) for row in rows), found.root)
    return save_manifest(out, rows, rejected, note=notes_once(told), outside=taken)


def _nights(files: list[Path]) -> tuple[list[Path], list[Rejected]]:
    """The files without the hypnograms, which are read with the night they lie beside; and those beside none."""
    scored = [file for file in files if night_of(file) and file.stem.lower().endswith("-hypnogram")]
    if files == scored and len(files) == 1:
        return files, []  # named by itself; the reader says that it holds no signals
    nights = {(file.parent, night_of(file)) for file in files if file not in scored}
    reason = "a hypnogram without its recording, no {}?-PSG.edf beside it; bring both into one folder"
    alone = [
        Rejected(str(file), reason.format(night_of(file)))
        for file in scored
        if (file.parent, night_of(file)) not in nights
    ]
    return [file for file in files if file not in scored], alone


def _of_format(source: Path, format: str) -> Path:
    """The source; a file that another importer takes is refused with that importer's name."""
    suffix = source.suffix.lower()
    if suffix in FORMATS[format] or source.is_dir() or not os.path.lexists(source):
        return source
    if suffix == ".dat" and format == "wfdb":
        header = source.with_suffix(".hea").name
        raise InputError(f"{source}: is the signal file of a record; name its header, {header}")
    other = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), "")
    if other:
        kinds = " or ".join(FORMATS[format])
        raise InputError(f"{source}: is no {kinds} file; import it with `data import {other}`")
    return source


def notes_once(notes: dict[str, list[str]]) -> str:
    """What is to be known of the recordings taken: each sentence once, with the recordings it is true of."""
    lines = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}" for text, names in notes.items()
    ]
    more = [f"... and {len(lines) - SHOWN} more such notes; data check lists all"] if len(lines) > SHOWN else []
    return "\n".join([*lines[:SHOWN], *more])


@dataclass(frozen=True)
class RecordingFacts:
    """What a recording adds to the manifest, and the group that its header names."""

    columns: dict[str, Any]
    group: str
    notes: tuple[str, ...]


def recording_facts(file: Path, patient: str, label: str, fs: float | None) -> RecordingFacts:
    return facts_of(read_record(file, fs), patient, label, fs)


def facts_of(record: Record, patient: str, label: str, fs: float | None) -> RecordingFacts:
    """The columns of a recording that was read; `patient` and `label` may be fields of its header."""
    if not record.channels:
        raise InputError("holds annotations but no signals; name the recording itself")
    for field in {label.lower()} - {""} | {patient.lower()} - {"record", "folder"}:
        if field not in record.meta:
            raise InputError(f"its header has no field {field!r}; it has {', '.join(record.meta) or 'none'}")
    columns = {
        "fs": max(c.fs for c in record.channels) if fs is None else fs,
        "label": record.meta.get(label.lower(), "") if label else "", "leads": " ".join(record.names),
        "units": " ".join(c.unit or "-" for c in record.channels), "seconds": round(record.duration, 3),
        "events": len(record.annotations),
    }  # fmt: skip
    return RecordingFacts(columns, record.meta.get(patient.lower(), ""), tuple(record.notes))


def _segments(files: list[Path]) -> set[Path]:
    """Headers that are segments of a multi-segment record listed in the same folder."""
    found = set()
    for file in files:
        if file.suffix.lower() != ".hea":
            continue
        lines = [line for line in file.read_text(errors="replace").splitlines() if line and not line.startswith("#")]
        if lines and re.match(r"\S+/\d+\s", lines[0]):
            named = [words[0] for line in lines[1:] if (words := line.split())]
            found |= {file.with_name(f"{name}.hea") for name in named if name != "~" and "/" not in name}
    return found


def import_archive(source: Path, out: Path, fs: float = 1.0) -> ImportReport:
    """A UCR/UEA data set: `<name>_TRAIN` and `<name>_TEST` files (.ts, .arff, .txt, .tsv) or a folder with one pair.

    The archive's own split is kept (TRAIN, TEST). Its series have no patients: every one is its own group, so the
    score says nothing about new subjects.
    """
    source = Path(source)
    if not source.is_dir():  # may be named without its suffix
        source = find_files(source, ARCHIVES).files[0]
    folder = source if source.is_dir() else source.parent
    stems: dict[str, dict[str, Path]] = {}
    told: list[str] = []
    for file in sorted(folder.iterdir()):
        if inner_suffix(file) in ARCHIVES and not file.with_suffix("").exists():
            raise InputError(f"{file}: {packed(file)}")
        found = re.fullmatch(r"(.+)_(TRAIN|TEST)", file.stem, flags=re.IGNORECASE)
        if found and file.suffix.lower() in ARCHIVES and (source.is_dir() or found.group(1) in source.stem):
            stems.setdefault(found.group(1), {}).setdefault(found.group(2).lower(), file)
    if len(stems) != 1:
        some = ", ".join(stems) or "no <name>_TRAIN and <name>_TEST files"
        raise InputError(f"{source}: found {some}; name one data set by one of its files")
    (name, files), rows = next(iter(stems.items())), []
    for split, file in files.items():
        with Isolated() as worker:
            try:
                part: Collection = worker.call(read_ucr, require_file(file))
            except InputError as error:
                raise InputError(f"{file}: {packed_inside(file) or plain_reason(str(error), file)}") from None
        told += part.notes
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
    return save_manifest(out, rows, note="\n".join([*told, note]))


def check_row(row: dict, root: Path | Folder) -> list[str]:
    """Read a manifest row's recording; raise what is wrong with it, return what is to be known (`data check`)."""
    from counterpoint.timeseries.preprocess import missing_notes, usable_channels
    from counterpoint.timeseries.reading import cells

    file, rate, number = cells(row)
    record = with_attached(read_record(root / file, rate, number), row, lambda name: root / name)
    if not record.channels:
        raise InputError("holds annotations but no signals; name the recording itself")
    if not any(usable_channels(channel.data[:, None], min_finite=0.0)[0] for channel in record.channels):
        raise InputError("every channel is flat or missing")
    notes = list(record.notes)
    for fs in dict.fromkeys(channel.fs for channel in record.channels):
        same = [channel for channel in record.channels if channel.fs == fs]
        for size in dict.fromkeys(len(channel.data) for channel in same):
            alike = [channel for channel in same if len(channel.data) == size]
            block = record.block if len(alike) == len(record.channels) and record.block is not None else None
            x = np.stack([channel.data for channel in alike], 1) if block is None else block
            notes += missing_notes(x, [channel.name for channel in alike])
    return notes
