"""Linear probes on frozen features: logistic and ridge, choosing their own penalty and saying which.

scikit-learn is imported where it is used: training imports the metrics, and need not wait a second for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.calibration import Calibration, calibration
from counterpoint.common.metrics.classification import Scores, score_classes, score_multilabel, score_regression
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.labels import LabelsLike, encode_labels
from counterpoint.common.metrics.result import Result, features

C_GRID = tuple(float(c) for c in np.logspace(-5, 4, 10))


@dataclass(frozen=True)
class Probe(Result):
    """Figures of a linear probe with the penalty it chose.

    Attributes:
        scores: figures on the test samples.
        penalty: chosen C (logistic: larger is freer) or alpha (ridge: larger is stiffer).
        chosen_on: "validation", "5-fold grouped cross-validation", ... or "given".
        grid: penalty -> score it was chosen by (accuracy, mean AUROC for multi-label, R2 for ridge: over the held-out
            samples of all folds together, because a fold of one sample or of equal targets has no R2).
        at_edge: the choice lies at the end of the grid, so a wider grid might do better.
        calibration: whether the test probabilities mean what they say; for one class per sample.
    """

    scores: Scores
    penalty: float
    chosen_on: str
    grid: dict[float, float]
    at_edge: bool
    train: int
    weights: np.ndarray = field(metadata={"json": False})
    bias: np.ndarray = field(metadata={"json": False})
    predictions: np.ndarray = field(metadata={"json": False})
    calibration: Calibration | None = None


@accepts(matrices=["train", "test", "val"], arrays=["groups", "train_groups"])
def logistic_probe(
    train: Float[Tensor, "n dim"],
    train_labels: LabelsLike,
    test: Float[Tensor, "m dim"],
    test_labels: LabelsLike,
    *,
    val: Float[Tensor, "v dim"] | None = None,
    val_labels: LabelsLike | None = None,
    c_grid: Sequence[float] = C_GRID,
    groups: object | None = None,
    train_groups: object | None = None,
    folds: int = 5,
    max_iter: int = 1000,
    n_boot: int = 1000,
    seed: int = 0,
) -> Probe:
    r"""Logistic regression by L-BFGS in float64 on features standardised by the training set.

    .. math:: \min_{W,b}\; C\sum_i \mathrm{CE}(W x_i + b, y_i) + \tfrac12\lVert W\rVert_F^2

    The penalty is the squared norm. C is chosen on the validation split, or without one by cross-validation whose folds
    keep groups together, then the probe is fitted again on train and validation together. The smallest C wins a tie.
    Multi-label matrices give one binary probe per label (rows where it is missing are skipped).

    Args:
        groups: resampling unit of the test samples; `train_groups`: of the training samples, for the folds.

    >>> import torch
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(200, 4, generator=g); y = (x[:, 0] > 0).long()
    >>> probe = logistic_probe(x[:120], y[:120], x[120:], y[120:], n_boot=100)
    >>> probe.scores.metrics["accuracy"] > 0.9, probe.chosen_on
    (True, '5-fold cross-validation')
    """
    if (val is None) != (val_labels is None):
        raise ValueError("validation features and their labels are given together or not at all")
    parts = [train_labels, test_labels] + ([] if val is None else [val_labels])
    sets = encode_labels(*parts)
    x, x_test = (_numpy(n, z) for n, z in (("train", train), ("test", test)))
    multilabel = sets[0].multilabel
    y = sets[0].matrix if multilabel else sets[0].codes
    keep = sets[0].present
    _check_rows("train", x, len(keep), train_groups)
    _check_rows("test", x_test, len(sets[1].present), groups)
    if not keep.any():
        raise ValueError("no training sample carries a label: there is nothing to fit")
    x, y = x[keep], y[keep]
    group = None if train_groups is None else np.asarray(train_groups)[keep]
    if val is not None:
        x_val, keep_val = _numpy("val", val), sets[2].present
        _check_rows("val", x_val, len(keep_val))
        if not keep_val.any():
            raise ValueError("no validation sample carries a label: C cannot be chosen on them")
        y_val = (sets[2].matrix if multilabel else sets[2].codes)[keep_val]
        splits: list = [(np.arange(len(x)), len(x) + np.arange(len(y_val)))]
        x, y, chosen_on = np.concatenate([x, x_val[keep_val]]), np.concatenate([y, y_val]), "validation"
    elif len(c_grid) > 1:
        splits = list(_folds(x, y, group, folds, seed, stratify=not multilabel))
        chosen_on = f"{len(splits)}-fold {'grouped ' if group is not None else ''}cross-validation"
    else:
        splits, chosen_on = [], "given"
    classes = len(sets[0].classes)
    grid = dict.fromkeys(sorted(map(float, c_grid)), 0.0)
    for fit, check in splits:
        model = _Logistic(x[fit], y[fit], classes, max_iter)
        for c in grid:  # from stiff to free, each starting where the last one ended
            grid[c] += _quality(model.fit(c).predict(x[check]), y[check], multilabel) / len(splits)
    best = max(grid, key=lambda c: (round(grid[c], 10), -c))
    model = _Logistic(x, y, classes, max_iter).fit(best)
    p = model.predict(x_test)
    score = score_multilabel if multilabel else score_classes
    test_groups = None if groups is None else np.asarray(groups)
    learnt = {} if multilabel else {"learnt": y}
    scores = score(p, sets[1], groups=test_groups, n_boot=n_boot, seed=seed, **learnt)
    edge = len(grid) > 1 and best in (min(grid), max(grid))
    rows = sets[1].present
    said = None if multilabel else calibration(p[rows], sets[1].codes[rows])
    return Probe(scores, best, chosen_on, grid if splits else {}, edge, len(x), *model.linear(), p, said)


@accepts(
    matrices=["train", "test", "val"],
    numbers=["train_targets", "test_targets", "val_targets"],
    arrays=["groups", "train_groups"],
)
def ridge_probe(
    train: Float[Tensor, "n dim"],
    train_targets: object,
    test: Float[Tensor, "m dim"],
    test_targets: object,
    *,
    val: Float[Tensor, "v dim"] | None = None,
    val_targets: object | None = None,
    alphas: Sequence[float] = tuple(float(a) for a in np.logspace(-3, 6, 10)),
    groups: object | None = None,
    train_groups: object | None = None,
    folds: int = 5,
    n_boot: int = 1000,
    seed: int = 0,
) -> Probe:
    r"""Ridge regression :math:`\lVert Xw + b - y\rVert^2 + \alpha\lVert w\rVert^2` on standardised features.

    alpha is chosen as C is in `logistic_probe`, by R2. One eigendecomposition of X^T X serves the whole grid.
    """
    x, x_test = (_numpy(n, z) for n, z in (("train", train), ("test", test)))
    y, y_test = (np.asarray(t, dtype=np.float64).reshape(-1) for t in (train_targets, test_targets))
    _check_rows("train", x, len(y), train_groups)
    _check_rows("test", x_test, len(y_test), groups)
    if (val is None) != (val_targets is None):
        raise ValueError("validation features and their targets are given together or not at all")
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(y) < 2:
        raise ValueError("ridge needs at least two training samples with a target")
    group = None if train_groups is None else np.asarray(train_groups)[keep]
    if val is not None:
        y_val = np.asarray(val_targets, dtype=np.float64).reshape(-1)
        keep_val = np.isfinite(y_val)
        _check_rows("val", val, len(y_val))
        if not keep_val.any():
            raise ValueError("no validation sample carries a target: alpha cannot be chosen on them")
        splits: list = [(np.arange(len(x)), len(x) + np.arange(keep_val.sum()))]
        x, y = np.concatenate([x, _numpy("val", val)[keep_val]]), np.concatenate([y, y_val[keep_val]])
        chosen_on = "validation"
    elif len(alphas) > 1:
        splits = list(_folds(x, y, group, folds, seed, stratify=False))
        chosen_on = f"{len(splits)}-fold {'grouped ' if group is not None else ''}cross-validation"
    else:
        splits, chosen_on = [], "given"
    errors = dict.fromkeys(sorted(map(float, alphas)), 0.0)
    for fit, check in splits:
        model = _Ridge(x[fit], y[fit])
        for alpha in errors:
            errors[alpha] += float(((model.fit(alpha).predict(x[check]) - y[check]) ** 2).sum())
    held = y[np.concatenate([check for _, check in splits])] if splits else y
    spread = float(((held - held.mean()) ** 2).sum())
    grid = {alpha: 1 - error / spread if spread > 0 else -error for alpha, error in errors.items()}
    best = max(grid, key=lambda a: (round(grid[a], 10), a))
    model = _Ridge(x, y).fit(best)
    p = model.predict(x_test)
    test_groups = None if groups is None else np.asarray(groups)
    scores = score_regression(p, y_test, train_mean=float(y.mean()), groups=test_groups, n_boot=n_boot, seed=seed)
    edge = len(grid) > 1 and best in (min(grid), max(grid))
    return Probe(scores, best, chosen_on, grid if splits else {}, edge, len(x), *model.linear(), p)


class _Standard:
    """Zero mean and unit variance by the rows given; constant columns become zero."""

    def __init__(self, x: np.ndarray) -> None:
        self.mean, std = x.mean(0), x.std(0)
        self.scale = np.where(std > 1e-12 * np.maximum(1, np.abs(self.mean)), std, np.inf)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale


class _Logistic:
    """Multinomial (or one binary per label) logistic regression along a path of C."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int, max_iter: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.standard = _Standard(x)
        self.x, self.y, self.classes = self.standard(x), y, classes
        columns = [y] if y.ndim == 1 else list(y.T)
        self.models = [LogisticRegression(max_iter=max_iter, tol=1e-5, warm_start=True) for _ in columns]
        self.columns = columns

    def fit(self, c: float) -> _Logistic:
        from sklearn.exceptions import ConvergenceWarning

        for model, column in zip(self.models, self.columns):
            rows = np.isfinite(column)
            if len(np.unique(column[rows])) < 2:
                continue  # one kind of sample only: predicted as a constant below
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=c).fit(self.x[rows], column[rows].astype(int))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        z = self.standard(x)
        if self.y.ndim == 2:
            return np.stack([self._column(m, c, z) for m, c in zip(self.models, self.columns)], axis=1)
        out = np.zeros((len(z), self.classes))
        model = self.models[0]
        if not hasattr(model, "classes_"):
            out[:, int(self.y[0])] = 1
        else:
            out[:, model.classes_] = model.predict_proba(z)
        return out

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights [classes seen, dim] and biases for raw features."""
        fitted = [m for m in self.models if hasattr(m, "coef_")]
        if not fitted:
            return np.zeros((0, self.x.shape[1])), np.zeros(0)
        w = np.concatenate([m.coef_ for m in fitted]) / self.standard.scale
        return w, np.concatenate([m.intercept_ for m in fitted]) - w @ self.standard.mean

    def _column(self, model: object, column: np.ndarray, z: np.ndarray) -> np.ndarray:
        if not hasattr(model, "classes_"):
            return np.full(len(z), np.nan_to_num(np.nanmean(column)) if np.isfinite(column).any() else 0.0)
        return model.predict_proba(z)[:, 1]  # type: ignore[attr-defined]


class _Ridge:
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.standard, self.mean = _Standard(x), y.mean()
        z = self.standard(x)
        self.values, self.vectors = np.linalg.eigh(z.T @ z)
        self.moment = self.vectors.T @ (z.T @ (y - self.mean))

    def fit(self, alpha: float) -> _Ridge:
        self.w = self.vectors @ (self.moment / (np.maximum(self.values, 0) + alpha))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.standard(x) @ self.w + self.mean

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        w = self.w / self.standard.scale
        return w[None], np.array([self.mean - w @ self.standard.mean])


def _folds(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, folds: int, seed: int, *, stratify: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Folds that keep groups together and, where every class is large enough, class shares too."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    units = len(x) if groups is None else len(np.unique(groups))
    folds = min(folds, units)
    if folds < 2:
        raise ValueError("the penalty is chosen over at least two groups of training samples, or on a validation split")
    smallest = np.bincount(y.astype(int)).tolist() if stratify else []
    can_stratify = stratify and min((s for s in smallest if s), default=0) >= folds
    if groups is not None:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed) if can_stratify else GroupKFold(folds)
        return splitter.split(x, y, groups)
    kind = StratifiedKFold if can_stratify else KFold
    return kind(folds, shuffle=True, random_state=seed).split(x, y)


def _quality(p: np.ndarray, y: np.ndarray, multilabel: bool) -> float:
    if not multilabel:
        return float((p.argmax(1) == y).mean())
    from counterpoint.common.metrics.classification import auroc

    known = np.isfinite(y)
    figures = [auroc(p[k, c], y[k, c] == 1) for c, k in enumerate(known.T) if 0 < y[k, c].sum() < k.sum()]
    return float(np.mean(figures)) if figures else 0.0


def _check_rows(name: str, z: np.ndarray | Tensor, labels: int, groups: object | None = None) -> None:
    if len(z) != labels:
        raise ValueError(f"{name}: {len(z)} feature rows but {labels} labels")
    if groups is not None and len(groups) != labels:  # type: ignore[arg-type]
        raise ValueError(f"{name}: {len(groups)} groups for {labels} samples")  # type: ignore[arg-type]


def _numpy(name: str, z: Tensor) -> np.ndarray:
    return features(name, z).double().cpu().numpy()
