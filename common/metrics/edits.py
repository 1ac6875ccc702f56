"""Error rates of recognisers: the fewest substitutions, insertions and deletions that make a reference of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from counterpoint.common.metrics.bootstrap import Interval, bootstrap_interval
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.result import Result


@dataclass(frozen=True)
class Edits(Result):
    """Edits that turn a reference of `length` units into a hypothesis.

    Attributes:
        substitutions: units of the reference that are others in the hypothesis.
        insertions: units that the hypothesis alone has.
        deletions: units that the reference alone has.
        length: units of the reference.
    """

    substitutions: int
    insertions: int
    deletions: int
    length: int

    @property
    def distance(self) -> int:
        """Levenshtein's: all edits together."""
        return self.substitutions + self.insertions + self.deletions


@dataclass(frozen=True)
class ErrorRate(Result):
    """Share of wrong units of all texts together, (S + I + D) / N; it may exceed 1.

    Attributes:
        unit: `word` or `character`.
        texts: how many.
        edits: sums over all texts.
        rate: with its 95 % bootstrap interval over groups.
        per_text: [texts, 2] edits and units of the reference.
    """

    unit: str
    texts: int
    edits: Edits
    rate: Interval
    per_text: np.ndarray = field(metadata={"json": False})


def edit_counts(reference: Sequence[Any], hypothesis: Sequence[Any]) -> Edits:
    """The fewest edits from one sequence to the other (Levenshtein 1966), substitutions, insertions, deletions alike.

        d(i, j) = min(d(i-1, j-1) + [r_i != h_j],  d(i, j-1) + 1,  d(i-1, j) + 1),   d(i, 0) = i, d(0, j) = j

    Where several ways are as short, the one with most substitutions is counted, so that the counts are unique:
    insertions less deletions is the difference of the lengths. Time |r| |h|, memory |h|.

    >>> edit_counts("kitten", "sitting")
    Edits(substitutions=2, insertions=1, deletions=0, length=6)
    >>> edit_counts("one two".split(), "two one".split()).distance
    2
    """
    row = [(j, 0) for j in range(len(hypothesis) + 1)]  # (edits, less the substitutions): the smallest pair wins
    for i, told in enumerate(reference, 1):
        corner, row[0] = row[0], (i, 0)
        for j, heard in enumerate(hypothesis, 1):
            edits, swaps = corner
            swapped = (edits, swaps) if told == heard else (edits + 1, swaps - 1)
            corner = row[j]
            row[j] = min(swapped, (row[j - 1][0] + 1, row[j - 1][1]), (row[j][0] + 1, row[j][1]))
    distance, swaps = row[-1]
    more = len(hypothesis) - len(reference)
    insertions = (distance + swaps + more) // 2
    return Edits(-swaps, insertions, insertions - more, len(reference))


@accepts(arrays=["references", "hypotheses", "groups"])
def error_rate(
    references: Any,
    hypotheses: Any,
    groups: Any = None,
    *,
    unit: str = "word",
    n_boot: int = 1000,
    seed: int = 0,
) -> ErrorRate:
    """Word error rate (words are what white space parts) or character error rate (white space in a row is one space,
    none at the ends), edits of all texts over units of all references. Texts are compared as they are: fold cases and
    take out punctuation before.

    Args:
        references: [texts] what was said.
        hypotheses: [texts] what was recognised.
        groups: [texts] whose intervals resample whole groups (speakers); None resamples utterances.

    Raises `ValueError` for another unit, for other numbers of texts, and where no reference holds a unit.

    >>> found = error_rate(["one two", "three"], ["one", "three"], n_boot=10)
    >>> round(found.rate.value, 3), found.edits.deletions
    (0.333, 1)
    """
    if unit not in ("word", "character"):
        raise ValueError(f'unit must be "word" or "character", got {unit!r}')
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses: give one for each")

    def units(text: object) -> Sequence[str]:
        words = str(text).split()
        return words if unit == "word" else " ".join(words)

    counts = [edit_counts(units(a), units(b)) for a, b in zip(references, hypotheses)]
    total = Edits(*(sum(getattr(c, n) for c in counts) for n in ("substitutions", "insertions", "deletions", "length")))
    if not total.length:
        raise ValueError(f"no reference holds a {unit}, so there is no rate")
    per_text = np.array([(c.distance, c.length) for c in counts], dtype=float)

    def ratio(rows: np.ndarray) -> float:
        edits, length = rows.sum(0)
        return edits / length if length else float("nan")

    rate = bootstrap_interval(per_text, groups, n=n_boot, seed=seed, statistic=ratio)
    return ErrorRate(unit, len(counts), total, rate, per_text)
