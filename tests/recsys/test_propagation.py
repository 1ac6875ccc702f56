"""Products with sparse matrices, the normalised graph, means over layers."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recsys_formulas import adjacency, formula

from counterpoint.recsys.models.propagation import SparseMatrix, bipartite_adjacency, interaction_matrix, propagate

EDGES = [(0, 0), (0, 2), (1, 1), (2, 2), (2, 0), (2, 2)]


def dense(matrix):
    rows = torch.repeat_interleave(torch.arange(matrix.shape[0]), matrix.start.diff())
    return torch.sparse_coo_tensor(
        torch.stack([rows, matrix.column]), matrix.value, matrix.shape, check_invariants=True
    ).to_dense()


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31), st.booleans())
def test_products_and_gradients_are_those_of_the_dense_matrix(rows, columns, seed, square):
    made = sp.random_array((rows, rows if square else columns), density=0.4, rng=seed)
    made = made + made.T if square else made
    matrix, x = SparseMatrix(made).double(), formula(made.shape[1], 3, 0.2).requires_grad_()
    whole = torch.from_numpy(made.toarray())
    assert matrix.symmetric or not square
    torch.testing.assert_close(matrix(x), whole @ x)
    (ours,) = torch.autograd.grad(matrix(x).sin().sum(), x)
    (plain,) = torch.autograd.grad((whole @ x).sin().sum(), x)
    torch.testing.assert_close(ours, plain)


def test_gradients_of_a_matrix_that_is_not_symmetric_are_those_of_its_transpose():
    """LATTICE's row-normalised graphs: the matrix itself would be wrong."""
    matrix = SparseMatrix(sp.random_array((5, 5), density=0.5, rng=1)).double()
    assert not matrix.symmetric
    x = formula(5, 2, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(matrix, x)
    assert torch.autograd.gradgradcheck(matrix, x)


def test_rows_are_refused_that_do_not_fit():
    with pytest.raises(ValueError, match="3 columns cannot be applied to 4 rows"):
        SparseMatrix(sp.eye_array(3))(torch.ones(4, 1))


def test_the_graph_is_symmetric_and_normalised_by_degree():
    matrix = adjacency(EDGES, 4, 3)
    assert matrix.symmetric
    assert matrix.nnz == 10, "an edge counts once, however often it is there"
    whole = dense(matrix)
    degree = (whole > 0).sum(1).double()
    for node, other in whole.nonzero().tolist():
        assert float(whole[node, other]) == pytest.approx(float(degree[node] * degree[other]) ** -0.5, rel=2e-7)
    assert not whole[3].any(), "a user without items hears of nobody"
    assert float(torch.linalg.eigvalsh(whole).max()) == pytest.approx(1, abs=1e-6)


def test_ids_outside_of_the_tables_are_named():
    with pytest.raises(ValueError, match="item 3 is not one of the 3"):
        interaction_matrix(np.array([0, 0]), np.array([1, 3]), 1, 3)


@pytest.mark.parametrize("last", [False, True])
def test_layers_are_powers_of_the_matrix(last):
    matrix, x = adjacency(EDGES, 4, 3), formula(7, 2, 0.4)
    whole = dense(matrix)
    powers = [torch.linalg.matrix_power(whole, n) @ x for n in range(4)]
    expected = powers[3] if last else torch.stack(powers).mean(0)
    torch.testing.assert_close(propagate(matrix, x, 3, last=last), expected)


def test_renamed_users_and_items_are_propagated_alike():
    """Equivariance: the nodes' numbers carry no meaning."""
    swap = np.array([2, 0, 3, 1])
    other = adjacency([(int(np.flatnonzero(swap == u)[0]), i) for u, i in EDGES], 4, 3)
    x, nodes = formula(7, 2, 0.4), torch.from_numpy(np.concatenate([swap, [4, 5, 6]]))
    torch.testing.assert_close(propagate(adjacency(EDGES, 4, 3), x, 2)[nodes], propagate(other, x[nodes], 2))


def test_entries_follow_the_precision_of_the_module():
    matrix = SparseMatrix(bipartite_adjacency(interaction_matrix(np.array([0]), np.array([0]), 1, 1)))
    assert matrix(torch.ones(2, 1)).dtype == torch.float32
    assert matrix.double()(torch.ones(2, 1).double()).dtype == torch.float64
    assert not matrix.state_dict(), "what follows from the data is not kept in checkpoints"
