"""A run as sections of a `Report`."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import Evaluation, LabelFree, RetrievalResult
from counterpoint.common.metrics.ranking import tie_tolerance
from counterpoint.common.report import GalleryRow, Report
from counterpoint.common.runs.encode import Encoded, modality_pairs
from counterpoint.common.runs.measure import counted
from counterpoint.common.vertical import Vertical


def fill(
    page: Report, vertical: Vertical, encoded: Encoded, evaluation: Evaluation, run: Path, *, examples: int, seed: int
) -> None:
    """Add a run's sections to a `Report`: figures, curves, map, gallery, monitors, configuration."""
    page.section("Figures")
    fill_figures(page, evaluation, labelled=encoded.label is not None)
    if series := curves(run):
        page.section("Training")
        for title, lines in series.items():
            page.curves(title, lines)
    page.section("Embedding map")
    add_map(page, encoded)
    if vertical.gallery is not None:
        add_gallery(page, vertical, encoded, examples, seed)
    fill_monitors(page, evaluation)
    page.section("Configuration")
    for file in ("config.yaml", "environment.json"):
        if (run / file).is_file():
            page.config(file, (run / file).read_text(encoding="utf-8"))


def fill_figures(page: Report, evaluation: Evaluation, *, labelled: bool) -> None:
    """Cards, retrieval tables, all other figures, and what to distrust about them."""
    if labelled:
        labelled_cards(page, evaluation)
    for result in evaluation.results.values():
        if isinstance(result, RetrievalResult):
            page.retrieval(result)
    rest = [
        (name, metric, interval.value, interval.span(" – "), chance)
        for name, metric, interval, chance in evaluation.figures()
        if not isinstance(evaluation.results[name], RetrievalResult)
    ]
    if rest:
        page.table("Other figures", rest, ("protocol", "metric", "value", "95 %", "chance"))
    for name, note in evaluation.notes():
        if not isinstance(evaluation.results[name], LabelFree):  # which shows its own
            page.text(f"{name}: {note}.")


def fill_monitors(page: Report, evaluation: Evaluation) -> None:
    """Whether the embeddings collapsed."""
    page.section("Collapse monitors")
    for name, result in evaluation.results.items():
        if isinstance(result, LabelFree):
            page.monitors(name, result)


def labelled_cards(page: Report, evaluation: Evaluation, most: int = 6) -> None:
    """Headline cards of what the labels brought: the first figure of each protocol that has a chance level."""
    shown: set[str] = set()
    for name, metric, interval, chance in evaluation.figures():
        found = name in shown or isinstance(evaluation.results[name], RetrievalResult)
        if found or chance is None or len(shown) == most:
            continue
        shown.add(name)
        counts = zip(counted(evaluation.results[name], interval), ("samples", "groups"))
        note = ", ".join(f"{count} {what}" if count.isdigit() else count for count, what in counts if count)
        title = f"{metric.replace('_', ' ')}, {name}"
        page.headline(title, interval.value, interval=interval, baseline=chance, note=note)


def curves(run: Path) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Curves of metrics.csv over the steps of the whole run: loss, retrieval and rank, as far as they were logged."""
    file = run / "metrics.csv"
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    wanted = {
        "Loss": lambda name: name in ("train/loss", "val/loss"),
        "Retrieval on validation": lambda name: name.startswith("val/") and name.endswith("/R@10"),
        "RankMe": lambda name: "rankme" in name,
    }
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for title, matches in wanted.items():
        for column in rows[0] if rows else ():
            if not matches(column):
                continue
            points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]
            if len(points) > 1:
                found.setdefault(title, {})[column] = ([x for x, _ in points], [y for _, y in points])
    return found


def add_map(page: Report, encoded: Encoded, run: str = "") -> None:
    """The map of a run's embeddings: all modalities together where they share a space, else one each."""
    of_run = f"{run}: " if run else ""
    names = list(encoded.vectors)
    dims = {encoded.vectors[name].shape[1] for name in names}
    if len(dims) == 1 and len(names) > 1:
        n = len(encoded)
        labels = [name for name in names for _ in range(n)]
        hover = [f"{name} of {sample}" for name in names for sample in encoded.ids]
        links = [(i, n + i) for i in range(n)] if len(names) == 2 else None
        together = torch.cat([encoded.vectors[name] for name in names])
        page.embedding_map(f"{of_run}all modalities" if run else "All modalities", together, labels, hover, links=links)
        return
    for name in names:
        page.embedding_map(f"{of_run}{name}", encoded.vectors[name], _colours(encoded), encoded.ids)


