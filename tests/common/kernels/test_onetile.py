"""The contrast of a small batch in one tile: the dense formula's numbers, and where it stands back."""

import math

import pytest
import torch

from counterpoint.common.kernels import Diagonal, contrast_stats, kept_bytes, onetile


@pytest.fixture
def taken(monkeypatch):
    """How many contrasts went through the one tile."""
    seen = []
    statistics = onetile.statistics

    def count(*args):
        found = statistics(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(onetile, "statistics", count)
    return seen


def draw(rows, columns, dim=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(n, dim, generator=generator, dtype=dtype).requires_grad_() for n in (rows, columns))
    return q, k, torch.tensor(1.7, dtype=dtype, requires_grad=True)


def gradients(inputs, positive, columns, backend, weights):
    stats = contrast_stats(*inputs[:2], scale=inputs[2], positive=positive, columns=columns, backend=backend)
    values = [stats.lse, stats.positive]
    if columns:
        values += [stats.columns.lse, stats.columns.positive]
    loss = sum((v * w[: len(v)]).sum() for v, w in zip(values, weights) if v is not None)
    return stats, loss, torch.autograd.grad(loss, inputs, allow_unused=True)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(
    ("shape", "positive"), [((7, 7), Diagonal()), ((7, 7), None), ((4, 9), None), ((1, 1), Diagonal())]
)
def test_equals_the_dense_formula(shape, positive, columns, taken):
    inputs, weights = draw(*shape), torch.randn(4, 9, dtype=torch.float64)
    found = gradients(inputs, positive, columns, "auto", weights)
    dense = gradients(inputs, positive, columns, "dense", weights)
    assert taken == [True]
    torch.testing.assert_close(found[1], dense[1])
    for a, b in zip(found[2], dense[2]):
        torch.testing.assert_close(a, b)
    assert torch.equal(found[0].count, dense[0].count)
    if columns:
        assert torch.equal(found[0].columns.count, dense[0].columns.count)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_each_statistic_alone(which, taken):
    inputs, weights = draw(5, 5), torch.zeros(4, 5, dtype=torch.float64)
    weights[which] = torch.linspace(-1, 2, 5)
    found = gradients(inputs, Diagonal(), True, "auto", weights)[2]
    for a, b in zip(found, gradients(inputs, Diagonal(), True, "dense", weights)[2]):
        torch.testing.assert_close(a, b)
    assert taken == [True]


def test_first_and_second_derivatives(taken):
    def loss(q, k, scale):
        stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True)
        return stats.lse - stats.positive, stats.columns.lse

    assert torch.autograd.gradcheck(loss, draw(4, 4, 3))
    assert torch.autograd.gradgradcheck(loss, draw(4, 4, 3))
    assert all(taken)


def test_large_logits_take_one_shift_or_the_sweep(taken):
    q, k, _ = draw(6, 6)
    for scale, within in ((110.0, True), (1e3, False)):
        inputs = (q, k, torch.tensor(scale, dtype=torch.float64, requires_grad=True))
        with torch.no_grad():
            logits = scale * q @ k.T
        assert bool(logits.max() - logits.min() < 1200) is within
        weights = torch.ones(4, 6, dtype=torch.float64)
        found, dense = (gradients(inputs, Diagonal(), True, backend, weights) for backend in ("auto", "dense"))
        torch.testing.assert_close(found[1], dense[1])
        for a, b in zip(found[2], dense[2]):
            torch.testing.assert_close(a, b)
        assert taken.pop() is within


def test_converged_pairs_keep_their_gradient(taken):
    q = torch.eye(8, requires_grad=True)
    for gap in (5.0, 15.0, 20.0):
        stats = contrast_stats(q, torch.eye(8), scale=gap, positive=Diagonal(), columns=True)
        (stats.lse - stats.positive).mean().backward()
        rest = 7 * math.exp(-gap)  # the others' sum over the positive's
        expected = -gap / 8 * rest / (1 + rest)
        assert abs(q.grad[0, 0].item() / expected - 1) < 1e-4
        q.grad = None
    assert all(taken)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(value, taken):
    q, k, scale = draw(5, 5)
    with torch.no_grad():
        q[2, 0] = value
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal())
    dense = contrast_stats(q, k, scale=scale, positive=Diagonal(), backend="dense")
    assert taken == [False]
    torch.testing.assert_close(stats.lse, dense.lse, equal_nan=True)


def test_twice_through_a_kept_graph():
    inputs = draw(5, 5)
    stats = contrast_stats(*inputs[:2], scale=inputs[2], positive=Diagonal(), columns=True)
    loss = (stats.lse + stats.columns.lse - 2 * stats.positive).mean()
    first, second = (torch.autograd.grad(loss, inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_only_what_is_asked_for_is_differentiated():
    q, k, _ = draw(5, 5)
    k = k.detach()
    stats = contrast_stats(q, k, scale=3.0, positive=Diagonal(), columns=True)
    (stats.lse.sum() + stats.columns.lse.sum()).backward()
    dense_q = q.detach().requires_grad_()
    stats = contrast_stats(dense_q, k, scale=3.0, positive=Diagonal(), columns=True, backend="dense")
    (stats.lse.sum() + stats.columns.lse.sum()).backward()
    torch.testing.assert_close(q.grad, dense_q.grad)


def test_no_byte_beyond_the_budget(taken):
    q, k, scale = draw(5, 5)
    with kept_bytes(24):
        contrast_stats(q, k, scale=scale)
    assert taken == []


def test_torch_func_and_forward_mode_take_the_formula(taken):
    q, k, scale = (t.detach() for t in draw(4, 4))

    def loss(q):
        stats = contrast_stats(q, k, scale=scale, positive=Diagonal())
        return (stats.lse - stats.positive).mean()

    tangent = torch.ones_like(q)
    value = torch.func.jvp(loss, (q,), (tangent,))[1]
    torch.testing.assert_close(value, (torch.func.grad(loss)(q) * tangent).sum())
    assert taken == []
