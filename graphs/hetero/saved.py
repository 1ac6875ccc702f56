"""PyTorch Geometric's HeteroData as `torch.save` wrote it, read by PyTorch's restricted loader: no code of it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from counterpoint.common.data.importing import require_file
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.graphs.hetero.graph import HeteroGraph, parse_metapath

REMEDY = "write its edge_index tensors as TYPE-TYPE.npy (n x 2) and x as TYPE_feat.npy into a folder and import that"


def read_hetero_data(path: str | Path, target: str = "", metapaths: Sequence[str] = ()) -> HeteroGraph:
    """The graph of a saved HeteroData; `target` may be left out where one type has labels `y`.

    Raises:
        InputError: the file asks for anything but tensors and PyTorch Geometric's data classes, or is no such graph.
    """
    path = require_file(path, (".pt", ".pth"))
    data = _load(path)
    try:
        counts, features, relations, notes = _parts(data, path)
        return _graph(data, path, target, metapaths, counts, features, relations, notes)
    except InputError as error:
        said = str(error)
        raise error if said.startswith(str(path)) else InputError(f"{path}: {said}") from None


def _load(path: Path) -> Any:
    from torch_geometric.data import HeteroData
    from torch_geometric.data.hetero_data import BaseStorage, EdgeStorage, NodeStorage

    try:
        with torch.serialization.safe_globals([HeteroData, BaseStorage, NodeStorage, EdgeStorage]):
            data = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(data, HeteroData):
            raise InputError(f"{path}: holds a {type(data).__name__}, no HeteroData; {REMEDY}")
        return data
    except (ImportError, InputError):
        raise
    except Exception as error:  # zipfile's, the unpickler's, torch's: whatever a damaged file meets
        said = [line.partition("GLOBAL")[2].split() for line in str(error).splitlines() if "GLOBAL" in line]
        asked = said[0][0] if said and said[0] else ""
        why = f"it asks for {asked}" if asked else "it is damaged, or holds Python objects"
        raise InputError(f"{path}: cannot be read as tensors and HeteroData alone ({why}); {REMEDY}") from None


def _parts(data: Any, path: Path):
    try:
        stores = {str(t): dict(data[t].items()) for t in data.node_types}
        edges = {e: torch.as_tensor(data[e]["edge_index"]) for e in data.edge_types}
    except Exception as error:  # a damaged store
        why = type(error).__name__
        raise InputError(f"{path}: is no whole HeteroData ({why}); save it again, or {REMEDY}") from None
    features, counts, relations, notes = {}, {}, {}, []
    for kind, store in stores.items():
        x = store.get("x")
        if isinstance(x, torch.Tensor):
            if x.dim() != 2 or x.is_complex() or not torch.isfinite(x.to_dense()).all():
                raise InputError(f"{path}: x of {kind} must hold finite numbers, nodes x features")
            features[kind] = sp.csr_matrix(x.to_dense().float().numpy())
        said = store.get("num_nodes")
        counts[kind] = len(x) if kind in features else said if isinstance(said, int) and said > 0 else 0
    for (a, name, b), index in edges.items():
        if index.dim() != 2 or index.shape[0] != 2 or index.is_floating_point() or index.is_complex():
            raise InputError(f"{path}: edge_index of {a}-{name}-{b} must be 2 x edges of whole numbers")
        if a not in counts or b not in counts:
            raise InputError(f"{path}: {a}-{name}-{b} joins a type that has no nodes")
        for kind, ends in ((a, index[0]), (b, index[1])):
            most = int(ends.max()) if len(ends) else -1
            if not (kind in features or counts[kind]):
                raise InputError(f"{path}: type {kind} has neither x nor num_nodes; set data[{kind!r}].num_nodes")
            if most >= counts[kind] or (len(ends) and int(ends.min()) < 0):
                raise InputError(f"{path}: {a}-{name}-{b} names {kind} {most}, of which there are {counts[kind]}")
        pair, ends = ((b, a), index.flip(0)) if (b, a) in relations else ((a, b), index)
        shape = (counts[pair[0]], counts[pair[1]])
        matrix = sp.csr_matrix((np.ones(ends.shape[1], np.float32), ends.numpy()), shape=shape)
        if pair in relations:
            notes.append(f"{a}-{name}-{b} is taken together with the other edges between {a} and {b}")
            matrix = matrix + relations[pair]
        if doubled := int((matrix.data > 1).sum()):
            notes.append(f"{a}-{name}-{b}: {doubled} edge(s) named more than once count once")
        matrix.data[:] = 1
        relations[pair] = matrix
    return counts, features, relations, notes


def _graph(data, path, target, metapaths, counts, features, relations, notes) -> HeteroGraph:
    labelled = [str(t) for t in data.node_types if isinstance(data[t].get("y"), torch.Tensor)]
    target = target or (labelled[0] if len(labelled) == 1 else "")
    if target not in counts:
        what = f"--target {target!r} is no node type" if target else "say which type is embedded with --target"
        raise InputError(f"{path}: {what} ({', '.join(counts)})")
    if target not in features:
        raise InputError(f"{path}: the target type {target} has no features; set data[{target!r}].x")
    n, store = counts[target], data[target]
    labels, split = np.full(n, -1), np.full(n, "", dtype=object)
    if target in labelled:
        y = store["y"].reshape(-1)
        if len(y) != n or y.is_complex() or (y.is_floating_point() and not torch.equal(y, y.round())):
            raise InputError(f"{path}: y of {target} must hold one class number for each of {n} nodes")
        labels = y.long().numpy()
    for part in SPLITS:
        mask = store.get(f"{part}_mask")
        if isinstance(mask, torch.Tensor):
            if mask.shape != (n,):
                raise InputError(f"{path}: {part}_mask of {target} must have one entry for each of {n} nodes")
            split[mask.bool().numpy()] = part
    graph = HeteroGraph(counts, features, relations, target, labels, split, (), notes)
    joined = [t for t in counts if t != target and graph.relation(target, t) is not None]
    if not (metapaths or joined):
        raise InputError(f"{path}: nothing joins the target type {target} to another; name --metapaths")
    graph.metapaths = tuple(
        [parse_metapath(text, graph) for text in metapaths] or [(target, t, target) for t in joined]
    )
    return graph
