"""Finding events in recordings: scores per step and per event, and TS2Vec's streaming anomaly score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from counterpoint.common.metrics import Result, auroc


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
        average_precision(score, truth) if two_class else float("nan"),
        float(2 * hit / (2 * hit + wrong)) if hit + wrong else float("nan"),
        float(both), float(recall), float(precision), len(true), int(found),
    )  # fmt: skip


def average_precision(score: Float[np.ndarray, " steps"], truth: Bool[np.ndarray, " steps"]) -> float:
    """Area under the precision-recall curve, as a sum over the thresholds (no interpolation).

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
    0.8333333333333333
    """
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
