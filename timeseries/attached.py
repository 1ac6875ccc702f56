"""Annotations and channel facts that stand in files of their own, put on a recording when it is read.

A manifest row names them in its columns `annotations` (a BIDS `_events.tsv`, or an EDF+ file of annotations) and
`channels` (a BIDS `_channels.tsv`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers.edf import scored_by
from counterpoint.timeseries.record import Annotations, Record
from counterpoint.timeseries.sidecars import MISSING, read_sheet
from counterpoint.timeseries.units import UNSTATED, unit_factor

BAD_CHANNELS = "bad channels"
"""Header field that lists the channels taken as missing."""


def with_attached(record: Record, row: dict, place: Callable[[str], Path]) -> Record:
    """The record with what the files named by its manifest row add to it; `place` finds a file."""
    if file := row.get("annotations"):
        path = place(str(file))
        record = with_events(record, path) if path.suffix.lower() == ".tsv" else scored_by(record, path)
    if file := row.get("channels"):
        record = with_channels(record, place(str(file)))
    return record


def with_events(record: Record, path: Path) -> Record:
    """The record with the events of a BIDS `_events.tsv`: `onset` and `duration` in seconds, called by `trial_type`,
    or by `value` where that is missing.

    Raises `InputError` naming file and row: an onset or duration that is no number, or an event outside of the record.
    """
    sheet = read_sheet(path, ("onset", "duration"), "\t")
    if "trial_type" not in sheet.names and "value" not in sheet.names:
        raise InputError(f"{path}: has no column 'trial_type' or 'value' that says what an event is")
    onset, duration, label = [], [], []
    unnamed = 0
    for i, row in enumerate(sheet.rows):
        begin, length = sheet.number(i, "onset"), sheet.number(i, "duration", 0.0)
        if length < 0:
            raise InputError(f"{sheet.where(i)}: duration is {length:g}, below 0")
        if begin >= record.duration or begin + length < 0:
            where = record.source.name if record.source else record.id
            raise InputError(
                f"{sheet.where(i)}: the event at {begin:g} s lies outside of {where}, which lasts {record.duration:g} s"
            )
        names = (row.get(column, "").strip() for column in ("trial_type", "value"))
        name = next((text for text in names if text.lower() not in MISSING), "")
        if not name:
            unnamed += 1
            continue
        onset.append(begin)
        duration.append(length)
        label.append(name)
    order = np.argsort(onset, kind="stable")
    found = Annotations.of([onset[i] for i in order], [label[i] for i in order], [duration[i] for i in order])
    told = (f"{unnamed} events of {path.name} have no name and are left out",) if unnamed else ()
    return replace(record, annotations=found, notes=(*record.notes, *told))


def with_channels(record: Record, path: Path) -> Record:
    """The record as a BIDS `_channels.tsv` describes it: channels marked bad are missing (NaN), and a unit that the
    recording does not state is taken from there.

    Raises `InputError` naming file and row: a channel that the recording lacks or that stands there twice, a unit that
    contradicts the recording's.
    """
    sheet = read_sheet(path, ("name",), "\t")
    known = {channel.name.casefold(): i for i, channel in enumerate(record.channels)}
    channels, notes, bad = list(record.channels), list(record.notes), []
    for name, i in sheet.unique("name").items():
        if name.casefold() not in known:
            some = ", ".join(record.names)
            raise InputError(f"{sheet.where(i)}: the recording has no channel {name!r}; it has {some}")
        at, row = known[name.casefold()], sheet.rows[i]
        unit = row.get("units", "").strip()
        if unit.lower() not in MISSING and unit.casefold() not in UNSTATED:
            if channels[at].unit.casefold() in UNSTATED:
                channels[at] = replace(channels[at], unit=unit)
            elif unit_factor(unit, channels[at].unit) != 1.0:
                raise InputError(
                    f"{sheet.where(i)}: channel {name} is in {unit}, and in the recording in {channels[at].unit}; "
                    "correct the wrong one"
                )
        if row.get("status", "").strip().lower() == "bad":
            channels[at] = replace(channels[at], data=np.full_like(channels[at].data, np.nan))
            bad.append(name)
            notes.append(f"channel {name} is marked bad in {path.name}; taken as missing")
    meta = {**record.meta, BAD_CHANNELS: ", ".join(bad)} if bad else record.meta
    return replace(record, channels=tuple(channels), block=None, meta=meta, notes=tuple(notes))
