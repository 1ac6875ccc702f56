"""BIDS-EEG data sets: recordings `sub-*_eeg.edf` with the events, channels and participants that stand beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from counterpoint.common.data.importing import find_files, name_files, read_files, save_manifest
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.timeseries.attached import with_channels, with_events
from counterpoint.timeseries.importers import RecordingFacts, facts_of, notes_once
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.sidecars import MISSING, read_sheet

RECORDING = re.compile(r"sub-[0-9A-Za-z]+(_[a-z]+-[0-9A-Za-z]+)*_(eeg|ieeg)", re.IGNORECASE)
SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
DERIVED = ("derivatives", "sourcedata", "code", "stimuli")


def import_dataset(source: Path, out: Path, label: str = "", workers: int = 1) -> ImportReport:
    """Every recording of a BIDS data set as one manifest row; its subject is the group.

    Events and channels come from the nearest `_events.tsv` and `_channels.tsv` whose entities fit (BIDS' inheritance:
    beside the recording, or in a folder above). `label` names a column of `participants.tsv`. A recording whose files
    contradict each other is rejected with the file and row.

    Raises `InputError` for a `participants.tsv` that lacks the column, or names a participant twice.
    """
    found = find_files(source, (".edf", ".bdf"))
    root = _root(found.root)
    people = _participants(root / "participants.tsv", label)
    files, rejected = [], list(found.rejected)
    for file in found.files:
        if set(file.relative_to(found.root).parts[:-1]) & set(DERIVED):
            continue
        if RECORDING.fullmatch(file.stem):
            files.append(file)
        else:
            reason = "is not named as a BIDS recording (sub-LABEL_task-LABEL_eeg); rename it, or use `data import edf`"
            rejected.append(Rejected(str(file), reason))
    names, rows = name_files(files, found.root), []
    told: dict[str, list[str]] = {}
    read = partial(_recording, root=root)
    for file, facts in read_files(read, files, rejected, description="reading recordings", workers=workers):
        subject = SUBJECT.match(file.stem).group()
        if label and subject not in people:
            rejected.append(Rejected(str(file), f"{root / 'participants.tsv'} has no row for {subject}"))
            continue
        for text in facts.notes:
            told.setdefault(text, []).append(names[file])
        beside = {kind: sidecar(file, root, kind) for kind in ("events", "channels")}
        attached = {"annotations": beside["events"], "channels": beside["channels"]}
        rows.append(
            {
                "id": names[file], "group": subject, "file": os.path.relpath(file, out), **facts.columns,
                "label": people.get(subject, ""),
                **{column: os.path.relpath(path, out) if path else "" for column, path in attached.items()},
            }
        )  # fmt: skip
    used = [Path(out, row[column]) for row in rows for column in ("file", "annotations", "channels") if row[column]]
    return save_manifest(out, rows, rejected, note=notes_once(told), outside=folders_of(used, found.root))


def sidecar(file: Path, root: Path, kind: str) -> Path | None:
    """The nearest `*_<kind>.tsv` whose entities the recording has too, beside it or in a folder above up to `root`.

    Raises `InputError` where two in one folder fit equally well.
    """
    entities = set(file.stem.split("_")[:-1])
    for folder in _upwards(file.parent, root):
        fits = [
            (len(own), path)
            for path in sorted(folder.glob(f"*{kind}.tsv"))
            if path.stem.split("_")[-1] == kind and (own := set(path.stem.split("_")[:-1])) <= entities
        ]
        most = [path for count, path in fits if count == max(count for count, _ in fits)]
        if len(most) > 1:
            raise InputError(f"{most[0].name} and {most[1].name} both describe it; keep one of them")
        if most:
            return most[0]
    return None


def _recording(file: Path, root: Path) -> RecordingFacts:
    record = read_record(file)
    if path := sidecar(file, root, "channels"):
        record = with_channels(record, path)
    if path := sidecar(file, root, "events"):
        record = with_events(record, path)
    return facts_of(record, "record", "", None)


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _root(folder: Path) -> Path:
    """The data set's folder, when a folder of it was named."""
    marked = ("dataset_description.json", "participants.tsv")
    above = [place for place in (folder, *folder.parents) if any((place / name).exists() for name in marked)]
    return above[0] if above else folder


def _participants(path: Path, label: str) -> dict[str, str]:
    """The class of every participant, by `sub-<label>`; empty without such a table."""
    if not path.exists():
        if label:
            raise InputError(f"{path}: no such file, so the column {label!r} is not known; leave --label out")
        return {}
    sheet = read_sheet(path, ("participant_id", *([label] if label else [])), "\t")
    found = {}
    for name, i in sheet.unique("participant_id").items():
        if not SUBJECT.fullmatch(name):
            raise InputError(f"{sheet.where(i)}: participant_id {name!r} does not begin with sub-")
        value = sheet.rows[i][label].strip() if label else ""
        found[name] = "" if value.lower() in MISSING else value
    return found
