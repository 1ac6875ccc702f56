"""WFDB records (PhysioNet): any format the wfdb package decodes, and a fast path for formats 16 and 212."""

from __future__ import annotations

import glob
import math
import re
from pathlib import Path

import numpy as np

from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError
from counterpoint.timeseries.record import NO_EVENTS, Annotations, Channel, Record
from counterpoint.timeseries.units import decode_header

BYTES_PER_SAMPLE = {
    "8": 1,
    "80": 1,
    "16": 2,
    "61": 2,
    "160": 2,
    "212": 1.5,
    "310": 4 / 3,
    "311": 4 / 3,
    "24": 3,
    "32": 4,
}
CHUNK = 1 << 18
MISSING = {"16": -(1 << 15), "212": -(1 << 11)}  # the codes by which a device says "no sample here"


def read_wfdb(
    path: Path | str, start: float = 0.0, stop: float | None = None, annotator: str | None = "auto"
) -> Record:
    """Read a WFDB record in physical units: `path` is the header, with or without `.hea`.

    Channels keep their own rates (a record of 125 Hz frames with 4 ECG samples each gives 500 Hz ECG), units,
    gains and baselines; the header's skew is undone; the format's missing-sample code becomes NaN. `start` and
    `stop` are seconds. `annotator` is the annotation file's suffix ("atr"); "auto" takes .atr or .qrs if present.

    Raises `InputError` for a missing header or signal file, an unreadable header, or a file shorter than its
    header promises.
    """
    import wfdb

    path = Path(path)
    stem = path.with_suffix("") if path.suffix.lower() == ".hea" else path
    header_file = stem.with_name(stem.name + ".hea")
    if not header_file.is_file():
        raise InputError(f"{header_file}: no such header; a WFDB record needs its .hea beside the signal file")
    units = _stated_units(header_file)
    try:
        header = wfdb.rdheader(str(stem))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(f"{header_file}: not a readable WFDB header ({error}); check its record line") from error
    if isinstance(header, wfdb.MultiRecord):
        fs, frames = float(header.fs), int(header.sig_len)
        first, last = _span(header_file, fs, frames, start, stop)
        channels, block = _through_wfdb(stem, first, last, None), None
    else:
        if not header.n_sig or len(header.file_name or ()) != header.n_sig:
            raise InputError(f"{header_file}: the header lists no signals, or not as many as its first line says")
        _check_files(stem, header)
        fs = float(header.fs)
        frames = int(header.sig_len) if header.sig_len else _frames_on_disk(stem, header)
        first, last = _span(header_file, fs, frames, start, stop)
        units = [units.get(j, unit or "") for j, unit in enumerate(header.units)]
        block = None
        if _is_plain(header):
            block = _fast(stem, header, first, last, whole=(first, last) == (0, frames))
            channels, taken = [], 0
            for name, unit, count in zip(_names(header), units, header.samps_per_frame):
                data = block[:, taken] if count == 1 else block[:, taken : taken + count].reshape(-1)
                channels.append(Channel(name, unit, fs * count, data))
                taken += count
            block, channels = block if taken == header.n_sig else None, tuple(channels)
        elif not header.sig_len:
            raise InputError(f"{header_file}: gives no sample count, which its format needs; add it after the rate")
        else:
            channels = _through_wfdb(stem, first, last, units)
    meta = _comments(header.comments or [])
    for field in ("base_date", "base_time"):
        if getattr(header, field, None):
            meta[field] = str(getattr(header, field))
    events = _annotations(stem, annotator, fs).between(first / fs, last / fs)
    shifted = Annotations(events.onset - first / fs, events.duration, events.label)
    return Record(stem.name, channels, shifted, meta, header_file, block)


