r"""What MEOW's network reads of a heterogeneous graph: features, contexts and two adjacencies for each meta-path.

    plain    d_i A_ji d_j             A: counts of the nearest by PathSim, d = (row sums of A)^-1/2
    masked   the same of the matrix of ones at what is left of A's places off the diagonal, plus I
    coarse   the mean of the plain ones

Masks (edges of each meta-path, entries of the target's features) are drawn once, from the seed, as the released code
does. Rows of features are divided by their sum there; here too, where none is negative.

Source: jianxiangyu/MEOW at 6a072d7, code_meow/module/preprocess.py and utils/load_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.graphs.hetero.graph import HeteroGraph
from counterpoint.graphs.hetero.metapaths import contexts, top_pathsim


class MetaPathPropagation:
    """A fixed matrix that node vectors are multiplied by; a dense one where that takes less memory.

    >>> MetaPathPropagation(sp.csr_matrix([[0.0, 2.0], [1.0, 0.0]]))(torch.tensor([[1.0], [3.0]]))
    tensor([[6.],
            [1.]])
    """

    def __init__(self, matrix: sp.spmatrix | None, tensors: Sequence[Tensor] = ()) -> None:
        if matrix is not None:
            matrix, (rows, columns) = matrix.astype(np.float32), matrix.shape
            # An entry costs 4 bytes dense; sparse 20, and its mirror image for the backward pass as much again.
            dense = 40 * matrix.nnz > 4 * rows * columns
            tensors = (torch.from_numpy(matrix.toarray()),) if dense else (_coo(matrix), _coo(matrix.T))
        self.tensors = tuple(tensors)

    def __call__(self, x: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows dim"]:
        return self.tensors[0] @ x if len(self.tensors) == 1 else _SparseProduct.apply(*self.tensors, x)

    def to(self, *target: Any) -> MetaPathPropagation:
        """On a device, or of another type of number."""
        return MetaPathPropagation(None, [t.to(*target) for t in self.tensors])


class _SparseProduct(torch.autograd.Function):
    """A x whose backward pass reads the transposed matrix as it is stored: torch would sort its entries every time."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return torch.sparse.mm(matrix, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        return None, None, torch.sparse.mm(ctx.transposed, gradient)


def _coo(matrix: sp.spmatrix) -> Tensor:
    entries = sp.coo_matrix(sp.csr_matrix(matrix))  # in the order of rows, as coalesced tensors are
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data)
    return torch.sparse_coo_tensor(places, values, entries.shape, check_invariants=False).coalesce()


@dataclass
class HeteroViews:
    """The tensors of one graph, see the head of the file. `features` has no entry for types whose nodes stand for
    themselves. A batch holds it as one object: moved whole, never cut."""

    features: dict[str, Tensor]
    masked_features: Tensor
    contexts: list[list[tuple[str, MetaPathPropagation]]]
    plain: list[MetaPathPropagation]
    masked: list[MetaPathPropagation]
    coarse: MetaPathPropagation

    def to(self, *target: Any) -> HeteroViews:
        """On a device, or of another type of number."""
        return HeteroViews(
            {kind: x.to(*target) for kind, x in self.features.items()},
            self.masked_features.to(*target),
            [[(kind, mean.to(*target)) for kind, mean in path] for path in self.contexts],
            [a.to(*target) for a in self.plain],
            [a.to(*target) for a in self.masked],
            self.coarse.to(*target),
        )


def hetero_views(
    graph: HeteroGraph, neighbours: Sequence[int], edge_mask: Sequence[float], feature_mask: float, seed: int
) -> HeteroViews:
    """Draw the masks and build the tensors; `neighbours` and `edge_mask` have an entry for each meta-path."""
    rng = np.random.default_rng(seed)
    rows = {kind: normalized_rows(matrix) for kind, matrix in graph.features.items()}
    masked_rows = mask_entries(rows[graph.target], feature_mask, rng)
    plain, masked = [], []
    for metapath, most, share in zip(graph.metapaths, neighbours, edge_mask, strict=True):
        counts = top_pathsim(graph, metapath, most)
        plain.append(normalized_walks(counts))
        masked.append(normalized_walks(mask_walks(counts, share, rng)))
    return HeteroViews(
        {kind: _features(x) for kind, x in rows.items()},
        _features(masked_rows),
        [[(kind, MetaPathPropagation(mean)) for kind, mean in contexts(graph, path)] for path in graph.metapaths],
        [MetaPathPropagation(a) for a in plain],
        [MetaPathPropagation(a) for a in masked],
        MetaPathPropagation(sum(plain[1:], plain[0]) / len(plain)),
    )


def _features(x: sp.csr_matrix) -> Tensor:
    """Sparse where few entries are set."""
    return _coo(x) if x.nnz < 0.1 * x.shape[0] * x.shape[1] else torch.from_numpy(x.toarray())


def normalized_rows(x: sp.csr_matrix) -> sp.csr_matrix:
    """Each row divided by its sum (one without entries stays empty); features with negative entries as they are.

    >>> normalized_rows(sp.csr_matrix([[1.0, 3.0], [0.0, 0.0]])).toarray().tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    if x.nnz and x.data.min() < 0:
        return x
    sums = np.asarray(x.sum(1), dtype=np.float64).ravel()
    found = sp.csr_matrix(sp.diags(1 / np.where(sums == 0, 1, sums)) @ x)
    return found.astype(x.dtype)


def normalized_walks(counts: sp.csr_matrix) -> sp.csr_matrix:
    """d_i A_ji d_j with d = (row sums of A)^-1/2; a node without walks has d = 0."""
    sums = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    scale = sp.diags(np.where(sums > 0, 1 / np.sqrt(np.where(sums > 0, sums, 1)), 0))
    return sp.csr_matrix(scale @ counts.T @ scale).astype(np.float32)


def mask_walks(counts: sp.csr_matrix, share: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Ones where a walk leads to another node, but for a share of these places, and ones on the diagonal."""
    entries = counts.tocoo()
    places = np.flatnonzero((entries.row != entries.col) & (entries.data != 0))
    kept = rng.permutation(places)[int(share * len(places)) :]
    ones = np.ones(len(kept))
    left = sp.csr_matrix((ones, (entries.row[kept], entries.col[kept])), shape=counts.shape)
    return (left + sp.identity(counts.shape[0], format="csr")).tocsr()


def mask_entries(x: sp.csr_matrix, share: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Features of which a share of the entries that are set are 0."""
    entries = x.tocoo(copy=True)
    entries.data[rng.choice(entries.nnz, int(share * entries.nnz), replace=False)] = 0
    found = entries.tocsr()
    found.eliminate_zeros()
    return found
