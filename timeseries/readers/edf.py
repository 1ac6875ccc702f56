"""EDF and EDF+ recordings through edfio: per-channel rates, physical units, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Annotations, Channel, Record

LONGEST_DAYS = 7  # a discontinuous file that spans more is laid out in memory mostly as gaps


def read_edf(path: Path | str) -> Record:
    """Read an EDF or EDF+ file in physical units; an annotation-only file gives a record without channels.

    In a discontinuous file (EDF+D) every data record stands at its own time, and the gaps between are NaN: no window
    joins samples that were never adjacent, and annotations keep their places.

    Raises `InputError` for a file that is not EDF, is shorter than its header promises, or is an EDF+D whose data
    records carry no times, overlap, or span more than a week.
    """
    import edfio

    path = Path(path)
    header = _read_header(path)
    try:
        edf = edfio.read_edf(path)
        continuous = edf.is_continuous
        channels = tuple(
            Channel(s.label, _unit(s.physical_dimension), float(s.sampling_frequency), np.asarray(s.data, np.float32))
            for s in edf.signals
        )
        events = list(edf.annotations)
        record_seconds = float(edf.data_record_duration)
    except (ValueError, IndexError, KeyError, ArithmeticError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable EDF file ({error}); open and save it again as EDF+C") from error
    if not continuous and channels:
        onsets = _onsets(path, header)
        channels = tuple(_spread(path, channel, onsets, record_seconds) for channel in channels)
    annotations = Annotations.of(
        [event.onset for event in events],
        [event.text for event in events],
        [event.duration or 0.0 for event in events],
    )
    return Record(path.stem, channels, annotations, _meta(edf), path)


@dataclass(frozen=True)
class _Header:
    """Where things stand in the file: bytes of header, data records, and each signal's label and samples a record."""

    size: int
    records: int
    labels: tuple[str, ...]
    samples: tuple[int, ...]


def _read_header(path: Path) -> _Header:
    """The header says how long the file must be; a shorter one was cut in copying."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256)
        try:
            header_bytes, records, signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
            labels = tuple(file.read(16).decode("latin-1").strip() for _ in range(signals))
            file.seek(256 + signals * 216)
            samples = tuple(int(file.read(8)) for _ in range(signals))
        except ValueError as error:
            raise InputError(f"{path}: not an EDF file (its header fields are not numbers)") from error
    record_bytes = 2 * sum(samples)
    if records >= 0 and size < header_bytes + record_bytes * records:
        held = (size - header_bytes) // record_bytes if record_bytes else 0
        raise InputError(
            f"{path}: truncated, holds {max(held, 0)} of the {records} data records its header promises; "
            "copy the file again"
        )
    if records < 0:
        records = (size - header_bytes) // record_bytes if record_bytes else 0
    return _Header(header_bytes, records, labels, samples)


def _onsets(path: Path, header: _Header) -> Float[np.ndarray, " records"]:
    """Seconds at which the data records begin, from the first; each one's first annotation is its time (`+12.5`)."""
    if "EDF Annotations" not in header.labels:
        raise InputError(f"{path}: discontinuous (EDF+D) but without times of its data records; save it as EDF+C")
    place = header.labels.index("EDF Annotations")
    record_bytes, first = 2 * sum(header.samples), 2 * sum(header.samples[:place])
    raw = np.memmap(path, np.uint8, "r", header.size, (header.records, record_bytes))
    onsets = np.empty(header.records)
    for i in range(header.records):
        text = raw[i, first : first + 2 * header.samples[place]].tobytes().split(b"\x14")[0]
        try:
            onsets[i] = float(text)
        except ValueError as error:
            raise InputError(
                f"{path}, data record {i + 1}: no time of its own in a discontinuous file (EDF+D); save it as EDF+C"
            ) from error
    return onsets - onsets[0]


def _spread(path: Path, channel: Channel, onsets: Float[np.ndarray, " records"], seconds: float) -> Channel:
    """The channel with every data record at its time and NaN between."""
    late = np.flatnonzero(np.diff(onsets) < seconds - 0.5 / channel.fs)
    if len(late):
        i = int(late[0])
        raise InputError(
            f"{path}, data record {i + 2}: begins at {onsets[i + 1]:g} s, before the one ahead of it ends at "
            f"{onsets[i] + seconds:g} s; the times of this EDF+D are wrong"
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


def _unit(text: str) -> str:
    """EDF headers are ASCII: a byte outside it in the unit (a micro sign in the writer's code page) cannot be kept."""
    return "".join(c for c in text if c.isprintable() and c != "�").strip()


def _meta(edf) -> dict[str, str]:
    """Subject code, sex and start, where the header is EDF+ and states them."""
    meta: dict[str, str] = {}
    for key, read in (
        ("patient", lambda: edf.patient.code),
        ("sex", lambda: edf.patient.sex),
        ("start", lambda: edf.startdatetime.isoformat()),
    ):
        try:
            value = read()
        except (ValueError, AttributeError, IndexError):
            continue  # plain EDF leaves these fields free-form; edfio refuses to interpret them, and so do we
        if value and value != "X":
            meta[key] = str(value)
    return meta
