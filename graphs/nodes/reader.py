"""Attributed graphs in: Planetoid files, `.npz` arrays, any PyTorch Geometric `Data` in memory or saved as `.pt`."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.data.archives import packed
from counterpoint.common.data.importing import unreadable
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError

_MASKS = ("train_mask", "val_mask", "test_mask")


@dataclass
class NodeGraph:
    """One graph: features, both directions of every edge (no loops, no doubles), labels (-1 unknown) and, where the
    source has one, its public split (`train`, `val`, `test` or empty for each node). `notes` say how the source's
    edges were changed."""

    name: str
    x: Float[Tensor, "nodes features"]
    edge_index: Int[Tensor, "2 edges"]
    y: Int[Tensor, " nodes"]
    split: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def n_nodes(self) -> int:
        return len(self.x)

    @property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1


def simple_edges(edge_index: Tensor, n_nodes: int) -> Int[Tensor, "2 edges"]:
    """Undirected, without loops and doubles, sorted."""
    if edge_index.numel() and (edge_index.min() < 0 or edge_index.max() >= n_nodes):
        raise InputError(f"edge_index names a node outside 0..{n_nodes - 1}")
    pairs = torch.cat([edge_index, edge_index.flip(0)], 1)
    return torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1)


def _graph(path: Path, x: Tensor, edges: Tensor, y: Tensor, split: np.ndarray) -> NodeGraph:
    """The graph of a file's parts; refuses what nothing can be learnt from, and counts what `simple_edges` changes."""
    for what, found in (("node", len(x)), ("feature", x.shape[1])):
        if not found:
            raise InputError(f"{path}: holds no {what}; give a graph with nodes, features and edges")
    try:
        simple = simple_edges(edges, len(x))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not simple.shape[1]:
        raise InputError(f"{path}: holds no edge between two nodes; give a graph with nodes, features and edges")
    loops = int((edges[0] == edges[1]).sum())
    distinct = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    counts = {
        "loops left out": loops,
        "doubled edges left out": edges.shape[1] - loops - distinct.shape[1],
        "one-way edges given their other direction": simple.shape[1] - distinct.shape[1],
    }
    return NodeGraph(path.stem, x, simple, y, split, tuple(f"{n} {what}" for what, n in counts.items() if n))


def read_graph(path: str | Path) -> NodeGraph:
    """Read `name.npz`, `name.pt`, or `folder/ind.name` of a Planetoid set (`planetoid/ind.cora`).

    Raises `InputError` naming the file and what is wrong with it.
    """
    path = Path(path)
    if path.name.startswith("ind."):
        return read_planetoid(path.parent, path.name[4:])
    readers = {".npz": read_npz, ".pt": read_pt, ".pth": read_pt}
    if unpack := packed(path):
        raise InputError(f"{path}: {unpack}")
    if path.suffix not in readers:
        raise InputError(f"{path}: give a .npz file, a .pt file, or folder/ind.NAME of a Planetoid set")
    if not path.is_file():
        raise InputError(f"{path}: {unreadable(path)}")
    return readers[path.suffix](path)


def read_npz(path: str | Path) -> NodeGraph:
    """`x`, `edge_index`, and optionally `y` and `train_mask`, `val_mask`, `test_mask`; or adjacency, attributes and
    labels in CSR parts (`adj_*`, `attr_*`, `labels`), as gnn-benchmark stores them."""
    path = Path(path)
    try:
        check_npy(path)
        with np.load(path, allow_pickle=False) as archive:
            parts = {k: archive[k] for k in archive.files}
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable_numpy(path, error) from None
    if {"x", "edge_index"} <= parts.keys():
        return _from_parts(parts, path)
    needed = [f"{a}_{b}" for a in ("adj", "attr") for b in ("data", "indices", "indptr", "shape")] + ["labels"]
    if "x" in parts:
        raise InputError(f"{path}: lacks the array 'edge_index'; it holds {', '.join(parts)}")
    missing = [k for k in needed if k not in parts]
    if missing:
        raise InputError(
            f"{path}: lacks the array {missing[0]!r} (or x and edge_index); it holds {', '.join(parts) or 'nothing'}"
        )
    try:
        adjacency, features = (
            sp.csr_matrix((parts[f"{a}_data"], parts[f"{a}_indices"], parts[f"{a}_indptr"]), shape=parts[f"{a}_shape"])
            for a in ("adj", "attr")
        )
        for matrix in (adjacency, features):  # a damaged index would be written to wherever it points
            matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: is damaged ({' '.join(str(error).split())}); save it again") from None
    if not len(parts["labels"]) == adjacency.shape[0] == features.shape[0]:
        raise InputError(f"{path}: {adjacency.shape[0]} nodes, {features.shape[0]} rows of features, "
            f"{len(parts['labels'])} labels; one of each a node is needed")
    coo = adjacency.tocoo()
    edges = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    x = torch.from_numpy(features.toarray()).float()
    y = torch.from_numpy(parts["labels"].astype(np.int64))
    return _graph(path, x, edges, y, np.full(len(y), "", dtype=object))


