"""Recordings of a manifest, read and brought to one form, with what could not be read left out or refused.

Columns the vertical adds to a manifest: `file`, `row` (a series of an array file), `fs`, `trial`, `label`, and
the files `annotations` and `channels` of what was attached to a recording.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from counterpoint.common.data import Cache, Manifest
from counterpoint.common.data.manifest import as_number
from counterpoint.common.data.samples import BadSample
from counterpoint.common.errors import InputError
from counterpoint.timeseries.attached import BAD_CHANNELS, with_attached
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.events import UNKNOWN, step_classes
from counterpoint.timeseries.preprocess import bandpass, notch
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.record import Record
from counterpoint.timeseries.units import UNSTATED, unit_factor
from counterpoint.timeseries.windows import BEAT_SYMBOLS, beat_starts, r_peaks


def read_row(manifest: Manifest, row: dict) -> Record:
    """The recording behind a manifest row; a cell that cannot be used is named with the manifest and the row."""
    try:
        file, rate, number = cells(row)
    except InputError as error:
        at = int((manifest.frame["id"] == row["id"]).to_numpy().argmax()) + 1
        raise InputError(f"{manifest.path or 'manifest'}, row {at} (id {row['id']}): {error}") from None
    return with_attached(read_record(manifest.file(file), rate, number), row, manifest.file)


def cells(row: dict) -> tuple[str, float | None, int | None]:
    """What a manifest row says of its recording: file, sampling rate `fs` (hertz) and `row` of an array of series.

    >>> cells({"id": "a", "file": "a.npy", "fs": "128"})
    ('a.npy', 128.0, None)

    Raises `InputError` naming the column and its value.
    """
    file = row.get("file")
    if not isinstance(file, str) or not file.strip():
        what = "no file" if file in (None, "") else f"file is {file!r}"
        raise InputError(f"{what}; the column file names the recording")
    rate = as_number(row.get("fs"), "fs", "a positive number of hertz")
    if rate is not None and rate <= 0:
        raise InputError(f"fs is {rate:g}; give a positive number of hertz, or leave the cell empty")
    number = as_number(row.get("row"), "row", "the number of a series in the file, from 0")
    if number is not None and (number < 0 or number != int(number)):
        raise InputError(f"row is {number:g}; give the number of a series in the file, from 0")
    return file, rate, None if number is None else int(number)


def conditioned(
    record: Record, config: SignalConfig, leads: tuple[str, ...], units: tuple[str, ...] = ()
) -> tuple[np.ndarray, float]:
    """The wanted leads on one grid, filtered as the configuration says; returns signal [time, leads] and rate."""
    fs = config.fs or max(channel.fs for channel in record.channels)
    x, _ = record.array(fs, leads, config.aliases, units)
    return filtered(x, fs, config), fs


def filtered(x: np.ndarray, fs: float, config: SignalConfig) -> np.ndarray:
    """A signal [time, leads] behind the filters that the configuration names."""
    if config.notch is not None:
        x = notch(x, fs, config.notch)
    if config.low is not None or config.high is not None:
        x = bandpass(x, fs, config.low, config.high)
    return x


class Reading:
    """The recordings of a manifest, read one after the other on one form: the first one that can be read decides leads
    and rate where the configuration does not, and the first that states a lead's unit decides that.

    Attributes:
        rows: of the recordings read, and their `numbers` in the manifest.
        signals: of every recording [time, leads].
        beats: what `beat_windows` gives of each, with `data.beats`.
        steps: the class of every time step, and `labels`: how often each recording is annotated so, with `data.events`.
        notes: `<id>: <text>`, what a user must see.
        bad: recordings left out, with their split.
    """

    def __init__(self, config: SignalConfig, manifest: Manifest) -> None:
        self.config, self.manifest = config, manifest
        self.leads, self.rate = tuple(config.leads), config.fs
        self.units = dict(zip(self.leads, config.units))
        self.rows: list[dict] = []
        self.numbers: list[int] = []
        self.signals: list[np.ndarray] = []
        self.beats: list[tuple[np.ndarray, list[str], int]] = []
        self.steps: list[np.ndarray] = []
        self.labels: list[Counter] = []
        self.notes: list[str] = []
        self.bad: list[tuple[str, BadSample]] = []
        self._index = manifest.frame.index.to_list()
        self._place = 0

    @property
    def known_units(self) -> tuple[str, ...]:
        """Of every lead; empty where no recording states it."""
        return tuple(self.units.get(lead, "") for lead in self.leads)

    @property
    def left_out(self) -> dict[str, tuple[BadSample, ...]]:
        """Recordings that could not be read, by their split."""
        found: dict[str, tuple[BadSample, ...]] = {}
        for split, bad in self.bad:
            found[split] = (*found.get(split, ()), bad)
        return found

    def take(self, row: dict, on_error: str = "raise") -> None:
        """Read the next row; with `on_error="skip"` one that cannot be read leaves nothing behind but its reason."""
        number = int(self._index[self._place])
        self._place += 1
        try:
            found = self._read(row)
        except ImportError:  # a library that all rows need
            raise
        except Exception as error:  # whatever the reader met, the user needs the row
            if on_error == "raise":
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            self.bad.append((str(row["split"]), BadSample(number, str(row["id"]), reason)))
            return
        self._keep(row, number, *found)

    def _read(self, row: dict) -> tuple[Record, np.ndarray, float, tuple[str, ...], dict[str, str], list[str]]:
        record = read_row(self.manifest, row)
        if not record.channels:
            raise InputError(f"{record.source}: holds annotations but no signals; remove row id {row['id']}")
        leads, units = self.leads or record.names, dict(self.units)
        notes = [f"{row['id']}: {text}" for text in record.notes]
        notes += _learn_units(record, leads, self.config, units)
        wanted = tuple(units.get(lead, "") for lead in leads)
        x, fs = (_cached if self.config.cache else conditioned)(record, self.config, leads, wanted)
        return record, x, fs, leads, units, notes

    def _keep(
        self,
        row: dict,
        number: int,
        record: Record,
        x: np.ndarray,
        fs: float,
        leads: tuple[str, ...],
        units: dict[str, str],
        notes: list[str],
    ) -> None:
        config = self.config
        if self.rate is not None and abs(fs - self.rate) > 1e-6 * self.rate:
            raise InputError(
                f"{record.source}: {fs:g} Hz where earlier recordings have {self.rate:g} Hz; set --data.fs"
            )
        self.rate, self.leads, self.units = fs, leads, units
        self.notes += notes
        self.rows.append(row)
        self.numbers.append(number)
        self.signals.append(x)
        if config.beats:
            self.beats.append(beat_windows(record, x, fs, config))
        if config.events:
            self.labels.append(Counter(record.annotations.label))
            known = step_classes(record, config.events, len(x), fs, config.event_width)
            self.steps.append(np.where(np.isfinite(x).any(1), known, UNKNOWN))


def _learn_units(record: Record, leads: tuple[str, ...], config: SignalConfig, units: dict[str, str]) -> list[str]:
    """Keep the first stated unit of every lead; says which of this record have none or are converted."""
    found = []
    for lead, channel in zip(leads, record.pick(leads, config.aliases)):
        stated = channel is not None and channel.unit.strip().casefold() not in UNSTATED
        if stated:
            factor = unit_factor(channel.unit, units.setdefault(lead, channel.unit))
            if factor not in (1.0, None):
                where = record.source or record.id
                found.append(f"{where}: lead {lead} converted from {channel.unit} to {units[lead]}")
        elif channel is not None and units.get(lead):
            found.append(f"{record.source or record.id}: lead {lead} states no unit; taken as {units[lead]}")
    return found


def _cached(
    record: Record, config: SignalConfig, leads: tuple[str, ...], units: tuple[str, ...]
) -> tuple[np.ndarray, float]:
    """The conditioned signal as a memory-mapped file; the key holds the file's identity and every parameter."""
    stat = record.source.stat()
    fs = config.fs or max(channel.fs for channel in record.channels)
    key = {
        "kind": "timeseries-signal",
        "missing": "every non-finite value",
        "file": str(record.source.resolve()),
        "id": record.id,
        "size": stat.st_size,
        "mtime": stat.st_mtime_ns,
        "fs": fs,
        "leads": leads,
        "units": units,
        "stated": [(channel.name, channel.unit) for channel in record.channels],
        "bad": record.meta.get(BAD_CHANNELS, ""),
        "aliases": config.aliases,
        "low": config.low,
        "high": config.high,
        "notch": config.notch,
    }
    path = Cache().get_or_make(key, ".npy", lambda p: np.save(p, conditioned(record, config, leads, units)[0]))
    return np.load(path, mmap_mode="r"), fs


def beat_windows(record: Record, x: np.ndarray, fs: float, config: SignalConfig) -> tuple[np.ndarray, list[str], int]:
    """Beat windows and their labels: the annotated beats, or the detector's on the first usable lead, unlabelled."""
    beat = [i for i, label in enumerate(record.annotations.label) if label in BEAT_SYMBOLS]
    if beat:
        peaks = np.rint(record.annotations.onset[beat] * fs).astype(int)
        labels = [record.annotations.label[i] for i in beat]
    else:
        lead = int(np.isfinite(x).mean(0).argmax())
        peaks = r_peaks(x[:, lead], fs)
        labels = [""] * len(peaks)
    starts, length = beat_starts(peaks, fs, config.beat_before, config.beat_after)
    return starts, labels, length
