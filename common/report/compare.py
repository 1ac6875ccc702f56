"""Several runs side by side: their figures with intervals, and paired differences where the samples are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from counterpoint.common.metrics import Evaluation, Interval, compare_evaluations, lower_is_better
from counterpoint.common.report.builder import Report
from counterpoint.common.report.charts import number
from counterpoint.common.report.parts import Chip, Strong

Figures = Mapping[str, Interval]

#: Figures that also get an interval plot; the table has them all.
DRAWN = ("R@1", "R@10", "MRR", "accuracy", "balanced_accuracy", "auroc", "R2", "NMI")


def compare_figures(
    page: Report,
    runs: Mapping[str, Figures],
    chance: Mapping[str, float | None] | None = None,
    *,
    title: str = "",
    drawn: Sequence[str] | None = None,
) -> Report:
    """A table of metric by run with the best value marked, and an interval plot of each metric (of those in `drawn`).

    Overlapping intervals of runs scored on the same samples do not mean "no difference": see `compare_runs`.
    """
    metrics = list(dict.fromkeys(m for figures in runs.values() for m in figures))
    rows = []
    for metric in metrics:
        values = {name: figures[metric] for name, figures in runs.items() if metric in figures}
        pick = min if lower_is_better(metric) else max
        best = pick(values, key=lambda name: values[name].value)
        tied = len({i.value for i in values.values()}) < 2
        cells = []
        for name in runs:
            i = values.get(name)
            said = "" if i is None else _with_interval(i)
            cells.append(Strong(said) if name == best and not tied else said)
        rows.append([metric.replace("_", " "), *cells, (chance or {}).get(metric)])
    head = f"{title}: figures" if title else "Figures"
    page.table(f"{head} with 95 % intervals; the best of each row is bold", rows, ["metric", *runs, "chance"])
    for metric in metrics:
        if drawn is None or metric in drawn:
            lines = [(name, f[metric].value, f[metric].low, f[metric].high) for name, f in runs.items() if metric in f]
            name = metric.replace("_", " ")
            page.intervals(f"{title}: {name}" if title else name, lines, reference=(chance or {}).get(metric))
    return page


def compare_runs(
    page: Report,
    runs: Mapping[str, Evaluation],
    *,
    paired: Mapping[str, str] | None = None,
    groups: Sequence[object] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Report:
    """Every figure of several runs beside each other, then each run against the first one, sample by sample.

    Args:
        runs: name -> its evaluation; the first is the reference.
        paired: name -> why that run was measured on other samples than the first, so that it cannot be paired.
        groups: resampling unit of each test sample of the first run.
    """
    by_protocol: dict[str, dict[str, dict[str, Interval]]] = {}
    chance: dict[str, dict[str, float | None]] = {}
    for name, evaluation in runs.items():
        for protocol, metric, interval, level in evaluation.figures():
            by_protocol.setdefault(protocol, {n: {} for n in runs})[name][metric] = interval
            chance.setdefault(protocol, {}).setdefault(metric, level)
    (reference, first), *others = runs.items()
    page.section(f"Against {reference}")
    page.text(
        f"Each run minus {reference} on the same samples, with the interval of the mean difference over groups and the "
        "p-value of a sign-flip test; better or worse is said where the two agree. Intervals of two runs may overlap "
        "although the difference is clear: what makes a sample hard for one makes it hard for the other. The p-values "
        "are not corrected for the number of rows."
    )
    for name, other in others:
        if reason := (paired or {}).get(name):
            page.text(f"{name} is not paired: {reason}.")
            continue
        tables: dict[str, list[list[object]]] = {}
        for c in compare_evaluations(first, other, groups, n_boot=n_boot, seed=seed):
            d = c.difference
            spread = _with_interval(d)
            row = [c.metric.replace("_", " "), Chip(c.verdict), spread, d.p_value, c.first, c.second]
            tables.setdefault(c.protocol, []).append(row)
        for protocol, rows in tables.items():
            columns = ["metric", f"{name} is", "difference [95 %]", "p", reference, name]
            page.table(f"{name} against {reference}: {_arrow(protocol)}", rows, columns)
    page.section("Figures side by side")
    for protocol, figures in by_protocol.items():
        compare_figures(page, figures, chance[protocol], title=_arrow(protocol), drawn=DRAWN)
    return page


def _arrow(protocol: str) -> str:
    return protocol.replace("->", "→")


def _with_interval(i: Interval) -> str:
    """A value with its interval where there is one."""
    return f"{number(i.value)} [{number(i.low)}, {number(i.high)}]" if i.known else number(i.value)
