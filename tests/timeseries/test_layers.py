"""The convolution as matrix products is the library's convolution; the fast dropout is a dropout."""

import pytest
import torch
import torch.nn.functional as F

from counterpoint.timeseries.encoders import TS2VecEncoder
from counterpoint.timeseries.layers import Dropout, SameConv


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 5, 9, 16])
def test_convolution_value_and_gradients(kernel, dilation):
    torch.manual_seed(0)
    conv = SameConv(4, 6, kernel, dilation).double()
    x = torch.randn(3, 10, 4, dtype=torch.float64, requires_grad=True)
    padding = dilation * (kernel // 2)
    plain = F.conv1d(x.mT, conv.weight, conv.bias, padding=padding, dilation=dilation).mT
    torch.testing.assert_close(conv(x), plain)
    upstream = torch.randn_like(plain)
    inputs = [x, conv.weight, conv.bias]
    for ours, theirs in zip(
        torch.autograd.grad(conv(x), inputs, upstream), torch.autograd.grad(plain, inputs, upstream)
    ):
        torch.testing.assert_close(ours, theirs)


def test_convolution_takes_any_strides_and_second_derivatives():
    torch.manual_seed(0)
    conv = SameConv(2, 3, 3, 2).double()
    x = torch.randn(2, 2, 8, dtype=torch.float64).mT.requires_grad_()
    assert torch.autograd.gradcheck(conv, (x,))
    assert torch.autograd.gradgradcheck(conv, (x,))


def test_the_operator_path_equals_the_product_path():
    """What compilers, exporters and graphics cards run."""
    torch.manual_seed(0)
    encoder = TS2VecEncoder(3, dim=8, hidden=6, depth=5).eval()
    x = torch.randn(2, 12, 3)
    exported = torch.export.export(encoder, (x,)).module()
    torch.testing.assert_close(exported(x), encoder(x))


def test_steps_of_the_encoder_are_those_of_the_whole():
    torch.manual_seed(0)
    for depth in (2, 5):  # at 20 steps the last block reaches its neighbours (dilation 4) or not (dilation 32)
        encoder = TS2VecEncoder(3, dim=8, hidden=6, depth=depth, dropout=0.0).double()
        x = torch.randn(2, 20, 3, dtype=torch.float64, requires_grad=True)
        part, whole = encoder(x, steps=slice(4, 15)), encoder(x)[:, 4:15]
        torch.testing.assert_close(part, whole)
        upstream = torch.randn_like(part)
        ours, theirs = (torch.autograd.grad(y, [x, *encoder.parameters()], upstream) for y in (part, whole))
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b)


def test_dropout_keeps_the_stated_share_and_scales_it():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, dtype=torch.float64, requires_grad=True)
    y = Dropout(0.1)(x)
    kept = y != 0
    assert kept.double().mean().item() == pytest.approx(0.9, abs=5 * 0.3 / 1000)
    # Neighbours share a draw of the generator: they must be independent all the same.
    assert (kept[:, :-1] & kept[:, 1:]).double().mean().item() == pytest.approx(0.81, abs=0.002)
    assert torch.all(y[kept] == 1 / 0.9)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y.detach())


def test_dropout_follows_the_seed_and_rests_in_evaluation():
    dropout, x = Dropout(0.5), torch.randn(7, 3)
    first, second = [torch.manual_seed(3) and dropout(x) for _ in range(2)]
    assert torch.equal(first, second)
    assert not torch.equal(first, dropout(x))
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
