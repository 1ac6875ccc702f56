"""Two encoders on the same samples: differences sample by sample, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from counterpoint.common.metrics.bootstrap import PairedDifference, paired_difference
from counterpoint.common.metrics.classification import Scores
from counterpoint.common.metrics.evaluate import Evaluation
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.knn import KNN
from counterpoint.common.metrics.probe import Probe
from counterpoint.common.metrics.result import PerQuery, Result
from counterpoint.common.metrics.retrieval import RetrievalResult

LOWER_IS_BETTER = ("rank", "mae", "rmse", "error", "ece", "nll", "brier", "loss")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller figure of this name is the better one.

    >>> lower_is_better("median_rank"), lower_is_better("R@10")
    (True, False)
    """
    return any(part in metric.lower() for part in LOWER_IS_BETTER)


@dataclass(frozen=True)
class Comparison(Result):
    """One figure of two encoders on the same samples: `difference` is second - first, sample by sample."""

    protocol: str
    metric: str
    first: float
    second: float
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """What is said of the second one: "better" or "worse" where the interval and the sign-flip test agree."""
        d = self.difference
        if not (d.low > 0 or d.high < 0) or d.p_value > 1 - d.level:
            return "inconclusive"
        return "better" if (d.value < 0) == lower_is_better(self.metric) else "worse"

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "verdict": self.verdict}


@accepts(arrays=["groups"])
def compare_evaluations(
    first: Evaluation,
    second: Evaluation,
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    n_boot: int = 1000,
    seed: int = 0,
) -> list[Comparison]:
    """Every figure that both evaluations measured sample by sample: retrieval per query, right or wrong per sample.

    Overlapping intervals of two figures on the same samples do not mean "no difference": what makes a sample hard for
    one makes it hard for the other, and the paired difference takes that out. kNN is compared at a fixed k. The
    p-values are not corrected for the number of figures looked at.

    Args:
        groups: resampling unit of each test sample, for results that were measured without groups of their own.

    Raises:
        ValueError: the two were measured on different numbers of test samples.

    >>> import torch
    >>> from counterpoint.common.metrics import Split, evaluate_features
    >>> g = torch.Generator().manual_seed(0)
    >>> a, noise = torch.randn(100, 8, generator=g), torch.randn(100, 8, generator=g)
    >>> splits = [Split({"x": a, "y": a + s * noise}) for s in (2.0, 0.5)]
    >>> runs = [evaluate_features(split, protocols="retrieval", n_boot=9) for split in splits]
    >>> [c.verdict for c in compare_evaluations(*runs, n_boot=100) if c.metric == "MRR"]
    ['better', 'better']
    """
    if first.samples["test"] != second.samples["test"]:
        raise ValueError(
            f"runs can only be compared on the same samples: {first.samples['test']} and {second.samples['test']}"
        )
    if groups is not None and len(groups) != first.samples["test"]:
        raise ValueError(f"{len(groups)} groups for {first.samples['test']} test samples: give one of each sample")
    found = []
    for name in first.results:
        if name not in second.results:
            continue
        theirs = {metric: (rows, values) for metric, rows, _, values in sample_values(second.results[name])}
        for metric, rows, unit, values in sample_values(first.results[name]):
            if metric not in theirs or not np.array_equal(rows, theirs[metric][0]):
                continue
            other = theirs[metric][1]
            if unit is None and groups is not None:
                unit = np.asarray(groups)[rows]
            difference = paired_difference(values, other, unit, n=n_boot, seed=seed)
            found.append(Comparison(name, metric, float(values.mean()), float(other.mean()), difference))
    return found


def sample_values(result: Result) -> Iterator[tuple[str, np.ndarray, np.ndarray | None, np.ndarray]]:
    """(metric, rows, groups of the rows, value of each row) of everything a result measured sample by sample.

    Rows are those of the test set, or of what else the result is about (pairs of nets), with groups of its own.
    """
    if isinstance(result, RetrievalResult):
        for metric, values in result.per_query.items():
            if metric != "mAP" or "coverage@1" in result.per_query:  # of one relevant key mAP is MRR
                yield metric, result.rows.numpy(), result.groups, values.double().numpy()
        return
    if isinstance(result, PerQuery):
        for metric, values in result.per_query.items():
            yield metric, result.rows, result.groups, values
        return
    if isinstance(result, KNN):
        k = 20 if 20 in result.by_k else max(result.by_k)
        for metric, *rest in sample_values(result.by_k[k]):
            yield f"{metric} (k = {k})", *rest
        return
    scores = result.scores if isinstance(result, Probe) else result
    if isinstance(scores, Scores):
        for key, metric in (("correct", "accuracy"), ("error", "MAE")):
            if key in scores.per_row:
                yield metric, scores.per_row["row"], scores.per_row.get("group"), scores.per_row[key]
