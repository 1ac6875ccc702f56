"""What a biosignal team asks of an encoder: probes with few labels, events, anomalies, similar beats.

Figures come from `common.metrics`; here stand the field's own steps between windows and those figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Probe, Result, RetrievalResult, Scores, auroc, logistic_probe, rank_queries
from counterpoint.common.metrics.classification import score_classes
from counterpoint.common.metrics.labels import encode_labels
from counterpoint.timeseries.splits import check_patients, label_fraction
from counterpoint.timeseries.windows import WindowSet


@dataclass(frozen=True)
class PatientProbe(Result):
    """A linear probe on held-out patients: per window, and per patient (mean probability of his windows).

    `labelled_windows` and `labelled_patients` say how much of the training labels `fraction` was.
    """

    fraction: float
    by: str
    labelled_windows: int
    labelled_patients: int
    probe: Probe
    patients: Scores

    @property
    def scores(self) -> Scores:
        """The figures per window, which tables show."""
        return self.probe.scores


def probe_patients(
    z: Float[Tensor, "windows dim"],
    windows: WindowSet,
    fractions: Sequence[float] = (1.0, 0.1, 0.01),
    by: str = "patient",
    seed: int = 0,
    n_boot: int = 1000,
) -> list[PatientProbe]:
    """Fit a logistic probe on a share of the training labels and score it on patients it has never seen.

    The penalty is chosen on the validation patients; intervals resample patients. Raises `LeakageError` when a patient
    stands in two splits, `InputError` when the test split has no labels.
    """
    check_patients(windows)
    frame = windows.frame
    labelled = (frame["label"] != "").to_numpy()
    masks = {name: (frame["split"] == name).to_numpy() & labelled for name in ("train", "val", "test")}
    for name in ("train", "test"):
        if not masks[name].any():
            raise InputError(f"probe: split {name} has no labelled window; set the columns label and split")
    label, group = frame["label"].to_numpy(str), frame["group"].to_numpy(str)
    train_rows = np.flatnonzero(masks["train"])
    results = []
    for fraction in fractions:
        rows = train_rows[label_fraction(windows.subset(train_rows), fraction, by, seed)]
        val = masks["val"]
        probe = logistic_probe(
            z[rows], label[rows].tolist(), z[masks["test"]], label[masks["test"]].tolist(),
            val=z[val] if val.any() else None, val_labels=label[val].tolist() if val.any() else None,
            groups=group[masks["test"]], train_groups=group[rows], n_boot=n_boot, seed=seed,
        )  # fmt: skip
        patients = _per_patient(probe, label[masks["test"]], group[masks["test"]], n_boot, seed)
        results.append(PatientProbe(fraction, by, len(rows), len(set(group[rows])), probe, patients))
    return results


def _per_patient(probe: Probe, label: np.ndarray, group: np.ndarray, n_boot: int, seed: int) -> Scores:
    """Score patients by the mean probability of their windows; a patient with several labels counts once for each."""
    units = np.array([f"{g}\t{y}" for g, y in zip(group, label)])
    names, code = np.unique(units, return_inverse=True)
    mean = np.stack([np.bincount(code, column) for column in probe.predictions.T], 1) / np.bincount(code)[:, None]
    labels = encode_labels(list(probe.scores.classes), [name.split("\t")[1] for name in names])[1]
    return score_classes(mean, labels, groups=np.array([n.split("\t")[0] for n in names]), n_boot=n_boot, seed=seed)


@dataclass(frozen=True)
class EventScores(Result):
    """Detection in a recording: per step (sequence) and per event (a true event counts as found if touched)."""

    sequence_auroc: float
    sequence_auprc: float
    sequence_f1: float
    event_f1: float
    event_recall: float
    event_precision: float
    true_events: int
    found_events: int


def runs(mask: Bool[np.ndarray, " steps"]) -> list[tuple[int, int]]:
    """Half-open stretches of True.

    >>> runs(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def event_scores(
    score: Float[np.ndarray, " steps"], truth: Bool[np.ndarray, " steps"], threshold: float, min_length: int = 1
) -> EventScores:
    """Compare a score per step with the annotated steps, step by step and event by event.

    Predicted events are runs of score >= threshold of at least `min_length` steps. A true event is found when any
    predicted one overlaps it; a predicted event is right when it overlaps any true one.
    """
    if score.shape != truth.shape:
        raise ValueError(f"event_scores: score has shape {score.shape}, truth {truth.shape}")
    said = np.zeros(len(score), bool)
    predicted = [(a, b) for a, b in runs(score >= threshold) if b - a >= min_length]
    for a, b in predicted:
        said[a:b] = True
    true = runs(truth)
    found = sum(said[a:b].any() for a, b in true)
    right = sum(truth[a:b].any() for a, b in predicted)
    recall = found / len(true) if true else float("nan")
    precision = right / len(predicted) if predicted else 0.0
    both = 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0
    hit, wrong = (said & truth).sum(), (said != truth).sum()
    two_class = 0 < truth.sum() < len(truth)
    return EventScores(
        auroc(score, truth) if two_class else float("nan"),
        _average_precision(score, truth) if two_class else float("nan"),
        float(2 * hit / (2 * hit + wrong)) if hit + wrong else float("nan"),
        float(both), float(recall), float(precision), len(true), int(found),
    )  # fmt: skip


def _average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, score))


