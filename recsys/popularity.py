r"""Popularity: everybody is offered the items that most users met in training.

.. math:: s_{ui} = n_i

Items that equally many met are offered in random order. The baseline that a recommender has to beat.

Where its terms stand:

    n_i             recsys/base.py: Recommender.item_counts
    order of ties   recsys/evaluation/ranking.py: top_items
    the rest        recsys/popularity.py: Popularity
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoint.common.trainers import Assets
from counterpoint.recsys.baselines import Counted
from counterpoint.recsys.configs import PopularityConfig


class Popularity(Counted):
    """How many users met every item."""

    Config = PopularityConfig

    def __init__(self, config: PopularityConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.register_buffer("counts", torch.zeros(self.n_items))

    def count(self) -> None:
        self.counts = torch.from_numpy(self.item_counts).to(self.counts)

    def grow_tables(self) -> None:
        self.counts = torch.cat([self.counts, self.counts.new_zeros(self.n_items - len(self.counts))])

    def tables(self) -> tuple[Tensor, Tensor]:
        """One number a user (1) and an item (its count)."""
        return self.counts.new_ones(self.n_users, 1), self.counts[:, None]
