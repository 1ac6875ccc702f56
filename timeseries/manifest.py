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

from counterpoint.common.data import Manifest, ManifestDataset
from counterpoint.common.data.left_out import leave_out
from counterpoint.common.data.names import file_name
from counterpoint.common.data.samples import BadSample, options_hash
from counterpoint.common.data.split_rules import keeps_groups_apart
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.labels import class_names
from counterpoint.common.progress import note, track
from counterpoint.common.trainers.leakage import hold_to_split
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.events import check_events, window_classes
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.reading import Reading
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.windows import WindowSet

SHOWN_NOTES = 8


def load_windows(
    config: SignalConfig, form: SignalForm | None = None, on_error: str = "raise", max_bad: float = 0.01
) -> WindowSet:
    """Read everything a configuration names: the manifest's recordings, or the embedded generator with its own split.

    With a `form`, that of the signals a system was trained on, every recording is brought to its leads, units and rate,
    and `normalize=train` scales by its statistics instead of the manifest's own.

    Rows without any split count as training. Patients in two splits raise `LeakageError`. What the recordings lack
    (samples, leads, units, windows) and what no window covers is told on stderr and stays in `notes`; a class whose
    recordings give no window at all raises `InputError`. A recording that cannot be read raises too; with
    `on_error="skip"` it is left out with its reason, unless more than a share `max_bad` cannot.
    """
    if not config.manifest:
        return _generated(config).normalized(config.normalize, form)
    if form is not None:
        config = replace(config, leads=form.leads, units=form.units, fs=form.fs)
    manifest = Manifest.load(config.manifest)
    if not len(manifest):
        raise InputError(f"{config.manifest}: the manifest has no rows; import recordings into it (data import)")
    hold_to_split(manifest)
    if (manifest.frame["split"] == "").all():
        manifest = replace(manifest, frame=manifest.frame.assign(split="train"))
    reading = Reading(config, manifest)
    for row in track([manifest.row(i) for i in range(len(manifest))], "reading recordings", len(manifest)):
        reading.take(row, on_error)
    leave_out([bad for _, bad in reading.bad], len(manifest), on_error, max_bad, config.manifest)
    rows, signals, notes = reading.rows, reading.signals, reading.notes
    check_events(config.manifest, config.events, reading.labels)
    length = config.length or max(len(x) for x in signals)
    starts = labels = None
    if config.beats:
        length = reading.beats[0][2]
        starts, labels = [b[0] for b in reading.beats], [b[1] for b in reading.beats]
    for row in rows:
        row["record"] = row["id"]
    synthetic = bool(manifest.meta.get("synthetic")) or bool(rows[0].get("synthetic"))
    windows = WindowSet.build(
        signals, length, config.step or max(length // 2, 1), rows, reading.rate, reading.leads, starts, labels,
        synthetic, pad=not config.length and not config.beats,
    )  # fmt: skip
    notes += [*_whole_set(windows, len(rows)), *_lacking(windows, rows), *windows.notes]
    tell(notes)
    if not len(windows):
        raise InputError(f"{config.manifest}: no window of {length} samples in any recording; lower --data.length")
    if config.window_class == "events":
        windows = _classed(windows, reading.steps, config)
    elif not config.beats:
        _check_classes(config.manifest, rows, windows)
    windows = replace(
        windows, units=reading.known_units, steps=tuple(reading.steps) or None, notes=tuple(notes),
        apart=keeps_groups_apart(manifest), rows=tuple(reading.numbers), left_out=reading.left_out,
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
            f"samples at the end of {np.count_nonzero(rest)} recordings are in no window (--data.length 0 takes each "
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
                f"{windows.length} samples; lower --data.length (0 takes each recording whole), or remove their rows"
            )


def _classed(windows: WindowSet, steps: Sequence[np.ndarray], config: SignalConfig) -> WindowSet:
    """The windows with the class of the event that covers most of each."""
    if not config.events or config.beats:
        other = "--data.beats gives windows the class of their beat" if config.beats else "name them with --data.events"
        raise InputError(f"{config.manifest}: --data.window_class events takes windows' classes from events; {other}")
    label = windows.frame["label"].to_numpy(object, copy=True)
    for i, rows in windows.frame.groupby("signal").indices.items():
        starts = windows.frame["start"].to_numpy()[rows]
        label[rows] = window_classes(steps[i], starts, windows.length, config.events)
    return replace(windows, frame=windows.frame.assign(label=label))


def _generated(config: SignalConfig) -> WindowSet:
    from counterpoint.timeseries.simulate import simulated

    size = {"subjects" if config.generator == "har" else "patients": config.patients}
    windows = simulated(config.generator, config.seed, **size)
    return split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, config.seed)


class WindowDataset(ManifestDataset):
    """Windows as samples: `x` [length, channels], integer codes `patient` and `trial`, the class `label`, the `place`
    where the window was cut, and the ids.

    A lead that a window lacks (`WindowSet.present_of`) is zero in `x` and False in `present`; single gaps and padding
    stay NaN, which the encoders treat as masked time steps. Codes are positions in the sorted names of the whole set
    (`of` subsets). With `data.events` a sample also has `steps` [length], the class of every time step (-1: unknown).
    `views` draws what a system's step needs at random from a batch. `left_out` are recordings that could not be read.
    """

    def __init__(
        self,
        windows: WindowSet,
        of: WindowSet | None = None,
        views: Callable[[dict], dict] | None = None,
        left_out: Sequence[BadSample] = (),
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
        self.views, self.left_out = views, tuple(left_out)
        self.measured: dict[Any, Any] = {}  # figures of these windows that no encoder changes

    @cached_property
    def hash(self) -> str:
        return options_hash(self.manifest.hash, windows=self.windows.content_hash)

    @property
    def written(self) -> str:
        """The hash covers the signals themselves."""
        return ""

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = super().collate(samples)
        return batch if self.views is None else self.views(batch)

    def row_of(self, position: int) -> int:
        """The recording of a window."""
        signal = int(self.windows.frame["signal"].iat[position])
        return self.windows.rows[signal] if self.windows.rows else signal

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
            "place": self.windows.place(i),
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