def read_pt(path: str | Path) -> NodeGraph:
    """A PyTorch Geometric `Data` as `torch.save` wrote it, the processed file of a data set that holds one graph, or a
    dictionary with `x` and `edge_index`.

    PyTorch's restricted loader reads it: tensors, plain containers and PyTorch Geometric's own data classes, nothing
    else, and no code of the file runs.
    """
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    path = Path(path)
    try:
        with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # zipfile's, the unpickler's, torch's, the system's: whatever a damaged file meets
        reason = str(error).strip().splitlines()
        asked = next((line.partition("GLOBAL")[2].split()[0] for line in reason if "GLOBAL" in line), "")
        why = f"it asks for {asked}" if asked else (reason or [type(error).__name__])[0]
        if "pickle" in why.lower() or "weights_only" in why.lower():
            why = "it is damaged, or holds Python objects"
        raise InputError(
            f"{path}: cannot be read as tensors and PyTorch Geometric data alone ({why}); save it anew with "
            "torch.save({'x': data.x, 'edge_index': data.edge_index, 'y': data.y}, path)"
        ) from None
    if isinstance(found, tuple):  # a processed data set: (data, slices, ...)
        if len(found) > 1 and isinstance(found[1], dict) and any(len(s) > 2 for s in found[1].values()):
            raise InputError(f"{path}: holds several graphs; save the one to learn from")
        found = found[0] if found else None
    if hasattr(found, "to_dict"):
        found = found.to_dict()
    if not isinstance(found, dict) or not {"x", "edge_index"} <= found.keys():
        held = (
            f"it holds {', '.join(map(str, found))}" if isinstance(found, dict) else f"it is a {type(found).__name__}"
        )
        raise InputError(f"{path}: needs x and edge_index; {held or 'it is empty'}")
    return _from_parts(found, path)


def _from_parts(parts: dict[str, Any], path: Path) -> NodeGraph:
    """Arrays or tensors under PyTorch Geometric's names, checked."""
    try:
        known = {k: torch.as_tensor(parts[k]) for k in ("x", "edge_index", "y") if parts.get(k) is not None}
        known |= {m: torch.as_tensor(parts[m]).bool() for m in _MASKS if parts.get(m) is not None}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {error}") from None
    x, edges, y = known.get("x"), known.get("edge_index"), known.get("y")
    if x is None or x.dim() != 2:
        raise InputError(f"{path}: x must be nodes x features, got {None if x is None else tuple(x.shape)}")
    if edges is None or edges.dim() != 2 or edges.shape[0] != 2:
        raise InputError(f"{path}: edge_index must be 2 x edges, got {None if edges is None else tuple(edges.shape)}")
    if edges.is_floating_point() or edges.is_complex():
        raise InputError(f"{path}: edge_index must hold whole numbers, got {edges.dtype}")
    x = x.to_dense() if x.layout != torch.strided else x
    if x.is_complex():
        raise InputError(f"{path}: x must hold real numbers, got {x.dtype}")
    if not torch.isfinite(x).all():
        raise InputError(f"{path}: x holds NaN or infinity")
    if y is not None and (y.numel() != len(x) or (y.is_floating_point() and not torch.equal(y, y.round()))):
        raise InputError(f"{path}: y must hold one class number for each of {len(x)} nodes, got {tuple(y.shape)}")
    split = np.full(len(x), "", dtype=object)
    for part, mask in zip(SPLITS, _MASKS, strict=True):
        if mask not in known:
            continue
        rows = known[mask] if known[mask].dim() == 1 else known[mask][:, 0]  # several splits: the first
        if len(rows) != len(x):
            raise InputError(f"{path}: {mask} has {len(rows)} entries for {len(x)} nodes")
        split[rows.numpy()] = part
    label = torch.full((len(x),), -1) if y is None else y.reshape(-1).long()
    return _graph(path, x.float(), edges.long(), label, split)


