"""EDF and EDF+ recordings through edfio: per-channel rates, physical units, annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import Annotations, Channel, Record


def read_edf(path: Path | str) -> Record:
    """Read an EDF or EDF+C file in physical units; an annotation-only file gives a record without channels.

    Raises `InputError` for a file that is not EDF, is shorter than its header promises, or is discontinuous (EDF+D:
    its windows would join pieces that were never adjacent).
    """
    import edfio

    path = Path(path)
    _check_header(path)
    try:
        edf = edfio.read_edf(path)
        continuous = edf.is_continuous
        channels = tuple(
            Channel(s.label, _unit(s.physical_dimension), float(s.sampling_frequency), np.asarray(s.data, np.float32))
            for s in edf.signals
        )
        events = list(edf.annotations)
    except (ValueError, IndexError, KeyError, ArithmeticError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable EDF file ({error}); open and save it again as EDF+C") from error
    if not continuous:
        raise InputError(f"{path}: discontinuous EDF+D; save its continuous pieces as separate EDF+C files")
    annotations = Annotations.of(
        [event.onset for event in events],
        [event.text for event in events],
        [event.duration or 0.0 for event in events],
    )
    return Record(path.stem, channels, annotations, _meta(edf), path)


def _check_header(path: Path) -> None:
    """The fixed 256-byte header says how long the file must be; a shorter one was cut in copying."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256)
        try:
            header_bytes, records, signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
            file.seek(256 + signals * 216)
            samples = sum(int(file.read(8)) for _ in range(signals))
        except ValueError as error:
            raise InputError(f"{path}: not an EDF file (its header fields are not numbers)") from error
    expected = header_bytes + 2 * samples * records
    if records >= 0 and size < expected:
        held = (size - header_bytes) // (2 * samples) if samples else 0
        raise InputError(
            f"{path}: truncated, holds {max(held, 0)} of the {records} data records its header promises; "
            "copy the file again"
        )


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
