r"""MEOW: a coarse and a fine view of every node of the target type, negatives weighted by clusters.

    L = L_info + lam L_proto          anchors: the coarse view; keys and clusters: the fine view

Coarse: the node's features over the mean of its meta-path graphs. Fine: every meta-path on its own, with what lies on
the way, once as it is and once masked, put together by attention; its vectors are what is embedded. k-means runs on the
fine projections of every step, with the same seeds each time. The released code keeps the vectors of its last training
step, dropout included; here they are made without dropout. Of equal neighbours by PathSim those with the smaller
number stay, where the released code leaves them to an unstable sort. Features that are given per meta-path (the
released AMiner files) are not read. The settings for DBLP, AMiner and IMDB stand in the released utils/params.py.

Source: Yu, Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Weighted Negative Samples", SDM
2023; jianxiangyu/MEOW at 6a072d7. Loss, gradients, clusters and vectors are compared with it in float64; the tables of
the paper are not.

Where its terms stand:

    L_info                 graphs/hetero/objectives.py: parted_loss
    L_proto                graphs/hetero/objectives.py: prototype_loss
    clusters               graphs/hetero/kmeans.py: cluster_runs, inner_product_kmeans, cluster_temperatures
    adjacencies and masks  graphs/hetero/views.py: hetero_views, normalized_walks, mask_walks, mask_entries
    both views             graphs/hetero/networks.py: MeowNetwork, PathContexts, PathEncoder, ViewAttention
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets
from counterpoint.graphs.hetero.base import HeteroSystem
from counterpoint.graphs.hetero.configs import MeowConfig
from counterpoint.graphs.hetero.graph import HeteroGraph
from counterpoint.graphs.hetero.kmeans import cluster_runs
from counterpoint.graphs.hetero.networks import MeowNetwork
from counterpoint.graphs.hetero.objectives import parted_loss, prototype_loss
from counterpoint.graphs.hetero.views import HeteroViews, hetero_views

T = TypeVar("T")


class Meow(HeteroSystem):
    """The system `meow`."""

    Config = MeowConfig
    presets = MeowConfig.presets
    loss_weights = {}  # noqa: RUF012 - set per configuration below

    def __init__(self, config: MeowConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        most = max(config.clusters)
        if most > assets["nodes"]:
            raise InputError(f"--clusters is {config.clusters}; the graph has {assets['nodes']} nodes, give fewer")
        paths = assets["metapaths"]
        self.neighbours = _per_path(config.neighbours, paths, "neighbours")
        self.edge_mask = _per_path(config.edge_mask, paths, "edge_mask")
        ways = [path[1:-1] for path in paths]
        self.network = MeowNetwork(assets["target"], assets["widths"], ways, config.hidden, config.dim, config.dropout)
        self.loss_weights = {"info": 1.0, "prototype": config.prototype_weight}
        self.register_buffer("lowest_loss", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("stale_epochs", torch.tensor(0))
        self._last_loss = math.inf

    def views_of(self, graph: HeteroGraph) -> HeteroViews:
        """Masks are drawn from `train.seed`, so that a loaded or resumed run has the same."""
        c = self.config
        return hetero_views(graph, self.neighbours, self.edge_mask, c.feature_mask, c.train.seed)

    def represent(self, views: HeteroViews) -> Tensor:
        return self.network(views)[1]

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        coarse, fine = self.network.contrasted(batch["views"])
        return {"coarse": coarse, "fine": fine}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        coarse, fine = embeddings["coarse"], embeddings["fine"]
        runs = cluster_runs(fine, self.config.clusters, self.config.temperature)
        terms = {
            "info": parted_loss(coarse, fine, runs, self.config.temperature),
            "prototype": prototype_loss(coarse, runs),
        }
        self._last_loss = float(sum(self.loss_weights[name] * term.detach() for name, term in terms.items()))
        return terms

    def after_epoch(self) -> None:
        """Ends the training after `patience` epochs without a lower loss."""
        if self._last_loss < self.lowest_loss:
            self.lowest_loss.fill_(self._last_loss)
            self.stale_epochs.zero_()
        else:
            self.stale_epochs.add_(1)
        if self.config.patience and self.stale_epochs >= self.config.patience:
            self.trainer.should_stop = True


def _per_path(given: Sequence[T], paths: Sequence[Sequence[str]], option: str) -> tuple[T, ...]:
    """One value for each meta-path."""
    if len(given) not in (1, len(paths)):
        names = ", ".join("-".join(path) for path in paths)
        raise InputError(
            f"--{option} has {len(given)} numbers and the graph {len(paths)} meta-paths ({names}); give one for each, "
            "or one for all"
        )
    return tuple(given) * (len(paths) if len(given) == 1 else 1)
