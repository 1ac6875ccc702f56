"""PamC's and gCooL's terms against the official implementations' numbers and the written-out dense forms."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.graphs.nodes.communities import community_assignment, community_loss, deca_loss, node_loss
from counterpoint.graphs.nodes.metanodes import (
    dec_loss,
    full_loss,
    influence,
    metanode_loss,
    target_distribution,
)

ORACLES = json.loads((Path(__file__).parents[1] / "oracles" / "graphs.json").read_text())
INPUT = {
    k: torch.tensor(v, dtype=torch.float64 if k[:1] in "zcp" else torch.int64) for k, v in ORACLES["inputs"].items()
}
Z1, Z2, CLUSTER = INPUT["z1"], INPUT["z2"], INPUT["lab"]
EDGES = INPUT["A"].nonzero().T.contiguous()


def close(value, expected):
    assert float(value) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("order", "sums", "key"),
    [(1, True, "order=1 influence=True"), (2, True, "order=2 influence=True"), (2, False, "order=2 influence=False")],
)
def test_pamc_equals_the_official_code(order, sums, key):
    weights = influence(EDGES, 8, order, sum_orders=sums).to(torch.float64)
    close(metanode_loss(Z1, weights, CLUSTER, tau=0.5), ORACLES[f"pamc tau=.5 {key} clusters=lab z=z1 A=rownorm(A+I)"])


def dense_metanode(z, a, cluster, tau):
    unit = normalize(z, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(0)
    positive = (a * (tau * cosine).exp()).sum(1)
    centres = normalize(torch.nn.functional.one_hot(cluster).to(z).T @ z, dim=1)
    between = (centres @ centres.T).fill_diagonal_(0)
    return (tau * between).exp().sum(1).log().mean() - positive.log().mean()


def test_pamc_gradient_equals_the_dense_forms():
    z = Z1.clone().requires_grad_()
    weights = influence(EDGES, 8, 2).to(torch.float64)
    (ours,) = torch.autograd.grad(metanode_loss(z, weights, CLUSTER, 0.5), z)
    (dense,) = torch.autograd.grad(dense_metanode(z, weights.to_dense(), CLUSTER, 0.5), z)
    torch.testing.assert_close(ours, dense, rtol=1e-7, atol=1e-9)


def test_full_loss_is_the_dense_one():
    weights = influence(EDGES, 8, 1).to(torch.float64)
    unit = normalize(Z1, dim=1)
    cosine = unit @ unit.T
    cosine = cosine - torch.diag(cosine.diagonal())
    positive = (weights.to_dense() * (0.5 * cosine).exp()).sum(1)
    expected = (0.5 * cosine).exp().sum(1).log().mean() - positive.log().mean()
    close(full_loss(Z1, weights, 0.5), expected.item())


def test_singleton_clusters_make_pamc_the_full_loss():
    weights = influence(EDGES, 8, 1).to(torch.float64)
    close(metanode_loss(Z1, weights, torch.arange(8), 0.5), full_loss(Z1, weights, 0.5).item())


def test_empty_clusters_change_nothing():
    weights = influence(EDGES, 8, 1).to(torch.float64)
    close(metanode_loss(Z1, weights, CLUSTER * 7, 0.5), metanode_loss(Z1, weights, CLUSTER, 0.5).item())


def test_dec_equals_the_official_code():
    q = Z1[:, :3].softmax(1)
    close(dec_loss(q, target_distribution(q)), ORACLES["pamc/DEC KL(P||Q) q=softmax(z1[:,:3]) batchmean"])


def test_gcool_node_term_has_the_gradient_of_the_full_similarity_matrix():
    h1, h2 = (normalize(torch.randn(40, 6, dtype=torch.float64), dim=1).requires_grad_() for _ in range(2))
    similarity = (normalize(h1, dim=1) @ normalize(h2, dim=1).T / 0.4).exp()
    dense = (similarity.sum(1).log() - similarity.diag().log()).mean()
    ours = node_loss(h1, h2, 0.4)
    close(ours, dense.item())
    for found, expected in zip(torch.autograd.grad(ours, (h1, h2)), torch.autograd.grad(dense, (h1, h2)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_gcool_terms_equal_the_official_code():
    h1, h2 = normalize(Z1, dim=1), normalize(Z2, dim=1)
    close(node_loss(h1, h2, 0.4), ORACLES["gcool h=normalize(z) tau=.4 node"])
    r1 = community_assignment(h1, INPUT["center"], 0.4)
    torch.testing.assert_close(r1, torch.tensor(ORACLES["gcool R1"], dtype=torch.float64), rtol=0, atol=2e-6)
    close(deca_loss(r1, EDGES, 0.5), ORACLES["gcool DeCA(R1,A) lam=.5"])
    r2 = community_assignment(h2, INPUT["center"], 0.4)
    close(community_loss(h1, h2, r1, r2, 0.4), ORACLES["gcool community"])


def test_gcool_reweighted_communities_equal_the_official_code():
    held = json.loads((Path(__file__).parents[1] / "oracles" / "gcool_rbf.json").read_text())
    z1, z2, centres, r1, grad1, grad2 = (
        torch.tensor(held[k], dtype=torch.float64) for k in ("z1", "z2", "center", "R1", "grad_z1", "grad_z2")
    )
    tau, gamma = held["params"]["tau"], held["params"]["gamma"]
    z1.requires_grad_(), z2.requires_grad_()
    found = [community_assignment(z, centres, tau, rbf=True) for z in (z1, z2)]
    torch.testing.assert_close(found[0], r1, rtol=0, atol=1e-8)
    loss = community_loss(z1, z2, *found, tau, rbf=True, gamma=gamma)
    assert loss.item() == pytest.approx(held["value"], rel=0, abs=1e-8)
    for grad, wanted in zip(torch.autograd.grad(loss, (z1, z2)), (grad1, grad2), strict=True):
        torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-8)


def test_deca_equals_the_dense_matrix_form():
    r = torch.rand(8, 3, dtype=torch.float64).softmax(1)
    a = INPUT["A"].double()
    f = r.T @ a @ r
    expected = (0.3 * f.sum() - 7.3 * f.trace()) / 56 + (r.T @ r).trace() / 16
    close(deca_loss(r, EDGES, 0.3), expected.item())


def test_assignments_send_gradient_to_the_centres_only():
    h, c = Z1.clone().requires_grad_(), INPUT["center"].clone().requires_grad_()
    community_assignment(h, c, 0.4)[:, 0].sum().backward()
    assert h.grad is None
    assert c.grad.abs().sum() > 0
