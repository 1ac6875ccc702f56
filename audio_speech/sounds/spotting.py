"""Keywords by example: how often they are missed and falsely heard, and a scorer for sound that keeps coming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.audio_speech.sounds.samples import fixed_length
from counterpoint.common.metrics.bootstrap import Interval, bootstrap_interval
from counterpoint.common.metrics.labels import class_names
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.runs.opened import OpenRun

EXAMPLES = 5
"""Training recordings of a keyword whose mean is its example in `evaluate`."""
FALSE_ALARMS = 0.05
"""Share of false alarms at which misses are told."""


@dataclass(frozen=True)
class Detection(Result):
    """How well a score tells trials with the keyword from those without.

    Attributes:
        trials: how many pairs of a keyword and a window.
        targets: in how many of them the window says the keyword.
        metrics: `EER`: share of misses where it equals that of false alarms; `misses`: at 5 % false alarms.
        chance: the same for random scores.
        intervals: 95 % bootstrap intervals over groups.
        curve: detection error trade-off, [2, points] false alarms and misses as the threshold falls.
        notes: sentences on how it was asked.
    """

    trials: int
    targets: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    curve: np.ndarray = field(metadata={"json": False})
    notes: tuple[str, ...] = ()


def det_curve(
    scores: Float[np.ndarray, " trials"], target: Bool[np.ndarray, " trials"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Shares of false alarms and of misses where all trials of a score above a threshold are taken, from none to all.

    Trials of one score are taken together.

    >>> alarms, misses = det_curve(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False]))
    >>> alarms.tolist(), misses.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [1.0, 0.5, 0.5, 0.0, 0.0])
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) + 1
    hits, taken = np.append(0, np.cumsum(target[order])[ends - 1]), np.append(0, ends)
    return (taken - hits) / max((~target).sum(), 1), 1 - hits / max(target.sum(), 1)


def equal_error_rate(alarms: Float[np.ndarray, " points"], misses: Float[np.ndarray, " points"]) -> float:
    """Where the line between the points of a curve crosses `misses = alarms`.

    >>> equal_error_rate(*det_curve(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False])))
    0.5
    """
    return _crossing(alarms - misses, misses)


def _crossing(rising: np.ndarray, values: np.ndarray) -> float:
    at = int(np.argmax(rising >= 0))
    if at == 0:
        return float(values[0])
    low, high = rising[at - 1], rising[at]
    return float(values[at - 1] + (values[at] - values[at - 1]) * (-low / (high - low)))


def detection(
    scores: Float[np.ndarray, "windows keywords"],
    target: Bool[np.ndarray, "windows keywords"],
    groups: Sequence[str] | None = None,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Detection:
    """Every window against every keyword: EER and misses at 5 % false alarms; intervals draw groups of windows.

    >>> found = detection(np.array([[0.9, 0.1], [0.2, 0.8]]), np.eye(2, dtype=bool), n_boot=0)
    >>> found.metrics
    {'EER': 0.0, 'misses': 0.0}
    """
    both = np.stack([scores, target], 2).astype(float)

    def curve(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return det_curve(rows[..., 0].ravel(), rows[..., 1].ravel() > 0)

    def eer(rows: np.ndarray) -> float:
        return equal_error_rate(*curve(rows))

    def misses(rows: np.ndarray) -> float:
        alarms, missed = curve(rows)
        return _crossing(alarms - FALSE_ALARMS, missed)

    found = {
        name: bootstrap_interval(both, groups, n=n_boot, seed=seed, statistic=figure)
        for name, figure in (("EER", eer), ("misses", misses))
    }
    values = {name: interval.value for name, interval in found.items()}
    chance = {"EER": 0.5, "misses": 1 - FALSE_ALARMS}
    points = np.stack(curve(both))
    return Detection(target.size, int(target.sum()), values, chance, found, points, notes)


class StreamingScorer:
    """Scores of a keyword in sound that comes in pieces: one for every `hop` samples, of the window that ends there.

        s(n) = max_e  z(x[n - samples : n]) . e

    z is the system's unit embedding of a window (brought to one level), e those of the examples. Scores do not depend
    on how the sound is cut into pieces; memory is one window.

    Args:
        system: a trained system over recordings.
        examples: samples of the keyword, mono at the system's rate, each a window or less.
        hop: samples from one score to the next; an eighth of a window unless given.
    """

    def __init__(self, system: Any, examples: Sequence[Float[np.ndarray, " samples"]], hop: int = 0) -> None:
        if not len(examples):
            raise ValueError("give at least one example of the keyword")
        self.system, self.samples = system, system.config.data.samples
        self.hop = hop or max(self.samples // 8, 1)
        self.examples = self._embedded(examples)
        self.kept = np.zeros(0, dtype=np.float32)
        self.heard = 0  # samples before the first kept one

    def push(self, piece: Float[np.ndarray, " samples"]) -> list[tuple[int, float]]:
        """Take in more sound; (samples heard at the window's end, score) of every window that it completes."""
        self.kept = np.concatenate([self.kept, np.asarray(piece, dtype=np.float32)])
        starts = range(0, len(self.kept) - self.samples + 1, self.hop)
        if not len(starts):
            return []
        windows = self._embedded([self.kept[start : start + self.samples] for start in starts])
        scores = (windows @ self.examples.T).amax(1).tolist()
        found = [(self.heard + start + self.samples, score) for start, score in zip(starts, scores)]
        used = len(starts) * self.hop
        self.kept, self.heard = self.kept[used:], self.heard + used
        return found

    @torch.no_grad()
    def _embedded(self, waves: Sequence[np.ndarray]) -> Tensor:
        training = self.system.training
        batch = {
            "sound": torch.stack([fixed_length(wave, self.samples) for wave in waves]),
            "length": torch.tensor([min(len(wave), self.samples) for wave in waves]),
        }
        try:
            return self.system.eval().encode(batch, "sound")["sound"]
        finally:
            self.system.train(training)


def protocols(run: OpenRun) -> dict[str, Result]:
    """`keywords by example`: each label's example, the mean of a few training recordings, against all windows."""
    name = "keywords by example"
    if run.label is None:
        return {name: NotRun("needs labels that say the keyword; --label COLUMN")}
    if "train" not in run.splits:
        return {name: NotRun("needs a training split, which the examples are taken from")}
    train, test = run.encoded("train"), run.encoded()
    known, asked = (np.asarray(class_names(part.labels)) for part in (train, test))
    told = np.flatnonzero(asked != "")
    keywords = sorted(set(known) & set(asked) - {""})
    if len(keywords) < 2:
        return {name: NotRun("needs two labels that both the training split and this one have")}
    rng = np.random.default_rng(run.seed)
    places = {k: rng.permutation(np.flatnonzero(known == k))[:EXAMPLES] for k in keywords}
    examples = torch.stack([train.vectors["sound"][torch.from_numpy(places[k])].mean(0) for k in keywords])
    scores = test.vectors["sound"][torch.from_numpy(told)] @ torch.nn.functional.normalize(examples, dim=1).T
    target = asked[told, None] == np.asarray(keywords)[None]
    notes = [f"examples: the mean of {EXAMPLES} training recordings each, of {len(keywords)} keywords"]
    if left := len(asked) - len(told):
        notes.append(f"{left} of {len(asked)} windows carry no label and are left out: nobody knows what they say")
    options: dict[str, Any] = {"n_boot": run.n_boot, "seed": run.seed, "notes": tuple(notes)}
    return {name: detection(scores.cpu().numpy(), target, [test.groups[i] for i in told], **options)}
