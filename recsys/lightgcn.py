r"""LightGCN: embeddings of users and items are passed along the graph of who met what, without weights between layers.

He, Deng, Wang, Li, Zhang, Wang, "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation",
SIGIR 2020.

.. math::
    E^{(l)} = \hat A E^{(l-1)}, \quad \hat A = D^{-1/2} A D^{-1/2}, \qquad \bar E = \frac1{L+1} \sum_{l=0}^L E^{(l)},
    \qquad s_{ui} = \bar e_u \cdot \bar e_i \\
    L = -\frac1N \sum_{(u, i, j)} \log \sigma(s_{ui} - s_{uj})
        + \frac{\lambda}{2N} \sum (\lVert e_u^{(0)} \rVert^2 + \lVert e_i^{(0)} \rVert^2 + \lVert e_j^{(0)} \rVert^2)

over interactions (u, i) with an item j that u has not met. The length of the tables' own rows is held down, as in the
authors' code; MMRec's variant takes norms that are not squared.

Where its terms stand:

    propagation   recsys/models/propagation.py: propagate, bipartite_adjacency
    BPR           recsys/models/bpr.py: bpr_rows, squared_length
    negatives     recsys/data/samples.py: TrainingPairs.others
    the rest      recsys/lightgcn.py: LightGCN
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.common.trainers import Assets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.configs import LightGCNConfig
from counterpoint.recsys.models.propagation import propagate
from counterpoint.recsys.models.tables import grown


class LightGCN(Recommender):
    """Tables of users and items, propagated."""

    Config = LightGCNConfig

    def __init__(self, config: LightGCNConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.user_embedding = nn.Embedding(self.n_users, config.dim)
        self.item_embedding = nn.Embedding(self.n_items, config.dim)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.normal_(table.weight, std=0.1)
        self.graph = self.adjacency(epsilon=0.0)

    def grow_tables(self) -> None:
        self.user_embedding = grown(self.user_embedding, self.n_users)
        self.item_embedding = grown(self.item_embedding, self.n_items)
        self.graph = self.adjacency(epsilon=0.0).to(self.user_embedding.weight)

    def tables(self) -> tuple[Tensor, Tensor]:
        nodes = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        users, items = propagate(self.graph, nodes, self.config.layers).split([self.n_users, self.n_items])
        return users, items

    def regularized(self, batch: Mapping[str, Any]) -> Sequence[Tensor]:
        items = self.item_embedding
        return self.user_embedding(batch["user"]), items(batch["item"]), items(batch["negative"])

    def newcomers(self, histories: Sequence[Tensor]) -> Tensor:
        r"""What a user of this history would have, were he in the graph with nothing else changed and no row of his
        own: :math:`\frac{1}{L+1} \sum_{l=1}^{L} \sum_{i \in H} (|H| d_i)^{-1/2} e_i^{(l-1)}`. Without a history: the
        mean of all.
        """
        layers = self._item_layers()
        degree = torch.from_numpy(self.item_counts).to(layers[0]).clamp_min(1)
        plain = super().newcomers([history[:0] for history in histories])
        rows = []
        for history, mean in zip(histories, plain):
            history = history.to(mean.device)
            if not len(history) or not self.config.layers:
                rows.append(mean if not len(history) else super().newcomers([history])[0])
                continue
            weight = (len(history) * degree[history]) ** -0.5
            total = sum((weight[:, None] * layer[history]).sum(0) for layer in layers[:-1])
            rows.append(total / (self.config.layers + 1))
        return torch.stack(rows)

    @torch.no_grad()
    def _item_layers(self) -> list[Tensor]:
        nodes = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        found = [nodes[self.n_users :]]
        for _ in range(self.config.layers):
            nodes = self.graph(nodes)
            found.append(nodes[self.n_users :])
        return found

