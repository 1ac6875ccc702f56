r"""Message passing between users and items: the sparse normalised adjacency, its exact gradient, means over layers.

.. math:: \hat A = D^{-1/2} A D^{-1/2}, \qquad E^{(l)} = \hat A\, E^{(l-1)}, \qquad
          \bar E = \frac{1}{L + 1} \sum_{l=0}^{L} E^{(l)}

Users come first among the nodes, then items. :math:`\hat A` is symmetric, so that the gradient of :math:`\hat A X` is
:math:`\hat A G`: the same product again, nothing transposed. A weighted bag of rows (`embedding_bag`) is the fastest
sparse product that PyTorch has on CPU.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

EPSILON = 1e-7


class SparseMatrix(nn.Module):
    """A fixed sparse matrix [rows, columns] in compressed rows, applied to a dense one: `matrix(x)`.

    Its buffers move with the module and are not kept in checkpoints: they follow from the data. The gradient in x is
    the product with the transpose, which is the matrix itself where it is symmetric.

    Args:
        matrix: any scipy sparse matrix. Its values are kept in float64 beside those in the module's precision, so that
            a module cast to float64 has them whole.

    >>> double = SparseMatrix(sp.diags([2.0, 2.0]))
    >>> double.symmetric, double(torch.ones(2, 1)).tolist()
    (True, [[2.0], [2.0]])
    """

    start: Tensor
    column: Tensor
    value: Tensor

    def __init__(self, matrix: Any) -> None:
        super().__init__()
        csr = sp.csr_array(matrix)
        csr.sum_duplicates()
        self.shape = csr.shape
        self._exact: dict[str, np.ndarray] = {}
        self.symmetric = csr.shape[0] == csr.shape[1] and _is_symmetric(csr)
        self._keep("", csr)
        if not self.symmetric:
            self._keep("t_", sp.csr_array(csr.T))

    def _keep(self, prefix: str, csr: Any) -> None:
        values = {"start": csr.indptr, "column": csr.indices}
        for name, array in values.items():
            self.register_buffer(prefix + name, torch.from_numpy(array.astype(np.int64)), persistent=False)
        self._exact[prefix + "value"] = csr.data.astype(np.float64)
        value = torch.from_numpy(self._exact[prefix + "value"]).to(torch.get_default_dtype())
        self.register_buffer(prefix + "value", value, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "SparseMatrix":
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            setattr(self, name, torch.from_numpy(exact).to(getattr(self, name)))
        return self

    def forward(self, x: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows dim"]:
        """The matrix times x. Raises `ValueError` where x has another number of rows than the matrix columns."""
        if len(x) != self.shape[1]:
            raise ValueError(f"a matrix of {self.shape[1]} columns cannot be applied to {len(x)} rows")
        own = (self.start, self.column, self.value)
        back = own if self.symmetric else (self.t_start, self.t_column, self.t_value)
        return _Product.apply(x, own, back)

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return len(self.column)

    def extra_repr(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]}, {self.nnz} entries, {'' if self.symmetric else 'not '}symmetric"


class _Product(torch.autograd.Function):
    """A x with the gradient A^T g, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: tuple[Tensor, ...], back: tuple[Tensor, ...]) -> Tensor:
        ctx.own, ctx.back = own, back
        start, column, value = own
        x = x.contiguous()
        return F.embedding_bag(
            column, x, start, mode="sum", per_sample_weights=value.to(x.dtype), include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(grad, ctx.back, ctx.own), None, None


def _is_symmetric(csr: Any) -> bool:
    other = sp.csr_array(csr.T)
    other.sort_indices()
    csr.sort_indices()
    same = np.array_equal(csr.indptr, other.indptr) and np.array_equal(csr.indices, other.indices)
    return bool(same and np.array_equal(csr.data, other.data))


def interaction_matrix(
    users: Int[np.ndarray, "edges"], items: Int[np.ndarray, "edges"], n_users: int, n_items: int
) -> sp.csr_array:
    """R [n_users, n_items], 1 where a user has met an item, however often.

    Raises `ValueError` naming an id outside of the tables.
    """
    for name, ids, size in (("user", users, n_users), ("item", items, n_items)):
        if len(ids) and (ids.min() < 0 or ids.max() >= size):
            wrong = ids[(ids < 0) | (ids >= size)][0]
            raise ValueError(f"{name} {wrong} is not one of the {size} {name}s counted from 0")
    r = sp.csr_array((np.ones(len(users)), (users, items)), shape=(n_users, n_items))
    r.sum_duplicates()
    r.data[:] = 1.0
    return r


def bipartite_adjacency(r: sp.csr_array, epsilon: float = EPSILON) -> sp.csr_array:
    r"""[nodes, nodes] :math:`D^{-1/2} A D^{-1/2}` of A = [[0, R], [R^T, 0]], degrees raised by `epsilon` as in
    MMRec's codes (5e-8 of a weight at most; nodes without an edge have none here either).

    >>> bipartite_adjacency(interaction_matrix(np.array([0, 0]), np.array([0, 1]), 1, 2), 0.0).toarray().round(3)[0]
    array([0.   , 0.707, 0.707])
    """
    a = sp.csr_array(sp.block_array([[None, r], [r.T, None]]))
    degree = np.asarray((a > 0).sum(1)).ravel() + epsilon
    scale = np.where(degree > epsilon, degree, np.inf) ** -0.5
    # Scaled entry by entry: (s_i s_j) is the same number both ways, (s_i a) s_j may not be.
    a = sp.coo_array(a)
    return sp.csr_array((scale[a.row] * scale[a.col] * a.data, (a.row, a.col)), shape=a.shape)


def propagate(
    matrix: SparseMatrix, x: Float[Tensor, "nodes dim"], layers: int, *, last: bool = False
) -> Float[Tensor, "nodes dim"]:
    """Mean of layers 0 to `layers` (LightGCN), or the last one alone.

    >>> propagate(SparseMatrix(sp.eye(2)), torch.ones(2, 1), 3).tolist()
    [[1.0], [1.0]]
    """
    total = x
    for _ in range(layers):
        x = matrix(x)
        total = x if last else total + x
    return total if last else total / (layers + 1)
