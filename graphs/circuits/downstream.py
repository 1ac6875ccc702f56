"""From representations to capacitances: coupling regression on pairs of nets, ground-capacitance classes of nets.

The model reads circuit statistics and, when given, pretrained node vectors; it is trained on some circuits and tested
on others. Statistics are normalized by the training circuits alone.

Source: Shen et al., 2025 (arXiv 2507.06535); label rebalancing as in `counterpoint.common.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import f1_score
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from counterpoint.common.losses import BMC, BNI, GAI, BalancedSoftmax, label_density_weights
from counterpoint.graphs.circuits.graph import CapacitanceScale, CircuitGraph
from counterpoint.graphs.sampler import NeighborSampler, sample_links, seeded_batches

LOSSES = ("mse", "gai", "bmc", "bni", "lds")
CLASS_EDGES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class DownstreamConfig:
    """Defaults are the published ones; `small` runs on a laptop."""

    width: int = 48
    """Numbers for each of node type, statistics and pretrained vector; the layers have three times as many."""
    layers: int = 4
    dropout: float = 0.1
    fanout: tuple[int, ...] = (64, 64, 64, 64)
    batch_size: int = 128
    epochs: int = 200
    lr: float = 1e-4
    noise_sigma: float = 0.001
    """Noise of the balanced losses, in label units; fixed, as in the released code."""
    components: int = 8
    """Of GAI's Gaussian mixture over the training labels."""

    @classmethod
    def small(cls) -> DownstreamConfig:
        return cls(width=16, layers=2, fanout=(8, 8), batch_size=256, epochs=12, lr=2e-3, noise_sigma=0.1)


@dataclass
class Statistics:
    """Means and deviations of net and device statistics over the training circuits."""

    net: tuple[Tensor, Tensor]
    device: tuple[Tensor, Tensor]

    @classmethod
    def fit(cls, graphs: Sequence[CircuitGraph]) -> Statistics:
        def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
            spread = rows.std(0)
            # A column that never varies in training says nothing: it must not explode on a circuit where it does.
            return rows.mean(0), torch.where(spread > 1e-6, spread, torch.ones_like(spread))

        return cls(moments(torch.cat([g.net_x for g in graphs])), moments(torch.cat([g.device_x for g in graphs])))

    def nodes(self, graph: CircuitGraph) -> Float[Tensor, "nodes features"]:
        """Statistics of all nodes (nets, devices, pins), each in columns of its own, within five deviations; a pin has
        its terminal."""
        net = (graph.net_x - self.net[0]) / self.net[1]
        device = (graph.device_x - self.device[0]) / self.device[1]
        terminal = nn.functional.one_hot(graph.pin_terminal, 10).float()
        return torch.block_diag(net.clamp(-5, 5), device.clamp(-5, 5), terminal)


