r"""gCooL: node contrast, with communities that are learnt along and fade out.

    R   = softmax(sg(h) c^T / T)                                       (trainable unit centres c)
    L   = L_node + a(t) [ b(t) L_DeCA + (1 - b(t)) L_community ]
    a   = max(0, 1 - t / (0.2 stride)),  b = exp(-t / stride),  t the epoch

Views drop edges and mask features by centrality. The RBF branch of the released code, which needs
memory quadratic in the nodes, is not part of this system.

Source: Li, Jing, Tong, "Graph Communal Contrastive Learning", WWW 2022.

Where its terms stand:

    R                      graphs/nodes/communities.py: community_assignment
    L_node                 graphs/nodes/communities.py: node_loss
    L_DeCA                 graphs/nodes/communities.py: deca_loss
    L_community            graphs/nodes/communities.py: community_loss, community_centroids
    a(t), b(t)             graphs/nodes/gcool.py: GCool.community_schedule
    views                  graphs/nodes/views.py: drop_edges, mask_features, edge_weights, feature_weights
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.trainers import Assets
from counterpoint.graphs.configs import GCoolConfig
from counterpoint.graphs.nodes.base import NodeSystem
from counterpoint.graphs.nodes.communities import community_assignment, community_loss, deca_loss, node_loss
from counterpoint.graphs.nodes.encoders import GCN
from counterpoint.graphs.nodes.views import (
    drop_edges,
    drop_probabilities,
    edge_weights,
    feature_weights,
    mask_features,
)


class GCool(NodeSystem):
    """The system `gcool`."""

    Config = GCoolConfig
    presets = GCoolConfig.presets

    def __init__(self, config: GCoolConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.encoder = GCN(assets["width"], [config.hidden, config.dim], config.activation)
        self.projector = nn.Sequential(
            nn.Linear(config.dim, config.projector), nn.ELU(), nn.Linear(config.projector, config.dim)
        )
        self.centres = nn.Parameter(normalize(torch.randn(config.communities, config.dim), dim=1))
        self._view_edges: dict[str, Tensor] = {}

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        edges, n = self.graph.edge_index, self.graph.n_nodes
        degree = torch.bincount(edges[1], minlength=n).float()
        return edge_weights(edges, n, self.config.centrality), feature_weights(self.graph.x, degree)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        edge_w, feature_w = self._weights
        out = {}
        for name, edge_p, mask_p in zip(
            ("view1", "view2"), self.config.edge_drop, self.config.feature_mask, strict=True
        ):
            x = mask_features(batch["x"], drop_probabilities(feature_w, mask_p))
            edges = drop_edges(batch["edge_index"], drop_probabilities(edge_w, edge_p))
            out[name] = self.projector(self.encoder(x, edges))
            self._view_edges[name] = edges
        return out

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        h1, h2, c = embeddings["view1"], embeddings["view2"], self.config
        terms = {"node": node_loss(h1, h2, c.temperature)}
        share, balance = self.community_schedule(self.progress.epoch)
        if share > 0:
            r1, r2 = (community_assignment(h, self.centres, c.temperature) for h in (h1, h2))
            deca = sum(deca_loss(r, self._view_edges[v], c.lam) for r, v in ((r1, "view1"), (r2, "view2"))) / 2
            terms["deca"] = share * balance * deca
            terms["community"] = share * (1 - balance) * community_loss(h1, h2, r1, r2, c.temperature)
        return terms

    def community_schedule(self, epoch: int) -> tuple[float, float]:
        """a(t) and b(t)."""
        return max(0.0, 1 - epoch / (0.2 * self.config.stride)), math.exp(-epoch / self.config.stride)

    def after_update(self) -> None:
        """Centres stay on the unit sphere."""
        with torch.no_grad():
            self.centres.copy_(normalize(self.centres, dim=1))
