"""Figures of labels at every place of a sample (time step, pixel, voxel, token), with intervals by group."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import Scores, confusion_figures
from counterpoint.common.metrics.inputs import accepts


@accepts(arrays=["confusions", "groups"])
def score_dense(
    confusions: Int[np.ndarray, "samples classes classes"],
    classes: tuple[str, ...],
    *,
    groups: np.ndarray | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """Figures over all labelled places, from one confusion matrix (rows true, columns predicted) per sample.

    Those of `confusion_figures`, and `mean_iou`: the mean over classes that occur of hits / (truth + said - hits). A
    bootstrap replicate draws groups of samples, never single places: neighbours are not independent. Chance is what
    the most frequent class everywhere would give.

    >>> one = np.array([[[3, 1], [0, 4]]])
    >>> round(score_dense(one, ("rest", "event"), n_boot=10).metrics["mean_iou"], 4)      # (3/4 + 4/5) / 2
    0.775
    """
    if confusions.shape[1] != len(classes) or (groups is not None and len(groups) != len(confusions)):
        raise ValueError(
            f"need one row and column a class and one group a sample, got {confusions.shape} and {len(classes)} classes"
        )
    labelled = confusions.sum((1, 2)) > 0
    table = confusions[labelled].astype(np.float64)
    if not len(table):
        raise ValueError("no place carries a label: there is nothing to score")

    def figures(weight: np.ndarray) -> dict[str, float]:
        matrix = np.tensordot(weight, table, 1)
        return confusion_figures(matrix) | {"mean_iou": mean_iou(matrix)}

    truth = table.sum((0, 2))
    constant = np.zeros_like(table[0])
    constant[:, truth.argmax()] = truth
    chance = confusion_figures(constant) | {"mean_iou": mean_iou(constant)}
    units = None if groups is None else np.asarray(groups)[labelled]
    intervals = bootstrap_weights(figures, len(table), units, n=n_boot, seed=seed)
    metrics = {k: i.value for k, i in intervals.items()}
    absent = [name for name, count in zip(classes, truth) if count == 0]
    notes = [f"{int(truth.sum())} places", *([f"classes without a place: {', '.join(absent[:10])}"] if absent else [])]
    return Scores(len(table), metrics, chance, intervals, int((~labelled).sum()), classes, notes)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean intersection over union of the classes that are true or said somewhere.

    >>> mean_iou(np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    1.0
    """
    hit = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hit
    seen = union > 0
    return float((hit[seen] / union[seen]).mean())
