"""Signals to look at: windows and recordings drawn lead by lead; and users' files as queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from counterpoint.common.data import Manifest
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.errors import InputError
from counterpoint.common.output import clock
from counterpoint.common.report import Media, Report
from counterpoint.common.vertical import Outcome
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.place import Place
from counterpoint.timeseries.readers.dispatch import read_record
from counterpoint.timeseries.reading import beat_windows, conditioned, read_row
from counterpoint.timeseries.windows import WindowSet

MAX_LEADS = 12
FONT = 11  # pixels
MOST_WINDOWS = 200
_COLORS = ("#2563eb", "#c2410c", "#15803d", "#7c3aed", "#be123c", "#0f766e")


def draw(
    x: Float[np.ndarray, "time channels"],
    names: tuple[str, ...] = (),
    width: int = 140,
    height: int = 0,
    place: Place | None = None,
) -> str:
    """Draw a signal as SVG, one strip a lead, each scaled to its own range, its name before it; gaps stay gaps. Under
    them a line for the whole recording marks where a `place` lies. Words are `FONT` high, shown at this `width`.

    >>> draw(np.zeros((4, 1), np.float32)).startswith("<svg")
    True
    """
    shown = min(x.shape[1], MAX_LEADS)
    strip = max(FONT + 4, (height or 100) // shown)
    left = 0.6 * FONT * min(max((len(name) for name in names[:shown]), default=0), 8) + 4 * bool(names)
    parts = []
    for j in range(shown):
        top, room = j * strip + 2, strip - 4
        path = _path(x[:, j].astype(float), left, width, top, room)
        color = _COLORS[j % len(_COLORS)]
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.1"/>')
        if j < len(names):
            parts.append(_words(1, top + room / 2 + 0.35 * FONT, names[j][:8]))
    total = shown * strip
    if place is not None and place.part:
        parts.append(_line(place, width, total))
        total += FONT + 6
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" width="{width}" height="{total}">'
    return head + "".join(parts) + "</svg>"


def _path(y: Float[np.ndarray, " time"], left: float, width: int, top: float, room: float) -> str:
    """One lead, thinned by keeping the lowest and the highest sample of every pixel; the pen is lifted over gaps."""
    finite = y[np.isfinite(y)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    level = top + room - room * (y - low) / (high - low if high > low else 1.0)
    points, pen = [], "M"
    for i in _extremes(y, width):
        if not np.isfinite(level[i]):
            pen = "M"
            continue
        points.append(f"{pen}{left + i / max(len(y) - 1, 1) * (width - left - 1):.1f} {level[i]:.1f}")
        pen = "L"
    return " ".join(points)


def _extremes(y: Float[np.ndarray, " time"], width: int) -> list[int]:
    """Samples to draw: all of a short signal; of a long one both ends of every pixel's range, so that no peak is lost.
    """
    if len(y) <= 2 * width:
        return list(range(len(y)))
    kept: set[int] = {0, len(y) - 1}
    for part in np.array_split(np.arange(len(y)), width):
        known = part[np.isfinite(y[part])]
        kept |= {int(known[y[known].argmin()]), int(known[y[known].argmax()])} if len(known) else {int(part[0])}
    return sorted(kept)


def _line(place: Place, width: int, top: float) -> str:
    """The whole recording as a line between its times, the window on it thick."""
    ends = (clock(0), clock(place.whole))
    a, b = (0.6 * FONT * len(end) + 6 for end in ends)
    y, scale = top + 3 + FONT / 2, (width - a - b) / place.whole
    start = a + place.start * scale
    long = max((place.end - place.start) * scale, 2)
    base = top + 3 + 0.85 * FONT
    return (
        f'{_words(1, base, ends[0])}{_words(width - b + 5, base, ends[1])}<rect x="{a:.1f}" y="{y - 0.5:.1f}" '
        f'width="{width - a - b:.1f}" height="1" fill="#888"/><rect class="window" x="{start:.1f}" y="{y - 3:.1f}" '
        f'width="{long:.1f}" height="6" fill="#111"/>'
    )


def _words(x: float, y: float, text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.0f}" y="{y:.1f}" font-size="{FONT}" font-family="sans-serif" fill="#555">{text}</text>'


def picture(sample: dict[str, Any], modality: str = "signal", system: Any = None) -> Media:
    """One window of a data set, called by its record and time, and marked on the line of its recording."""
    place: Place = sample["place"]
    group, label = str(sample.get("group", "")), str(sample.get("label") or "")
    said = [place.channels, "" if group == place.record else group, label]
    image = draw(np.asarray(sample["x"]), place.leads if len(place.leads) > 1 else (), place=place)
    when = place.time.replace("-", "\N{NON-BREAKING HYPHEN}")
    return Media(f"{place.record}, {when}", image=image, caption=", ".join(word for word in said if word))


def caption(sample: dict[str, Any], modality: str = "signal", system: Any = None) -> str:
    """Record, time and leads of a window."""
    return str(sample["place"])


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
    words = f"{manifest}: {shown} of {len(table)} recordings; every lead is scaled to its own range"
    page = Report("Recordings", words, synthetic=synthetic_part(table))
    page.section("Signals")
    rows = []
    for i in range(shown):
        row = table.row(i)
        record = read_row(table, row)
        x, _ = record.array()
        fs = max(c.fs for c in record.channels)
        place = Place(str(row["id"]), 0.0, min(seconds, len(x) / fs), len(x) / fs, record.names)
        image = draw(x[: int(seconds * fs)], record.names, 330, 120, place)
        said = [place.channels, *(str(v) for v in (row["group"], row.get("label")) if v and v != row["id"])]
        page.figure(f"{place.record}, {place.time}", image, ", ".join(said))
        for c in record.channels:
            rows.append([row["id"], c.name, c.unit, c.fs, round(c.duration, 2), float(np.isfinite(c.data).mean()),
                         len(record.annotations)])  # fmt: skip
    columns = ["recording", "lead", "unit", "rate (Hz)", "seconds", "finite share", "events"]
    page.section("Leads").table("Leads", rows, columns)
    path = page.write(out)
    return Outcome({"recordings": shown}, (f"wrote {path}",), {"preview": Path(path)})
