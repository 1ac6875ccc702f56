"""A heterogeneous graph: nodes of several types, 0/1 relations between types, meta-paths by name, one file on disk."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from counterpoint.common.data.importing import require_file
from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError


@dataclass
class HeteroGraph:
    """Types with their numbers of nodes, features where a type has some, relations as 0/1 matrices (first type x second
    type), and of the target type the labels (-1 unknown) and the split. `metapaths` are sequences of types that begin
    and end with the target. `notes` say what the source held besides."""

    counts: dict[str, int]
    features: dict[str, sp.csr_matrix]
    relations: dict[tuple[str, str], sp.csr_matrix]
    target: str
    labels: np.ndarray
    split: np.ndarray
    metapaths: tuple[tuple[str, ...], ...] = ()
    notes: list[str] = field(default_factory=list)

    def relation(self, first: str, second: str) -> sp.csr_matrix | None:
        """The 0/1 matrix from one type to another, whichever way it is stored; None where there is none."""
        if (first, second) in self.relations:
            return self.relations[first, second]
        back = self.relations.get((second, first))
        return None if back is None else back.T.tocsr()

    def save(self, path: Path) -> None:
        """Write one `.npz` of plain arrays."""
        types = list(self.counts)
        parts: dict[str, Any] = {
            "types": np.array(types), "counts": np.array([self.counts[t] for t in types], dtype=np.int64),
            "target": np.array(self.target), "labels": self.labels, "split": self.split.astype(str),
            "metapaths": np.array(["\n".join(m) for m in self.metapaths], dtype=str),
            "relations": np.array(["\n".join(r) for r in self.relations], dtype=str),
        }  # fmt: skip
        for number, matrix in enumerate(self.relations.values()):
            parts |= _parts(f"relation{number}", matrix)
        for number, name in enumerate(types):
            if name in self.features:
                parts |= _parts(f"features{number}", self.features[name])
        with path.open("wb") as file:
            np.savez_compressed(file, **parts)


def _parts(name: str, matrix: sp.csr_matrix) -> dict[str, np.ndarray]:
    arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(matrix.shape)}
    return {f"{name}_{part}": array for part, array in arrays.items()}


def load_hetero(path: str | Path) -> HeteroGraph:
    """The graph that `data import hetero` wrote.

    Raises `InputError` naming the file and what is wrong with it.
    """
    path = require_file(path, (".npz",))
    try:
        check_npy(path)
        with np.load(path, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
        types = [str(t) for t in parts["types"]]
        counts = dict(zip(types, map(int, parts["counts"]), strict=True))
        names = [tuple(str(text).split("\n")) for text in parts["relations"]]
        relations = {(a, b): _matrix(parts, f"relation{i}", (counts[a], counts[b])) for i, (a, b) in enumerate(names)}
        features = {
            name: _matrix(parts, f"features{i}", (counts[name], None))
            for i, name in enumerate(types)
            if f"features{i}_data" in parts
        }
        target, labels = str(parts["target"]), parts["labels"].astype(np.int64)
        split = parts["split"].astype(object)
        if not len(labels) == len(split) == counts[target]:
            raise ValueError("its labels are not as many as its nodes")
        metapaths = tuple(tuple(str(text).split("\n")) for text in parts["metapaths"])
        graph = HeteroGraph(counts, features, relations, target, labels, split, metapaths)
        for metapath in metapaths:
            check_metapath(metapath, graph)
    except InputError as error:
        said = str(error)
        raise error if said.startswith(str(path)) else InputError(f"{path}: {said}") from None
    except (*BROKEN, IndexError) as error:
        raise unreadable_numpy(path, error) from None
    return graph


def _matrix(parts: dict[str, np.ndarray], name: str, shape: tuple[int, int | None]) -> sp.csr_matrix:
    data, indices, indptr, held = (parts[f"{name}_{part}"] for part in ("data", "indices", "indptr", "shape"))
    rows, columns = map(int, held)
    if rows != shape[0] or shape[1] not in (None, columns):
        raise ValueError(f"{name} is {rows} x {columns}, not as large as the node types")
    matrix = sp.csr_matrix((data, indices, indptr), shape=(rows, columns))
    matrix.check_format(full_check=True)  # a damaged index would be written to wherever it points
    if matrix.dtype.kind not in "fiu" or not np.isfinite(matrix.data).all():
        raise ValueError(f"{name} holds other than finite numbers")
    return matrix.astype(np.float32)


def parse_metapath(text: str, graph: HeteroGraph) -> tuple[str, ...]:
    """The types of a meta-path by name: `paper-author-paper`, or `PAP`, each letter a type's first.

    >>> graph = HeteroGraph({"paper": 1, "author": 1}, {}, {("paper", "author"): sp.csr_matrix([[1.0]])}, "paper",
    ...                     np.zeros(1, int), np.array([""], object))
    >>> parse_metapath("PAP", graph), parse_metapath("paper-author-paper", graph)
    (('paper', 'author', 'paper'), ('paper', 'author', 'paper'))
    """
    words = text.split("-") if "-" in text else list(text)
    found = tuple(_type_of(word.strip(), text, graph) for word in words)
    check_metapath(found, graph)
    return found


def _type_of(word: str, text: str, graph: HeteroGraph) -> str:
    exact = [t for t in graph.counts if t.lower() == word.lower()]
    near = exact or [t for t in graph.counts if len(word) == 1 and t.lower().startswith(word.lower())]
    if len(near) != 1:
        why = f"may be {' or '.join(near)}; write the names out, joined by -" if near else "is no node type here"
        raise InputError(f"meta-path {text!r}: {word!r} {why} (types: {', '.join(graph.counts)})")
    return near[0]


def check_metapath(metapath: tuple[str, ...], graph: HeteroGraph) -> None:
    """Raise `InputError` where a meta-path cannot be walked from the target type to itself."""
    name = "-".join(metapath)
    if len(metapath) < 3 or metapath[0] != graph.target or metapath[-1] != graph.target:
        raise InputError(f"meta-path {name}: it must lead from the target type {graph.target} over others back to it")
    for first, second in itertools.pairwise(metapath):
        if graph.relation(first, second) is None:
            known = ", ".join("-".join(r) for r in graph.relations)
            raise InputError(f"meta-path {name}: nothing joins {first} and {second}; the relations are {known}")
