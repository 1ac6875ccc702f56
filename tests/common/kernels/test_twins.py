"""The stack of small self-contrasts equals the engine's general contrast, value and gradient."""

import pytest
import torch

from counterpoint.common.kernels import twins
from counterpoint.common.kernels.twins import twin_loss


def written_out(z, neighbors):
    """The equation with the full matrices."""
    rows = z.shape[1]
    row = torch.arange(rows)
    twin = row ^ 1 if neighbors else (row + rows // 2) % rows
    scores = (z @ z.mT).masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
    return -scores.log_softmax(-1)[:, row, twin].mean()


@pytest.mark.parametrize("neighbors", [False, True])
@pytest.mark.parametrize("batch", [1, 7])
def test_value_and_gradient_are_those_of_the_equation(batch, neighbors, monkeypatch):
    monkeypatch.setitem(twins.CHUNK, "cpu", 3 * 10 * 10)  # three problems at a time, the last chunk shorter
    z = torch.randn(batch, 10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = [written_out(z, neighbors)]
    losses += [twin_loss(z, neighbors=neighbors, backend=name) for name in ("auto", "dense", "tiled")]
    gradients = [torch.autograd.grad(3.0 * loss, z)[0] for loss in losses]
    for loss, gradient in zip(losses[1:], gradients[1:]):
        assert loss.item() == pytest.approx(losses[0].item(), rel=1e-12)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-10, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: twin_loss(x, neighbors=neighbors), (z[:2, :4].detach().requires_grad_(),))


def test_transposed_stacks_give_the_same():
    z = torch.randn(6, 5, 3, dtype=torch.float64)
    assert twin_loss(z.transpose(0, 1)).item() == pytest.approx(written_out(z.transpose(0, 1), False).item(), rel=1e-12)


def test_large_dot_products_neither_overflow_nor_vanish():
    z = (300 * torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))).requires_grad_()
    loss = twin_loss(z)
    exact = z.detach().double().requires_grad_()
    reference = written_out(exact, False)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    expected = torch.autograd.grad(reference, exact)[0].float()
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_pair_alone_costs_nothing():
    z = torch.randn(3, 2, 4, requires_grad=True)
    loss = twin_loss(z)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, z)[0].abs().max() == 0


def test_wide_problems_go_through_the_tiles(monkeypatch):
    z = torch.randn(2, 12, 3, dtype=torch.float64)
    expected = twin_loss(z).item()
    monkeypatch.setattr(twins, "LARGEST", 100)
    assert twin_loss(z).item() == pytest.approx(expected, rel=1e-12)


def test_half_precision_is_summed_in_single():
    z = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(2)).bfloat16().requires_grad_()
    loss = twin_loss(z)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(written_out(z.detach().double(), False).item(), rel=1e-5)
    assert torch.autograd.grad(loss, z)[0].dtype == torch.bfloat16


def test_second_derivatives_and_odd_rows_are_refused():
    z = torch.randn(1, 4, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="needs backend='dense'"):
        torch.autograd.grad(twin_loss(z), z, create_graph=True)
    (gradient,) = torch.autograd.grad(twin_loss(z, backend="dense"), z, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(gradient.sum(), z)[0]).all()
    with pytest.raises(ValueError, match="even number of rows"):
        twin_loss(torch.zeros(1, 3, 2))
