"""REARM's graphs and network against the official code's numbers."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from recsys_formulas import adjacency, formula, frozen

from counterpoint.common.losses import InfoNCE
from counterpoint.recsys.models.bpr import bpr_rows
from counterpoint.recsys.models.homogeneous import co_occurrence, neighbour_graph, shared_graph
from counterpoint.recsys.models.propagation import SparseMatrix
from counterpoint.recsys.rearm import REARMNetwork, orthogonality

HELD = frozen("rearm")
USERS, ITEMS, DIM = HELD["size"]
MET = sp.csr_array((np.ones(len(HELD["edges"])), tuple(np.array(HELD["edges"]).T)), shape=(USERS, ITEMS))
RAW = [formula(ITEMS, 5, 0.5), formula(ITEMS, 3, 0.6)]
INTERESTS = [torch.from_numpy(MET @ x.numpy() / MET.sum(1)[:, None]) for x in RAW]
PARTS = [
    ("ly_norm", "norm"), ("self_i_attn1", "attend_self.0"), ("self_i_attn2", "attend_self.1"),
    ("mutual_i_attn1", "attend_other.0"), ("mutual_i_attn2", "attend_other.1"),
    ("user_id_embedding", "user_embedding"), ("item_id_embedding", "item_embedding"),
    ("image_i_trs", "project_items.0"), ("text_i_trs", "project_items.1"), ("image_u_trs", "project_users.0"),
    ("text_u_trs", "project_users.1"), ("mlp_u1", "user_knowledge.first"), ("mlp_u2", "user_knowledge.second"),
    ("mlp_i1", "item_knowledge.first"), ("mlp_i2", "item_knowledge.second"), ("meta_netu", "user_knowledge.compress"),
    ("meta_neti", "item_knowledge.compress"), ("in_proj_weight", "inward"), ("in_proj_bias", "shift"),
    ("out_proj.weight", "outward"), ("out_proj.bias", "out_shift"), ("linear_pre", "inward"),
    ("linear_out", "outward"), ("prl", "activation"),
]  # fmt: skip


def ours(name):
    for theirs, mine in PARTS:
        name = name.replace(theirs, mine)
    return name


def matrix(dense):
    return SparseMatrix(sp.csr_array(np.array(dense))).double()


def network():
    graphs = [matrix(HELD[name]) for name in ("item_graph", "user_graph")]
    net = REARMNetwork(
        adjacency(HELD["edges"], USERS, ITEMS), *graphs, (5, 3), dim=DIM, layers=2, rank=2, user_layers=2,
        self_dropout=0.0, cross_dropout=0.0,
    ).double()  # fmt: skip
    values = {}
    shapes = {name: p.shape for name, p in net.named_parameters()}
    for n, name in enumerate(HELD["names"]):
        phase, shape = 0.05 + 0.1 * n, shapes[ours(name)]
        if "prl" in name:
            value = torch.full(shape, 0.2 + phase / 100, dtype=torch.float64)
        elif name == "ly_norm.weight":
            value = 1 + 0.3 * formula(1, DIM, phase)[0]
        elif name.endswith(("in_proj_weight", "out_proj.weight")):
            value = formula(3 if "in_proj" in name else 1, 1, phase).reshape(shape)
        else:
            vector = 0.5 * formula(1, int(np.prod(shape)), phase).view(shape)
            value = formula(*shape, phase) if len(shape) == 2 else vector
        values[ours(name)] = value
    net.load_state_dict(values)
    return net


def terms(net, items, users):
    r, both = net(items, users)
    v, t = both[:, :DIM], both[:, DIM:]
    asked, shown = torch.tensor(HELD["users"]), torch.tensor(HELD["items"]) + USERS
    scores = [(r[asked] * r[shown[:, n]]).sum(1) for n in (0, 1)]
    nce = InfoNCE(0.6, symmetric=False)
    apart = [(v[rows], t[rows]) for rows in (asked.unique(), shown.unique())]
    return {
        "bpr": bpr_rows(*scores).mean(),
        "cl": 0.3 * sum(nce(*pair) for pair in apart),
        "diff": 0.2 * sum(orthogonality(v[rows], t[rows]) for rows in (asked, shown[:, 0])),
    }


def test_terms_gradients_and_scores_equal_the_official_code():
    net = network()
    raw = [x.clone().requires_grad_() for x in (*RAW, *INTERESTS)]
    found = terms(net, raw[:2], raw[2:])
    for name, value in found.items():
        assert float(value) == pytest.approx(HELD[name], rel=1e-10), name
    sum(found.values()).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert {ours(name) for name in HELD["gradients"]} == {name for name, g in gradients.items() if g is not None}
    for name, expected in HELD["gradients"].items():
        mine = gradients[ours(name)]
        theirs = torch.tensor(expected, dtype=torch.float64).view(mine.shape)
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    names = ("image_items", "text_items", "image_users", "text_users")
    for name, x in zip(names, raw):
        theirs = torch.tensor(HELD["raw_gradients"][name], dtype=torch.float64)
        torch.testing.assert_close(x.grad, theirs, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    r, _ = net(RAW, INTERESTS)
    torch.testing.assert_close(r[:USERS] @ r[USERS:].T, torch.tensor(HELD["scores"], dtype=torch.float64))


@pytest.mark.parametrize(("name", "met"), [("user", MET), ("item", sp.csr_array(MET.T))])
def test_co_occurrence_counts_what_two_have_in_common(name, met):
    counts = np.array(HELD[f"{name}_counts"])
    for block in (2, 100):
        assert (co_occurrence(met, block=block).toarray() == counts).all()
    few = co_occurrence(met, keep=2)
    assert np.diff(few.indptr).max() == 2
    assert (np.sort(-few.toarray(), 1)[:, :2] == np.sort(-counts, 1)[:, :2]).all(), "the largest are kept"


@pytest.mark.parametrize(("name", "met"), [("user", MET), ("item", sp.csr_array(MET.T))])
def test_shared_graphs_weigh_neighbours_as_the_official_ones(name, met):
    """Equal counts may be taken in another order: the weights of every row are the same numbers."""
    mine, theirs = shared_graph(met, 2).toarray(), np.array(HELD[f"{name}_co"])
    assert np.sort(mine, 1) == pytest.approx(np.sort(theirs, 1), abs=1e-12)
    assert (np.array(HELD[f"{name}_counts"])[mine > 0] > 0).all()


def test_strengthened_graphs_are_the_official_ones():
    near = 0.3 * neighbour_graph(RAW[0].numpy(), 3) + 0.7 * neighbour_graph(RAW[1].numpy(), 3, block=2)
    whole = 0.2 * np.array(HELD["item_co"]) + 0.8 * near.toarray()
    assert whole == pytest.approx(np.array(HELD["item_graph"]), abs=1e-12)


def test_rows_with_few_neighbours_or_none_have_their_weights_all_the_same():
    met = sp.csr_array(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]))
    found = shared_graph(met, 3).toarray()
    assert found.sum(1) == pytest.approx(np.ones(4))
    assert found[0].tolist() == [0, 1, 0, 0], "the only neighbour, three times"
    assert (found[3] > 0).sum() == 3, "who has none takes the most active"


def test_what_is_not_known_has_no_neighbours():
    found = neighbour_graph(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1]]), 2)
    assert found.toarray()[1].tolist() == [0, 0, 0]
    assert found.toarray()[0, 2] == pytest.approx(1.01**-0.5 / (2 + 1e-7))


def test_two_modalities_are_needed():
    with pytest.raises(ValueError, match="there are 1"):
        REARMNetwork(adjacency([(0, 0)], 1, 1), matrix([[1.0]]), matrix([[1.0]]), (3,))
