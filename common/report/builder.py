"""`Report`: sections, figures and galleries collected into one self-contained HTML file."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from counterpoint.common.metrics import Interval, LabelFree, Retrieval, RetrievalResult
from counterpoint.common.metrics.scores import Score
from counterpoint.common.report.charts import interval_chart, line_chart, number
from counterpoint.common.report.embedding_map import embedding_map, project
from counterpoint.common.report.media import Media, image_uri
from counterpoint.common.report.parts import Cell, Chip, IntervalCell, anchor, code, html_table, media
from counterpoint.common.report.script import JS
from counterpoint.common.report.style import CSS, UNSCRIPTED
from counterpoint.common.report.words import metric_name


@dataclass(frozen=True)
class GalleryRow:
    """One query and what was retrieved for it, best first."""

    query: Media
    results: Sequence[Media]
    note: str = ""


class Report:
    """Collects what a run has to show and writes it as one HTML file that needs no network.

    Every method adds to the page in order and returns the report, so that calls can be chained. Text is escaped.

    Args:
        title: page title.
        subtitle: one sentence under it: what was trained and evaluated on which data.
        synthetic: whether the data come from a simulator, or in words what of them does; the page says so at its top.

    >>> page = Report("Audio to sheet music").headline("R@10", 0.42, interval=(0.38, 0.46), baseline=0.02, percent=True)
    >>> "42.0\\u00a0%" in page.html()
    True
    """

    def __init__(self, title: str, subtitle: str = "", *, synthetic: bool | str = False) -> None:
        self.title, self.subtitle, self.synthetic = title, subtitle, synthetic
        self._sections: list[tuple[str, list[str]]] = []
        self._open_grid = ""

    def section(self, title: str, text: str = "") -> Report:
        """Start a section; it appears in the navigation."""
        self._close()
        self._sections.append((title, []))
        return self.text(text) if text else self

    def text(self, text: str) -> Report:
        """A paragraph; blank lines part paragraphs."""
        paragraphs = "".join(f"<p>{escape(p.strip())}</p>" for p in text.split("\n\n") if p.strip())
        return self._add(paragraphs)

    def headline(
        self,
        name: str,
        value: float,
        *,
        interval: Interval | tuple[float, float] | None = None,
        baseline: float | tuple[str, float] | None = None,
        percent: bool = False,
        unit: str = "",
        note: str = "",
    ) -> Report:
        """A headline figure with its 95 % interval and the baseline (chance unless named) it must be read against: a
        baseline within the interval is said, for then the figure shows nothing yet."""

        def show(x: float) -> str:
            if not math.isfinite(x):
                return "–"
            return f"{100 * x:.1f}\u00a0%" if percent else number(x) + (f"\u00a0{unit}" if unit else "")

        low_high = (interval.low, interval.high) if isinstance(interval, Interval) else interval
        known = low_high is not None and all(map(math.isfinite, low_high))
        said = []
        if known:
            said.append(f"95\u00a0% interval {show(low_high[0])} to {show(low_high[1])}")
        if baseline is not None:
            label, level = baseline if isinstance(baseline, tuple) else ("chance", baseline)
            inside = known and low_high[0] <= level <= low_high[1]
            said.append(f"{label} {show(level)}" + (", within the interval" if inside else ""))
        if note:
            said.append(note)
        sub = "".join(f'<div class="sub">{escape(s)}</div>' for s in said)
        card = f'<div class="name">{escape(name)}</div><div class="value">{escape(show(value))}</div>{sub}'
        return self._add(f'<div class="card headline">{card}</div>', grid="grid")

    def retrieval(self, result: Retrieval | RetrievalResult, *, headline: Sequence[str] | None = None) -> Report:
        """Headline cards and a table of all figures of a retrieval, each with interval and chance; `headline` as in
        `retrieval_cards`."""
        ways = (result.a_to_b, result.b_to_a) if isinstance(result, Retrieval) else (result,)
        for way in ways:
            self.retrieval_cards(way, headline=headline)
        for way in ways:
            title = f"{way.name.replace('->', '→')}: {way.queries} queries, pool of {way.pool}"
            self.figures(title, [(key, i, way.chance[key]) for key, i in way.intervals.items()])
        return self

    def retrieval_cards(self, way: RetrievalResult, *, headline: Sequence[str] | None = None) -> Report:
        """Headline cards of one direction: `headline`; unless given, what tells encoders apart (`telling`)."""
        for key in telling(way) if headline is None else headline:
            self.headline(
                f"{metric_name(key)}, {way.name.replace('->', '→')}",
                way.metrics[key],
                interval=way.intervals[key],
                baseline=way.chance[key],
                percent=not key.endswith("rank") and key != "mAP",
                note=f"{way.queries} queries, pool of {way.pool}",
            )
        return self

    def figures(self, title: str, rows: Sequence[tuple[str, Interval, float | None]]) -> Report:
        """A table of figures as (metric, interval, chance), beside its neighbours where there is room."""
        spread = [f"{number(i.low)} – {number(i.high)}" if i.known else "" for _, i, _ in rows]
        cells = [[metric_name(m), i.value, IntervalCell(said), chance] for (m, i, chance), said in zip(rows, spread)]
        body = html_table(title, cells, ["metric", "value", "95\u00a0%", "chance"])
        return self._add(f'<div class="card">{body}</div>', grid="grid wide")

    def curves(self, title: str, series: Mapping[str, tuple[ArrayLike, ArrayLike]], **options) -> Report:
        """Curves (name -> (x, y)); options as in `charts.line_chart`."""
        body = line_chart(series, label=title, **options)
        return self._add(f'<figure class="card"><h3>{escape(title)}</h3>{body}</figure>', grid="grid wide")

    def intervals(
        self,
        title: str,
        rows: Sequence[tuple[str, float, float, float]],
        *,
        reference: float | None = None,
        unit: str = "",
    ) -> Report:
        """Values with intervals side by side: rows of (name, value, low, high), a dashed line at `reference`."""
        body = interval_chart(rows, reference=reference, unit=unit, label=title)
        return self._add(f'<figure class="card"><h3>{escape(title)}</h3>{body}</figure>', grid="grid wide")

    def figure(self, title: str, image: object, caption: str = "", cmap: str = "gray") -> Report:
        """A matplotlib figure (kept as vector graphics) or any picture `media.image_uri` takes."""
        if hasattr(image, "savefig"):
            buffer = io.StringIO()
            image.savefig(buffer, format="svg", bbox_inches="tight")
            image = buffer.getvalue()[buffer.getvalue().index("<svg") :]
        drawing = ' class="drawing"' if isinstance(image, str) else ""
        picture = f'<button class="zoom"><img{drawing} src="{image_uri(image, cmap)}" alt="{escape(title)}"></button>'
        words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        body = f'<figure class="card item"><h3>{escape(title)}</h3>{picture}{words}</figure>'
        return self._add(body, grid="grid wide")

    def drawing(self, title: str, svg: str) -> Report:
        """Inline SVG of our own making, which takes the page's colours."""
        return self._add(f'<figure class="card solo"><h3>{escape(title)}</h3>{svg}</figure>')

    def table(
        self,
        title: str,
        rows: Iterable[Sequence[Cell]] | object,
        columns: Sequence[str] | None = None,
        *,
        folded: bool = False,
    ) -> Report:
        """A sortable table from rows (with `columns`) or a pandas DataFrame. Numbers are right-aligned. A `folded` one
        shows its title until it is opened."""
        if hasattr(rows, "itertuples"):
            columns = [str(c) for c in rows.columns] if columns is None else columns
            rows = [list(r) for r in rows.itertuples(index=False)]
        rows = [list(r) for r in rows]  # type: ignore[union-attr]
        if folded:
            body = html_table("", rows, list(columns or []))
            summary = f"<summary>{escape(title)}: {len(rows)}</summary>"
            return self._add(f'<details class="card solo">{summary}{body}</details>')
        return self._add(f'<div class="card solo">{html_table(title, rows, list(columns or []))}</div>')

    def embedding_map(
        self,
        title: str,
        z: Tensor | np.ndarray,
        labels: Sequence[object],
        hover: Sequence[str] | None = None,
        *,
        links: Sequence[tuple[int, int]] | None = None,
        method: str = "pca",
        seed: int = 0,
        max_points: int = 4000,
        metric: str | Score = "cosine",
    ) -> Report:
        """Map of embeddings [n, dim] (two columns are taken as they are); more than `max_points` are sampled. `metric`
        says whether t-SNE goes by angles or distances."""
        count, dim = tuple(z.shape)
        keep = np.arange(count)
        note = {"pca": "Two main axes (PCA){}.", "tsne": "t-SNE: neighbourhoods count, not distances between groups."}
        said = note.get(method, "") if dim > 2 else ""
        if count > max_points:
            keep = np.sort(np.random.default_rng(seed).choice(count, max_points, replace=False))
            said += f" {max_points} of {count} points drawn."
            place = {int(k): i for i, k in enumerate(keep)}
            links = None if links is None else [(place[a], place[b]) for a, b in links if a in place and b in place]
        drawn = z[keep] if isinstance(z, np.ndarray) else z[keep.tolist()]
        xy = project(drawn, method, seed, metric)
        said = said.replace("{}", _kept(xy, drawn))
        chosen = [labels[i] for i in keep.tolist()]
        texts = None if hover is None else [hover[i] for i in keep.tolist()]
        body = embedding_map(xy, chosen, texts, links, name=title)
        caption = f"<figcaption>{escape(said.strip())}</figcaption>" if said.strip() else ""
        return self._add(f'<figure class="card solo"><h3>{escape(title)}</h3>{body}{caption}</figure>')

    def gallery(self, title: str, rows: Sequence[GalleryRow | Media]) -> Report:
        """Queries with their retrieved items, best first; a plain `Media` stands alone. Right answers are framed."""
        alone = [media(m) for m in rows if isinstance(m, Media)]
        body = f'<div class="grid solo">{"".join(alone)}</div>' if alone else ""
        for row in rows:
            if isinstance(row, GalleryRow):
                results = "".join(media(m, rank) for rank, m in enumerate(row.results, 1))
                note = f'<p class="soft">{escape(row.note)}</p>' if row.note else ""
                count = f'style="--n:{max(len(row.results), 1)}"'
                strip = f'<div class="results" {count} role="group" aria-label="Retrieved items">{results}</div>'
                query = f"<div>{media(row.query, head='Query')}{note}</div>"
                body += f'<div class="card row">{query}<div>{strip}</div></div>'
        return self._add((f"<h3>{escape(title)}</h3>" if title else "") + body)

    def monitors(self, label: str, measures: LabelFree) -> Report:
        """Collapse monitors of one modality: each reading, where it should lie, and a verdict."""
        target = 1 / math.sqrt(measures.dim)
        most = min(measures.dim, measures.n)
        share = measures.rankme / most
        readings = [
            ("RankMe", measures.rankme, f"of {most} directions", share < 0.25),
            ("std of normalised features", measures.std, f"even: {number(target)}", measures.std < 0.5 * target),
            ("mean cosine", measures.mean_cosine, "0 spread, 1 collapsed", measures.mean_cosine > 0.5),
            ("uniformity", measures.uniformity, "0 collapsed, lower is better", measures.uniformity > -1.0),
        ]
        # A low reading is worth a look; collapsed is what `LabelFree.collapsed` says, in `evaluate` as here.
        flat = measures.collapsed
        rows: list[list[Cell]] = [
            [*shown, Chip("collapsed" if flat else "watch" if low else "good")] for *shown, low in readings
        ]
        others = {
            "alignment": "squared distance in a pair: 0 same, 2 unrelated",
            "modality_gap": "distance of the modalities' centres: 0 is none",
            "alpha_req": "decay of the spectrum: near 1",
            "stable_rank": f"of {most} directions",
            "lidar": "directions that tell samples apart",
            "tolerance": "mean cosine within a class",
        }
        for name, expected in others.items():
            if (value := getattr(measures, name)) is not None:
                rows.append([name.replace("_", " "), value, expected, ""])
        body = html_table(
            f"{label}: {measures.n} samples, {measures.dim} dimensions",
            rows,
            ["measure", "reading", "expected", "state"],
        )
        notes = "".join(f'<p class="soft">{escape(n)}</p>' for n in measures.notes)
        return self._add(f'<div class="card solo">{body}{notes}</div>')

    def config(self, title: str, content: Mapping[str, object] | str, *, opened: bool = False) -> Report:
        """Configuration or environment as YAML, folded away."""
        if not isinstance(content, str):
            import yaml

            content = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        state = " open" if opened else ""
        summary = f"<summary>{escape(title)}</summary>"
        return self._add(f'<details class="card solo"{state}>{summary}{code(content)}</details>')

    def reproduce(self, commands: str | Sequence[str]) -> Report:
        """The commands that make this page again, with a copy button."""
        lines = commands if isinstance(commands, str) else "\n".join(commands)
        self.section("How to reproduce")
        return self._add(code(lines))

    def html(self) -> str:
        """The finished page."""
        self._close()
        names = [(anchor(t, i), t) for i, (t, _) in enumerate(self._sections)]
        nav = "".join(f'<a href="#{a}">{escape(t)}</a>' for a, t in names if t)
        parts = [
            f'<section id="{a}">{f"<h2>{escape(t)}</h2>" if t else ""}{"".join(self._sections[i][1])}</section>'
            for i, (a, t) in enumerate(names)
        ]
        what = self.synthetic if isinstance(self.synthetic, str) else "made by a generator, not measured"
        banner = f'<p class="banner">Synthetic data: {escape(what)}.</p>' if self.synthetic else ""
        lead = f'<p class="soft">{escape(self.subtitle)}</p>' if self.subtitle else ""
        made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        csp = (
            "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        )
        return (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<meta http-equiv="Content-Security-Policy" content="{csp}"><link rel="icon" href="data:,">'
            f"<style>{CSS}</style><noscript><style>{UNSCRIPTED}</style></noscript></head>"
            '<body><a class="skip" href="#main">Skip to the figures</a>'
            f'<nav aria-label="Sections"><div class="bar"><div class="links">{nav}</div>'
            '<button id="theme">Dark</button></div></nav>'
            f'<header><h1>{escape(self.title)}</h1>{lead}{banner}</header><main id="main">{"".join(parts)}</main>'
            f"<footer>Counterpoint · {made}</footer>"
            '<dialog id="zoom" aria-label="Picture"><img alt=""><button>Close</button></dialog>'
            '<div id="tip" role="status"></div>'
            f"<script>{JS}</script></body></html>"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page (to a temporary name, then renamed) and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.html(), encoding="utf-8")
        return temporary.replace(path)

    def _add(self, html: str, grid: str = "") -> Report:
        if not self._sections:
            self._sections.append(("", []))
        body = self._sections[-1][1]
        if grid != self._open_grid:
            self._close()
            if grid:
                body.append(f'<div class="{grid} solo">')
            self._open_grid = grid
        body.append(html)
        return self

    def _close(self) -> None:
        if self._open_grid:
            self._sections[-1][1].append("</div>")
            self._open_grid = ""


def _kept(xy: np.ndarray, z: Tensor | np.ndarray) -> str:
    """How much of the spread two axes keep: a map of 20 % hides more than it shows."""
    whole = float(np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, np.float64).var(0).sum())
    return f", {100 * float(xy.var(0).sum()) / whole:.0f}\u00a0% of the variance" if whole > 0 else ""


def telling(way: RetrievalResult) -> tuple[str, ...]:
    """What a retrieval's headline is: what chance does not mostly reach already.

    One right answer: recall at the largest cut that chance reaches less than half of the time, and the median rank; a
    pool so small that there is none has no headline. Several right answers (windows of a class): nearly any encoder has
    one of them first, so it is the mean average precision, and recall at 1 where chance rarely has it.
    """
    if any(key.startswith("coverage@") for key in way.metrics):
        first = ("R@1",) if way.chance.get("R@1", 1.0) < 0.25 else ()
        return (*first, "mAP") if way.chance["mAP"] < 0.75 else first
    cuts = [int(key.removeprefix("R@")) for key in way.metrics if key.startswith("R@") and way.chance[key] < 0.5]
    return (f"R@{max(cuts)}", "median_rank") if cuts else ()
