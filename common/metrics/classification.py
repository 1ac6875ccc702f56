"""Figures of classifiers and regressors with intervals by group; all are functions of row weights.

A bootstrap replicate is a weight per row, so every figure is written once as a function of weights: confusion matrices
by weighted counts, AUROC and average precision by cumulative sums over scores sorted once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from counterpoint.common.metrics.bootstrap import NO_INTERVAL, Interval, bootstrap_weights
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.labels import LabelSet, one_hot, positive_class
from counterpoint.common.metrics.result import Result

Weights = np.ndarray


@dataclass(frozen=True)
class Scores(Result):
    """Figures of predictions on labelled samples, what a constant prediction would score, and intervals.

    `metrics`, `chance` and `intervals` share their keys. `unlabelled` samples were left out. `notes` names what could
    not be measured (a class without a sample). `per_row` says of each sample scored which `row` it is, its `group`
    where there are groups, and how it was scored.
    """

    n: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    unlabelled: int = 0
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    per_row: dict[str, np.ndarray] = field(default_factory=dict, metadata={"json": False})

    def __str__(self) -> str:
        return ", ".join(f"{k} {self.intervals[k]} (chance {self.chance[k]:.3g})" for k in self.metrics)


@accepts(arrays=["probabilities", "groups", "learnt"])
def score_classes(
    probabilities: np.ndarray,
    labels: LabelSet,
    *,
    groups: np.ndarray | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    learnt: np.ndarray | None = None,
) -> Scores:
    """Accuracy, balanced accuracy, kappa, F1, AUROC, AUPRC of class probabilities [n, classes].

    `learnt` are the codes of the training samples. A test class without one can only be missed: its samples count as
    wrong, a note says so, and AUROC and AUPRC are not given, because its scores rank nothing.

    Macro figures run over classes that occur among the samples scored. Chance is what predicting the most frequent
    class of these very samples (constant scores) would give.

    - Of two classes, AUROC and AUPRC are those of the positive one (`positive_class`), and stand first; the chance
      level of AUPRC is the share of positive samples.
    - Of more, both are means over the classes, each against the rest; the chance level of AUPRC is the mean share.
    """
    keep = _labelled(probabilities, labels, groups)
    p, y = probabilities[keep], labels.codes[keep]
    groups = None if groups is None else np.asarray(groups)[keep]
    count = p.shape[1]
    predicted = p.argmax(1)
    unseen = np.zeros(0, int) if learnt is None else np.setdiff1d(y, learnt)
    binary = count == 2
    candidates = [positive_class(labels.classes)] if binary else range(count)
    ranked = [c for c in candidates if 0 < (y == c).sum() < len(y)] if not len(unseen) else []
    curves = [_Ranked(p[:, c], y == c) for c in ranked]

    def figures(w: Weights) -> dict[str, float]:
        of_labels, of_ranks = confusion_figures(confusion(y, predicted, count, w)), _macro(curves, w)
        return of_ranks | of_labels if binary else of_labels | of_ranks

    majority = np.full(len(y), np.bincount(y, minlength=count).argmax())
    flat = [_Ranked(np.zeros(len(y)), y == c) for c in ranked]
    ones = np.ones(len(y))
    chance = confusion_figures(confusion(y, majority, count, ones)) | _macro(flat, ones)
    absent = [labels.classes[c] for c in range(count) if not (y == c).any()]
    notes = [f"classes without a test sample: {', '.join(absent[:10])}"] if absent else []
    if binary and ranked and labels.classes != ("0", "1"):
        notes.append(f"AUPRC is that of the class {labels.classes[ranked[0]]}")
    if len(unseen):
        named, rows = ", ".join(labels.classes[c] for c in unseen[:10]), int(np.isin(y, unseen).sum())
        notes.append(
            f"no training sample of the test class(es) {named}: their {rows} of {len(y)} samples count as wrong, and "
            "AUROC and AUPRC are not given"
        )
    if len(set(y.tolist())) == 1:
        notes.append(f"all test samples are of one class ({labels.classes[y[0]]}): nothing can be told apart")
    if learnt is not None and len(set(learnt[learnt >= 0].tolist())) == 1:
        notes.append(f"all training samples are of one class ({labels.classes[learnt.max()]}): nothing can be learnt")
    notes += _unlabelled(keep) + _alone(len(y), groups) + _lonely(y, groups)
    cost = len(y) * max(len(curves), 1)
    return _scored(
        figures, len(y), chance, groups, n_boot, seed, cost, int((~keep).sum()), labels.classes, notes,
        {**_who(keep, groups), "correct": (predicted == y).astype(float), "predicted": predicted, "label": y},
    )  # fmt: skip


@accepts(arrays=["probabilities", "groups"])
def score_multilabel(
    probabilities: np.ndarray,
    labels: LabelSet,
    *,
    groups: np.ndarray | None = None,
    threshold: float = 0.5,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """Macro AUROC, mAP and F1 over the labels, skipping missing entries; "exact" is the share of rows all right."""
    keep = _labelled(probabilities, labels, groups)
    p, y = probabilities[keep], one_hot(labels)[keep]
    groups = None if groups is None else np.asarray(groups)[keep]
    known = np.isfinite(y)
    columns = [c for c in range(p.shape[1]) if 0 < y[known[:, c], c].sum() < known[:, c].sum()]
    curves = [_Ranked(np.where(known[:, c], p[:, c], 0.0), y[:, c] == 1, known[:, c]) for c in columns]
    said = p >= threshold
    right = np.where(known, said == (y == 1), True).all(1)

    def figures(w: Weights) -> dict[str, float]:
        hit = ((said & (y == 1)) * w[:, None]).sum(0)
        wrong = (((said != (y == 1)) & known) * w[:, None]).sum(0)
        with np.errstate(invalid="ignore"):
            f1 = 2 * hit / (2 * hit + wrong)
        return {"exact": float((right * w).sum() / w.sum()), "macro_f1": _mean(f1)} | _macro(curves, w)

    flat = [_Ranked(np.zeros(len(y)), y[:, c] == 1, known[:, c]) for c in columns]
    # A constant prediction scores best in F1 when it says yes to everything.
    share = np.nansum(y, axis=0) / np.maximum(known.sum(0), 1)
    chance = {"exact": float(np.where(known, y == 0, True).all(1).mean()), "macro_f1": _mean(2 * share / (1 + share))}
    chance |= _macro(flat, np.ones(len(y)))
    notes = [] if len(columns) == p.shape[1] else [f"{p.shape[1] - len(columns)} labels have one kind of sample only"]
    notes += _unlabelled(keep) + _alone(len(y), groups)
    cost = len(y) * max(len(curves), 1)
    return _scored(
        figures, len(y), chance, groups, n_boot, seed, cost, int((~keep).sum()), labels.classes, notes,
        {**_who(keep, groups), "correct": right.astype(float)},
    )  # fmt: skip


@accepts(numbers=["predicted", "target"], arrays=["groups"])
def score_regression(
    predicted: np.ndarray,
    target: np.ndarray,
    *,
    train_mean: float,
    groups: np.ndarray | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """R2, MAE, RMSE and Spearman correlation; chance is predicting the training mean. NaN targets are left out."""
    from scipy.stats import rankdata

    if len(predicted) != len(target) or (groups is not None and len(groups) != len(target)):
        raise ValueError(f"{len(predicted)} predictions and {len(target)} targets: one of each (and a group) a sample")
    keep = np.isfinite(target)
    if not keep.any():
        raise ValueError("no sample carries a target: there is nothing to score")
    p, y = predicted[keep].astype(np.float64), target[keep].astype(np.float64)
    groups = None if groups is None else np.asarray(groups)[keep]
    rank_p, rank_y = rankdata(p), rankdata(y)

    def figures(w: Weights, p: np.ndarray = p, rank_p: np.ndarray = rank_p) -> dict[str, float]:
        total = w.sum()
        centre = (w @ y) / total
        spread = w @ (y - centre) ** 2
        error = w @ (p - y) ** 2
        # Equal targets differ from their computed mean by rounding: no spread, and R2 says nothing.
        r2 = 1 - error / spread if spread > 1e-24 * (w @ y**2) else float("nan")
        # Ranks are those of the whole sample: within a replicate they change by ties only.
        return {
            "R2": float(r2),
            "MAE": float(w @ np.abs(p - y) / total),
            "RMSE": float(np.sqrt(error / total)),
            "spearman": _correlation(rank_p, rank_y, w),
        }

    constant = np.full(len(y), train_mean)
    chance = figures(np.ones(len(y)), constant, constant) | {"spearman": 0.0}
    per_row = {**_who(keep, groups), "error": np.abs(p - y)}
    notes = _unlabelled(keep) + _alone(len(y), groups)
    if np.ptp(y) == 0:
        notes.append(f"all {len(y)} targets are equal: R2 and the correlation say nothing")
    return _scored(figures, len(y), chance, groups, n_boot, seed, len(y), int((~keep).sum()), (), notes, per_row)


def _who(keep: np.ndarray, groups: np.ndarray | None) -> dict[str, np.ndarray]:
    return {"row": np.flatnonzero(keep)} | ({} if groups is None else {"group": groups})


def _unlabelled(keep: np.ndarray) -> list[str]:
    missing = int((~keep).sum())
    return [f"{missing} of {len(keep)} samples carry no label and are not scored"] if missing else []


def _alone(samples: int, groups: np.ndarray | None) -> list[str]:
    """Why there is no interval: one sample or one group says nothing of others."""
    if samples == 1:
        return [f"there is one test sample: {NO_INTERVAL}"]
    if groups is None or len(set(groups.tolist())) > 1:
        return []
    return [f"all test samples are of one group ({groups[0]}): {NO_INTERVAL}"]


def _lonely(codes: np.ndarray, groups: np.ndarray | None) -> list[str]:
    """A warning where most classes stand in one group each: drawing groups then draws classes, too."""
    if groups is None:
        return []
    pairs = {(c, g) for c, g in zip(codes.tolist(), groups.tolist())}
    classes, count = np.unique([c for c, _ in pairs], return_counts=True)
    lonely = int((count == 1).sum())
    if 2 * lonely <= len(classes):
        return []
    return [
        f"{lonely} of {len(classes)} classes stand in a single group: a resample of groups loses such classes whole, "
        "so that intervals of figures over classes are shifted and say nothing about new groups of them"
    ]


def _labelled(probabilities: np.ndarray, labels: LabelSet, groups: np.ndarray | None) -> np.ndarray:
    """Rows that carry a label, after a check that everything is of one length and holds numbers."""
    keep = labels.present
    if probabilities.shape != (len(keep), len(labels.classes)):
        raise ValueError(
            f"probabilities must be [{len(keep)} labels, {len(labels.classes)} classes], got {probabilities.shape}"
        )
    if groups is not None and len(groups) != len(keep):
        raise ValueError(f"groups must name one group for each of the {len(keep)} samples, got {len(groups)}")
    if not keep.any():
        raise ValueError("no sample carries a label: there is nothing to score")
    if not np.isfinite(probabilities[keep]).all():
        raise ValueError("probabilities hold NaN or infinity: which class was predicted cannot be said")
    return keep


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int, weight: Weights) -> np.ndarray:
    """Weighted confusion matrix, rows true, columns predicted."""
    return np.bincount(labels * classes + predicted, weight, classes * classes).reshape(classes, classes)


def confusion_figures(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy, Cohen's kappa (plain, quadratic), macro and weighted F1 of a confusion matrix.

    Where all samples are of one class, and called so, there is no chance agreement to surpass: kappa is NaN.

    >>> confusion_figures(np.array([[2.0, 0.0], [1.0, 1.0]]))["balanced_accuracy"]
    0.75
    """
    total, truth, said, hit = matrix.sum(), matrix.sum(1), matrix.sum(0), np.diag(matrix)
    seen = (truth + said) > 0
    f1 = np.zeros(len(hit))
    f1[seen] = 2 * hit[seen] / (truth + said)[seen]
    return {
        "accuracy": float(hit.sum() / total),
        "balanced_accuracy": _mean(hit[truth > 0] / truth[truth > 0]),
        "kappa": _kappa(matrix, 1.0 - np.eye(len(hit))),
        "quadratic_kappa": _kappa(matrix, (np.arange(len(hit))[:, None] - np.arange(len(hit))) ** 2.0),
        "macro_f1": _mean(f1[seen]),
        "weighted_f1": float((f1 * truth).sum() / total),
    }


