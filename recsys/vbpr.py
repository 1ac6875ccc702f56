r"""VBPR: factors of ids beside factors of what items look and sound like.

He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI 2016.

.. math::
    s_{ui} = \gamma_u \cdot \gamma_i + \sum_m \theta_u^m \cdot (E_m f_i^m) + \beta_i, \qquad
    L = -\frac1N \sum \log \sigma(s_{ui} - s_{uj}) + \frac{\lambda}{2N} \sum \lVert \cdot \rVert^2

over the factors of the batch's users and items. Features are fixed; every modality has its own projection and its own
factors of users. The paper's bias by features, beta' . f, is left out, as in the authors' and MMRec's code. An item
without a modality adds zero there.

MMRec concatenates the raw features, so that all modalities share a user's factors, and drops the items' bias: with
equal factors and no bias its scores are these up to a number for each user (its projection's bias), and its BPR and all
gradients of it are these. Its regulariser is not: norms that are not squared, of the projected features too.

Where its terms stand:

    features   recsys/models/features.py: FeatureTables
    BPR        recsys/models/bpr.py: bpr_rows, squared_length
    the rest   recsys/vbpr.py: VBPR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.trainers import Assets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.configs import VBPRConfig
from counterpoint.recsys.models.tables import grown


class VBPR(Recommender):
    """Id factors and projected features."""

    Config = VBPRConfig
    uses_features = True

    def __init__(self, config: VBPRConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.feature_table = self.feature_tables()
        self.user_id = nn.Embedding(self.n_users, config.dim)
        self.item_id = nn.Embedding(self.n_items, config.dim)
        self.bias = nn.Embedding(self.n_items, 1)
        widths = self.feature_table.widths
        self.taste = nn.ModuleDict({name: nn.Embedding(self.n_users, config.dim) for name in widths})
        self.project = nn.ModuleDict({name: nn.Linear(w, config.dim, bias=False) for name, w in widths.items()})
        for table in (self.user_id, self.item_id, *self.taste.values()):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)
        for layer in self.project.values():
            nn.init.xavier_uniform_(layer.weight)

    def grow_tables(self) -> None:
        self.feature_table.grow(self.n_items)
        self.user_id, self.item_id = grown(self.user_id, self.n_users), grown(self.item_id, self.n_items)
        self.bias = grown(self.bias, self.n_items)
        self.taste = nn.ModuleDict({name: grown(table, self.n_users) for name, table in self.taste.items()})

    def tables(self) -> tuple[Tensor, Tensor]:
        users = [self.user_id.weight, *(self.taste[name].weight for name in self.project)]
        seen = [layer(self.feature_table.table(name)) for name, layer in self.project.items()]
        items = [self.item_id.weight, *seen, self.bias.weight]
        return torch.cat([*users, users[0].new_ones(self.n_users, 1)], 1), torch.cat(items, 1)

    def newly_out(self, items: Tensor) -> Tensor:
        """Items that nobody met have the mean id factors and bias of the others, and their own features."""
        met = torch.from_numpy(self.item_counts > 0).to(items.device)
        if not bool(met.any()):
            return items
        own = torch.ones(items.shape[1], dtype=torch.bool, device=items.device)
        own[self.config.dim : -1] = False  # the projected features
        return torch.where(own & ~met[:, None], items[met].mean(0), items)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """As `tables`, of the batch's rows alone; each item is projected once."""
        if "negative" not in batch:
            return super().embed(batch)
        user = batch["user"]
        users = [self.user_id(user), *(self.taste[name](user) for name in self.project)]
        both = torch.cat([batch["item"], batch["negative"]])
        own, place = both.unique(return_inverse=True)
        seen = [layer(self.feature_table.rows(name, own)) for name, layer in self.project.items()]
        items = torch.cat([self.item_id(own), *seen, self.bias(own)], 1)[place]
        found = torch.cat([*users, users[0].new_ones(len(user), 1)], 1)
        return {"user": found, "item": items[: len(user)], "negative": items[len(user) :]}

    def regularized(self, batch: Mapping[str, Any]) -> Sequence[Tensor]:
        user = batch["user"]
        items = [table(batch[name]) for table in (self.item_id, self.bias) for name in ("item", "negative")]
        return [self.user_id(user), *(taste(user) for taste in self.taste.values()), *items]
