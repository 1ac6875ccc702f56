r"""How far zero-shot findings can be relied on: calibration, and AUROC by scanner, kernel, phase and sex.

A zero-shot score has no scale. A probability is made of it by two numbers a finding, fitted on the validation split
(Platt): p = sigmoid(a s + b). On the split under evaluation

    Brier = mean (p - y)^2,      ECE = sum_b |sum_{i in b} (p_i - y_i)| / n,   ten bins of p of equal width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import auroc
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.runs.opened import OpenRun
from counterpoint.medical.findings import finding_labels, finding_scores, finding_vectors, known_labels

COLUMNS = ("scanner", "manufacturer", "kernel", "phase", "contrast", "sex")
LEAST = 5
"""With and without the finding, in a subgroup that is scored."""
BINS = 10


@dataclass(frozen=True)
class Reliability(Result):
    """Figures of zero-shot findings with intervals.

    Attributes:
        metrics: `Brier of F` and `ECE of F`, or `F, column value`.
        chance: Brier of the validation split's prevalence said of everybody; .5 of an AUROC.
        intervals: 95 % bootstrap intervals over patients.
        notes: what was fitted, and what was too small.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: list[str] = field(default_factory=list)


def expected_error(p: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS) -> float:
    """ECE of the probability of one finding.

    >>> round(expected_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 1, 0, 1])), 3)   # (.2 + .8) / 4
    0.25
    """
    w = np.ones(len(p)) if weight is None else weight
    place = np.clip((p * bins).astype(int), 0, bins - 1)
    return float(np.abs(np.bincount(place, w * (p - y), bins)).sum() / max(w.sum(), 1e-12))


def calibrate_findings(
    fitted: Mapping[str, tuple[np.ndarray, np.ndarray]],
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    groups: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Brier and ECE of every finding.

    Args:
        fitted: finding -> (scores, labels of 1, 0 or NaN) of the validation split.
        scores: the same of the split under evaluation.
        groups: its patients.
    """
    from sklearn.linear_model import LogisticRegression

    said: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    base, notes = {}, ["probabilities by two numbers a finding, fitted on the validation split (Platt)"]
    for name, (s, y) in scores.items():
        v, t = fitted[name]
        known = np.isfinite(t)
        if len(set(t[known].tolist())) < 2 or not np.isfinite(y).any():
            notes.append(f"{name}: the validation labels are alike, or none is known: nothing can be fitted")
            continue
        spread = float(v[known].std()) or 1.0
        model = LogisticRegression(C=1e4).fit(v[known, None] / spread, t[known].astype(int))
        said[name] = (model.predict_proba(s[:, None] / spread)[:, 1], y, np.isfinite(y))
        base[name] = float(t[known].mean())

    def figures(weight: np.ndarray) -> dict[str, float]:
        out = {}
        for name, (p, y, known) in said.items():
            w, error = weight[known].astype(float), p[known] - y[known]
            out[f"Brier of {name}"] = float((w * error**2).sum() / max(w.sum(), 1e-12))
            out[f"ECE of {name}"] = expected_error(p[known], y[known], w)
        return out

    if not said:
        return Reliability({}, {}, {}, notes)
    count = len(next(iter(said.values()))[0])
    intervals = bootstrap_weights(figures, count, None if groups is None else np.asarray(groups), n=n_boot, seed=seed)
    chance = {f"Brier of {n}": float(np.mean((base[n] - y[k]) ** 2)) for n, (_, y, k) in said.items()}
    return Reliability({k: i.value for k, i in intervals.items()}, chance, intervals, notes)


def score_subgroups(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    columns: Mapping[str, Sequence[object]],
    groups: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Reliability:
    """AUROC of every finding in every subgroup that has `LEAST` volumes with and without it."""
    parts: dict[str, tuple[str, np.ndarray]] = {}
    small = 0
    for column, values in columns.items():
        kinds = sorted({str(v) for v in values if v is not None})
        for kind in kinds if len(kinds) > 1 else ():
            mine = np.array([v is not None and str(v) == kind for v in values])
            for name, (_, y) in scores.items():
                if min((y[mine] == 1).sum(), (y[mine] == 0).sum()) < LEAST:
                    small += 1
                else:
                    parts[f"{name}, {column} {kind}"] = (name, mine & np.isfinite(y))

    def figures(weight: np.ndarray) -> dict[str, float]:
        return {
            key: auroc(scores[name][0][mine], scores[name][1][mine] == 1, weight[mine].astype(float))
            for key, (name, mine) in parts.items()
        }

    notes = [f"{small} subgroups have fewer than {LEAST} volumes with or without the finding"] if small else []
    if not parts:
        return Reliability({}, {}, {}, notes)
    count = len(next(iter(scores.values()))[0])
    intervals = bootstrap_weights(figures, count, None if groups is None else np.asarray(groups), n=n_boot, seed=seed)
    metrics = {k: i.value for k, i in intervals.items()}
    return Reliability(metrics, dict.fromkeys(metrics, 0.5), intervals, notes)


def protocols(run: OpenRun) -> Mapping[str, Result]:
    """Calibration and subgroups of zero-shot findings."""
    vectors = finding_vectors(run)
    if not vectors:
        return {}
    scores = _scores(run, vectors, run.split)
    samples, encoded = run.samples(), run.encoded()
    groups = [samples.groups[p] for p in encoded.positions]
    found: dict[str, Result] = {}
    if run.split != "val" and "val" in run.splits:
        fitted = _scores(run, vectors, "val")
        found["zero-shot calibration"] = calibrate_findings(fitted, scores, groups, run.n_boot, run.seed)
    else:
        found["zero-shot calibration"] = NotRun("needs a validation split beside the one under evaluation")
    columns = {c: [samples.column(c)[p] for p in encoded.positions] for c in COLUMNS if c in samples.columns}
    if any(len({str(v) for v in values if v is not None}) > 1 for values in columns.values()):
        found["zero-shot subgroups"] = score_subgroups(scores, columns, groups, run.n_boot, run.seed)
    else:
        found["zero-shot subgroups"] = NotRun(f"needs a column with several values: {', '.join(COLUMNS)}")
    return found


def _scores(run: OpenRun, vectors: Mapping[str, tuple], split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    encoded, labels = run.encoded(split), finding_labels(run, split)
    scored = finding_scores(encoded.of(run.system.modalities[0]), vectors)
    return {name: (scored[name], known_labels(name, labels[name])) for name in vectors}