class _PlanetoidUnpickler(pickle.Unpickler):
    """Planetoid's files are pickles. Only the few constructors that they need may be called: nothing else can run."""

    _ALLOWED: ClassVar[set[tuple[str, str]]] = {
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"), ("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix"),
        ("collections", "defaultdict"), ("__builtin__", "list"), ("builtins", "list"), ("copy_reg", "_reconstructor"),
        ("__builtin__", "object"), ("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes"),
        ("numpy._core.numeric", "_frombuffer"), ("numpy.core.numeric", "_frombuffer"),
    }  # fmt: skip
    _MOVED: ClassVar[dict[str, str]] = {
        "numpy.core.multiarray": "numpy._core.multiarray",
        "numpy.core.numeric": "numpy._core.numeric",
        "scipy.sparse.csr": "scipy.sparse._csr",
        "__builtin__": "builtins",
        "copy_reg": "copyreg",
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a Planetoid file has no use for")
        return super().find_class(self._MOVED.get(module, module), name)


def _unpickle(path: Path) -> Any:
    try:
        return _PlanetoidUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError:
        parts = "x, y, tx, ty, allx, ally, graph, test.index"
        raise InputError(f"{path}: no such file; a Planetoid set has {parts}") from None
    except (ImportError, OSError):
        raise
    except Exception as error:  # whatever a damaged pickle makes the unpickler, numpy or scipy meet
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: is no Planetoid file ({reason}); download it again") from None


def _planetoid_part(folder: Path, name: str, part: str) -> Any:
    """A file of the set, when it holds what it must: a sparse matrix, one-hot labels, or lists of neighbours."""
    path = folder / f"ind.{name}.{part}"
    found = _unpickle(path)
    try:
        if part == "graph":
            found = {int(node): [int(n) for n in neighbours] for node, neighbours in found.items()}
            good = bool(found) and min(found) >= 0
        elif part in ("y", "ty", "ally"):
            good = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind in "biuf" and found.size > 0
        else:
            good = sp.issparse(found) and min(found.shape) > 0
            if good:  # a damaged index would be written to wherever it points
                found = found.tocsr()
                found.check_format(full_check=True)
                good = found.dtype.kind in "biuf" and bool(np.isfinite(found.data).all())
    except Exception as error:
        raise InputError(f"{path}: is damaged ({' '.join(str(error).split())[:150]}); download it again") from None
    if not good:
        what = {"graph": "lists of neighbours"}.get(part, "labels" if part.endswith("y") else "a matrix of features")
        raise InputError(f"{path}: holds no {what.removeprefix('a ')}; download it again")
    return found


def read_planetoid(folder: str | Path, name: str) -> NodeGraph:
    """The eight files `ind.NAME.*` of a Planetoid set, with its public split.

    Test nodes that the index file leaves out (CiteSeer's isolated ones) become nodes without features or label.
    """
    folder = Path(folder)
    part = {k: _planetoid_part(folder, name, k) for k in ("x", "y", "tx", "ty", "allx", "ally", "graph")}
    sizes = {k: p.shape for k, p in part.items() if k != "graph"}
    for few, many in (("x", "y"), ("tx", "ty"), ("allx", "ally")):
        if sizes[few][0] != sizes[many][0]:
            a, b = (f"{sizes[k][0]} rows in {folder / f'ind.{name}.{k}'}" for k in (few, many))
            raise InputError(f"{a} and {b} must be as many; download them again")
    for wide in (("x", "tx", "allx"), ("y", "ty", "ally")):
        odd = next((k for k in wide if sizes[k][1] != sizes[wide[-1]][1]), None)
        if odd:
            raise InputError(
                f"{folder / f'ind.{name}.{odd}'}: {sizes[odd][1]} columns where ind.{name}.{wide[-1]} has "
                f"{sizes[wide[-1]][1]}; download it again"
            )
    index_file = folder / f"ind.{name}.test.index"
    if not index_file.is_file():
        raise InputError(f"{index_file}: no such file; it belongs to the eight files of a Planetoid set")
    try:
        test = np.array([int(line) for line in index_file.read_text().split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{index_file}: {error}; expected one node number a line") from None
    rows = sizes["allx"][0] + sizes["tx"][0]
    most = 2 * rows + 1000  # some isolated nodes are left out; a damaged number would be taken for a size
    if len(set(test.tolist())) < sizes["tx"][0] or len(test) > sizes["tx"][0] or not 0 <= min(test) <= max(test) < most:
        raise InputError(
            f"{index_file}: {len(test)} numbers for the {sizes['tx'][0]} nodes of ind.{name}.tx; it must name each of "
            f"them once, below {most}"
        )
    if max(max(part["graph"]), *(max(n, default=0) for n in part["graph"].values())) >= most:
        raise InputError(f"{folder / f'ind.{name}.graph'}: names a node beyond {most}; download it again")
    known, total = part["allx"].shape[0], max(part["allx"].shape[0] + part["tx"].shape[0], int(test.max()) + 1)
    total = max(total, max(part["graph"]) + 1)
    features = sp.lil_matrix((total, part["allx"].shape[1]), dtype=np.float32)
    labels = np.full(total, -1)
    features[:known] = part["allx"]
    labels[:known] = part["ally"].argmax(1)
    features[test] = part["tx"]
    labels[test] = np.where(part["ty"].sum(1) > 0, part["ty"].argmax(1), -1)
    pairs = [(a, b) for a, neighbours in part["graph"].items() for b in neighbours]
    split = np.full(total, "", dtype=object)
    split[: len(part["y"])] = "train"
    split[len(part["y"]) : len(part["y"]) + 500] = "val"
    split[test] = "test"
    split[labels < 0] = ""
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return _graph(Path(name), torch.from_numpy(features.toarray()), edges, torch.from_numpy(labels), split)


def from_data(data: Any, name: str = "graph") -> NodeGraph:
    """Any PyTorch Geometric `Data` with `x`, `edge_index`, and optionally `y` and the three split masks."""
    if data.x is None or data.edge_index is None:
        raise InputError("the Data object needs x and edge_index")
    return _from_parts(data.to_dict(), Path(name))


def stochastic_blocks(
    sizes: list[int], p_in: float, p_out: float, *, dim: int = 16, signal: float = 1.0, seed: int = 0
) -> NodeGraph:
    """A synthetic graph: blocks with edge probabilities `p_in` and `p_out`, Gaussian features round block means.

    Edges are drawn by their number (binomial) and then placed, in time linear in the edges.

    >>> g = stochastic_blocks([50, 50], 0.2, 0.02)
    >>> g.name, g.n_nodes, g.n_classes
    ('synthetic blocks', 100, 2)
    """
    rng = np.random.default_rng(seed)
    start = np.concatenate([[0], np.cumsum(sizes)])
    parts = []
    for a in range(len(sizes)):
        for b in range(a, len(sizes)):
            possible = sizes[a] * (sizes[a] - 1) // 2 if a == b else sizes[a] * sizes[b]
            count = rng.binomial(possible, p_in if a == b else p_out)
            parts.append(
                np.stack([rng.integers(sizes[a], size=count) + start[a], rng.integers(sizes[b], size=count) + start[b]])
            )
    y = np.repeat(np.arange(len(sizes)), sizes)
    means = rng.normal(size=(len(sizes), dim)) * signal
    x = means[y] + rng.normal(size=(len(y), dim))
    edges = simple_edges(torch.from_numpy(np.concatenate(parts, 1)), len(y))
    return NodeGraph(
        "synthetic blocks", torch.from_numpy(x).float(), edges, torch.from_numpy(y), np.full(len(y), "", dtype=object)
    )