def windows_to_steps(
    values: Float[np.ndarray, " windows"], starts: np.ndarray, length: int, samples: int
) -> Float[np.ndarray, " samples"]:
    """Mean of the values of all windows that cover a sample; 0 where none does."""
    total, count = np.zeros(samples + 1), np.zeros(samples + 1)
    for value, start in zip(values, starts):
        total[start] += value
        count[start] += 1
        total[min(start + length, samples)] -= value
        count[min(start + length, samples)] -= 1
    covered = np.cumsum(count)[:-1]
    return np.where(covered > 0.5, np.cumsum(total)[:-1] / np.maximum(covered, 1), 0.0)


@torch.no_grad()
def anomaly_scores(
    system, x: Float[np.ndarray, "time channels"], context: int = 200, history: int = 21, batch_size: int = 256
) -> Float[np.ndarray, " time"]:
    """TS2Vec's streaming anomaly score: how much the last step's representation moves when that step is hidden.

        a_t = || r_t(x_{t-c..t}) - r_t(x_{t-c..t} with step t masked) ||_1,   score_t = a_t / mean(a_{t-h..t-1}) - 1

    Each step sees only its past (`context` steps). `system` is a `TS2Vec`. The first steps, without a history, get 0.
    """
    padded = np.concatenate([np.repeat(x[:1], context - 1, 0), x]).astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(padded, context, axis=0)
    moved = np.empty(len(x))
    for first in range(0, len(x), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(view[first : first + batch_size].swapaxes(1, 2)))
        batch = batch.to(system.device)
        full, hidden = (system.represent_steps(batch, mask_last=m)[:, -1] for m in (False, True))
        moved[first : first + len(batch)] = (full - hidden).abs().sum(1).cpu().numpy()
    total = np.concatenate([[0.0], np.cumsum(moved)])
    score = np.zeros(len(x))
    for t in range(1, len(x)):
        begin = max(t - history, 0)
        score[t] = moved[t] / max((total[t] - total[begin]) / (t - begin), 1e-12) - 1
    return score


def anomaly_threshold(train_score: Float[np.ndarray, " steps"], beta: float = 4.0) -> float:
    """Mean plus `beta` deviations of the scores on the training part."""
    return float(train_score.mean() + beta * train_score.std())


def adjust_for_delay(
    said: Bool[np.ndarray, " steps"], truth: Bool[np.ndarray, " steps"], delay: int = 7
) -> Bool[np.ndarray, " steps"]:
    """The anomaly protocol's credit: a true segment counts as found whole if flagged within `delay` steps of its start.

    Otherwise it counts as missed whole. Flags outside true segments stay as they are.

    >>> truth = np.array([0, 1, 1, 1, 0], bool)
    >>> adjust_for_delay(np.array([0, 0, 1, 0, 1], bool), truth, delay=1).tolist()
    [False, True, True, True, True]
    """
    out = said.copy()
    for a, b in runs(truth):
        out[a:b] = said[a : min(a + delay + 1, b)].any()
    return out


def similar_beats(
    z: Float[Tensor, "beats dim"],
    windows: WindowSet,
    ks: tuple[int, ...] = (1, 5, 10),
    n_boot: int = 1000,
    seed: int = 0,
) -> RetrievalResult:
    """How often a beat's nearest neighbours, itself left out, carry its label; intervals resample patients."""
    labels = windows.frame["label"].to_numpy(str)
    if (labels == "").any():
        raise InputError("similar_beats: every beat needs a label; keep the annotated ones")
    truth = (labels.tolist(), labels.tolist())
    group = windows.frame["group"].tolist()
    return rank_queries(
        z, z, relevant=truth, exclude_self=True, ks=ks, groups=group, name="beat -> beats", n_boot=n_boot, seed=seed
    )
