"""Scattering and alignment against the official numbers, their bounds and gradients."""

import json
from pathlib import Path

import pytest
import torch

from counterpoint.graphs.circuits.scattering import aggregate, alignment_loss, scattering_loss

ORACLES = json.loads((Path(__file__).parents[1] / "oracles" / "graphs.json").read_text())
Z1, Z2 = (torch.tensor(ORACLES["inputs"][k], dtype=torch.float64) for k in ("z1", "z2"))


def test_both_equal_the_official_code():
    assert scattering_loss(Z1).item() == pytest.approx(ORACLES["scatter L_t(z1)"], abs=2e-6)
    assert alignment_loss(Z1, Z2).item() == pytest.approx(ORACLES["align L_o(z1,z2)"], abs=2e-6)


def test_scattering_is_one_minus_the_squared_mean():
    u = torch.nn.functional.normalize(Z1, dim=1)
    assert scattering_loss(Z1).item() == pytest.approx(-(1 - u.mean(0).square().sum().item()))


def test_descent_spreads_a_cone_over_the_sphere():
    z = (torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 4).requires_grad_()
    optimizer = torch.optim.Adam([z], 0.1)
    before = scattering_loss(z).item()
    for _ in range(200):
        optimizer.zero_grad()
        scattering_loss(z).backward()
        optimizer.step()
    assert before > -0.3
    assert scattering_loss(z).item() < -0.99


def test_the_target_gets_no_gradient_from_alignment():
    a, b = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    alignment_loss(a, b).backward()
    assert b.grad is None
    assert a.grad.abs().sum() > 0


def test_aggregation_is_the_normalized_adjacency_power():
    edges = torch.tensor(ORACLES["inputs"]["A"]).nonzero().T
    a = torch.tensor(ORACLES["inputs"]["A"], dtype=torch.float64) + torch.eye(8)
    d = a.sum(1).rsqrt()
    norm = d[:, None] * a * d
    torch.testing.assert_close(aggregate(Z1, edges, 2), norm @ norm @ Z1)
