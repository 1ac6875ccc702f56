"""One direction of a contrast with its gradient formed on the way equals the engine's contrast, value and gradient."""

import pytest
import torch

from counterpoint.common.kernels import oneway
from counterpoint.common.kernels.oneway import one_way_loss


def written_out(q, k):
    """The equation with the full matrix."""
    return -(q @ k.mT).log_softmax(1).diagonal().mean()


def pair(rows, columns, dtype=torch.float64, size=1.0):
    g = torch.Generator().manual_seed(rows)
    return tuple((size * torch.randn(n, 5, dtype=dtype, generator=g)).requires_grad_() for n in (rows, columns))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 7), (7, 12), (12, 12)])
def test_value_and_gradient_are_those_of_the_equation(rows, columns, monkeypatch):
    monkeypatch.setattr(oneway, "BLOCK", 3 * columns)  # three rows at a time, the last block shorter
    q, k = pair(rows, columns)
    losses = [written_out(q, k), *(one_way_loss(q, k, backend=name) for name in ("auto", "dense", "tiled"))]
    gradients = [torch.autograd.grad(3.0 * loss, (q, k)) for loss in losses]
    for loss, found in zip(losses[1:], gradients[1:]):
        assert loss.item() == pytest.approx(losses[0].item(), rel=1e-12, abs=1e-14)
        for one, expected in zip(found, gradients[0]):
            torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-13)
    assert torch.autograd.gradcheck(one_way_loss, (q, k))


def test_one_side_alone_may_want_a_gradient():
    q, k = pair(6, 6)
    expected = torch.autograd.grad(written_out(q, k), (q, k))
    torch.testing.assert_close(torch.autograd.grad(one_way_loss(q, k.detach()), q)[0], expected[0])
    torch.testing.assert_close(torch.autograd.grad(one_way_loss(q.detach(), k), k)[0], expected[1])
    assert not one_way_loss(q.detach(), k.detach()).requires_grad


def test_large_dot_products_neither_overflow_nor_vanish():
    q, k = pair(8, 9, torch.float32, size=30.0)
    exact = tuple(t.detach().double().requires_grad_() for t in (q, k))
    loss, reference = one_way_loss(q, k), written_out(*exact)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    for found, expected in zip(torch.autograd.grad(loss, (q, k)), torch.autograd.grad(reference, exact)):
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def test_long_rows_go_through_the_tiles(monkeypatch):
    q, k = pair(6, 12)
    expected = one_way_loss(q, k).item()
    monkeypatch.setattr(oneway, "LONGEST", 10)
    monkeypatch.setattr(oneway, "_OneWayLoss", None)
    assert one_way_loss(q, k).item() == pytest.approx(expected, rel=1e-12)


def test_half_precision_is_summed_in_single():
    q, k = (t.detach().bfloat16().requires_grad_() for t in pair(8, 8))
    loss = one_way_loss(q, k)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(written_out(q.detach().double(), k.detach().double()).item(), rel=1e-5)
    assert {g.dtype for g in torch.autograd.grad(loss, (q, k))} == {torch.bfloat16}


def test_second_derivatives_and_rows_without_their_own_are_refused():
    q, k = pair(4, 4)
    with pytest.raises(RuntimeError, match="needs backend='dense'"):
        torch.autograd.grad(one_way_loss(q, k), q, create_graph=True)
    (gradient,) = torch.autograd.grad(one_way_loss(q, k, backend="dense"), q, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(gradient.sum(), k)[0]).all()
    with pytest.raises(ValueError, match="5 rows and 4 columns"):
        one_way_loss(torch.zeros(5, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="0 rows"):
        one_way_loss(torch.zeros(0, 2), torch.zeros(4, 2))
