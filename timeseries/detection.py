"""Finding events in recordings: figures per step and per event, and TS2Vec's streaming anomaly score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Result, Scores, logistic_probe
from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import score_multilabel
from counterpoint.common.metrics.labels import LabelSet
from counterpoint.timeseries.splits import check_patients
from counterpoint.timeseries.windows import WindowSet


@dataclass(frozen=True)
class EventScores(Result):
    """Detection in recordings. Per step: `auroc`, `auprc`, `step_f1`. Per event: `event_recall` (true events that a
    flag touches), `event_precision` (flagged stretches of which at least half is true) and their `event_f1`.

    Chance is what flagging everything gives (for the two areas: constant scores). Intervals resample patients.
    """

    scores: Scores
    threshold: float
    recordings: int
    steps: int
    true_events: int
    found_events: int
    said_events: int


def runs(mask: Bool[np.ndarray, " steps"]) -> list[tuple[int, int]]:
    """Half-open stretches of True.

    >>> runs(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def flagged(score: Float[np.ndarray, " steps"], threshold: float, min_length: int = 1) -> Bool[np.ndarray, " steps"]:
    """The steps of all stretches of score >= threshold that last at least `min_length` steps.

    >>> flagged(np.array([0.9, 0.1, 0.7, 0.8]), 0.5, min_length=2).tolist()
    [False, False, True, True]
    """
    out = np.zeros(len(score), bool)
    for a, b in runs(score >= threshold):
        out[a:b] = b - a >= min_length
    return out


def _tally(said: Bool[np.ndarray, " steps"], truth: Bool[np.ndarray, " steps"]) -> list[int]:
    """Steps hit and wrong; true events and those found; flagged stretches and those that are right."""
    true, flags = runs(truth), runs(said)
    found = sum(bool(said[a:b].any()) for a, b in true)
    right = sum(bool(truth[a:b].mean() >= 0.5) for a, b in flags)
    return [int((said & truth).sum()), int((said != truth).sum()), len(true), found, len(flags), right]


def _figures(table: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    hit, wrong, true, found, flags, right = weight @ table
    recall = found / true if true else np.nan
    precision = right / flags if flags else 0.0
    both = 2 * recall * precision / (recall + precision) if recall + precision > 0 else recall * 0.0
    step = 2 * hit / (2 * hit + wrong) if hit + wrong else np.nan
    return {"step_f1": step, "event_f1": both, "event_recall": recall, "event_precision": precision}


def event_scores(
    score: Sequence[Float[np.ndarray, " steps"]],
    truth: Sequence[Bool[np.ndarray, " steps"]],
    said: Sequence[Bool[np.ndarray, " steps"]],
    groups: Sequence[str],
    *,
    threshold: float = np.nan,
    n_boot: int = 1000,
    seed: int = 0,
) -> EventScores:
    """Compare scores and flags per step with the annotated steps, one array a recording; `groups` are the patients.

    >>> truth = np.array([False, True, True, False])
    >>> event_scores([truth * 1.0], [truth], [truth], ["p1"], n_boot=5).scores.metrics["event_f1"]
    1.0
    """
    for i, (s, t, f) in enumerate(zip(score, truth, said, strict=True)):
        if not s.shape == t.shape == f.shape:
            raise ValueError(f"event_scores, recording {i}: shapes {s.shape}, {t.shape} and {f.shape} differ")
    table = np.array([_tally(f, t) for f, t in zip(said, truth)], float)
    intervals = bootstrap_weights(lambda w: _figures(table, w), len(table), list(groups), n=n_boot, seed=seed)
    everything = np.array([_tally(np.ones_like(t), t) for t in truth], float)
    chance = _figures(everything, np.ones(len(table)))
    matrix = np.concatenate(truth).astype(float)[:, None]
    steps = np.repeat(np.asarray(groups, str), [len(t) for t in truth])
    areas = score_multilabel(
        np.concatenate(score)[:, None], LabelSet(np.full(len(matrix), -1), ("event",), matrix),
        groups=steps, n_boot=n_boot, seed=seed,
    )  # fmt: skip
    names = [name for name in ("auroc", "auprc") if name in areas.metrics]
    intervals = {name: areas.intervals[name] for name in names} | intervals
    chance = {name: areas.chance[name] for name in names} | chance
    metrics = {name: float(interval.value) for name, interval in intervals.items()}
    scores = Scores(len(matrix), metrics, chance, intervals, 0, ("event",), areas.notes)
    true, found, flags = table[:, 2:5].sum(0).astype(int).tolist()
    return EventScores(scores, float(threshold), len(table), len(matrix), true, found, flags)


def window_events(
    z: Float[Tensor, "windows dim"], windows: WindowSet, split: str = "test", n_boot: int = 1000, seed: int = 0
) -> EventScores:
    """Detect events with a probe that tells windows holding any event step from the others.

    Its probabilities are averaged onto the time steps. The threshold is the one with the best `step_f1` on the
    validation recordings (on the training ones where there are none), which the probe has not learnt from. Recordings
    without annotations are left out. Raises `InputError` when the training windows are all of one kind.
    """
    if windows.steps is None:
        raise InputError("events: the windows carry no classes of time steps; set --data.events")
    check_patients(windows)
    kinds = [windows.steps_of(i) for i in range(len(windows))]
    known = np.array([bool((k >= 0).any()) for k in kinds])
    holds = np.array([bool((k > 0).any()) for k in kinds])
    part, group = windows.frame["split"].to_numpy(str), windows.frame["group"].to_numpy(str)
    train, test = (np.flatnonzero(known & (part == name)) for name in ("train", split))
    if len(set(holds[train].tolist())) < 2 or not len(test):
        raise InputError(f"events: needs annotated {split} windows, and training windows with and without an event")
    tune = np.flatnonzero(known & (part == "val")) if split != "val" else train[:0]
    tune = tune if len(tune) else train
    single = len({(g, h) for g, h in zip(group[train], holds[train])}) < 4  # a fold of patients would lack a kind
    probe = logistic_probe(
        z[train], holds[train].tolist(), z, holds.tolist(), train_groups=None if single else group[train], n_boot=0,
        seed=seed,
    )  # fmt: skip
    chance = probe.predictions[:, probe.scores.classes.index("1")]
    score, truth, _ = _on_steps(chance, windows, tune)
    threshold = _best_threshold(np.concatenate(score), np.concatenate(truth))
    score, truth, groups = _on_steps(chance, windows, test)
    said = [flagged(s, threshold) for s in score]
    return event_scores(score, truth, said, groups, threshold=threshold, n_boot=n_boot, seed=seed)


def _on_steps(
    values: np.ndarray, windows: WindowSet, rows: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Scores and truth of the covered, annotated steps of every recording behind these windows, and its patient."""
    assert windows.steps is not None
    signal, start = windows.frame["signal"].to_numpy()[rows], windows.frame["start"].to_numpy()[rows]
    scores, truths, groups = [], [], []
    for i in np.unique(signal):
        mine, truth = signal == i, windows.steps[i]
        score = windows_to_steps(values[rows][mine], start[mine], windows.length, len(truth))
        covered = windows_to_steps(np.ones(mine.sum()), start[mine], windows.length, len(truth)) > 0
        keep = covered & (truth >= 0)
        scores.append(score[keep])
        truths.append(truth[keep] > 0)
        groups.append(str(windows.frame["group"].to_numpy()[rows][mine][0]))
    return scores, truths, groups


def _best_threshold(score: np.ndarray, truth: np.ndarray) -> float:
    """The value, among 200 quantiles, at which flagging has the best F1 over steps; ties go to the highest."""
    grid = np.unique(np.quantile(score, np.linspace(0, 1, 200)))
    hits = np.array([(truth & (score >= t)).sum() for t in grid])
    said = np.array([(score >= t).sum() for t in grid])
    f1 = 2 * hits / np.maximum(said + truth.sum(), 1)
    return float(grid[len(grid) - 1 - int(f1[::-1].argmax())])


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


def anomalies(
    system, windows: WindowSet, split: str = "test", steps: int = 20000, context: int = 200, delay: int = 7,
    n_boot: int = 1000, seed: int = 0,
) -> EventScores:  # fmt: skip
    """TS2Vec's anomaly protocol on whole recordings: annotated steps are the anomalies, no label is learnt from.

    The threshold comes from the training recordings' scores, flags get the protocol's credit (`adjust_for_delay`). At
    most `steps` steps of each split are scored, an equal share from the beginning of every recording. Raises
    `InputError` when no recording of the split is annotated, or none is left for training.
    """
    if windows.steps is None:
        raise InputError("anomalies: the windows carry no classes of time steps; set --data.events")
    check_patients(windows)
    first = windows.frame.drop_duplicates("signal").set_index("signal")
    train = first.index[first["split"] == "train"].tolist()
    test = [i for i in first.index[first["split"] == split] if (windows.steps[i] >= 0).any()]
    if not train or not test:
        raise InputError(f"anomalies: needs training recordings and an annotated recording of split {split}")

    def scored(i: int, share: int) -> np.ndarray:
        return anomaly_scores(system, windows.whole(i, share), context)

    learnt = np.concatenate([scored(i, steps // len(train)) for i in train])
    threshold = anomaly_threshold(learnt)
    scores, truths, said = [], [], []
    for i in test:
        score = scored(i, steps // len(test))
        known = windows.steps[i][: len(score)] >= 0
        truth = windows.steps[i][: len(score)][known] > 0
        scores.append(score[known])
        truths.append(truth)
        said.append(adjust_for_delay(score[known] >= threshold, truth, delay))
    groups = [str(first.at[i, "group"]) for i in test]
    return event_scores(scores, truths, said, groups, threshold=threshold, n_boot=n_boot, seed=seed)


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
