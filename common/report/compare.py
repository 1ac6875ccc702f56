"""Several runs side by side: their figures with intervals, and paired differences where the queries are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from counterpoint.common.metrics import Interval, RetrievalResult, paired_difference
from counterpoint.common.report.builder import Report
from counterpoint.common.report.charts import number
from counterpoint.common.report.parts import Chip, Strong

Figures = Mapping[str, Interval]

LOWER_IS_BETTER = ("rank", "mae", "rmse", "ece", "nll", "brier", "loss")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller figure of this name is the better one.

    >>> lower_is_better("median_rank"), lower_is_better("R@10")
    (True, False)
    """
    return any(part in metric.lower() for part in LOWER_IS_BETTER)


def compare_figures(page: Report, runs: Mapping[str, Figures], chance: Mapping[str, float] | None = None) -> Report:
    """A table of metric by run with the best value marked, and one interval plot a metric.

    Overlapping intervals of runs scored on the same samples do not mean "no difference": see `compare_retrieval`.
    """
    metrics = list(dict.fromkeys(m for figures in runs.values() for m in figures))
    rows = []
    for metric in metrics:
        values = {name: figures[metric] for name, figures in runs.items() if metric in figures}
        pick = min if lower_is_better(metric) else max
        best = pick(values, key=lambda name: values[name].value)
        cells = []
        for name in runs:
            i = values.get(name)
            said = "" if i is None else f"{number(i.value)} [{number(i.low)}, {number(i.high)}]"
            cells.append(Strong(said) if name == best and len(values) > 1 else said)
        rows.append([metric.replace("_", " "), *cells, (chance or {}).get(metric)])
    page.table("Figures with 95 % intervals; the best of each row is bold", rows, ["metric", *runs, "chance"])
    for metric in metrics:
        lines = [(name, f[metric].value, f[metric].low, f[metric].high) for name, f in runs.items() if metric in f]
        page.intervals(metric.replace("_", " "), lines, reference=(chance or {}).get(metric))
    return page


def compare_retrieval(
    page: Report,
    runs: Mapping[str, RetrievalResult],
    *,
    groups: Sequence[object] | None = None,
    metrics: Sequence[str] = ("R@1", "R@10", "MRR", "mean_rank"),
) -> Report:
    """Retrieval figures of several runs in one direction; runs over the same queries are compared pair by pair.

    The first run is the reference: every other one is set against it, query by query, with the interval of the mean
    difference over groups and a sign-flip p-value.
    """
    first_name, first = next(iter(runs.items()))
    figures = {name: {m: r.intervals[m] for m in metrics if m in r.intervals} for name, r in runs.items()}
    compare_figures(page, figures, first.chance)
    rows = []
    for name, other in list(runs.items())[1:]:
        same = other.pool == first.pool and torch.equal(other.rows, first.rows)
        for metric in metrics:
            if metric not in first.per_query or metric not in other.per_query:
                continue
            if not same:
                rows.append([name, metric.replace("_", " "), "", "", "different queries or pool: not paired"])
                break
            d = paired_difference(first.per_query[metric], other.per_query[metric], groups)
            gain = -d.value if lower_is_better(metric) else d.value
            clear = d.low > 0 or d.high < 0
            word = Chip(("better" if gain > 0 else "worse") if clear else "inconclusive")
            spread = f"{number(d.value)} [{number(d.low)}, {number(d.high)}]"
            rows.append([name, metric.replace("_", " "), spread, d.p_value, word])
    if rows:
        title = f"Difference from {first_name}, query by query"
        page.table(title, rows, ["run", "metric", "difference [95 %]", "p", "verdict"])
    return page
