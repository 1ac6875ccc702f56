"""A run as sections of a `Report`."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import Evaluation, LabelFree
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.report import Media, Report
from counterpoint.common.report.words import protocol_name
from counterpoint.common.runs.encode import Encoded, modality_pairs
from counterpoint.common.runs.figures import fill_cards, fill_tables
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.vertical import Vertical


def fill(
    page: Report, vertical: Vertical, encoded: Encoded, evaluation: Evaluation, run: Path, *, examples: int, seed: int
) -> None:
    """Add a run's sections to a `Report`: headline, pictures, map, curves, all figures, monitors, configuration."""
    modalities = list(encoded.vectors)
    page.section("Figures")
    fill_cards(page, evaluation, modalities, encoded.label or "")
    if any(m.picture is not None for m in vertical.modalities):
        add_gallery(page, vertical, encoded, examples, seed)
    page.section("Embedding map")
    add_map(page, encoded, vertical=vertical)
    if series := curves(run):
        page.section("Training")
        for title, lines in series.items():
            page.curves(title, lines)
    fill_tables(page, evaluation, modalities)
    fill_monitors(page, evaluation)
    page.section("Configuration")
    for file in ("config.yaml", "environment.json"):
        if (run / file).is_file():
            page.config(file, (run / file).read_text(encoding="utf-8"))


def fill_monitors(page: Report, evaluation: Evaluation) -> None:
    """Whether the embeddings collapsed."""
    page.section("Collapse monitors")
    for name, result in evaluation.results.items():
        if isinstance(result, LabelFree):
            page.monitors(protocol_name(name).removeprefix("labelfree of "), result)


def curves(run: Path) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Curves of metrics.csv over the steps of the whole run: loss, retrieval and rank, as far as they were logged."""
    file = run / "metrics.csv"
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    wanted = {
        "Loss": r"(train|val)/loss",
        "Recall at 10 on validation": r"val/(.*)/R@10",
        "Full ranking on validation": r"val/((?:recall|ndcg)@20)",
        "RankMe (effective dimensions)": r".*rankme/?(.*)",
    }
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for title, pattern in wanted.items():
        for column in sorted(rows[0] if rows else ()):
            match = re.fullmatch(pattern, column)
            points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column)] if match else []
            if len(points) > 1:
                said = {"train": "training", "val": "validation"}.get(match[1], match[1].replace("->", " → ") or column)
                found.setdefault(title, {})[said] = ([x for x, _ in points], [y for _, y in points])
    return found


def add_map(
    page: Report, encoded: Encoded, run: str = "", vertical: Vertical | None = None, metric: str | None = None
) -> None:
    """The map of a run's embeddings, as its metric compares them: all modalities together where they share a space,
    else one each; those with rows of their own too. Points are called by the field's own caption where there is one."""
    of_run = f"{run}: " if run else ""
    names, score = encoded.modalities, score_named(metric or encoded.system.metric)
    vectors = {name: score.scaled(encoded.of(name)) for name in names}
    options = {"metric": score}
    if len({z.shape[1] for z in vectors.values()}) == 1 and len(names) > 1:
        labels = [name for name in names for _ in encoded.part(name).ids]
        hover = [f"{name} of {sample}" for name in names for sample in encoded.part(name).ids]
        links = _lines(encoded, *names) if len(names) == 2 else None
        title = f"{of_run}all modalities" if run else "All modalities"
        page.embedding_map(title, torch.cat([*vectors.values()]), labels, hover, links=links, **options)
        for name, pool in encoded.pools.items():
            if name in vectors and pool.dataset is not None and pool.dataset.sort:
                title = f"{of_run}{name}, coloured by {pool.dataset.sort}"
                hover = _captions(pool, name, vertical)
                page.embedding_map(title, vectors[name], _sorts(pool), hover, **options)
        return
    for name in names:
        part = encoded.part(name)
        by, colours = _colours(part)
        title = f"{of_run}{name}, coloured by {by}"
        page.embedding_map(title, vectors[name], colours, _captions(part, name, vertical), **options)


def _captions(part: Encoded, name: str, vertical: Vertical | None) -> Sequence[str]:
    """What points are called: by the field's own caption where there is one, else by their ids."""
    caption = None if vertical is None else vertical.modality(name).caption
    if caption is None:
        return part.ids
    said = (resolve(caption)(part.sample(row), name, part.system) for row in range(len(part)))
    return [words if words else sample for sample, words in zip(part.ids, said)]


