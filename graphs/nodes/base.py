"""What the systems on one graph share: the graph is the one training sample, a step sees all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.trainers import ContrastiveSystem, Datasets
from counterpoint.graphs.nodes.encoders import thin
from counterpoint.graphs.nodes.reader import NodeGraph, read_graph


class OneGraph(torch.utils.data.Dataset):
    """A data set of one sample: the graph."""

    def __init__(self, graph: NodeGraph, features: Tensor | None = None):
        self.graph, self.features = graph, graph.x if features is None else features

    def __len__(self) -> int:
        return 1

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"graph": self.graph}

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """All nodes as one batch; `index` counts the nodes."""
        graph = self.graph
        names = [str(i) for i in range(graph.n_nodes)]
        return {
            "index": torch.arange(graph.n_nodes),
            "id": names,
            "group": names,
            "x": self.features,
            "edge_index": graph.edge_index,
        }


class NodeRows(torch.utils.data.Dataset):
    """The features of each node as a sample of its own, without the graph: for stages that learn from rows."""

    def __init__(self, graph: NodeGraph):
        self.graph = graph

    def __len__(self) -> int:
        return self.graph.n_nodes

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"index": position, "id": str(position), "group": str(position), "x": self.graph.x[position]}


class NodeSystem(ContrastiveSystem):
    """A system over one `NodeGraph`, read from `config.data.path` or handed in. Encodes modality `node`."""

    modalities = ("node",)

    def __init__(self, config: Any, graph: NodeGraph | None = None) -> None:
        super().__init__(config)
        if graph is not None:
            self.__dict__["graph"] = graph

    @cached_property
    def graph(self) -> NodeGraph:
        if not self.config.data.path:
            raise InputError("data.path is not set; give a .npz or .pt file, or folder/ind.NAME of a Planetoid set")
        graph = read_graph(self.config.data.path)
        if graph.notes:
            note(f"{graph.name}: {', '.join(graph.notes)}")
        return graph

    @cached_property
    def features(self) -> Tensor:
        """The graph's features, sparse where few are set."""
        return thin(self.graph.x)

    def datasets(self) -> Datasets:
        one = OneGraph(self.graph, self.features)
        return Datasets(one, collate=one.collate)

    def represent(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The encoder's node vectors."""
        return self.encoder(x, edge_index)

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Encoder outputs of the whole graph, normalized."""
        return {"node": normalize(self.represent(batch["x"], batch["edge_index"]), dim=1)}

    @torch.no_grad()
    def node_vectors(self) -> Tensor:
        """Vectors of all nodes of the system's graph (inference), not normalized."""
        self.eval()
        return self.represent(self.features, self.graph.edge_index)
