r"""GRACE: each node's other view among all nodes of both views.

    l_i = -log( exp(s(u_i, v_i)) / ( sum_j exp(s(u_i, v_j)) + sum_{j != i} exp(s(u_i, u_j)) ) ),   s = cos / T

averaged over nodes and both directions: NT-Xent over the 2 N views, in memory linear in the nodes.

Source: Zhu et al., "Deep Graph Contrastive Representation Learning", 2020 (arXiv 2006.04131).

Where its terms stand:

    l_i                    common/losses/ntxent.py: NTXent
    views                  graphs/nodes/views.py: drop_edges, mask_features
    f                      graphs/nodes/encoders.py: GCN
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from counterpoint.common.losses import NTXent
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.graphs.configs import GRACEConfig
from counterpoint.graphs.nodes.base import NodeSystem
from counterpoint.graphs.nodes.encoders import GCN
from counterpoint.graphs.nodes.views import drop_edges, mask_features


class GRACE(NodeSystem):
    """The system `grace`."""

    Config = GRACEConfig
    presets = GRACEConfig.presets

    def __init__(self, config: GRACEConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.encoder = GCN(assets["width"], [config.hidden, config.dim], config.activation)
        self.projector = nn.Sequential(
            nn.Linear(config.dim, config.projector), nn.ELU(), nn.Linear(config.projector, config.dim)
        )
        self.contrast = contrast_of(config, NTXent(config.temperature))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        out = {}
        for name, edge_p, mask_p in zip(
            ("view1", "view2"), self.config.edge_drop, self.config.feature_mask, strict=True
        ):
            x, edges = mask_features(batch["x"], mask_p), drop_edges(batch["edge_index"], edge_p)
            out[name] = self.projector(self.encoder(x, edges))
        return out

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return contrast_terms(self.contrast, "nt_xent", embeddings, batch)