def _colours(encoded: Encoded) -> list[str]:
    """Classes where the labels are classes, else groups."""
    labels = encoded.labels
    if not isinstance(labels, list) or len(set(map(str, labels))) > min(20, len(labels) // 2):
        return encoded.groups
    return ["unlabelled" if label is None or label != label else str(label) for label in labels]


def add_gallery(page: Report, vertical: Vertical, encoded: Encoded, examples: int, seed: int, run: str = "") -> None:
    """What a run retrieves for queries drawn at random, in the field's own pictures: across modalities, framed where it
    is the query's own partner; without a second modality among the other samples, framed where the label is the same.
    Where none of those shown is right, the best right one follows with its rank.
    """
    picture = resolve(vertical.gallery)
    pairs = [way for pair in modality_pairs(encoded) for way in (pair, pair[::-1])]
    ways = pairs or [(name, name) for name in encoded.vectors]
    if len(encoded) < 2 or picture(encoded.sample(0), ways[0][0]) is None:
        return
    if run:
        page.section(f"Retrieved by {run}")
    chosen = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(seed))[:examples]
    for a, b in ways:
        most = min(5, len(encoded) - (a == b))
        rows = []
        for query in chosen.tolist():
            right = _right(encoded, query, a == b)
            itself = query if a == b else None
            found = best_and_right(encoded.vectors[a][query], encoded.vectors[b], most, right, itself)
            media = [
                replace(picture(encoded.sample(hit), b), correct=None if right is None else bool(right[hit]), rank=rank)
                for hit, rank in found
            ]
            rows.append(GalleryRow(picture(encoded.sample(query), a), media))
        pool = f"{len(encoded)}" if a != b else f"the {len(encoded) - 1} others"
        what = f"{len(rows)} queries drawn at random, best {most} of {pool}"
        way = f"{a} → {b}" if a != b else f"nearest by {a}"
        if not run:
            page.section(f"Retrieved: {way}")
        page.gallery(f"{way}: {what}" if run else what, rows)


def best_and_right(
    query: Float[Tensor, dim],
    keys: Float[Tensor, "n dim"],
    most: int,
    right: Bool[Tensor, n] | None = None,
    itself: int | None = None,
) -> list[tuple[int, int]]:
    """(key, rank) of the `most` best keys of a query; where none of them is right, the best right one follows.

    Its rank is 1 + the number of better keys + half of those tied with it, rounded. `itself` is a key left out.

    >>> keys = torch.tensor([[1.0], [0.9], [0.8], [0.7]])
    >>> best_and_right(torch.ones(1), keys, 2, torch.tensor([False, False, False, True]))
    [(0, 1), (1, 2), (3, 4)]
    >>> best_and_right(torch.ones(1), keys, 2, torch.tensor([True, False, False, True]), itself=0)
    [(1, 1), (2, 2), (3, 3)]
    """
    scores = keys @ query
    wanted = torch.zeros(len(keys), dtype=torch.bool) if right is None else right.clone()
    if itself is not None:
        scores[itself], wanted[itself] = -torch.inf, False
    hits = scores.topk(most).indices.tolist()
    found = [(hit, rank) for rank, hit in enumerate(hits, 1)]
    if not wanted.any() or wanted[hits].any():
        return found
    best = int(torch.where(wanted, scores, -torch.inf).argmax())
    tolerance = tie_tolerance(query[None], keys)
    better = int((scores > scores[best] + tolerance).sum())
    tied = int((scores >= scores[best] - tolerance).sum()) - better - 1
    return [*found, (best, int(1 + better + tied / 2 + 0.5))]


def _right(encoded: Encoded, query: int, within: bool) -> Tensor | None:
    """[n] which samples are right answers to a query; None where nothing tells."""
    if not within:
        return torch.arange(len(encoded)) == query
    labels = encoded.labels
    if not isinstance(labels, list) or labels[query] is None or labels[query] != labels[query]:
        return None
    return torch.tensor([bool(label == labels[query]) for label in labels])
