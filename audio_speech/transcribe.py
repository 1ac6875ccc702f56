"""How well captions of music transcribe it: pitches found, and words wrong, beside those of another snippet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from counterpoint.common.data.batch import to_device
from counterpoint.common.metrics import Interval, edit_counts
from counterpoint.common.metrics.bootstrap import bootstrap_columns
from counterpoint.common.metrics.result import Result
from counterpoint.common.progress import track
from counterpoint.common.runs.opened import OpenRun


@dataclass(frozen=True)
class Transcription(Result):
    """Captions against the notes of their snippets.

    Attributes:
        name: what was transcribed.
        snippets: how many.
        metrics: `pitch F1` (pitches as often as they occur, order left out) and `word error rate` (wrong, missing and
            added words over the true ones; it can be above 1), means over snippets.
        chance: the same for captions of snippets of other tunes.
        intervals: 95 % bootstrap intervals over tunes.
    """

    name: str
    snippets: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]

    def __str__(self) -> str:
        said = (f"{k} {v:.3f} (another snippet's {self.chance[k]:.3f})" for k, v in self.metrics.items())
        return f"transcription of {self.snippets} snippets ({self.name}): {', '.join(said)}"


def pitch_f1(found: str, truth: str) -> float:
    """Harmonic mean of precision and recall of pitches.

    >>> pitch_f1("C4 +1 D4", "C4 E4"), pitch_f1("", "C4")
    (0.5, 0.0)
    """
    a, b = (Counter(w for w in text.split() if not w.startswith("+")) for text in (found, truth))
    both = sum((a & b).values())
    return 2 * both / max(sum(a.values()) + sum(b.values()), 1)


def word_errors(found: str, truth: str) -> float:
    """Edit distance in words, over the number of true words.

    >>> word_errors("C4 +1 D4", "C4 E4 +1 D4")
    0.25
    """
    edits = edit_counts(truth.split(), found.split())
    return edits.distance / max(edits.length, 1)


def transcription(
    captions: Sequence[str], truth: Sequence[str], groups: Sequence[str], *, name: str, n_boot: int, seed: int
) -> Transcription:
    """Captions against the truth; for chance every snippet is held against the captions of the next other tune."""
    n = len(truth)
    others = [next((j % n for j in range(i + 1, i + n) if groups[j % n] != groups[i]), i) for i in range(n)]

    def columns(of: Sequence[str]) -> dict[str, torch.Tensor]:
        return {
            "pitch F1": torch.tensor([pitch_f1(c, t) for c, t in zip(of, truth)], dtype=torch.float64),
            "word error rate": torch.tensor([word_errors(c, t) for c, t in zip(of, truth)], dtype=torch.float64),
        }

    intervals = bootstrap_columns(columns(captions), list(groups), n=n_boot, seed=seed)
    chance = {k: float(v.mean()) for k, v in columns([captions[j] for j in others]).items()}
    return Transcription(name, n, {k: v.value for k, v in intervals.items()}, chance, intervals)


def protocols(run: OpenRun) -> dict[str, Result]:
    """Transcription of the split's snippets, for `evaluate`."""
    system, samples = run.system, run.samples()
    rows = range(len(samples) if run.limit is None else min(run.limit, len(samples)))
    starts = range(0, len(rows), run.batch_size)
    captions: list[str] = []
    truth: list[str] = []
    device = next(system.parameters()).device
    training = system.training
    system.eval()
    try:
        for start in track(starts, "transcribing", len(starts)):
            batch = samples.collate([samples[i] for i in rows[start : start + run.batch_size]])
            captions += system.captions(to_device(batch, device))
            truth += list(batch["text"])
    finally:
        system.train(training)
    groups = [samples.groups[i] for i in rows]
    made = transcription(captions, truth, groups, name=system.picture, n_boot=run.n_boot, seed=run.seed)
    return {f"transcription of {system.picture}": made}
