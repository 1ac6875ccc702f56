"""Signals to look at: windows and recordings drawn lead by lead; and users' files as queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.report import Media, Report
from counterpoint.common.vertical import Outcome
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.manifest import WindowDataset, beat_windows, conditioned, read_row
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.windows import WindowSet

MAX_LEADS = 12
MOST_WINDOWS = 200
_COLORS = ("#2563eb", "#c2410c", "#15803d", "#7c3aed", "#be123c", "#0f766e")


def draw(x: Float[np.ndarray, "time channels"], names: tuple[str, ...] = (), width: int = 260, height: int = 0) -> str:
    """Draw a signal as SVG, one strip a lead, each scaled to its own range, its name before it; gaps stay gaps.

    >>> draw(np.zeros((4, 1), np.float32)).startswith("<svg")
    True
    """
    shown = min(x.shape[1], MAX_LEADS)
    strip = max(28, (height or 160) // shown)
    left = 6 * min(max((len(name) for name in names[:shown]), default=0), 8) + 4 * bool(names)
    parts = []
    for j in range(shown):
        y = x[:, j].astype(float)
        step = max(len(y) // (2 * width), 1)
        finite = y[np.isfinite(y)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        top, room = j * strip + 3, strip - 6
        level = top + room - room * (y - low) / (high - low if high > low else 1.0)
        points, pen = [], "M"
        for i in range(0, len(y), step):
            if not np.isfinite(level[i]):
                pen = "M"
                continue
            points.append(f"{pen}{left + i / max(len(y) - 1, 1) * (width - left):.1f} {level[i]:.1f}")
            pen = "L"
        color = _COLORS[j % len(_COLORS)]
        parts.append(f'<path d="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.1"/>')
        if j < len(names):
            label = names[j][:8].replace("&", "&amp;").replace("<", "&lt;")
            place = f'x="1" y="{top + room / 2 + 3:.0f}" font-size="9" font-family="sans-serif" fill="#666"'
            parts.append(f"<text {place}>{label}</text>")
    total = shown * strip
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" width="{width}" height="{total}">'
    return head + "".join(parts) + "</svg>"


def picture(sample: dict[str, Any], modality: str = "signal") -> Media:
    """One window of a data set."""
    x = np.asarray(sample["x"])
    caption = " ".join(str(sample[name]) for name in ("group", "label") if sample.get(name))
    return Media(str(sample.get("id", "")), image=draw(x), caption=caption)


def query(file: Path, modality: str, system: Any) -> WindowDataset:
    """A user's recording in the form that the system was trained on: all of its windows, or evenly chosen ones.

    Raises:
        InputError: unreadable, without a lead that the system knows, shorter than a window, or flat.
    """
    file, data, form = Path(file), system.config.data, SignalForm.of(system.assets)
    record = read_record(file, form.fs)
    x, fs = conditioned(record, replace(data, fs=form.fs), form.leads, form.units)
    length, starts = data.length or len(x), None
    if data.beats:
        begin, _, length = beat_windows(record, x, fs, data)
        starts = [begin]
    if len(x) < length:
        raise InputError(f"{file}: {len(x)} samples, shorter than one window of {length}")
    row = {"id": file.name, "split": "train"}
    windows = WindowSet.build([x], length, data.step or max(length // 2, 1), [row], fs, form.leads, starts)
    if not len(windows):
        raise InputError(f"{file}: no window of {length} samples with a lead that is not flat; give another recording")
    if len(windows) > MOST_WINDOWS:
        windows = windows.subset(np.linspace(0, len(windows) - 1, MOST_WINDOWS).round().astype(int))
    return WindowDataset(windows.normalized(data.normalize, form))


def preview_page(manifest: Path, out: Path, recordings: int, seconds: float) -> Outcome:
    """The first seconds of the first recordings of a manifest."""
    table = Manifest.load(manifest)
    shown = min(recordings, len(table))
    words = f"{manifest}: first {seconds:g} s of {shown} of {len(table)} rows"
    page = Report("Recordings", words, synthetic=bool(table.meta.get("synthetic")))
    pictures, rows = [], []
    for i in range(shown):
        row = table.row(i)
        record = read_row(table, row)
        x, _ = record.array()
        fs = max(c.fs for c in record.channels)
        image = draw(x[: int(seconds * fs)], record.names, width=420)
        pictures.append(Media(str(row["id"]), image=image, caption=f"{row['group']} {row.get('label') or ''}".strip()))
        for c in record.channels:
            rows.append([row["id"], c.name, c.unit, c.fs, round(c.duration, 2), float(np.isfinite(c.data).mean()),
                         len(record.annotations)])  # fmt: skip
    page.section("Signals").gallery("", pictures)
    columns = ["recording", "lead", "unit", "rate (Hz)", "seconds", "finite", "events"]
    page.section("Leads").table("Leads", rows, columns)
    path = page.write(out)
    return Outcome({"recordings": len(pictures)}, (f"wrote {path}",), {"preview": Path(path)})
