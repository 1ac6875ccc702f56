"""Graphs among items or among users: nearest neighbours by features, and who is met together; never a dense square."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from counterpoint.recsys.models.propagation import EPSILON

BLOCK = 2048
KEPT = 200


def neighbour_graph(
    features: Float[np.ndarray, "rows width"], k: int, *, binary: bool = False, block: int = BLOCK
) -> sp.csr_array:
    r"""[rows, rows] the k nearest rows of each by cosine, itself among them, normalised by degree:
    :math:`D^{-1/2} S D^{-1/2}` with S the similarities (or 1 where `binary`) and every degree k. Not symmetric.

    A row of zeros (nothing known) has no neighbours and is nobody's but by chance of ties at cosine 0.

    >>> neighbour_graph(np.eye(3), 1).toarray().round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, 1e-12)
    k = min(k, len(unit))
    columns, values = (np.empty((len(unit), k), dtype=kind) for kind in (np.int64, np.float64))
    for start in range(0, len(unit), block):
        part = slice(start, min(start + block, len(unit)))
        score = unit[part] @ unit.T
        best = np.argpartition(-score, k - 1, axis=1)[:, :k]
        columns[part], values[part] = best, np.take_along_axis(score, best, 1)
    known = length[:, 0] > 0
    rows = np.repeat(np.arange(len(unit)), k).reshape(columns.shape)[known].ravel()
    data = (np.ones_like(values) if binary else values)[known].ravel() / (k + EPSILON)
    return sp.csr_array((data, (rows, columns[known].ravel())), shape=(len(unit), len(unit)))


def co_occurrence(r: sp.csr_array, *, keep: int = KEPT, block: int = BLOCK) -> sp.csr_array:
    r"""[rows, rows] how many columns of R two rows share, :math:`R R^T` without its diagonal; the `keep` largest of
    each row. From R [users, items]: of users; from its transpose: of items.

    >>> co_occurrence(sp.csr_array(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]]))).toarray().tolist()
    [[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    r = sp.csr_array(r, dtype=np.float64)
    other = sp.csr_array(r.T)
    parts = []
    for start in range(0, r.shape[0], block):
        shared = sp.coo_array(r[start : start + block] @ other)
        own = shared.row + start != shared.col
        row, column, count = shared.row[own], shared.col[own], shared.data[own]
        order = np.lexsort((column, -count, row))
        row, column, count = row[order], column[order], count[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < keep
        shape = (min(block, r.shape[0] - start), r.shape[0])
        parts.append(sp.csr_array((count[kept], (row[kept], column[kept])), shape=shape))
    return sp.csr_array(sp.vstack(parts))


def shared_graph(r: sp.csr_array, k: int) -> sp.csr_array:
    """[rows, rows] exactly k weights a row that sum to one: the softmax of the k largest co-occurrences (counts).

    A row with fewer neighbours takes them again, the nearest first, until there are k (the official code draws the
    repetitions); one without any takes the k rows of most columns, by the softmax of their shares.

    >>> shared_graph(sp.csr_array(np.array([[1, 1], [1, 1], [1, 0]])), 2).toarray().round(3).tolist()
    [[0.0, 0.731, 0.269], [0.731, 0.0, 0.269], [0.5, 0.5, 0.0]]
    """
    counts, n = co_occurrence(r), r.shape[0]
    degree = np.diff(sp.csr_array(r).indptr)
    active = np.argsort(-degree, kind="stable")[:k]
    columns, weights = np.empty((n, k), dtype=np.int64), np.empty((n, k))
    for row in range(n):
        part = slice(counts.indptr[row], counts.indptr[row + 1])
        order = np.lexsort((counts.indices[part], -counts.data[part]))[:k]
        near, count = counts.indices[part][order], counts.data[part][order]
        if not len(near):
            near, count = active, degree[active] / max(degree[active].sum(), 1)
        columns[row], weights[row] = np.resize(near, k), np.resize(count, k)
    weights = np.exp(weights - weights.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(n), k)
    found = sp.csr_array((weights.ravel(), (rows, columns.ravel())), shape=(n, n))
    found.sum_duplicates()
    return found
