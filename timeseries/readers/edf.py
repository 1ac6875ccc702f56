"""EDF and EDF+ recordings: per-channel rates, physical units, annotations, and the gaps of discontinuous files.

The format: Kemp et al., "A simple format for exchange of digitized polygraphic recordings", 1992, and
Kemp & Olivan, "European data format 'plus' (EDF+)", 2003. Decoded here: a header is a table of ASCII fields, a data
record holds every signal's 16-bit samples one after another.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Annotations, Channel, Record
from counterpoint.timeseries.units import decode_header

LONGEST_DAYS = 7  # a discontinuous file that spans more is laid out in memory mostly as gaps
ANNOTATIONS = "EDF Annotations"
_SLEEP_EDF = re.compile(r"(S[CT]\d{4}[A-Z])\w-(?:PSG|Hypnogram)", re.IGNORECASE)
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of a signal's fields, in the header's order
BDF = "a BDF file (24-bit samples), which is not read; convert it to EDF+"


def read_edf(path: Path | str) -> Record:
    """Read an EDF or EDF+ file in physical units; an annotation-only file gives a record without channels.

    In a discontinuous file (EDF+D) every data record stands at its own time, and the gaps between are NaN: no window
    joins samples that were never adjacent, and annotations keep their places. A channel whose calibration is unusable
    is left out and named in the record's `notes`. A Sleep-EDF night (`SC4001E0-PSG.edf`) without annotations takes
    those of the hypnogram beside it (`SC4001EC-Hypnogram.edf`).

    Raises `InputError` for a file that is not EDF (BDF, which holds 24-bit samples, included), is shorter than its
    header promises, states no usable record duration, or is an EDF+D whose data records carry no times, overlap, or
    span more than a week.
    """
    path = Path(path)
    header = _read_header(path)
    raw = np.memmap(path, "<i2", "r", header.size, (header.records, sum(header.samples))) if header.records else None
    channels, notes = ([], []) if raw is None else _channels(path, header, raw)
    lists, first = [], 0
    for label, samples in zip(header.labels, header.samples):
        if label == ANNOTATIONS and raw is not None and samples:
            lists.append([np.ascontiguousarray(record[first : first + samples]).tobytes() for record in raw])
        first += samples
    if not header.continuous and channels:
        onsets = _onsets(path, lists)
        channels = [_spread(path, channel, onsets, header.seconds) for channel in channels]
    annotations = _annotations(path, lists)
    record = Record(path.stem, tuple(channels), annotations, header.meta, path, notes=tuple(notes))
    psg = channels and not len(annotations) and path.stem.lower().endswith("-psg")
    return _with_hypnogram(record) if psg else record


@dataclass(frozen=True)
class _Header:
    """Bytes of header, data records and their seconds, each signal's fields, and what is said of the patient."""

    size: int
    records: int
    seconds: float
    continuous: bool
    labels: tuple[str, ...]
    units: tuple[str, ...]
    limits: tuple[tuple[str, str, str, str], ...]  # physical minimum and maximum, digital minimum and maximum
    samples: tuple[int, ...]
    meta: dict[str, str]


