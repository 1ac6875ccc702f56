"""From a manifest of recordings to a `WindowSet`, and back: the pipeline every system of this vertical reads through.

Columns the vertical adds to a manifest: `file`, `row` (a series of an array file), `fs`, `trial`, `label`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import Cache, Manifest, ManifestDataset, check_leakage
from counterpoint.common.data.manifest import as_number
from counterpoint.common.data.names import file_name
from counterpoint.common.data.samples import options_hash
from counterpoint.common.data.split_rules import keeps_groups_apart
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.labels import class_names
from counterpoint.common.progress import note, track
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.events import UNKNOWN, check_events, step_classes
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.preprocess import bandpass, notch
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.record import Record
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.units import UNSTATED, unit_factor
from counterpoint.timeseries.windows import BEAT_SYMBOLS, WindowSet, beat_starts, r_peaks

SHOWN_NOTES = 8


def read_row(manifest: Manifest, row: dict) -> Record:
    """The recording behind a manifest row; a cell that cannot be used is named with the manifest and the row."""
    try:
        file, rate, number = cells(row)
    except InputError as error:
        at = int((manifest.frame["id"] == row["id"]).to_numpy().argmax()) + 1
        raise InputError(f"{manifest.path or 'manifest'}, row {at} (id {row['id']}): {error}") from None
    return read_record(manifest.file(file), rate, number)


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
    if config.notch is not None:
        x = notch(x, fs, config.notch)
    if config.low is not None or config.high is not None:
        x = bandpass(x, fs, config.low, config.high)
    return x, fs


def load_windows(config: SignalConfig, form: SignalForm | None = None) -> WindowSet:
    """Read everything a configuration names: the manifest's recordings, or the embedded generator with its own split.

    With a `form`, that of the signals a system was trained on, every recording is brought to its leads, units and rate,
    and `normalize=train` scales by its statistics instead of the manifest's own.

    Rows without any split count as training. Patients in two splits raise `LeakageError`. What the recordings lack
    (samples, leads, units, windows) and what no window covers is told on stderr and stays in `notes`; a class whose
    recordings give no window at all raises `InputError`.
    """
    if not config.manifest:
        return _generated(config).normalized(config.normalize, form)
    if form is not None:
        config = replace(config, leads=form.leads, units=form.units, fs=form.fs)
    manifest = Manifest.load(config.manifest)
    if not len(manifest):
        raise InputError(f"{config.manifest}: the manifest has no rows; import recordings into it (data import)")
    check_leakage(manifest)
    if (manifest.frame["split"] == "").all():
        manifest = replace(manifest, frame=manifest.frame.assign(split="train"))
    rows = [manifest.row(i) for i in range(len(manifest))]
    leads, rate, signals, beats, steps = tuple(config.leads), config.fs, [], [], []
    units, notes, seen = dict(zip(leads, config.units)), [], []
    for row in track(rows, "reading recordings", len(rows)):
        record = read_row(manifest, row)
        if not record.channels:
            raise InputError(f"{record.source}: holds annotations but no signals; remove row id {row['id']}")
        leads = leads or record.names
        notes += [f"{row['id']}: {text}" for text in record.notes]
        notes += _learn_units(record, leads, config, units)
        wanted = tuple(units.get(lead, "") for lead in leads)
        x, fs = (_cached if config.cache else conditioned)(record, config, leads, wanted)
        if rate is not None and abs(fs - rate) > 1e-6 * rate:
            raise InputError(f"{record.source}: {fs:g} Hz where earlier recordings have {rate:g} Hz; set data.fs")
        rate = fs
        signals.append(x)
        if config.beats:
            beats.append(beat_windows(record, x, fs, config))
        if config.events:
            seen.append(Counter(record.annotations.label))
            known = step_classes(record, config.events, len(x), fs, config.event_width)
            steps.append(np.where(np.isfinite(x).any(1), known, UNKNOWN))
    check_events(config.manifest, config.events, seen)
    length = config.length or max(len(x) for x in signals)
    starts = labels = None
    if config.beats:
        length = beats[0][2]
        starts, labels = [b[0] for b in beats], [b[1] for b in beats]
    for row in rows:
        row["record"] = row["id"]
    synthetic = bool(manifest.meta.get("synthetic")) or bool(rows[0].get("synthetic"))
    windows = WindowSet.build(
        signals, length, config.step or max(length // 2, 1), rows, rate, leads, starts, labels, synthetic,
        pad=not config.length and not config.beats,
    )  # fmt: skip
    notes += [*_whole_set(windows, len(rows)), *_lacking(windows, rows), *windows.notes]
    tell(notes)
    if not len(windows):
        raise InputError(f"{config.manifest}: no window of {length} samples in any recording; lower data.length")
    if not config.beats:
        _check_classes(config.manifest, rows, windows)
    windows = replace(
        windows, units=tuple(units.get(lead, "") for lead in leads), steps=tuple(steps) or None, notes=tuple(notes),
        apart=keeps_groups_apart(manifest),
    ).normalized(config.normalize, form)  # fmt: skip
    return windows.pseudo_trials(config.windows_per_trial) if config.windows_per_trial else windows


def tell(notes: Sequence[str]) -> None:
    """Notes on stderr, `<id>: <text>`: what is said of many recordings is said once, with their number."""
    said: dict[str, list[str]] = {}
    for text in notes:
        name, _, what = text.partition(": ")
        said.setdefault(what, []).append(name)
    lines = []
    for what, names in said.items():
        many = [f"{names[0]} and {len(names) - 1} more"] if len(names) > 2 else names
        lines += [f"{name}: {what}" for name in many]
    for line in lines[:SHOWN_NOTES]:
        note(line)
    if len(lines) > SHOWN_NOTES:
        note(f"... and {len(lines) - SHOWN_NOTES} more such notes")


def _lacking(windows: WindowSet, rows: list[dict]) -> list[str]:
    """Leads that are zero in windows, by recording."""
    count, notes = windows.frame["signal"].value_counts(), []
    for i, leads in windows.lacking().items():
        never = [lead for lead, n in leads.items() if n == count[i]]
        if never:
            notes.append(f"{rows[i]['id']}: no usable {', '.join(never)}; zero in its windows, `present` is false")
        some = [f"{lead} in {n}" for lead, n in leads.items() if n < count[i]]
        if some:
            lack = ", ".join(some)
            notes.append(f"{rows[i]['id']}: of {count[i]} windows lack {lack}; zero there, `present` is false")
    return notes


def _whole_set(windows: WindowSet, recordings: int) -> list[str]:
    """What happened to the set as a whole: recordings without a window, samples outside all windows, padding."""
    notes, frame, length = [], windows.frame, windows.length
    sizes = np.array([len(x) for x in windows.signals])
    lost = recordings - frame["signal"].nunique()
    if lost and len(frame):
        notes.append(f"data: {lost} of {recordings} recordings give no window")
    ends = (frame.groupby("signal")["start"].max() + length).reindex(range(len(sizes)), fill_value=0).to_numpy()
    rest = np.maximum(sizes - ends, 0)[ends > 0]
    if rest.any():
        notes.append(
            f"data: windows of {length} samples cut recordings of {sizes.min()} to {sizes.max()} samples; {rest.sum()} "
            f"samples at the end of {np.count_nonzero(rest)} recordings are in no window (data.length 0 takes each "
            "whole)"
        )
    short = np.count_nonzero((sizes < length) & (ends > 0))
    if short:
        notes.append(
            f"data: {short} of {recordings} recordings are shorter than the longest of {length} samples; their windows "
            "are padded at the end, which the encoders mask"
        )
    return notes


def _check_classes(where: str, rows: list[dict], windows: WindowSet) -> None:
    """Raise when a class, or the training recordings of one, have no window left."""
    kept = set(zip(windows.frame["label"], windows.frame["split"]))
    names = class_names([row.get("label") for row in rows])
    had = Counter((name, row["split"]) for name, row in zip(names, rows) if name)
    for (label, split), count in sorted(had.items()):
        elsewhere = any(name == label for name, _ in kept)
        if (label, split) not in kept and (split == "train" or not elsewhere):
            raise InputError(
                f"{where}: class {label!r} loses all of its {count} {split} recordings, none gives a window of "
                f"{windows.length} samples; lower data.length (0 takes each recording whole), or remove their rows"
            )


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


def _generated(config: SignalConfig) -> WindowSet:
    from counterpoint.timeseries.simulate import simulated

    size = {"subjects" if config.generator == "har" else "patients": config.patients}
    windows = simulated(config.generator, config.seed, **size)
    return split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, config.seed)


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


class WindowDataset(ManifestDataset):
    """Windows as samples: `x` [length, channels], integer codes `patient` and `trial`, the class `label`, and the ids.

    A lead that a window lacks (`WindowSet.present_of`) is zero in `x` and False in `present`; single gaps and padding
    stay NaN, which the encoders treat as masked time steps. Codes are positions in the sorted names of the whole set
    (`of` subsets). With `data.events` a sample also has `steps` [length], the class of every time step (-1: unknown).
    `views` draws what a system's step needs at random from a batch.
    """

    def __init__(
        self, windows: WindowSet, of: WindowSet | None = None, views: Callable[[dict], dict] | None = None
    ):
        whole = of or windows
        self.windows = windows
        self.patients = tuple(sorted(set(whole.frame["group"])))
        self.trials = tuple(sorted(set(whole.frame["trial"])))
        codes = {name: {v: i for i, v in enumerate(getattr(self, name))} for name in ("patients", "trials")}
        frame = windows.frame
        self.patient = np.array([codes["patients"][v] for v in frame["group"]], np.int64)
        self.trial = np.array([codes["trials"][v] for v in frame["trial"]], np.int64)
        meta = {"synthetic": True} if windows.synthetic else {}
        super().__init__(Manifest(frame.assign(position=np.arange(len(frame))), meta=meta), self._load)
        self.views = views

    @cached_property
    def hash(self) -> str:
        return options_hash(self.manifest.hash, windows=self.windows.content_hash)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = super().collate(samples)
        return batch if self.views is None else self.views(batch)

    def row_of(self, position: int) -> int:
        """The recording of a window."""
        return int(self.windows.frame["signal"].iat[position])

    def _load(self, row: dict) -> dict:
        i = int(row["position"])
        present = self.windows.present_of(i)
        x = self.windows[i]
        if not present.all():
            x = np.where(present, x, np.float32(0))
            recorded = len(self.windows.signals[int(row["signal"])]) - int(row["start"])
            x[recorded:] = np.nan  # padding stays padding in every channel
        sample = {
            "x": torch.from_numpy(np.array(x, np.float32)),  # a copy: the signal may be a mapped file
            "present": torch.from_numpy(present),
            "patient": int(self.patient[i]),
            "trial": int(self.trial[i]),
            "label": str(row["label"] or ""),
        }
        if self.windows.steps is not None:
            sample["steps"] = torch.from_numpy(self.windows.steps_of(i))
        return sample


def write_signals(out: Path, windows: WindowSet) -> Path:
    """Write whole signals as .npz recordings beside `manifest.parquet`, ready for `load_windows`."""
    (out / "signals").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, row in windows.frame.drop_duplicates("signal").set_index("signal").iterrows():
        name = f"signals/{file_name(row['record'])}.npz"
        np.savez(out / name, x=windows.signals[i], fs=windows.fs, leads=np.array(windows.leads))
        rows.append(
            {
                "id": row["record"],
                "group": row["group"],
                "split": row["split"],
                "trial": row["trial"],
                "label": row["label"],
                "file": name,
                "fs": windows.fs,
                "synthetic": windows.synthetic,
            }
        )
    path = out / "manifest.parquet"
    Manifest.from_rows(rows, out, {"synthetic": windows.synthetic}).save(path)
    return path
