"""What the systems on one graph share: the graph is the one training sample, a step sees all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import Samples, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.inputs import Input
from counterpoint.graphs.nodes.encoders import thin
from counterpoint.graphs.nodes.reader import NodeGraph, read_graph


class Nodes(Samples):
    """Nodes of a graph as samples (`index`, `id`, `group`, `label` where it is known); a batch of them is the whole
    graph with `rows`, the nodes that were asked for."""

    def __init__(self, graph: NodeGraph, rows: np.ndarray, features: Tensor | None = None):
        self.graph, self.rows, self.features = graph, rows, graph.x if features is None else features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = int(self.rows[position])
        label = int(self.graph.y[row])
        known = {"label": label} if label >= 0 else {}
        return {"index": row, "id": str(row), "group": str(row), **known}

    columns = ("label",)

    @property
    def ids(self) -> list[str]:
        return list(map(str, self.rows.tolist()))

    groups = ids

    @cached_property
    def hash(self) -> str:
        return graph_hash(self.graph, self.rows)

    def column(self, name: str) -> list[Any]:
        if name != "label":
            return super().column(name)
        return [label if label >= 0 else None for label in self.graph.y[torch.from_numpy(self.rows)].tolist()]

    def row_of(self, position: int) -> int:
        return int(self.rows[position])

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The graph and its features, all of it; `index` counts the nodes."""
        graph = self.graph
        names = [str(i) for i in range(graph.n_nodes)]
        return {
            "index": torch.arange(graph.n_nodes),
            "id": names,
            "group": names,
            "x": self.features,
            "edge_index": graph.edge_index,
            "rows": torch.tensor([s["index"] for s in samples], dtype=torch.int64),
        }


class WholeGraph(BatchSampler):
    """One batch an epoch: the graph. One sample stands for it, since every batch of `Nodes` holds all of it."""

    shared_out = False

    def batches(self, epoch: int) -> list[list[int]]:
        return [[0]]


def node_split(graph: NodeGraph, seed: int = 0) -> np.ndarray:
    """`train`, `val`, `test` or empty for each node: the source's own split; where it has none, 10, 10 and 80 % of the
    labelled nodes, drawn from `seed`; without labels every node trains."""
    if (graph.split != "").any():
        return graph.split
    known = np.flatnonzero(graph.y.numpy() >= 0)
    split = np.full(graph.n_nodes, "" if len(known) else "train", dtype=object)
    order = np.random.default_rng(seed).permutation(known)
    for name, rows in zip(SPLITS, np.split(order, [len(known) // 10, len(known) // 5]), strict=True):
        split[rows] = name
    return split


class NodeRows(Samples):
    """The features of each node as a sample of its own, without the graph: for stages that learn from rows."""

    def __init__(self, graph: NodeGraph):
        self.graph = graph

    def __len__(self) -> int:
        return self.graph.n_nodes

    @property
    def ids(self) -> list[str]:
        return list(map(str, range(len(self))))

    groups = ids

    @cached_property
    def hash(self) -> str:
        return graph_hash(self.graph, np.arange(len(self)))

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"index": position, "id": str(position), "group": str(position), "x": self.graph.x[position]}


def graph_hash(graph: NodeGraph, rows: np.ndarray) -> str:
    """Identity of a graph and of the nodes chosen from it."""
    return values_hash({"x": graph.x, "edges": graph.edge_index, "y": graph.y, "rows": rows})


FEATURES = Input(
    "float32 features of every node as they stand in the file, in the order of the training graph's (`assets.width`).",
    ("features",),
    first="nodes",
    free=("nodes",),
)
EDGES = Input(
    "int64 places of the two nodes of every edge, each edge in both directions and once, no node joined with itself.",
    ("edges",),
    first="ends",
    free=("edges",),
)


class NodeSystem(ContrastiveSystem):
    """A system over one `NodeGraph`, read from `config.data.path` or handed in (`use`). Encodes modality `node`."""

    modalities = ("node",)
    inputs: ClassVar[dict[str, Input]] = {"x": FEATURES, "edge_index": EDGES}

    def __init__(self, config: Any, assets: Assets) -> None:
        super().__init__(config, assets)
        self._known: tuple[tuple[int, ...], Tensor, Tensor] | None = None
        self._thin: tuple[NodeGraph, Tensor] | None = None

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> NodeGraph:
        """The graph of `data.path`; with assets its features are as wide as those of the training graph."""
        if not config.data.path:
            raise InputError("--data.path is not set; give a .npz or .pt file, or folder/ind.NAME of a Planetoid set")
        graph = read_graph(config.data.path)
        if graph.notes:
            note(f"{graph.name}: {', '.join(graph.notes)}")
        if assets is not None and graph.x.shape[1] != assets["width"]:
            raise InputError(
                f"{config.data.path}: its nodes have {graph.x.shape[1]} features and those of the training graph "
                f"{assets['width']}; bring the features to the training graph's order"
            )
        return graph

    @classmethod
    def learn(cls, config: Any, data: NodeGraph) -> Assets:
        """The width of the features, and how many nodes and classes the training graph has."""
        return Assets(width=data.x.shape[1], nodes=data.n_nodes, classes=data.n_classes)

    @property
    def graph(self) -> NodeGraph:
        """The configured graph, or the one handed in (`use`)."""
        return self.data

    @property
    def node_features(self) -> Tensor:
        """The graph's features, sparse where few are set."""
        if self._thin is None or self._thin[0] is not self.graph:
            self._thin = (self.graph, thin(self.graph.x))
        return self._thin[1]

    def datasets(self) -> Datasets:
        """Nodes of the training and of the test split; a training step sees all of the graph, without labels."""
        split = node_split(self.graph, self.config.train.seed)
        train, test = (
            Nodes(self.graph, np.flatnonzero(split == name), self.node_features) for name in ("train", "test")
        )
        if not len(train):
            train = Nodes(self.graph, np.arange(self.graph.n_nodes), self.node_features)
        return Datasets(train, test=test if len(test) else None)

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        if isinstance(dataset, Nodes):
            return WholeGraph(1, seed)
        return super().batch_sampler(dataset, batch_size, seed)

    def represent(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The encoder's node vectors."""
        return self.encoder(x, edge_index)

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Encoder outputs of the batch's nodes."""
        return {"node": self._all(batch)[batch["rows"]]}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The same at unit length; of a batch that asks for no rows, all nodes of the graph."""
        if "rows" not in batch:
            return {"node": normalize(self.represent(batch["x"], batch["edge_index"]), dim=1)}
        return {"node": normalize(self._all(batch)[batch["rows"]], dim=1)}

    def example(self) -> dict[str, Tensor]:
        """The graph, without rows that are asked for."""
        return {"x": self.graph.x, "edge_index": self.graph.edge_index}

    def _all(self, batch: Mapping[str, Any]) -> Tensor:
        """Vectors of all nodes; without gradients they are computed once for all batches of the same weights."""
        if torch.is_grad_enabled() or self.training:
            return self.represent(batch["x"], batch["edge_index"])
        weights = self.weights_state()
        if self._known is None or self._known[0] != weights or self._known[1] is not batch["x"]:
            self._known = (weights, batch["x"], self.represent(batch["x"], batch["edge_index"]))
        return self._known[2]

    @torch.no_grad()
    def node_vectors(self) -> Tensor:
        """Vectors of all nodes of the system's graph (inference), not normalized."""
        self.eval()
        return self.represent(self.node_features, self.graph.edge_index)
