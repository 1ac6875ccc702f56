"""What queries retrieve, as rows of pictures: queries drawn at random, their nearest, and the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.metrics.ranking import Scoring
from counterpoint.common.metrics.scores import Score
from counterpoint.common.report import GalleryRow, Media


def draw_queries(n: int, examples: int, seed: int) -> list[int]:
    """Some of `n` rows, drawn at random.

    >>> sorted(draw_queries(3, 5, 0))
    [0, 1, 2]
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:examples].tolist()


def retrieved_rows(
    queries: Float[Tensor, "n dim"],
    keys: Float[Tensor, "m dim"] | None,
    chosen: Sequence[int],
    *,
    asked: Callable[[int], Media],
    answer: Callable[[int, float], Media],
    right: Callable[[int], Bool[Tensor, " m"] | None] = lambda query: None,
    left_out: Callable[[int], Sequence[int]] = lambda query: (),
    note: Callable[[int], str] = lambda query: "",
    shown: int = 5,
    metric: str | Score = "cosine",
) -> list[GalleryRow]:
    """A row for each of the `chosen` queries: its picture, and those of its nearest keys, best first.

    Where none of those shown is right, the best right one follows with its rank.

    Args:
        keys: None: the other queries.
        asked, answer: the picture of a query, and that of a key, which is given its score as people know it.
        right: which keys are right answers to a query; None where nothing tells.
        left_out: keys that are not in the pool of a query.
        note: what is said beneath a query.
    """
    scoring = Scoring(queries, queries if keys is None else keys, metric=metric)
    rows = []
    for query in chosen:
        scores, correct = scoring.of_query(query), right(query)
        out = [*left_out(query), *([query] if keys is None else [])]
        hits = best_and_right(scores, min(shown, len(scores) - len(out)), correct, out, scoring.tolerance)
        pictures = [
            replace(
                answer(hit, scoring.score.shown(float(scores[hit]))),
                correct=None if correct is None else bool(correct[hit]),
                rank=rank,
            )
            for hit, rank in hits
        ]
        rows.append(GalleryRow(asked(query), pictures, note(query)))
    return rows


def best_and_right(
    scores: Float[Tensor, " keys"],
    most: int,
    right: Bool[Tensor, " keys"] | None = None,
    left_out: Sequence[int] = (),
    tolerance: float = 0.0,
) -> list[tuple[int, int]]:
    """(key, rank) of the `most` best keys of a query; where none of them is right, the best right one follows.

    Its rank is 1 + the number of better keys + half of those tied with it (within `tolerance`), rounded. Keys
    `left_out` are neither shown nor counted.

    >>> scores = torch.tensor([1.0, 0.9, 0.8, 0.7])
    >>> best_and_right(scores, 2, torch.tensor([False, False, False, True]))
    [(0, 1), (1, 2), (3, 4)]
    >>> best_and_right(scores, 2, torch.tensor([True, False, False, True]), left_out=[0])
    [(1, 1), (2, 2), (3, 3)]
    """
    scores = scores.clone()
    wanted = torch.zeros(len(scores), dtype=torch.bool) if right is None else right.clone()
    if len(left_out):
        scores[list(left_out)], wanted[list(left_out)] = -torch.inf, False
    hits = scores.topk(min(most, len(scores) - len(left_out))).indices.tolist()
    found = [(hit, rank) for rank, hit in enumerate(hits, 1)]
    if not wanted.any() or wanted[hits].any():
        return found
    best = int(torch.where(wanted, scores, -torch.inf).argmax())
    better = int((scores > scores[best] + tolerance).sum())
    tied = int((scores >= scores[best] - tolerance).sum()) - better - 1
    return [*found, (best, int(1 + better + tied / 2 + 0.5))]