def _sorts(part: Encoded, shown: int = 9) -> list[str]:
    """The sort of every row: the first one of several (`Comedy|Drama`, or a list), the most frequent ones by name, the
    rest as one."""
    values = [next(iter(v), None) if isinstance(v, list | tuple) else v for v in part.dataset.column(part.dataset.sort)]
    said = [_said(part.dataset.sort, values[i]) for i in part.positions]
    first = [re.split(r"[|;,]", text)[0].strip() or "unlabelled" for text in said]
    counts = Counter(first)
    named = {name for name, _ in counts.most_common(shown if len(counts) > shown + 1 else None)}
    return [name if name in named else "other" for name in first]


def _lines(encoded: Encoded, a: str, b: str) -> list[tuple[int, int]]:
    """Which points of two modalities, one after the other, belong together."""
    n = len(encoded.part(a))
    links = None if encoded.dataset is None else encoded.links(a, b)  # vectors of anybody's have no data set
    pairs = [(i, i) for i in range(n)] if links is None else links.pairs
    return [(int(i), n + int(j)) for i, j in pairs]


def _colours(encoded: Encoded) -> tuple[str, list[str]]:
    """(what points are coloured by, of each row): classes where the labels are classes, else groups."""
    labels = encoded.labels
    if not isinstance(labels, list) or len(set(map(str, labels))) > min(20, len(labels) // 2):
        return "group", encoded.groups
    name = encoded.label or "label"
    return name, [_said(name, label) for label in labels]


def _said(name: str, label: object) -> str:
    """A class in words: a number needs the name of what it counts.

    >>> _said("p_np", 1.0), _said("label", "infarct"), _said("label", None)
    ('p_np 1', 'infarct', 'unlabelled')
    """
    if label is None or label != label or label == "":
        return "unlabelled"
    return f"{name} {label:g}" if isinstance(label, int | float) else str(label)


def add_gallery(page: Report, vertical: Vertical, encoded: Encoded, examples: int, seed: int, run: str = "") -> None:
    """What a run retrieves for queries drawn at random, in the field's own pictures: across modalities, framed where it
    is the query's own partner; without a second modality among the other samples, framed where the label is the same.
    Where none of those shown is right, the best right one follows with its rank.
    """
    def picture(sample: dict[str, Any], modality: str) -> Media | None:
        draw = vertical.modality(modality).picture
        return None if draw is None else resolve(draw)(sample, modality, encoded.system)

    pairs = [way for pair in modality_pairs(encoded) for way in (pair, pair[::-1])]
    ways = pairs or [(name, name) for name in encoded.vectors]
    if len(encoded) < 2 or picture(encoded.part(ways[0][0]).sample(0), ways[0][0]) is None:
        return
    if run:
        page.section(f"Retrieved by {run}")
    for a, b in ways:
        one, other = encoded.part(a), encoded.part(b)
        excluded = None if a == b else encoded.links(a, b, "exclude")
        most = min(5, len(other) - (a == b))
        rows = retrieved_rows(
            encoded.of(a),
            None if a == b else encoded.of(b),
            draw_queries(len(one), examples, seed),
            asked=partial(_drawn, picture, one, a),
            answer=lambda hit, _, other=other, b=b: _drawn(picture, other, b, hit),
            right=partial(_right, encoded, a, b),
            left_out=(lambda _: ()) if excluded is None else excluded.of_query,
            shown=most,
            metric=encoded.system.metric,
        )
        pool = f"{len(other)}" if a != b else f"the {len(encoded) - 1} others"
        what = f"{len(rows)} queries drawn at random, best {most} of {pool}"
        if any(hit.correct is not None for row in rows for hit in row.results):
            partner = "its own partner" if encoded.links(a, b) is None else "what belongs to it"
            what += f"; right: {partner if a != b else 'the same ' + (encoded.label or 'label')}"
        way = f"{a} → {b}" if a != b else f"nearest by {a}"
        if not run:
            page.section(f"Retrieved: {way}")
        page.gallery(f"{way}: {what}" if run else what, rows)


def _drawn(picture: Callable[[dict[str, Any], str], Media | None], part: Encoded, modality: str, row: int) -> Media:
    return picture(part.sample(row), modality)


def _right(encoded: Encoded, a: str, b: str, query: int) -> Tensor | None:
    """[keys] which samples of b are right answers to a query of a; None where nothing tells."""
    if a != b:
        links = encoded.links(a, b)
        if links is None:
            return torch.arange(len(encoded)) == query
        right = torch.zeros(links.shape[1], dtype=torch.bool)
        right[links.of_query(query)] = True
        return right
    labels = encoded.labels
    if not isinstance(labels, list) or labels[query] is None or labels[query] != labels[query]:
        return None
    return torch.tensor([bool(label == labels[query]) for label in labels])
