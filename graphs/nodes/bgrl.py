r"""BGRL: bootstrapped graph latents, contrast without negatives.

    L = - mean_i [ cos(q(f(G_1))_i, sg g(G_2)_i) + cos(q(f(G_2))_i, sg g(G_1)_i) ] / 2,    g <- m g + (1 - m) f

Source: Thakoor et al., "Large-Scale Representation Learning on Graphs via Bootstrapping", ICLR 2022.

Where its terms stand:

    L                      graphs/nodes/bgrl.py: BGRL.losses
    momentum target g      common/models/ema.py: EMATeacher
    views                  graphs/nodes/views.py: drop_edges, mask_features
    f                      graphs/nodes/encoders.py: GCN
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from counterpoint.common.models import EMATeacher
from counterpoint.common.trainers import Assets
from counterpoint.graphs.configs import BGRLConfig
from counterpoint.graphs.nodes.base import NodeSystem
from counterpoint.graphs.nodes.encoders import GCN
from counterpoint.graphs.nodes.views import drop_edges, mask_features


class BGRL(NodeSystem):
    """The system `bgrl`."""

    Config = BGRLConfig
    presets = BGRLConfig.presets

    def __init__(self, config: BGRLConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        self.encoder = GCN(assets["width"], [config.hidden, config.dim], config.activation)
        self.teacher = EMATeacher(self.encoder, config.momentum)
        self.predictor = nn.Sequential(
            nn.Linear(config.dim, config.predictor), nn.PReLU(), nn.Linear(config.predictor, config.dim)
        )

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        out = {}
        for number, (edge_p, mask_p) in enumerate(
            zip(self.config.edge_drop, self.config.feature_mask, strict=True), start=1
        ):
            x, edges = mask_features(batch["x"], mask_p), drop_edges(batch["edge_index"], edge_p)
            out[f"predicted{number}"] = self.predictor(self.encoder(x, edges))
            out[f"target{number}"] = self.teacher(x, edges)
        return out

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        one = cosine_similarity(embeddings["predicted1"], embeddings["target2"].detach(), dim=1)
        two = cosine_similarity(embeddings["predicted2"], embeddings["target1"].detach(), dim=1)
        return {"bootstrap": -(one.mean() + two.mean()) / 2}
