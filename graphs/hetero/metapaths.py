r"""Meta-path counts, PathSim and contexts by sparse products, a block of rows at a time.

    A_P = R_1 R_2 ... R_l                    (how many walks along the meta-path P join two target nodes)
    s_ij = 2 A_ij / (A_ii + A_jj)            (PathSim)

No matrix of all pairs appears: a block holds at most `budget` products, then only the neighbours kept of its rows stay.
Compared with the counts that jianxiangyu/MEOW stores for ACM and IMDB (equal).

Source: Sun et al., "PathSim", VLDB 2011.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from counterpoint.graphs.hetero.graph import HeteroGraph

BUDGET = 20_000_000
"""Products of a block of rows."""


def halves(graph: HeteroGraph, metapath: Sequence[str]) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Two factors L, R with A_P = L R; both are as sparse as half of the walk."""
    steps = [graph.relation(a, b).astype(np.float64) for a, b in itertools.pairwise(metapath)]
    middle = len(steps) // 2
    return _product(steps[:middle]), _product(steps[middle:])


def _product(steps: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    found = steps[0]
    for step in steps[1:]:
        found = (found @ step).tocsr()
    return found.tocsr()


def count_blocks(
    left: sp.csr_matrix, right: sp.csr_matrix, budget: int = BUDGET
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """(first row, counts of these rows), so many rows at a time as `budget` products allow, at least one."""
    work = np.cumsum(left.astype(bool).astype(np.int64) @ np.diff(right.indptr))
    start = 0
    while start < left.shape[0]:
        done = work[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(work, done + budget, side="right")))
        yield start, (left[start:stop] @ right).tocsr()
        start = stop


def diagonal(left: sp.csr_matrix, right: sp.csr_matrix) -> np.ndarray:
    """A_ii of every node, without the product."""
    return np.asarray(left.multiply(right.T.tocsr()).sum(1)).ravel()


def top_pathsim(graph: HeteroGraph, metapath: Sequence[str], most: int, budget: int = BUDGET) -> sp.csr_matrix:
    """The counts of each node's `most` neighbours of largest PathSim (0: all), itself among them.

    Of equal ones those with the smaller number stay; the released code leaves them to an unstable sort.
    """
    left, right = halves(graph, metapath)
    own = diagonal(left, right)
    parts = []
    for start, block in count_blocks(left, right, budget):
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        if most:
            similarity = 2 * block.data / (own[start + rows] + own[block.indices])
            order = np.lexsort((block.indices, -similarity, rows))
            place = np.arange(len(order)) - block.indptr[rows[order]]
            kept = order[place < most]
        else:
            kept = np.arange(block.nnz)
        parts.append(sp.csr_matrix((block.data[kept], (rows[kept], block.indices[kept])), shape=block.shape))
    return sp.vstack(parts).tocsr()


def pair_count(graph: HeteroGraph, metapath: Sequence[str], budget: int = BUDGET) -> int:
    """How many ordered pairs of target nodes the meta-path joins, each node with itself among them."""
    return sum(block.nnz for _, block in count_blocks(*halves(graph, metapath), budget))


def contexts(graph: HeteroGraph, metapath: Sequence[str]) -> list[tuple[str, sp.csr_matrix]]:
    """What lies between the ends of a meta-path: for each type on the way, the 0/1 matrix of the nodes that its walks
    from each target node reach, divided by their number."""
    found, reached = [], None
    for first, second in itertools.pairwise(metapath[:-1]):
        step = graph.relation(first, second)
        reached = step if reached is None else (reached @ step).tocsr()
        reached = reached.astype(bool).astype(np.float32)
        number = np.maximum(np.asarray(reached.sum(1)).ravel(), 1)
        found.append((second, (sp.diags(1 / number) @ reached).tocsr().astype(np.float32)))
    return found
