"""From which score on a neighbour is called similar: learnt on the validation split, so that a search may find nothing.

Every query has a nearest neighbour, also one that nothing resembles. The threshold is the score that a stated share
(5 % unless asked otherwise) of unrelated validation pairs reaches: a query and a key that do not belong together as the
data set says (within a modality: that share no answer in another one); where it says nothing, of different groups. What
a threshold costs is measured beside it: the share of validation queries whose best right answer stays below. Validation
pairs are of the field's own data; things of another kind may score higher, and no share is promised for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import samples as truth
from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.data.links import Links
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.scores import Score
from counterpoint.common.output import write_json
from counterpoint.common.progress import note

FILE = "thresholds.json"
SHARE = 0.05
MOST = 2000
"""Queries and keys drawn from the validation split."""


@dataclass(frozen=True)
class Threshold:
    """A score from which on a neighbour is called similar.

    Attributes:
        value: of the metric; larger is more similar.
        false_alarms: share of the unrelated validation pairs that reach it; None where a user gave the value.
        misses: share of validation queries whose best right answer does not; None where no right answers are known.
        pairs: how many unrelated pairs it was learnt from.
    """

    value: float
    false_alarms: float | None = None
    misses: float | None = None
    pairs: int = 0

    @property
    def words(self) -> str:
        """How it came about, in one sentence.

        >>> Threshold(0.5, 0.05, 0.1, 200).words
        '0.5000, which 5 % of 200 unrelated validation pairs reach; 10 % of the queries there lose all right answers'
        """
        if self.false_alarms is None:
            return f"{self.value:.4f}, as given"
        share = 100 * (self.misses or 0.0)
        lost = "" if self.misses is None else f"; {share:.0f} % of the queries there lose all right answers"
        shown = f"{100 * self.false_alarms:.2g} %"
        return f"{self.value:.4f}, which {shown} of {self.pairs:,} unrelated validation pairs reach{lost}"


def share_asked(text: str) -> float | None:
    """The share of `auto` or `auto:SHARE`; None for a number.

    >>> share_asked("auto"), share_asked("auto:0.01"), share_asked("0.6")
    (0.05, 0.01, None)
    """
    name, colon, share = text.partition(":")
    if name != "auto":
        return None
    try:
        found = float(share) if colon else SHARE
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        raise InputError(f"--threshold {text}: the share of false alarms lies between 0 and 1, as in auto:0.01")
    return found


def given_threshold(text: str) -> Threshold:
    """A number as a threshold."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"--threshold {text}: give a number, auto, or auto:SHARE as in auto:0.01")
    return Threshold(value)


def learn_threshold(
    store: EmbeddingStore, dataset: Any, source: str, to: str, score: Score, share: float = SHARE, seed: int = 0
) -> Threshold:
    """The score that `share` of the unrelated pairs of a split reach.

    Args:
        store: the split's embeddings.
        dataset: the split itself, which says what belongs together.
        source, to: modality of queries and of keys.

    Raises:
        InputError: the split has no unrelated pair.
    """
    asked, found = store.part(source), store.part(to)
    right = _right(store.modalities, dataset, source, to)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(asked.ids), generator=draw)[:MOST].numpy()
    drawn = torch.randperm(len(found.ids), generator=draw)[:MOST].numpy()
    owners, groups = asked.frame["group"].to_numpy(), found.frame["group"].to_numpy()
    samples, keys = asked.frame["sample"].to_numpy(), found.frame["sample"].to_numpy()
    q, k = score.scaled(store.vectors(source).float()), score.scaled(store.vectors(to).float())
    unrelated, best = [], []
    for row in rows:
        scores = (k @ q[row]).numpy()
        if right is not None:
            answers = np.isin(keys, list(right.get(int(samples[row]), ())))
            other = ~answers
        else:
            answers = (keys == samples[row]) & (source != to)
            other = groups != owners[row]
        if source == to:
            answers &= keys != samples[row]
            other &= keys != samples[row]
        if answers.any():
            best.append(float(scores[answers].max()))
        unrelated.append(scores[drawn][other[drawn]])
    values = np.concatenate(unrelated) if unrelated else np.zeros(0)
    if not len(values):
        raise InputError(
            "no threshold can be learnt: the validation split has no two samples that are known not to belong "
            "together; give --threshold a number"
        )
    value = float(np.quantile(values, 1 - share))
    misses = float(np.mean(np.asarray(best) < value)) if best else None
    return Threshold(value, share, misses, len(values))


def _right(modalities: Sequence[str], dataset: Any, source: str, to: str) -> dict[int, set[int]] | None:
    """Which samples answer which, where the data set says so: row by row (None), or, within a modality, those that
    share an answer in another one (two recordings of which the same is said)."""
    if source != to:
        links = truth.answers(dataset, source, to)
        return None if links is None else _by_query(links)
    for other in modalities:
        if other != source and (links := truth.answers(dataset, source, other)) is not None:
            back = _by_query(links.T)
            return {q: set().union(*(back[k] for k in found)) for q, found in _by_query(links).items()}
    return None


def _by_query(links: Links) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for query, key in links.pairs:
        found.setdefault(query, set()).add(key)
    return found


def kept_threshold(run: Path, name: str, made_of: list[str], learn: Callable[[], Threshold]) -> Threshold:
    """The threshold that RUN/thresholds.json holds under a name, or a new one, which is written there.

    `made_of`: hashes of the weights and the data; where they differ from those noted, it is learnt again.
    """
    path = run / FILE
    known = _read(path)
    found = known.get(name)
    if isinstance(found, dict) and found.get("made of") == made_of:
        return Threshold(**found["threshold"])
    threshold = learn()
    try:
        write_json({**known, name: {"made of": made_of, "threshold": asdict(threshold)}}, path)
    except OSError as error:
        note(f"{path}: cannot be written ({error.strerror or error}); the next search learns the threshold again")
    return threshold


def _read(path: Path) -> dict[str, Any]:
    """What is noted; nothing where the file is missing or damaged, since it can be learnt again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
