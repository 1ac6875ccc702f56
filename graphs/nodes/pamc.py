r"""PamC: clusters an attributed graph; positives are graph neighbours, negatives are cluster sums.

    z = f(x)                                             (an MLP: the graph enters through the loss alone)
    L = alpha L_contrast + beta KL(P || Q)

Q: Student-t assignment to trainable centres, P its sharpened target, fixed per epoch.
First an autoencoder is trained on the features, then the centres start from k-means of its codes. The released code
loads autoencoder weights that SDCN's authors published; SDCN makes them with Adam over shuffled mini-batches of 256 for
30 epochs, and so does the first stage here. Its steps count: after as many full-batch steps, a tenth of them, the codes
hold next to nothing and the meta-node loss empties its clusters (README).

Source: Kulatilleke, Portmann, Chandra, 2022 (arXiv 2209.14067); Bo et al. (SDCN), WWW 2020.

Where its terms stand:

    L_contrast             graphs/nodes/metanodes.py: metanode_loss
    its full form          graphs/nodes/metanodes.py: full_loss
    weights of positives   graphs/nodes/metanodes.py: influence
    P, Q, KL(P || Q)       graphs/nodes/metanodes.py: target_distribution, student_assignment, dec_loss
    reconstruction         graphs/nodes/pamc.py: PamC.losses
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, Datasets, Stage
from counterpoint.graphs.configs import PamCConfig
from counterpoint.graphs.nodes.base import NodeRows, NodeSystem
from counterpoint.graphs.nodes.encoders import sparse_product
from counterpoint.graphs.nodes.metanodes import (
    dec_loss,
    full_loss,
    influence,
    metanode_loss,
    student_assignment,
    target_distribution,
)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])  # the code and the reconstruction are linear


class PamC(NodeSystem):
    """The system `pamc`. `assignment()` gives the clusters of the last epoch."""

    Config = PamCConfig
    presets = PamCConfig.presets
    loss_weights = {}  # noqa: RUF012 - set per configuration below

    def __init__(self, config: PamCConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        widths = [assets["width"], *config.widths]
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        clusters = config.clusters or assets["classes"]
        if clusters < 2:
            raise InputError("--clusters must be at least 2; set it, since the graph has no labels to count")
        self.centres = nn.Parameter(torch.zeros(clusters, config.widths[-1]))
        self.loss_weights = {"contrast": config.alpha, "kl": config.beta}

    def stages(self) -> Sequence[Stage]:
        contrast = Stage("contrast", trains=("encoder", "centres"))
        if not self.config.pretrain_epochs:
            return (contrast,)
        pretrain = Stage(
            "autoencoder",
            trains=("encoder", "decoder"),
            max_epochs=self.config.pretrain_epochs,
            batch_size=min(self.config.pretrain_batch, self.assets["nodes"]),
        )
        return (pretrain, contrast)

    def datasets(self) -> Datasets:
        """Rows of features for the autoencoder, then the graph."""
        return Datasets(NodeRows(self.graph)) if self.stage.name == "autoencoder" else super().datasets()

    def on_stage_start(self, stage: Stage) -> None:
        """k-means centres before the contrast begins (a resumed run has them already)."""
        if stage.name == "contrast" and not bool(self.centres.any()):
            codes = self.node_vectors()
            means = KMeans(len(self.centres), n_init=20, random_state=self.config.train.seed).fit(codes.numpy())
            with torch.no_grad():
                self.centres.copy_(torch.from_numpy(means.cluster_centers_))

    @cached_property
    def _positives(self) -> Tensor:
        return influence(
            self.graph.edge_index, self.graph.n_nodes, self.config.order, sum_orders=self.config.sum_orders
        )

    def represent(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        first, *rest = self.encoder
        return nn.Sequential(*rest)(sparse_product(x, first.weight) + first.bias)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"node": self.represent(batch["x"])}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        z = embeddings["node"]
        if self.stage.name == "autoencoder":
            return {"reconstruction": (self.decoder(z) - batch["x"]).square().mean(1)}
        q = student_assignment(z, self.centres)
        if self.config.full:
            contrast = full_loss(z, self._positives, self.config.tau)
        else:
            contrast = metanode_loss(z, self._positives, q.detach().argmax(1), self.config.tau)
        return {"contrast": contrast, "kl": dec_loss(q, target_distribution(q))}

    @torch.no_grad()
    def assignment(self) -> Tensor:
        """The cluster of each node."""
        return student_assignment(self.node_vectors(), self.centres).argmax(1)
