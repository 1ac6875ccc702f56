"""Who belongs to whom, where both of two descriptions hold of both things but for one swap (Winoground)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.bootstrap import Interval, bootstrap_columns
from counterpoint.common.metrics.result import Result

CHANCE = {"text": 0.25, "thing": 0.25, "group": 1 / 6}
"""Of scores drawn at random."""


@dataclass(frozen=True)
class Winoground(Result):
    """How many quadruples of two things and two descriptions are told apart.

    Attributes:
        pairs: how many quadruples.
        metrics: `text`: either thing finds its description; `thing`: either description finds its thing; `group`: both.
        chance: the same for random scores.
        intervals: 95 % bootstrap intervals.
        notes: sentences on where the quadruples come from.
    """

    pairs: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    notes: tuple[str, ...] = field(default=())


def winoground(
    scores: Float[Tensor, "pairs 2 2"],
    groups: object | None = None,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Winoground:
    """The three figures of Winoground (Thrush et al., CVPR 2022), as CompA uses them for sound.

    With `s[c, a]` the score of description c and thing a, which belong together where c == a,

        text:  s[0, 0] > s[1, 0]  and  s[1, 1] > s[0, 1]
        thing: s[0, 0] > s[0, 1]  and  s[1, 1] > s[1, 0]
        group: both

    Ties are errors: an encoder that hears no difference has 0.

    >>> import torch
    >>> found = winoground(torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[2.0, 1.0], [3.0, 4.0]]]))
    >>> found.metrics
    {'text': 0.5, 'thing': 1.0, 'group': 0.5}
    """
    s = scores.detach().cpu()
    text = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    thing = (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])
    columns = {"text": text, "thing": thing, "group": text & thing}
    found = bootstrap_columns({k: np.asarray(v, dtype=float) for k, v in columns.items()}, groups, n=n_boot, seed=seed)
    return Winoground(len(s), {k: i.value for k, i in found.items()}, dict(CHANCE), found, notes)