def _read_header(path: Path) -> _Header:
    """Read and judge the header: it says how long the file must be; a shorter one was cut in copying."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256)
            if head[:1] == b"\xff" and head[1:8] == b"BIOSEMI":
                raise InputError(f"{path}: {BDF}")
            header_bytes, records, signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
            seconds = _number(head[244:252])
            table = file.read(256 * signals) if 0 < signals <= 9999 else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not an EDF file (its header fields are not numbers); export it again") from error
    if signals < 1 or header_bytes != 256 * (signals + 1) or len(table) < 256 * signals:
        raise InputError(
            f"{path}: not an EDF file, or its header is damaged ({signals} signals, {header_bytes} header bytes); "
            "copy or export it again"
        )
    columns, at = [], 0
    for width in _WIDTHS:
        columns.append([table[at + i * width : at + (i + 1) * width] for i in range(signals)])
        at += width * signals
    labels = tuple(_text(field) for field in columns[0])
    try:
        samples = tuple(int(field) for field in columns[8])
    except ValueError as error:
        raise InputError(
            f"{path}: not an EDF file (its samples per data record are not numbers); export it "
            "again"
        ) from error
    if min(samples) < 0 or not sum(samples):
        raise InputError(f"{path}: its header gives {min(samples)} samples per data record; export it again")
    signal = any(label != ANNOTATIONS for label in labels)
    if signal and not 0 < seconds <= LONGEST_DAYS * 86400:  # false for NaN too
        raise InputError(
            f"{path}: its header gives data records of {_text(head[244:252])!r} seconds, so no channel has a rate; "
            "correct that field or export the file again"
        )
    held = (size - header_bytes) // (2 * sum(samples))
    if records > held:
        raise InputError(
            f"{path}: truncated, holds {max(held, 0)} of the {records} data records its header promises; "
            "copy the file again"
        )
    records = held if records < 0 else records  # -1: the writer did not know when it began
    if signal and not records:
        raise InputError(f"{path}: holds no data records; export it again")
    plus = head[192:197] == b"EDF+D"
    units = tuple(_text(field) for field in columns[2])
    limits = tuple(tuple(_text(columns[k][i]) for k in (3, 4, 5, 6)) for i in range(signals))
    return _Header(header_bytes, records, seconds, not plus, labels, units, limits, samples, _meta(head))


def _text(field: bytes) -> str:
    return decode_header(field).strip(" \0")


def _number(field: bytes | str) -> float:
    """A header's number; some writers put their locale's comma for the decimal point."""
    text = field if isinstance(field, str) else _text(field)
    return float(text.replace(",", "."))


def _channels(path: Path, header: _Header, raw: np.ndarray) -> tuple[list[Channel], list[str]]:
    """Every calibrated channel: physical = minimum + (digital - digital minimum) * range / digital range."""
    channels, notes, first = [], [], 0
    for label, unit, limits, samples in zip(header.labels, header.units, header.limits, header.samples):
        place = slice(first, first + samples)
        first += samples
        if label == ANNOTATIONS:
            continue
        wrong = "no samples" if not samples else _uncalibrated(limits)
        if wrong:
            notes.append(f"channel {label} left out, {wrong}")
            continue
        low, high, bottom, top = (_number(text) for text in limits)
        gain = (high - low) / (top - bottom)
        data = raw[:, place].reshape(-1).astype(np.float64)
        data = ((data - bottom) * gain + low).astype(np.float32)
        channels.append(Channel(label, unit, samples / header.seconds, data))
    if notes and not channels:
        raise InputError(f"{path}: {'; '.join(notes)}")
    return channels, notes


def _uncalibrated(limits: tuple[str, str, str, str]) -> str:
    """Why digital values cannot be turned into physical ones; empty where they can."""
    try:
        low, high, bottom, top = (_number(text) for text in limits)
    except ValueError:
        return f"its limits {', '.join(limits)} are not numbers"
    if not (math.isfinite(low) and math.isfinite(high)) or low == high or max(abs(low), abs(high)) > 1e30:
        return f"its physical limits {limits[0]} and {limits[1]} give no scale"
    if not -32768 <= bottom < top <= 32767:
        return f"its digital limits {limits[2]} and {limits[3]} are equal, swapped or beyond 16 bits"
    return ""


def _annotations(path: Path, lists: list[list[bytes]]) -> Annotations:
    """Time-stamped annotation lists: `+onset[0x15 duration]0x14 text 0x14 ... 0x00`; a time stamp has no text."""
    onsets, durations, texts = [], [], []
    for signal in lists:
        for i, record in enumerate(signal):
            for entry in record.split(b"\0"):
                stamp, *found = entry.split(b"\x14")
                if not any(found):
                    continue
                onset, _, duration = stamp.partition(b"\x15")
                try:
                    start, length = float(onset), float(duration or 0)
                except ValueError:
                    start = length = math.nan
                if not (math.isfinite(start) and math.isfinite(length) and length >= 0):
                    raise InputError(
                        f"{path}, data record {i + 1}: an annotation with the time {decode_header(stamp)[:40]!r}; "
                        "export the file's annotations again"
                    )
                for text in found:
                    if text:
                        onsets.append(start)
                        durations.append(length)
                        texts.append(decode_header(text))
    order = np.argsort(onsets, kind="stable")
    return Annotations.of([onsets[i] for i in order], [texts[i] for i in order], [durations[i] for i in order])


def _onsets(path: Path, lists: list[list[bytes]]) -> Float[np.ndarray, " records"]:
    """Seconds at which the data records begin, from the first; each one's first annotation is its time (`+12.5`)."""
    if not lists:
        raise InputError(f"{path}: discontinuous (EDF+D) but without times of its data records; save it as EDF+C")
    onsets = np.empty(len(lists[0]))
    for i, record in enumerate(lists[0]):
        try:
            onsets[i] = float(record.split(b"\x14")[0])
        except ValueError:
            onsets[i] = math.nan
        if not math.isfinite(onsets[i]):
            raise InputError(
                f"{path}, data record {i + 1}: no time of its own in a discontinuous file (EDF+D); save it as EDF+C"
            )
    return onsets - onsets[0]


