"""An evaluation as headline cards and tables of a `Report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from counterpoint.common.metrics import KNN, Evaluation, Interval, LabelFree, RetrievalResult
from counterpoint.common.report import Report
from counterpoint.common.report.words import SHARES, metric_name, protocol_name
from counterpoint.common.runs.measure import counted

REGRESSION = ("R2", "MAE", "RMSE", "spearman")
#: The common protocols in the order of their cards; a vertical's own ones come before them.
ORDER = ("logreg", "ridge", "zeroshot", "simpleshot", "knn", "fewshot")
MOST_CARDS = 8
#: What the common protocols need, in words.
NEEDS = {
    "labels": "labels",
    "classes": "labels that are classes",
    "no regression": "labels that are no measurements",
    "train": "labels of a training split",
    "pairs": "two modalities in one space",
    "descriptions": "descriptions of the classes (--prompts)",
}


def fill_cards(page: Report, evaluation: Evaluation, modalities: Sequence[str], label: str = "") -> None:
    """Headline cards, what the labels brought first, and what to distrust about them; why figures are missing."""
    alone = modalities[0] if len(modalities) == 1 else ""
    figure_cards(page, evaluation, alone, label)
    for result in evaluation.results.values():
        if isinstance(result, RetrievalResult):
            page.retrieval_cards(result)
    notes: dict[str, list[str]] = {}
    for name, note in evaluation.notes():
        if not isinstance(evaluation.results[name], LabelFree):  # which shows its own
            notes.setdefault(note, []).append(protocol_name(name, alone))
    for note, names in notes.items():
        page.text(f"{', '.join(names)}: {note}.")


def fill_tables(page: Report, evaluation: Evaluation, modalities: Sequence[str]) -> None:
    """Every figure that has an interval, one table a protocol; and which protocols did not run, with the reason."""
    alone = modalities[0] if len(modalities) == 1 else ""
    found: dict[str, list[tuple[str, Interval, float | None]]] = {}
    for name, metric, interval, chance in evaluation.figures():
        found.setdefault(name, []).append((metric, interval, chance))
    if found or evaluation.skipped:
        page.section("All figures")
    for name, rows in found.items():
        result = evaluation.results[name]
        title = protocol_name(name, alone)
        if isinstance(result, RetrievalResult):
            title = f"{result.name.replace('->', '→')}: {result.queries} queries, pool of {result.pool}"
        elif count := _counts(result, rows[0][1]):
            title += f": {count}"
        page.figures(title, rows)
    if evaluation.skipped:
        rows = [[protocol_name(name), _needs(reason)] for name, reason in evaluation.skipped.items()]
        page.table("Not measured", rows, ("protocol", "why"), folded=True)


def figure_cards(page: Report, evaluation: Evaluation, alone: str = "", label: str = "") -> None:
    """Headline cards: the telling figure of each protocol with a chance level, the field's own protocols first."""
    figures: dict[str, dict[str, tuple[Interval, float]]] = {}
    for name, metric, interval, chance in evaluation.figures():
        if chance is not None and not isinstance(evaluation.results[name], RetrievalResult):
            figures.setdefault(name, {})[metric] = (interval, chance)
    if any("R2" in known and not abs(known["R2"][1]) < 0.5 for known in figures.values()):
        for known in figures.values():
            known.pop("R2", None)  # it says nothing where even the training mean is far off, as in another circuit
    place = {name: ORDER.index(first) if (first := name.split()[0]) in ORDER else -1 for name in figures}
    shown: set[tuple[str, float, float]] = set()
    for name in sorted(figures, key=place.__getitem__):
        metric = telling_figure(figures[name])
        if metric is None or len(shown) == MOST_CARDS:
            continue
        interval, chance = figures[name][metric]
        if (metric, interval.value, interval.low) in shown:
            continue  # the same figure under a second name
        shown.add((metric, interval.value, interval.low))
        result = evaluation.results[name]
        best = f"; k = {result.k}, the best of {len(result.by_k)} on these samples" if isinstance(result, KNN) else ""
        guess = metric == "accuracy" and "balanced_accuracy" in figures[name]
        level = "training mean" if metric in REGRESSION else "largest class" if guess else "chance"
        of = f"{label}: " if label not in ("", "label") and place[name] >= 0 else ""
        page.headline(
            f"{of}{metric_name(metric)}, {protocol_name(name, alone)}",
            interval.value,
            interval=interval,
            baseline=(level, chance),
            percent=metric in SHARES or metric.startswith("R@"),
            note=_counts(result, interval) + best,
        )


def telling_figure(figures: Mapping[str, tuple[Interval, float]]) -> str | None:
    """The figure of a protocol to show large, of metric -> (interval, chance); None where every one is trivial.

    Accuracy where the classes are several and even. Two classes, or uneven ones, by AUROC, else balanced accuracy: a
    guess of the largest class gains nothing there.

    >>> i = Interval(0.9, 0.8, 1.0, 9, 9)
    >>> telling_figure({"accuracy": (i, 0.9), "balanced_accuracy": (i, 0.5), "auroc": (i, 0.5)})
    'auroc'
    >>> telling_figure({"accuracy": (i, 0.25), "balanced_accuracy": (i, 0.25), "auroc": (i, 0.5)})
    'accuracy'
    >>> telling_figure({"accuracy": (i, 1.0), "balanced_accuracy": (i, 1.0)}) is None
    True
    """
    chance = {metric: level for metric, (_, level) in figures.items()}
    order = list(figures)
    if "accuracy" in chance and "balanced_accuracy" in chance:
        even = chance["balanced_accuracy"]  # one over the number of classes
        if even > 0.45 or chance["accuracy"] > 1.2 * even:
            order = ["auroc", "balanced_accuracy"]
    # A level that chance mostly reaches tells no encoder from another; ranks are no shares.
    known = (m for m in order if m in chance and (chance[m] < 0.75 or m.endswith("rank") or m in REGRESSION))
    return next(known, None)


def _needs(reason: str) -> str:
    """What a protocol lacked, in words for people.

    >>> _needs("needs pairs, classes"), _needs("all windows are of one class")
    ('needs two modalities in one space, labels that are classes', 'all windows are of one class')
    """
    needs, of, listed = reason.partition("needs ")
    names = listed.split(", ")
    if needs or not of or not set(names) <= set(NEEDS):
        return reason
    return of + ", ".join(NEEDS[name] for name in names)


def _counts(result: object, interval: Interval) -> str:
    """How many samples and groups a figure stands on."""
    if hasattr(result, "pool"):
        return f"{result.queries} queries, pool of {result.pool}"
    counts = zip(counted(result, interval), ("samples", "groups"))
    said = [f"{count} {what[:-1] if count == '1' else what}" if count.isdigit() else count for count, what in counts]
    said = [words for words in said if words]
    return ", ".join(said[:1] if len(said) > 1 and said[0].split()[0] == said[1].split()[0] else said)
