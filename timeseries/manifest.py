"""From a manifest of recordings to a `WindowSet`, and back: the pipeline every system of this vertical reads through.

Columns the vertical adds to a manifest: `file`, `row` (a series of an array file), `fs`, `trial`, `label`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from counterpoint.common.data import Cache, Manifest, ManifestDataset, check_leakage
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.preprocess import bandpass, notch
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.record import Record
from counterpoint.timeseries.splits import split_patients
from counterpoint.timeseries.windows import BEAT_SYMBOLS, WindowSet, beat_starts, r_peaks


def read_row(manifest: Manifest, row: dict) -> Record:
    """The recording behind a manifest row."""
    if not row.get("file"):
        raise InputError(f"{manifest.path or 'manifest'}, id {row['id']}: no file; the column file names the recording")
    number = row.get("row")
    rate = row.get("fs")
    return read_record(
        manifest.file(row["file"]), None if rate is None else float(rate), None if number is None else int(number)
    )


def conditioned(record: Record, config: SignalConfig, leads: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """The wanted leads on one grid, filtered as the configuration says; returns signal [time, leads] and rate."""
    fs = config.fs or max(channel.fs for channel in record.channels)
    x, _ = record.array(fs, leads, config.aliases)
    if config.notch is not None:
        x = notch(x, fs, config.notch)
    if config.low is not None or config.high is not None:
        x = bandpass(x, fs, config.low, config.high)
    return x, fs


def load_windows(config: SignalConfig) -> WindowSet:
    """Read everything a configuration names: the manifest's recordings, or the embedded generator with its own split.

    Rows without any split count as training. Patients in two splits raise `LeakageError`.
    """
    if not config.manifest:
        return _generated(config).normalized(config.normalize)
    manifest = Manifest.load(config.manifest)
    check_leakage(manifest)
    if (manifest.frame["split"] == "").all():
        manifest = replace(manifest, frame=manifest.frame.assign(split="train"))
    rows = [manifest.row(i) for i in range(len(manifest))]
    leads, rate, signals, beats = tuple(config.leads), config.fs, [], []
    for row in track(rows, "reading recordings", len(rows)):
        record = read_row(manifest, row)
        if not record.channels:
            raise InputError(f"{record.source}: holds annotations but no signals; remove row id {row['id']}")
        leads = leads or record.names
        x, fs = _cached(config, record, leads) if config.cache else conditioned(record, config, leads)
        if rate is not None and abs(fs - rate) > 1e-6 * rate:
            raise InputError(f"{record.source}: {fs:g} Hz where earlier recordings have {rate:g} Hz; set data.fs")
        rate = fs
        signals.append(x)
        if config.beats:
            beats.append(_beats(record, x, fs, config))
    length = config.length or max(len(x) for x in signals)
    if not config.length:
        signals = [_padded(x, length) for x in signals]
    starts = labels = None
    if config.beats:
        length = beats[0][2]
        starts, labels = [b[0] for b in beats], [b[1] for b in beats]
    for row in rows:
        row["record"] = row["id"]
    synthetic = bool(manifest.meta.get("synthetic")) or bool(rows[0].get("synthetic"))
    windows = WindowSet.build(
        signals, length, config.step or max(length // 2, 1), rows, rate, leads, starts, labels, synthetic
    )
    if not len(windows):
        raise InputError(f"{config.manifest}: no window of {length} samples in any recording; lower data.length")
    windows = windows.normalized(config.normalize)
    return windows.pseudo_trials(config.windows_per_trial) if config.windows_per_trial else windows


def _generated(config: SignalConfig) -> WindowSet:
    from counterpoint.timeseries.simulate import simulated

    size = {"subjects" if config.generator == "har" else "patients": config.patients}
    windows = simulated(config.generator, config.seed, **size)
    return split_patients(windows, {"train": 0.6, "val": 0.2, "test": 0.2}, config.seed)


def _cached(config: SignalConfig, record: Record, leads: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """The conditioned signal as a memory-mapped file; the key holds the file's identity and every parameter."""
    stat = record.source.stat()
    fs = config.fs or max(channel.fs for channel in record.channels)
    key = {
        "kind": "timeseries-signal",
        "file": str(record.source.resolve()),
        "id": record.id,
        "size": stat.st_size,
        "mtime": stat.st_mtime_ns,
        "fs": fs,
        "leads": leads,
        "aliases": config.aliases,
        "low": config.low,
        "high": config.high,
        "notch": config.notch,
    }
    path = Cache().get_or_make(key, ".npy", lambda p: np.save(p, conditioned(record, config, leads)[0]))
    return np.load(path, mmap_mode="r"), fs


def _beats(record: Record, x: np.ndarray, fs: float, config: SignalConfig) -> tuple[np.ndarray, list[str], int]:
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


def _padded(x: np.ndarray, length: int) -> np.ndarray:
    if len(x) == length:
        return x
    return np.concatenate([x, np.full((length - len(x), x.shape[1]), np.nan, np.float32)])


class WindowDataset(ManifestDataset):
    """Windows as samples: `x` [length, channels], integer codes `patient` and `trial`, the class `label`, and the ids.

    A lead that a recording lacks, or that is flat, is zero in `x` and False in `present`; single gaps stay NaN, which
    the encoders treat as masked time steps. Codes are positions in the sorted names of the whole set (`of` subsets).
    """

    def __init__(self, windows: WindowSet, of: WindowSet | None = None):
        whole = of or windows
        self.windows = windows
        self.patients = tuple(sorted(set(whole.frame["group"])))
        self.trials = tuple(sorted(set(whole.frame["trial"])))
        codes = {name: {v: i for i, v in enumerate(getattr(self, name))} for name in ("patients", "trials")}
        frame = windows.frame
        self.patient = np.array([codes["patients"][v] for v in frame["group"]], np.int64)
        self.trial = np.array([codes["trials"][v] for v in frame["trial"]], np.int64)
        super().__init__(Manifest(frame.assign(position=np.arange(len(frame)))), self._load)

    def _load(self, row: dict) -> dict:
        i = int(row["position"])
        present = self.windows.present[int(row["signal"])]
        x = self.windows[i]
        if not present.all():
            x = np.where(present, x, np.float32(0))
        return {
            "x": torch.from_numpy(np.ascontiguousarray(x)),
            "present": torch.from_numpy(present),
            "patient": int(self.patient[i]),
            "trial": int(self.trial[i]),
            "label": str(row["label"] or ""),
        }


def write_signals(out: Path, windows: WindowSet) -> Path:
    """Write whole signals as .npz recordings beside `manifest.parquet`, ready for `load_windows`."""
    (out / "signals").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, row in windows.frame.drop_duplicates("signal").set_index("signal").iterrows():
        name = f"signals/{row['record'].replace('/', '_')}.npz"
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