def _spread(path: Path, channel: Channel, onsets: Float[np.ndarray, " records"], seconds: float) -> Channel:
    """The channel with every data record at its time and NaN between."""
    late = np.flatnonzero(np.diff(onsets) < seconds - 0.5 / channel.fs)
    if len(late):
        i = int(late[0])
        raise InputError(
            f"{path}, data record {i + 2}: begins at {onsets[i + 1]:g} s, before the one ahead of it ends at "
            f"{onsets[i] + seconds:g} s; the times of this EDF+D are wrong, export it again"
        )
    if onsets[-1] > LONGEST_DAYS * 86400:
        raise InputError(
            f"{path}: its data records lie {onsets[-1] / 86400:.0f} days apart; save the pieces as files of their own"
        )
    length = len(channel.data) // len(onsets)
    start = np.rint(onsets * channel.fs).astype(int)
    start = np.maximum.accumulate(start - np.arange(len(start)) * length) + np.arange(len(start)) * length
    out = np.full(start[-1] + length, np.nan, np.float32)
    out[(start[:, None] + np.arange(length)).ravel()] = channel.data[: len(onsets) * length]
    return Channel(channel.name, channel.unit, channel.fs, out)


def _with_hypnogram(record: Record) -> Record:
    """The record with the stages of the hypnogram beside it, where both are named as in Sleep-EDF."""
    night = night_of(record.source)
    if not night:
        return record
    files = hypnograms_of(record.source)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{record.source}: has {len(files)} hypnograms beside it ({names}); keep one of them")
    if not files:
        return replace(record, notes=(*record.notes, f"no hypnogram {night}?-Hypnogram.edf beside it: has no stages"))
    return scored_by(record, files[0])


def night_of(path: Path) -> str:
    """The night (`SC4001E`) that a Sleep-EDF recording or hypnogram is of, by its name; empty for other files.

    >>> night_of(Path("SC4001E0-PSG.edf")), night_of(Path("SC4001EC-Hypnogram.edf")), night_of(Path("a.edf"))
    ('SC4001E', 'SC4001E', '')
    """
    found = _SLEEP_EDF.fullmatch(path.stem)
    return found.group(1) if found else ""


def hypnograms_of(path: Path) -> list[Path]:
    """The hypnograms beside a Sleep-EDF recording."""
    named = re.compile(re.escape(night_of(path)) + r"\w-Hypnogram\.edf", re.IGNORECASE)
    return sorted(f for f in path.parent.iterdir() if named.fullmatch(f.name) and f.is_file())


def scored_by(record: Record, path: Path) -> Record:
    """The record with the annotations of another EDF+ file, moved by the difference of both files' clocks.

    Raises `InputError` for a file without annotations, and for one all of whose annotations lie outside of the record.
    """
    scored = read_edf(path)
    # Both clocks are of one night; a hypnogram may begin later than the recording.
    begins = [datetime.fromisoformat(r.meta["start"]) for r in (scored, record) if "start" in r.meta]
    shift = (begins[0] - begins[1]).total_seconds() if len(begins) == 2 else 0.0
    found = scored.annotations
    name = record.source.name if record.source else record.id
    if not len(found):
        raise InputError(f"{path}: holds no annotations for {name}")
    moved = Annotations(found.onset + shift, found.duration, found.label)
    inside = (moved.onset < record.duration) & (moved.onset + moved.duration >= 0)
    if not inside.any():
        raise InputError(
            f"{path}: all {len(found)} annotations lie outside of {name}, which lasts {record.duration:g} s (the first "
            f"begins at {moved.onset[0]:g} s of it); is it of another night?"
        )
    told = f"annotations taken from {path.name} beside it"
    return replace(record, annotations=moved, notes=(*record.notes, told))


def _meta(head: bytes) -> dict[str, str]:
    """Subject code and sex, where the header is EDF+ and states them, and the start."""
    meta: dict[str, str] = {}
    if head[192:196] == b"EDF+":  # plain EDF leaves the patient field free-form, and so do we
        code, sex, *_ = [*_text(head[8:88]).split(" "), "", ""]
        meta |= {key: value for key, value in (("patient", code), ("sex", sex)) if value and value != "X"}
    try:
        start = datetime.strptime(decode_header(head[168:184]), "%d.%m.%y%H.%M.%S")
        # The format's own rule: two-digit years 85-99 are of the twentieth century.
        year = start.year % 100
        meta["start"] = start.replace(year=year + (1900 if year > 84 else 2000)).isoformat()
    except ValueError:
        pass  # a start that is no date is no reason to refuse the signals
    return meta
