"""The objectives equal the official code's frozen numbers and obey what their equations imply."""

import pytest
import torch

from counterpoint.timeseries.objectives import (
    _Halve,
    hierarchical,
    id_loss,
    instance_loss,
    temporal_loss,
    ts2vec_loss,
)


def det(shape, a, b):
    """The oracle's closed-form input: sin(a i + b) over the flat index."""
    n = torch.Size(shape).numel()
    return torch.sin(a * torch.arange(n, dtype=torch.float64) + b).reshape(shape)


Z1, Z2 = det((6, 8, 5), 0.37, 0.1), det((6, 8, 5), 0.53, 1.3)
IDS = torch.tensor([0, 0, 1, 1, 2, 0])


@pytest.mark.parametrize(
    ("loss", "expected", "tolerance"),
    [
        (lambda: instance_loss(Z1, Z2), 3.461547499827211, 1e-12),
        (lambda: temporal_loss(Z1, Z2), 3.793827941283661, 1e-12),
        # The official hierarchical sums are accumulated in float32 even for float64 input.
        (lambda: ts2vec_loss(Z1, Z2), 2.2718327045440674, 1e-6),
        (lambda: hierarchical(Z1, Z2, instance=1), 2.8789491653442383, 1e-6),
        (lambda: hierarchical(Z1, Z2, temporal=1), 2.379688024520874, 1e-6),
        (lambda: id_loss(Z1, Z2, IDS), 1.7968223656394349, 1e-12),
    ],
    ids=["instance", "temporal", "ts2vec", "sample", "observation", "id"],
)
def test_official_values(loss, expected, tolerance):
    assert loss().item() == pytest.approx(expected, rel=tolerance)


def dense_id_loss(z1, z2, ids, temperature):
    """The equation written with the full matrix."""
    unit = torch.nn.functional.normalize
    a = unit(unit(z1, dim=1).flatten(1), dim=1)
    b = unit(unit(z2, dim=1).flatten(1), dim=1)
    s = a @ b.T / temperature
    same = ids[:, None] == ids[None]
    row, column = s - s.logsumexp(1, keepdim=True), s - s.logsumexp(0, keepdim=True)
    return -(row[same.triu(1)].mean() + column[same.tril(-1)].mean()) / 2


def test_id_loss_value_and_gradient_equal_the_dense_equation():
    generator = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(9, 4, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    ids = torch.tensor([4, 1, 4, 4, 0, 1, 7, 4, 0])
    ours, dense = id_loss(z1, z2, ids, 0.2), dense_id_loss(z1, z2, ids, 0.2)
    assert ours.item() == pytest.approx(dense.item(), rel=1e-12)
    for mine, theirs in zip(torch.autograd.grad(ours, (z1, z2)), torch.autograd.grad(dense, (z1, z2))):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    z1, z2 = Z1[:3, :4].clone().requires_grad_(), Z2[:3, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ts2vec_loss(a, b), (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: id_loss(a, b, torch.tensor([0, 0, 1])), (z1, z2))


def test_losses_do_not_depend_on_the_order_of_samples():
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert instance_loss(Z1[order], Z2[order]).item() == pytest.approx(instance_loss(Z1, Z2).item(), rel=1e-12)
    assert temporal_loss(Z1[order], Z2[order]).item() == pytest.approx(temporal_loss(Z1, Z2).item(), rel=1e-12)


def test_uninformative_representations_cost_the_logarithm_of_the_candidates():
    z = torch.zeros(6, 8, 5)
    assert instance_loss(z, z).item() == pytest.approx(torch.tensor(11.0).log().item())
    assert temporal_loss(z, z).item() == pytest.approx(torch.tensor(15.0).log().item())


def test_degenerate_batches_cost_nothing_and_keep_a_gradient_path():
    z = torch.randn(1, 1, 5, requires_grad=True)
    for loss in (instance_loss(z, z), temporal_loss(z, z), ts2vec_loss(z, z), id_loss(z, z, torch.tensor([3]))):
        assert loss.item() == 0.0
        assert torch.autograd.grad(loss, z)[0].abs().sum() == 0


def test_temporal_unit_delays_the_temporal_term():
    z1, z2 = Z1, Z2
    late = ts2vec_loss(z1, z2, temporal_unit=1)
    scales = 4  # T = 8, 4, 2, 1
    assert (ts2vec_loss(z1, z2) - late).item() == pytest.approx(0.5 * temporal_loss(z1, z2).item() / scales, rel=1e-9)


@pytest.mark.parametrize("time", [4, 5])
def test_halving_is_max_pooling_ties_and_odd_ends_included(time):
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(0, 3, (2, 2, time, 6), generator=generator).double().requires_grad_()
    pooled = torch.nn.functional.max_pool1d(z.flatten(0, 1).mT, 2).mT.unflatten(0, (2, 2))
    halved = _Halve.apply(z)
    assert torch.equal(halved, pooled)
    upstream = torch.randn(halved.shape, dtype=torch.float64, generator=generator)
    assert torch.equal(*(torch.autograd.grad(y, z, upstream)[0] for y in (halved, pooled)))