def _stated_units(file: Path) -> dict[int, str]:
    """Units by signal number as the header's bytes state them (the wfdb package drops what is not ASCII).

    Raises `InputError` for a sampling rate that is not positive and finite, or a gain that is not a finite number (0
    stands for the default); and for segments in a unit beyond ASCII, which would lose its prefix.
    """
    lines = [line.strip() for line in decode_header(file.read_bytes()).splitlines()]
    lines = [line.split() for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{file}: lists no signals, the header is empty; copy it again")
    rate = lines[0][2].split("/")[0].split("(")[0] if len(lines[0]) > 2 else "250"
    if not 0 < _finite(rate) <= 1e9:
        raise InputError(f"{file}: not a readable WFDB header (sampling rate {rate!r}); state the rate in hertz")
    units = {}
    if "/" in lines[0][0]:
        for words in lines[1:]:  # of a multi-segment record, each names a segment
            part = file.with_name(f"{words[0]}.hea")
            stated = _stated_units(part).values() if part.is_file() and part != file else ()
            lost = [unit for unit in stated if not unit.isascii()]
            if lost:
                raise InputError(f"{part}: states the unit {lost[0]!r}, which segments cannot keep; write uV, mV or V")
        return units
    for j, words in enumerate(lines[1:]):
        if len(words) < 3:
            continue
        gain, slash, unit = words[2].partition("/")
        number = gain.split("(")[0]  # 0 is the format's word for the default gain of 200
        if not _finite(number) and not re.fullmatch(r"[-+]?0*\.?0*", number):
            raise InputError(f"{file}: signal {j + 1} has the gain {words[2]!r}; state units of the converter per unit")
        if slash:
            units[j] = unit
    return units


def _finite(text: str) -> float:
    """The number, 0 where there is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _span(file: Path, fs: float, frames: int, start: float, stop: float | None) -> tuple[int, int]:
    first, last = round(start * fs), frames if stop is None else min(round(stop * fs), frames)
    if not 0 <= first < last:
        raise InputError(
            f"{file}: asked for {start:g}-{stop if stop is not None else 'end'} s "
            f"but the record covers 0-{frames / fs:g} s"
        )
    return first, last


def _names(header) -> list[str]:
    return [name or f"channel{j + 1}" for j, name in enumerate(header.sig_name)]


def _check_files(stem: Path, header) -> None:
    """Every signal file exists and holds as many samples as the header promises."""
    frames = header.sig_len
    per_file: dict[str, float] = {}
    for j, name in enumerate(header.file_name):
        size = BYTES_PER_SAMPLE.get(header.fmt[j])
        per_file[name] = per_file.get(name, 0) + (size * header.samps_per_frame[j] if size else math.nan)
    for name, bytes_per_frame in per_file.items():
        file = stem.with_name(name)
        if not file.is_file():
            pressed = next((f for f in file.parent.glob(f"{glob.escape(file.name)}.*") if packed(f)), None)
            if pressed:
                raise InputError(f"{pressed}: {packed(pressed)}; {stem.name}.hea names {file.name}")
            raise InputError(f"{file}: signal file named by {stem.name}.hea is missing; copy it beside the header")
        if not frames or math.isnan(bytes_per_frame):
            continue
        offset = header.byte_offset[header.file_name.index(name)] or 0
        held = math.floor((file.stat().st_size - offset) / bytes_per_frame + 1e-9)
        if held < frames:
            raise InputError(
                f"{file}: truncated, holds {held} of the {frames} samples per signal promised by {stem.name}.hea; "
                "copy the file again, or lower the header's sample count"
            )


def _frames_on_disk(stem: Path, header) -> int:
    name = header.file_name[0]
    members = [j for j, other in enumerate(header.file_name) if other == name]
    per_frame = sum(BYTES_PER_SAMPLE.get(header.fmt[j], math.nan) * header.samps_per_frame[j] for j in members)
    if math.isnan(per_frame):
        raise InputError(f"{stem}.hea: gives no sample count and format {header.fmt[0]} has no fixed size; add it")
    return int((stem.with_name(name).stat().st_size - (header.byte_offset[members[0]] or 0)) / per_frame + 1e-9)


def _is_plain(header) -> bool:
    """One file of interleaved 16 or 212 samples, one or more per frame: the layout of most ECG databases."""
    return (
        len(set(header.file_name)) == 1
        and set(header.fmt) in ({"16"}, {"212"})
        and all(count >= 1 for count in header.samps_per_frame)
        and not any(header.skew or ())
    )


def _fast(stem: Path, header, first: int, last: int, whole: bool) -> np.ndarray:
    """Decode straight into one float32 array [frames, samples of a frame], a few megabytes of integers at a time.

    Of a record read whole, every signal's sum is held against the checksum that its header states.
    """
    per_frame = list(header.samps_per_frame)
    count, fmt = sum(per_frame), header.fmt[0]
    gain = np.repeat(np.asarray(header.adc_gain, np.float32), per_frame)
    baseline = np.repeat(np.asarray(header.baseline, np.float32), per_frame)
    sums = np.zeros(count, np.int64)
    out = np.empty((last - first, count), np.float32)
    step = max(CHUNK // count // 2 * 2, 2)
    begin = first - first % 2  # format 212 packs samples in pairs; an even frame is always on a pair's border
    with stem.with_name(header.file_name[0]).open("rb") as file:
        for f0 in range(begin, last, step):
            f1 = min(f0 + step, last)
            bytes_before = f0 * count * 2 if fmt == "16" else f0 * count * 3 // 2
            file.seek((header.byte_offset[0] or 0) + bytes_before)
            samples = (f1 - f0) * count
            digital = _int16(file, samples) if fmt == "16" else _int12(file, samples)
            digital = digital.reshape(-1, count)[max(first - f0, 0) :]
            sums += digital.sum(0, dtype=np.int64)
            target = out[max(f0, first) - first : f1 - first]
            np.subtract(digital, baseline, out=target, casting="unsafe")
            target /= gain
            if digital.min() == MISSING[fmt]:
                target[digital == MISSING[fmt]] = np.nan
    first_of = np.cumsum([0, *per_frame[:-1]])
    if whole:
        _check_sums(stem, header, np.add.reduceat(sums, first_of))
    return out


def _check_sums(stem: Path, header, sums: np.ndarray) -> None:
    """Every signal's samples add up, modulo 2^16, to the checksum of its header line; zeros throughout state none."""
    for name, stated, initial, total in zip(_names(header), header.checksum, header.init_value, sums):
        if stated is None or (not stated and not initial) or (int(total) - stated) % 65536 == 0:
            continue
        raise InputError(
            f"{stem}.hea: channel {name} does not add up to the checksum of its header ({int(total) % 65536} where "
            f"{stated % 65536} is stated), so its samples were changed; copy {header.file_name[0]} again"
        )


def _int16(file, samples: int) -> np.ndarray:
    return np.frombuffer(file.read(2 * samples), "<i2")


def _int12(file, samples: int) -> np.ndarray:
    """Two 12-bit two's complement samples in three bytes: low byte, shared nibbles, low byte."""
    pairs = (samples + 1) // 2
    raw = file.read(3 * pairs)
    packed = np.frombuffer(raw.ljust(3 * pairs, b"\0"), np.uint8).reshape(pairs, 3)
    shared = packed[:, 1].astype(np.int16)
    out = np.empty((pairs, 2), np.int16)
    # Shifting the nibble to the top of 16 bits and back carries its sign down.
    np.right_shift(shared << 12, 4, out=out[:, 0])
    np.right_shift((shared & 0xF0) << 8, 4, out=out[:, 1])
    out[:, 0] |= packed[:, 0]
    out[:, 1] |= packed[:, 2]
    return out.reshape(-1)[:samples]


def _through_wfdb(stem: Path, first: int, last: int, units: list[str] | None) -> tuple[Channel, ...]:
    import wfdb

    try:
        record = wfdb.rdrecord(str(stem), sampfrom=first, sampto=last, smooth_frames=False, return_res=32)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(f"{stem}.hea: wfdb cannot decode the record ({error}); check its signal files") from error
    signals = record.e_p_signal
    if signals is None:
        signals = list(record.p_signal.T)
    per_frame = record.samps_per_frame or [1] * len(signals)
    return tuple(
        Channel(name, unit or "", float(record.fs) * n, np.asarray(x, np.float32))
        for name, unit, n, x in zip(_names(record), units or record.units, per_frame, signals)
    )


def _annotations(stem: Path, annotator: str | None, fs: float) -> Annotations:
    import wfdb

    if annotator is None:
        return NO_EVENTS
    if annotator == "auto":
        annotator = next((ext for ext in ("atr", "qrs") if stem.with_name(f"{stem.name}.{ext}").is_file()), None)
        if annotator is None:
            return NO_EVENTS
    file = stem.with_name(f"{stem.name}.{annotator}")
    if not file.is_file():
        raise InputError(f"{file}: no such annotation file; give annotator=None to read the signals alone")
    if not file.read_bytes().endswith(b"\0\0"):
        raise InputError(f"{file}: truncated, its end mark is missing; copy the annotation file again")
    try:
        found = wfdb.rdann(str(stem), annotator)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a readable WFDB annotation file ({error})") from error
    # Rhythm changes and comments carry their text in aux ("(AFIB"); beats are named by their symbol.
    labels = [
        aux.strip("\x00 ") if symbol in '+"' and aux.strip("\x00 ") else symbol
        for symbol, aux in zip(found.symbol, found.aux_note)
    ]
    return Annotations.of(np.asarray(found.sample) / float(found.fs or fs), labels)


def _comments(lines: list[str]) -> dict[str, str]:
    """Header comments `key: value` become fields; the others are kept as `comment`."""
    meta: dict[str, str] = {}
    loose = []
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and value.strip():
            meta[key.strip().lower()] = value.strip()
        elif line.strip() and not colon:
            loose.append(line.strip())
    if loose:
        meta["comment"] = "; ".join(loose)
    return meta
