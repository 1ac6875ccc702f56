"""What the systems on a heterogeneous graph share: the nodes of its target type are the samples, a step sees all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.data.dataset import ManifestDataset
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import options_hash, values_hash
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.graphs.hetero.graph import HeteroGraph, load_hetero
from counterpoint.graphs.hetero.importing import GRAPH
from counterpoint.graphs.hetero.views import HeteroViews
from counterpoint.graphs.nodes.base import WholeGraph


@dataclass(frozen=True)
class HeteroData:
    """A graph and the manifest of its target's nodes, which says their labels and splits."""

    graph: HeteroGraph
    manifest: Manifest


def read_hetero(path: str) -> HeteroData:
    """The manifest and the graph beside it; every row names a node of its own.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    if not path:
        raise InputError("--data.manifest is not set; make one with `counterpoint graphs data import hetero`")
    manifest = Manifest.load(path)
    file = Path(manifest.folder / GRAPH)
    if not file.is_file():
        raise InputError(f"{path}: no {GRAPH} lies beside it; make both with `counterpoint graphs data import hetero`")
    graph = load_hetero(file)
    if "node" not in manifest.frame:
        raise InputError(f"{path}: has no column node; make it with `counterpoint graphs data import hetero`")
    count, rows = graph.counts[graph.target], manifest.frame["node"].tolist()
    seen: dict[int, int] = {}
    for place, node in enumerate(rows):
        if not isinstance(node, int | float) or not 0 <= node < count or node != int(node):
            raise InputError(f"{path}: row {place} names node {node}, none of the {count} of type {graph.target}")
        if seen.setdefault(int(node), place) != place:
            raise InputError(f"{path}: rows {seen[int(node)]} and {place} both name node {int(node)}; keep one")
    return HeteroData(graph, manifest)


class TargetNodes(ManifestDataset):
    """Nodes as the rows of a manifest; a batch is the whole graph with `rows`, the nodes that were asked for."""

    def __init__(self, manifest: Manifest, graph: HeteroGraph, views: HeteroViews) -> None:
        super().__init__(manifest, dict)
        self.graph, self.views = graph, views
        self.nodes = manifest.frame["node"].to_numpy(dtype=np.int64)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = self.row(position)
        label = {} if row.get("label") is None else {"label": row["label"]}
        node = int(self.nodes[position])
        named = {"index": int(self.indices[position]), "id": str(row["id"]), "group": str(row["group"])}
        return {**named, "row": node, **label}

    @cached_property
    def hash(self) -> str:
        graph = self.graph
        matrices = {f"features of {k}": m for k, m in graph.features.items()}
        matrices |= {"-".join(k): m for k, m in graph.relations.items()}
        parts = {f"{k} {part}": getattr(m, part) for k, m in matrices.items() for part in ("data", "indices", "indptr")}
        return options_hash(self.manifest.hash, graph=values_hash(parts), paths=["-".join(p) for p in graph.metapaths])

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """All nodes of the target and the graph; `index` counts the nodes."""
        count = self.graph.counts[self.graph.target]
        names = [str(i) for i in range(count)]
        asked = torch.tensor([s["row"] for s in samples], dtype=torch.int64)
        return {"index": torch.arange(count), "id": names, "group": names, "views": self.views, "rows": asked}


class HeteroSystem(ContrastiveSystem):
    """A system over the graph beside `config.data.manifest`. Encodes modality `node`.

    A subclass defines `views_of(graph)`, `represent(views)` and the losses.
    """

    modalities = ("node",)

    def __init__(self, config: Any, assets: Assets) -> None:
        super().__init__(config, assets)
        self._views: tuple[HeteroGraph, HeteroViews] | None = None
        self._known: tuple[tuple[int, ...], HeteroViews, Tensor] | None = None

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> HeteroData:
        """The graph; with assets its types, features and meta-paths are those of the training graph."""
        data = read_hetero(config.data.manifest)
        if assets is not None:
            _check_alike(cls.learn(config, data), assets, config.data.manifest)
        return data

    @classmethod
    def learn(cls, config: Any, data: HeteroData) -> Assets:
        """The target, the features of each type on a meta-path (its nodes where it has none), and the meta-paths."""
        graph = data.graph
        used = [graph.target, *dict.fromkeys(t for path in graph.metapaths for t in path if t != graph.target)]
        widths = {t: graph.features[t].shape[1] if t in graph.features else graph.counts[t] for t in used}
        return Assets(
            target=graph.target, widths=widths, without_features=[t for t in used if t not in graph.features],
            metapaths=[list(path) for path in graph.metapaths], nodes=graph.counts[graph.target],
        )  # fmt: skip

    def views_of(self, graph: HeteroGraph) -> HeteroViews:
        """What the network reads of a graph."""
        raise TypeError(f"{type(self).__name__} does not define views_of()")

    def represent(self, views: HeteroViews) -> Tensor:
        """Vectors of all nodes of the target."""
        raise TypeError(f"{type(self).__name__} does not define represent()")

    @property
    def views(self) -> HeteroViews:
        """Those of the system's graph, built once."""
        graph = self.data.graph
        if self._views is None or self._views[0] is not graph:
            self._views = (graph, self.views_of(graph))
        return self._views[1]

    def datasets(self) -> Datasets:
        """Nodes of the training and of the test split, all where none is named `train`; no validation, since a training
        step sees all of the graph, without labels."""
        graph, manifest = self.data.graph, self.data.manifest
        split = manifest.frame.get("split")
        parts = {
            name: TargetNodes(manifest.select(split=name), graph, self.views)
            for name in ("train", "test")
            if split is not None and (split == name).any()
        }
        train = parts["train"] if "train" in parts else TargetNodes(manifest, graph, self.views)
        return Datasets(train, test=parts.get("test"))

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        if isinstance(dataset, TargetNodes):
            return WholeGraph(1, seed)
        return super().batch_sampler(dataset, batch_size, seed)

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Vectors of the batch's nodes."""
        return {"node": self._all(batch["views"])[batch["rows"]]}

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """The same at unit length."""
        return {"node": normalize(self.features(batch)["node"], dim=1)}

    def _all(self, views: HeteroViews) -> Tensor:
        """Vectors of all nodes; without gradients they are computed once for all batches of the same weights."""
        if torch.is_grad_enabled() or self.training:
            return self.represent(views)
        weights = self.weights_state()
        if self._known is None or self._known[0] != weights or self._known[1] is not views:
            self._known = (weights, views, self.represent(views))
        return self._known[2]

    @torch.no_grad()
    def node_vectors(self) -> Tensor:
        """Vectors of all nodes of the target of the system's graph (inference), not normalised."""
        self.eval()
        return self.represent(self.views)


def _check_alike(found: Assets, trained: Assets, path: str) -> None:
    facts = {
        "target": "its target type is",
        "metapaths": "its meta-paths are",
        "without_features": "its types without features are",
        "widths": "its features of each type are",
    }
    for name, what in facts.items():
        if found[name] != trained[name]:
            raise InputError(
                f"{path}: {what} {found[name]} and the training graph's {trained[name]}; import the graph alike "
                "(nodes without features stand for themselves and are those of the training graph alone)"
            )
