"""The K best items of every user among all that are not left out: streamed, exact, and fair to ties.

Items that score alike fall in random order, drawn anew for every user. A scorer without knowledge (all items alike,
popularity within a block of equals) is then never flattered by the order of the catalogue, which is often one of
popularity or of age.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from counterpoint.common.data.links import Links
from counterpoint.common.kernels import Pairs, topk_scores

CELLS = 4_000_000  # scores that are in memory at a time where they are no inner products


class Scorer(ABC):
    """How well every item suits some users.

    Attributes:
        n_items: size of the catalogue.
    """

    n_items: int

    @abstractmethod
    def scores(self, users: Int[Tensor, batch]) -> Float[Tensor, "batch items"]:
        """Scores of all items, larger is better."""

    def best(
        self, users: Int[Tensor, batch], exclude: Links, n: int
    ) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        """The n largest scores of every user, and their items; (-inf, -1) where there are fewer."""
        values, items = [], []
        step = max(1, CELLS // self.n_items)
        for start in range(0, len(users), step):
            part = slice(start, min(start + step, len(users)))
            scores = masked(self.scores(users[part]), exclude, part)
            value, item = scores.topk(min(n, self.n_items), dim=1)
            values.append(value)
            items.append(torch.where(value == -torch.inf, -1, item))
        value, item = torch.cat(values), torch.cat(items)
        room = (0, n - value.shape[1])
        return pad(value, room, value=-torch.inf), pad(item, room, value=-1)

    def tolerance(self, users: Int[Tensor, batch]) -> Float[Tensor, batch]:
        """Scores of a user that differ by no more are alike."""
        return torch.zeros(len(users))


class VectorScorer(Scorer):
    """Inner products of the vectors of users and items.

    >>> scorer = VectorScorer(torch.eye(2), torch.tensor([[1.0, 0.0], [0.5, 3.0]]))
    >>> scorer.scores(torch.tensor([1])).tolist()
    [[0.0, 3.0]]
    """

    def __init__(self, users: Float[Tensor, "users dim"], items: Float[Tensor, "items dim"]) -> None:
        self.users, self.items, self.n_items = users.detach().cpu(), items.detach().cpu(), len(items)

    @cached_property
    def longest(self) -> float:
        """The length of the longest item."""
        return float(self.items.norm(dim=1).max())

    def scores(self, users: Int[Tensor, batch]) -> Float[Tensor, "batch items"]:
        return self.users[users] @ self.items.T

    def best(
        self, users: Int[Tensor, batch], exclude: Links, n: int
    ) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        width = min(max(CELLS // max(len(users), 1), 4096), 1 << 18)  # few users: wide tiles, which are fewer
        return topk_scores(self.users[users], self.items, n, exclude=pairs_of(exclude), tile=(1024, width))

    def tolerance(self, users: Int[Tensor, batch]) -> Float[Tensor, batch]:
        eps = torch.finfo(self.items.dtype).eps
        return 4 * eps * self.users[users].norm(dim=1) * self.longest


class FunctionScorer(Scorer):
    """Scores that are no inner products of vectors of users and items (item-kNN)."""

    def __init__(self, function: Callable[[Tensor], Tensor], n_items: int) -> None:
        self.function, self.n_items = function, n_items

    def scores(self, users: Int[Tensor, batch]) -> Float[Tensor, "batch items"]:
        return self.function(users).float()


def pairs_of(links: Links) -> Pairs:
    """Sparse pairs as the kernels take them."""
    return Pairs(torch.from_numpy(links.starts), torch.from_numpy(links.keys))


def masked(scores: Float[Tensor, "batch items"], exclude: Links, rows: slice) -> Float[Tensor, "batch items"]:
    """Scores with -inf at what is left out."""
    row, item = exclude.within(rows)
    scores = scores.clone()
    scores[torch.from_numpy(row), torch.from_numpy(item)] = -torch.inf
    return scores


def top_items(
    scorer: Scorer, users: Int[np.ndarray, n_users], exclude: Links, n: int, seed: int = 0
) -> Int[np.ndarray, "n_users n"]:
    """[users, n] the best items of every user, best first; -1 behind the last one where fewer can be ranked.

    Args:
        exclude: items that are not ranked, row i those of `users[i]`.
        seed: of the order of equals.

    >>> nothing = Links.of([[], [0]], 3)
    >>> scorer = VectorScorer(torch.ones(2, 1), torch.tensor([[3.0], [1.0], [2.0]]))
    >>> top_items(scorer, np.array([0, 1]), nothing, 2).tolist()
    [[0, 2], [2, 1]]
    """
    if exclude.shape != (len(users), scorer.n_items):
        raise ValueError(f"exclude is about {exclude.shape} users and items, there are {(len(users), scorer.n_items)}")
    asked = torch.from_numpy(np.asarray(users, dtype=np.int64))
    values, items = scorer.best(asked, exclude, n + 1)
    if bool(torch.isnan(values).any()):
        user = int(users[int(torch.isnan(values).any(1).nonzero()[0])])
        raise ValueError(f"the scores of user row {user} hold NaN: the model diverged")
    found = items[:, :n].numpy().copy()
    tolerance = scorer.tolerance(asked)
    near = (values[:, :-1] - values[:, 1:] <= tolerance[:, None]) & values[:, 1:].isfinite()
    tied = near.any(1).nonzero().flatten()
    rng = np.random.default_rng([seed, 0x71E5])
    step = max(1, CELLS // scorer.n_items)
    for start in range(0, len(tied), step):
        part = tied[start : start + step]
        found[part.numpy()] = _drawn(scorer, asked, exclude, part, values[part, :n], tolerance[part], rng)
    return found


def _drawn(
    scorer: Scorer, asked: Tensor, exclude: Links, part: Tensor, values: Tensor, tolerance: Tensor,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """The lists of users with equals among their best, these in random order."""
    n = values.shape[1]
    scores = scorer.scores(asked[part])
    for i, row in enumerate(part.tolist()):
        scores[i, torch.from_numpy(exclude.of_query(row))] = -torch.inf
    last = torch.where(values.isfinite(), values, torch.inf).amin(1)  # the worst score on the list
    row, item = (scores >= (last - tolerance)[:, None]).nonzero(as_tuple=True)
    score = scores[row, item]
    row, item, score = row.numpy(), item.numpy(), score.double().numpy()
    order = np.lexsort((-score, row))
    row, item, score = row[order], item[order], score[order]
    new = np.ones(len(row), dtype=bool)  # a block of equals begins
    new[1:] = (row[1:] != row[:-1]) | (score[:-1] - score[1:] > tolerance.numpy()[row[1:]])
    order = np.lexsort((rng.random(len(row)), new.cumsum()))
    item = item[order]
    first = np.searchsorted(row, np.arange(len(part)))
    place = np.arange(len(row)) - first[row]
    lists = np.full((len(part), n), -1, dtype=np.int64)
    kept = place < n
    lists[row[kept], place[kept]] = item[kept]
    return lists
