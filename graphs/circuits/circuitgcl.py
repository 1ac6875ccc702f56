r"""CircuitGCL's pretraining: representation scattering on circuit graphs, no augmentation and no negatives.

    target encoder f_t:  L_t = - mean_i | u_i - c |^2,   u_i = f_t(G)_i / |f_t(G)_i|,  c = mean_i u_i
    online encoder f_o:  L_o = - mean_i cos( q(f_o(G)_i + A_hat^k f_o(G)_i), sg f_t(G)_i )
    once per epoch:      f_t <- m f_t + (1 - m) f_o

Both encoders see the node type alone (net, device, pin), so that what they learn transfers to other circuits. The two
losses share no parameter, so one Adam with two learning rates is the same as the two optimisers of the released code.
The topology term A_hat^k is SGRL's; CircuitGCL's released code returns before it (`topology_hops=0`).

Source: Shen et al., "Transferable Parasitic Estimation via Graph Contrastive Learning and Label Rebalancing in AMS
Circuits", 2025 (arXiv 2507.06535); He et al. (SGRL), NeurIPS 2024.

Where its terms stand:

    L_t                    graphs/circuits/scattering.py: scattering_loss
    L_o                    graphs/circuits/scattering.py: alignment_loss
    A_hat^k                graphs/circuits/scattering.py: aggregate
    update of f_t          graphs/circuits/circuitgcl.py: CircuitGCL.on_train_epoch_end
    label rebalancing      graphs/circuits/downstream.py: balanced_loss
    its losses             common/losses/rebalance.py: BMC, GAI, BNI, BalancedSoftmax, label_density_weights
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import ClusterGCNConv

from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets, OptimConfig, ParamGroup
from counterpoint.common.trainers.inputs import Input
from counterpoint.graphs.circuits.data import JoinedCircuits, circuit_datasets, whole_circuits
from counterpoint.graphs.circuits.graph import POWER_NETS, CircuitGraph
from counterpoint.graphs.circuits.scattering import aggregate, alignment_loss, scattering_loss
from counterpoint.graphs.configs import CircuitGCLConfig


class CircuitEncoder(nn.Module):
    """Embedding of the node type, then ClusterGCN convolutions with tanh and dropout."""

    def __init__(self, dim: int, layers: int, dropout: float, n_kinds: int = 3):
        super().__init__()
        self.kinds = nn.Embedding(n_kinds, dim)
        self.convolutions = nn.ModuleList(ClusterGCNConv(dim, dim) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, kind: Tensor, edge_index: Tensor) -> Tensor:
        h = self.kinds(kind)
        for convolution in self.convolutions:
            h = self.dropout(convolution(h, edge_index).tanh())
        return h


KIND = Input(
    "int64 type of every node of a flat circuit, or of several one after the other: 0 for each net, then 1 for each "
    "device, then 2 for each pin. Devices are the leaves of the hierarchy that have a model; plain capacitors and "
    "resistors (a value, no model) are parasitics and no nodes. Power nets are no nodes: those that the netlist "
    "declares global, and those whose name, or its part behind the last '/', matches the regular expression `power` as "
    f"a whole, whatever its case (where it is empty: {POWER_NETS}). Nets stand in the order in which the ports of the "
    "top cell, then the devices, then the capacitors name them first, devices as they are written, and pins by device "
    "and terminal: one for each terminal on a net that is a node.",
    first="nodes",
    free=("nodes",),
)
EDGES = Input(
    "int64 places of the two ends of every edge: device to its pin for every pin, then net to its pin for every pin, "
    "then all of them in the other direction. Capacitances are no edges.",
    ("edges",),
    first="ends",
    free=("edges",),
)


class CircuitGCL(ContrastiveSystem):
    """The system `circuitgcl`. Embeddings: `node` (online encoder)."""

    Config = CircuitGCLConfig
    presets = CircuitGCLConfig.presets
    modalities = ("node",)
    inputs: ClassVar[dict[str, Input]] = {"kind": KIND, "edge_index": EDGES}

    def __init__(self, config: CircuitGCLConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.online = CircuitEncoder(config.dim, config.layers, config.dropout)
        self.target = copy.deepcopy(self.online)
        self._kept: tuple[JoinedCircuits | None, tuple[Any, ...], Tensor] = (None, (), torch.empty(0))
        self.predictor = nn.Sequential(nn.Linear(config.dim, config.dim), nn.PReLU(), nn.Linear(config.dim, config.dim))

    @property
    def optim_config(self) -> OptimConfig:
        own = ParamGroup(prefix="target", lr_scale=self.config.target_lr_scale)
        return replace(super().optim_config, groups=(*super().optim_config.groups, own))

    def datasets(self) -> Datasets:
        train = self.config.train
        return circuit_datasets(self.config.data, self.config.fanout, train.on_error, train.max_bad)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        seeds = len(batch["index"])
        online = self.online(batch["kind"], batch["edge_index"])
        if self.config.topology_hops:
            online = online + aggregate(online, batch["edge_index"], self.config.topology_hops)
        target = self.target(batch["kind"], batch["edge_index"])
        return {"node": online[:seeds], "target": target[:seeds]}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "scatter": scattering_loss(embeddings["target"]),
            "align": alignment_loss(self.predictor(embeddings["node"]), embeddings["target"]),
        }

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The online encoder's representation of the seeds, not normalized: downstream models read its length too.

        In evaluation it is that of the whole circuit, the same in every batch; sampled neighbourhoods are for training,
        and for seeds whose circuits are not at hand. A batch that names no seeds is a circuit: all its nodes count.
        """
        whole = None if self.training else whole_circuits(batch)
        if "index" not in batch:
            return {"node": self.online(batch["kind"], batch["edge_index"])}
        if whole is None:
            return {"node": self.online(batch["kind"], batch["edge_index"])[: len(batch["index"])]}
        return {"node": self._vectors_of(whole)[batch["index"]]}

    def example(self) -> dict[str, Tensor]:
        """A whole circuit: an exported encoder has no seeds."""
        joined = self.datasets().train.joined
        nodes = joined.circuit == 0
        inside = nodes[joined.edge_index[0]]  # the first circuit's nodes come first
        return {"kind": joined.kind[nodes], "edge_index": joined.edge_index[:, inside]}

    def _vectors_of(self, whole: JoinedCircuits) -> Tensor:
        """Representations of all nodes of joined circuits, kept until the weights change or move."""
        device, weights = next(self.online.parameters()).device, self.weights_state()
        known, version, vectors = self._kept
        if known is not whole or version != weights:
            vectors = self.online(whole.kind.to(device), whole.edge_index.to(device))
            self._kept = (whole, weights, vectors)
        return vectors

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """The target follows the online encoder."""
        super().on_train_epoch_end()
        for mine, theirs in zip(self.target.parameters(), self.online.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.config.momentum)

    @torch.no_grad()
    def node_vectors(self, kind: Tensor, edge_index: Tensor) -> Tensor:
        """Representations of a whole graph at once (inference)."""
        self.eval()
        return self.online(kind, edge_index)

    def vectors(self, graph: CircuitGraph) -> Tensor:
        """Representations of a circuit's nodes (nets, devices, pins) for a downstream model."""
        return self.node_vectors(*graph.homogeneous())