def _kappa(matrix: np.ndarray, cost: np.ndarray) -> float:
    expected = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    worst = (cost * expected).sum()
    return float(1 - (cost * matrix).sum() / worst) if worst > 0 else float("nan")


class _Ranked:
    """Scores sorted once, so that AUROC and average precision under new weights are sums over the positive rows.

    Both figures are sums over blocks of tied scores that hold a positive: of its weight times what lies below (AUROC, a
    tie counting 1/2), and of its weight times the precision at the block's end.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, known: np.ndarray | None = None) -> None:
        rows = np.arange(len(scores)) if known is None else np.flatnonzero(known)
        self.order = rows[np.argsort(-scores[rows], kind="stable")]
        ranked = scores[self.order]
        new = np.append(True, ranked[1:] != ranked[:-1])
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(ranked))
        places = np.flatnonzero(positive[self.order])
        self.positive = self.order[places]
        blocks, self.first = np.unique((np.cumsum(new) - 1)[places], return_index=True)
        self.starts, self.ends = starts[blocks], ends[blocks]

    def figures(self, weight: Weights) -> tuple[float, float]:
        total = np.zeros(len(self.order) + 1, weight.dtype)  # weight of everything above each place
        np.cumsum(weight[self.order], out=total[1:])
        step_hits = np.add.reduceat(weight[self.positive], self.first) if len(self.first) else np.zeros(1)
        hits = np.cumsum(step_hits)
        if hits[-1] == 0 or total[-1] == hits[-1]:
            return float("nan"), float("nan")
        above, upto = total[self.starts] - (hits - step_hits), total[self.ends] - hits  # misses
        misses = total[-1] - hits[-1]
        auroc = step_hits @ (misses - (above + upto) / 2) / (hits[-1] * misses)
        with np.errstate(invalid="ignore"):
            precision = np.nan_to_num(hits / total[self.ends])
        return float(auroc), float(step_hits @ precision / hits[-1])


@accepts(numbers=["scores"], arrays=["positive"])
def auroc(scores: np.ndarray, positive: np.ndarray, weight: Weights | None = None) -> float:
    """Area under the ROC curve, ties counting one half; `weight`: how often each row counts (once).

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True]))
    0.875
    """
    weight = np.ones(len(scores)) if weight is None else weight
    return _Ranked(np.asarray(scores, float), np.asarray(positive, bool)).figures(weight)[0]


def _macro(curves: list[_Ranked], weight: Weights) -> dict[str, float]:
    if not curves:
        return {}
    # Weights count draws: as integers their cumulative sum is several times faster.
    counts = weight.astype(np.int64)
    table = np.array([c.figures(counts) for c in curves])
    return {"auroc": _mean(table[:, 0]), "auprc": _mean(table[:, 1])}


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray, w: Weights) -> float:
    total = w.sum()
    a, b = a - (w @ a) / total, b - (w @ b) / total
    size = np.sqrt((w @ a**2) * (w @ b**2))
    return float((w * a) @ b / size) if size > 0 else 0.0


def _scored(
    figures: Callable[[Weights], dict[str, float]],
    n: int,
    chance: dict[str, float],
    groups: np.ndarray | None,
    n_boot: int,
    seed: int,
    cost: int,
    unlabelled: int,
    classes: tuple[str, ...],
    notes: list[str],
    per_row: dict[str, np.ndarray],
) -> Scores:
    # A replicate costs about `cost` steps; beyond some 10^7 in all fewer of them are drawn, which is then said.
    replicates = min(n_boot, max(100, 20_000_000 // max(cost, 1)))
    if replicates < n_boot:
        notes = [*notes, f"intervals from {replicates} replicates"]
    intervals = bootstrap_weights(figures, n, groups, n=replicates, seed=seed)
    metrics = {k: i.value for k, i in intervals.items()}
    return Scores(n, metrics, {k: chance[k] for k in metrics}, intervals, unlabelled, classes, notes, per_row)