class CapacitanceModel(nn.Module):
    """x = [type || W1 statistics || W2 pretrained] -> SAGE layers with PReLU -> head.

    `n_outputs` 1 with pairs (coupling label in [0, 1]); several with nodes (class logits).
    """

    def __init__(
        self, n_statistics: int, n_pretrained: int, config: DownstreamConfig, n_outputs: int = 1, pairs: bool = True
    ):
        super().__init__()
        width = config.width
        self.kinds = nn.Embedding(3, width)
        self.statistics = nn.Linear(n_statistics, width)
        self.pretrained = nn.Linear(n_pretrained, width) if n_pretrained else None
        hidden = width * (3 if n_pretrained else 2)
        self.convolutions = nn.ModuleList(SAGEConv(hidden, hidden) for _ in range(config.layers))
        self.activations = nn.ModuleList(nn.PReLU() for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(
            nn.Linear(hidden * (2 if pairs else 1), hidden), nn.PReLU(), nn.Linear(hidden, n_outputs)
        )

    def forward(self, kind: Tensor, statistics: Tensor, pretrained: Tensor | None, edge_index: Tensor) -> Tensor:
        parts = [self.kinds(kind), self.statistics(statistics)]
        if self.pretrained is not None:
            parts.append(self.pretrained(pretrained))
        h = torch.cat(parts, 1)
        for convolution, activation in zip(self.convolutions, self.activations, strict=True):
            h = self.dropout(activation(convolution(h, edge_index)))
        return h

    def pair(self, h: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Label of pairs; symmetric in its two ends, since a capacitor has no direction."""
        one = self.head(torch.cat([h[source], h[target]], 1))
        other = self.head(torch.cat([h[target], h[source]], 1))
        return ((one + other) / 2).squeeze(1)


@dataclass
class Prepared:
    """A circuit with everything the model reads, and its labels."""

    name: str
    kind: Tensor
    edge_index: Tensor
    statistics: Tensor
    pretrained: Tensor | None
    links: Tensor
    link_label: Tensor
    ground_label: Tensor
    sampler: NeighborSampler = field(repr=False)


def prepare(
    graph: CircuitGraph, statistics: Statistics, coupling: CapacitanceScale, ground: CapacitanceScale | None,
    pretrained: Tensor | None, fanout: Sequence[int], disjoint: bool = True,
) -> Prepared:  # fmt: skip
    kind, edges = graph.homogeneous()
    label = coupling.to_label(graph.coupling_farad)
    known = graph.ground_farad > 0
    ground_label = torch.full_like(graph.ground_farad, float("nan"))
    if ground is not None:
        ground_label[known] = ground.to_label(graph.ground_farad[known]).double()
    return Prepared(
        graph.name, kind, edges, statistics.nodes(graph), pretrained, graph.coupling, label, ground_label,
        NeighborSampler(edges, len(kind), fanout, disjoint=disjoint),
    )  # fmt: skip


class DensityWeighted(nn.Module):
    """Squared error weighted by one over the smoothed density of the label among `labels` (LDS)."""

    def __init__(self, labels: Float[Tensor, " samples"]):
        super().__init__()
        order = labels.argsort()
        self.register_buffer("labels", labels[order])
        self.register_buffer("weights", label_density_weights(labels)[order])

    def forward(self, prediction: Float[Tensor, " batch"], target: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Mean over rows; a target between two labels has the weight of the larger."""
        place = torch.searchsorted(self.labels, target.contiguous()).clamp_max(len(self.labels) - 1)
        return (self.weights[place] * (prediction - target).square()).mean()


def balanced_loss(name: str, labels: Tensor, sigma: float, components: int, seed: int) -> nn.Module:
    """`mse`; a balanced mean squared error: GAI (Gaussian mixture), BMC (batch), BNI (buckets of the labels); or `lds`,
    weights by label density."""
    if name == "mse":
        return nn.MSELoss()
    if name == "lds":
        return DensityWeighted(labels)
    if name == "bmc":
        return BMC(sigma, learnable=False)
    if name == "gai":
        count = min(components, len(torch.unique(labels)))
        mixture = GaussianMixture(count, random_state=seed).fit(labels.double().numpy()[:, None])
        means, variances, weights = mixture.means_[:, 0], mixture.covariances_[:, 0, 0], mixture.weights_
        return GAI(*(torch.from_numpy(x).float() for x in (means, variances, weights)), sigma, learnable=False)
    if name == "bni":
        counts, edges = np.histogram(labels.numpy(), bins=50, range=(0.0, 1.0))
        used = counts > 0
        centres, share = (edges[1:] + edges[:-1])[used] / 2, counts[used] / counts.sum()
        return BNI(torch.from_numpy(centres).float(), torch.from_numpy(share).float(), sigma, learnable=False)
    raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}")


def train_coupling(
    train: Sequence[Prepared], config: DownstreamConfig, *, loss: str = "mse", seed: int = 0
) -> CapacitanceModel:
    """Regress coupling labels on the training circuits' pairs of nets, each in a neighbourhood of its own."""
    n_pretrained = 0 if train[0].pretrained is None else train[0].pretrained.shape[1]
    labels = torch.cat([p.link_label for p in train])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CapacitanceModel(train[0].statistics.shape[1], n_pretrained, config)
        objective = balanced_loss(loss, labels, config.noise_sigma, config.components, seed)
        parameters = [*model.parameters(), *objective.parameters()]
        optimizer = torch.optim.Adam(parameters, config.lr)
        model.train()
        for epoch in range(config.epochs):
            for circuit in train:
                for chosen, generator in seeded_batches(
                    len(circuit.link_label), config.batch_size, seed=seed, epoch=epoch
                ):
                    predicted = _predict_links(model, circuit, chosen, generator)
                    value = objective(predicted, circuit.link_label[chosen])
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
    return model.eval()


def _predict_links(model: CapacitanceModel, circuit: Prepared, chosen: Tensor, generator: torch.Generator) -> Tensor:
    batch = sample_links(circuit.sampler, circuit.links, ("node", "node"), chosen, generator)
    nodes = batch.subgraph.node["node"]
    pretrained = None if circuit.pretrained is None else circuit.pretrained[nodes]
    h = model(
        circuit.kind[nodes], circuit.statistics[nodes], pretrained, batch.subgraph.edge_index["node", "to", "node"]
    )
    return model.pair(h, batch.source, batch.target)


@torch.no_grad()
def predict_coupling(model: CapacitanceModel, circuit: Prepared, config: DownstreamConfig, seed: int = 0) -> Tensor:
    """Predicted labels of all the circuit's coupling pairs."""
    parts = [
        _predict_links(model, circuit, chosen, generator)
        for chosen, generator in seeded_batches(
            len(circuit.link_label), config.batch_size, seed=seed, epoch=0, shuffle=False
        )
    ]
    return torch.cat(parts)


def regression_figures(predicted: Tensor, label: Tensor) -> dict[str, float]:
    """MAE, MSE, R2 over all pairs, and the MAE of the fifth of the label range that holds the fewest pairs."""
    error = (predicted - label).abs().double()
    spread = (label - label.mean()).square().sum().clamp_min(1e-12)
    bucket = (label * 5).long().clamp(0, 4)
    counts = torch.bincount(bucket, minlength=5)
    rare = int(torch.where(counts > 0, counts, counts.max() + 1).argmin())
    return {
        "MAE": error.mean().item(),
        "MSE": error.square().mean().item(),
        "R2": 1 - (error.square().sum() / spread).item(),
        "MAE of the rarest fifth": error[bucket == rare].mean().item(),
    }


def train_ground(
    train: Sequence[Prepared], config: DownstreamConfig, *, balanced: bool, seed: int = 0
) -> CapacitanceModel:
    """Classify nets by ground capacitance into five classes (label edges 0.2, 0.4, 0.6, 0.8), full graph."""
    n_pretrained = 0 if train[0].pretrained is None else train[0].pretrained.shape[1]
    counts = torch.zeros(5)
    for circuit in train:
        counts += torch.bincount(_classes(circuit)[1], minlength=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CapacitanceModel(train[0].statistics.shape[1], n_pretrained, config, n_outputs=5, pairs=False)
        objective = BalancedSoftmax(counts.clamp_min(1)) if balanced else nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam(model.parameters(), config.lr)
        model.train()
        for _ in range(config.epochs * 5):
            for circuit in train:
                rows, label = _classes(circuit)
                h = model(circuit.kind, circuit.statistics, circuit.pretrained, circuit.edge_index)
                value = objective(model.head(h[rows]), label)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return model.eval()


def _classes(circuit: Prepared) -> tuple[Tensor, Tensor]:
    rows = circuit.ground_label.isfinite().nonzero().squeeze(1)
    return rows, torch.bucketize(circuit.ground_label[rows].float(), torch.tensor(CLASS_EDGES))


@torch.no_grad()
def ground_figures(model: CapacitanceModel, circuit: Prepared) -> dict[str, float]:
    """Accuracy and macro F1 of the ground-capacitance classes."""
    rows, label = _classes(circuit)
    h = model(circuit.kind, circuit.statistics, circuit.pretrained, circuit.edge_index)
    predicted = model.head(h[rows]).argmax(1)
    return {
        "accuracy": (predicted == label).double().mean().item(),
        "macro F1": float(f1_score(label, predicted, average="macro", zero_division=0)),
    }
