"""Curves and interval plots as inline SVG that takes its colours from the page: they follow light and dark."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 270, 62, 14, 22, 40
MAX_POINTS = 400


def line_chart(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str = "step",
    ylabel: str = "",
    log_x: bool = False,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    hlines: Mapping[str, float] | None = None,
    label: str = "",
) -> str:
    """Curves with ticks, legend and a cursor that reads values; long ones are averaged down to a few hundred points.

    Args:
        series: name -> (x, y); NaN breaks a curve.
        bands: name -> (low, high) around the curve of that name, at its x.
        hlines: name -> level, drawn dashed (chance, baseline, target).

    >>> line_chart({"loss": ([0, 1, 2], [3.0, 2.0, 1.5])}).startswith("<svg")
    True
    """
    drawn = {name: _thin(np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in series.items()}
    if log_x:
        drawn = {name: (x[x > 0], y[x > 0]) for name, (x, y) in drawn.items()}
    xs = np.unique(np.concatenate([x for x, _ in drawn.values()] or [np.zeros(0)]))
    ys = [y for _, y in drawn.values()] + [np.asarray(v, float) for b in (bands or {}).values() for v in b]
    ys.append(np.array(list((hlines or {}).values()), float))
    finite = np.concatenate([y[np.isfinite(y)] for y in ys]) if ys else np.zeros(0)
    if len(xs) == 0 or len(finite) == 0:
        return '<p class="soft">No values were recorded.</p>'
    scale = np.log10 if log_x else np.asarray
    x0, x1 = _widen(float(scale(xs).min()), float(scale(xs).max()), 0)
    y0, y1 = _widen(float(finite.min()), float(finite.max()), 0.06)
    w, h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def point(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        px, py = LEFT + (scale(x) - x0) / (x1 - x0) * w, TOP + (1 - (y - y0) / (y1 - y0)) * h
        return list(zip(np.atleast_1d(px).tolist(), np.atleast_1d(py).tolist()))

    body = _axes(x0, x1, y0, y1, w, h, xlabel, ylabel, log_x)
    for i, (name, (x, y)) in enumerate(drawn.items()):
        if bands and name in bands:
            raw_x = np.asarray(series[name][0], float)
            low, high = (_thin(raw_x, np.asarray(v, float)) for v in bands[name])
            outline = point(*low) + point(*high)[::-1]
            body += f'<polygon class="band" style="fill:var(--s{i % 8})" points="{_points(outline)}"/>'
        dash = ' stroke-dasharray="6 3"' if i >= 8 else ""
        for run in np.split(np.arange(len(x)), np.flatnonzero(~np.isfinite(y))):
            run = run[np.isfinite(y[run])]
            if len(run) > 1:
                line = _points(point(x[run], y[run]))
                body += f'<polyline class="curve" style="stroke:var(--s{i % 8})"{dash} points="{line}"/>'
            elif len(run) == 1:
                ((cx, cy),) = point(x[run], y[run])
                body += f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" style="fill:var(--s{i % 8})"/>'
    for name, level in (hlines or {}).items():
        ((_, cy),) = point(xs[:1], np.array([level], float))
        body += f'<line class="cursor" x1="{LEFT}" x2="{LEFT + w}" y1="{cy:.1f}" y2="{cy:.1f}" stroke-dasharray="5 4"/>'
        body += f'<text x="{LEFT + w - 4}" y="{cy - 4:.1f}" text-anchor="end">{escape(name)}</text>'
    cursor = f'<line class="cursor" style="display:none" x1="0" x2="0" y1="{TOP}" y2="{TOP + h}"/>'
    readout = _readout(drawn, xs, x0, x1, w, xlabel, log_x)
    legend = "".join(f'<li><i style="background:var(--s{i % 8})"></i>{escape(n)}</li>' for i, n in enumerate(drawn))
    title = escape(label or ", ".join(drawn))
    # The moving cursor comes first: the script takes the first element of its class.
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" tabindex="0" data-chart="{readout}">'
        f"{cursor}{body}</svg>" + (f'<ul class="legend">{legend}</ul>' if len(drawn) > 1 else "")
    )


def interval_chart(
    rows: Sequence[tuple[str, float, float, float]], *, reference: float | None = None, unit: str = "", label: str = ""
) -> str:
    """One line per (name, value, low, high): a dot with its interval, and a dashed line at `reference` (chance).

    >>> "CLIP" in interval_chart([("CLIP", 0.5, 0.4, 0.6)], reference=0.1)
    True
    """
    numbers = [v for _, *three in rows for v in three if math.isfinite(v)] + ([] if reference is None else [reference])
    if not numbers:
        return '<p class="soft">No values were recorded.</p>'
    x0, x1 = _widen(min(numbers), max(numbers), 0.05)
    left, step = 165, 30
    w, height = WIDTH - left - 16, TOP + step * len(rows) + 34

    def px(x: float) -> float:
        return left + (min(max(x, x0), x1) - x0) / (x1 - x0) * w

    body = ""
    for tick in ticks(x0, x1, 4):
        body += f'<line class="gridline" x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{TOP}" y2="{height - 30}"/>'
        body += f'<text x="{px(tick):.1f}" y="{height - 12}" text-anchor="middle">{number(tick)}{escape(unit)}</text>'
    if reference is not None:
        x = f"{px(reference):.1f}"
        body += f'<line class="cursor" x1="{x}" x2="{x}" y1="{TOP}" y2="{height - 30}" stroke-dasharray="5 4"/>'
    for i, (name, value, low, high) in enumerate(rows):
        y = TOP + step * (i + 0.5)
        short = name if len(name) <= 20 else name[:19] + "…"
        words = f"<title>{escape(name)}</title>{escape(short)}"
        body += f'<text x="{left - 10}" y="{y + 4:.0f}" text-anchor="end">{words}</text>'
        if not math.isfinite(value):
            continue
        low, high = (v if math.isfinite(v) else value for v in (low, high))
        body += f'<line class="interval" x1="{px(low):.1f}" x2="{px(high):.1f}" y1="{y}" y2="{y}"/>'
        said = f"<title>{escape(f'{name}: {number(value)} [{number(low)}, {number(high)}]{unit}')}</title>"
        body += f'<circle class="dot" cx="{px(value):.1f}" cy="{y}" r="5.5">{said}</circle>'
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers covering a range.

    >>> ticks(0, 1, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / max(n, 1)
    size = 10 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(x: float) -> str:
    """A figure short enough for an axis or a card.

    >>> [number(x) for x in (0, 1500000, 1234.5, 0.12345, 3e-7, 25.0)]
    ['0', '1.5M', '1234', '0.123', '3e-07', '25']
    """
    if not math.isfinite(x):
        return "–"
    if x == 0:
        return "0"
    size = abs(x)
    if size >= 1e6:
        return f"{x / 1e6:.3g}M" if size < 1e9 else f"{x:.3g}"
    if size >= 1e4:
        return f"{x / 1e3:.4g}k"
    if size >= 100:
        return f"{x:.4g}" if size < 1000 else f"{int(x)}"
    return f"{x:.3g}"


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if len(x) <= MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def _widen(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low <= abs(high) * 1e-12:
        pad = abs(high) * 0.1 or 1.0
        return low - pad, high + pad
    return low - share * (high - low), high + share * (high - low)


def _axes(x0, x1, y0, y1, w, h, xlabel, ylabel, log_x) -> str:
    body = ""
    for t in ticks(y0, y1):
        y = TOP + (1 - (t - y0) / (y1 - y0)) * h
        body += f'<line class="gridline" x1="{LEFT}" x2="{LEFT + w}" y1="{y:.1f}" y2="{y:.1f}"/>'
        body += f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(t)}</text>'
    for t in ticks(x0, x1, 4):
        x = LEFT + (t - x0) / (x1 - x0) * w
        body += f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + h}" y2="{TOP + h + 4}"/>'
        said = number(10**t if log_x else t)
        body += f'<text x="{x:.1f}" y="{TOP + h + 17}" text-anchor="middle">{said}</text>'
    body += f'<line class="axis" x1="{LEFT}" x2="{LEFT + w}" y1="{TOP + h}" y2="{TOP + h}"/>'
    body += f'<text x="{LEFT + w}" y="{HEIGHT - 6}" text-anchor="end">{escape(xlabel)}</text>'
    return body + f'<text x="2" y="13">{escape(ylabel)}</text>'


def _readout(drawn, xs, x0, x1, w, xlabel, log_x) -> str:
    values = []
    for name, (x, y) in drawn.items():
        at = dict(zip(x.tolist(), y.tolist()))
        column = [at.get(v) for v in xs.tolist()]
        clean = [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in column]
        values.append({"name": name, "y": clean})
    data = {"x": xs.tolist(), "series": values, "left": LEFT, "width": w, "total": WIDTH}
    data |= {"x0": x0, "x1": x1, "log": log_x, "xlabel": xlabel}
    return escape(json.dumps(data, separators=(",", ":")))


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
