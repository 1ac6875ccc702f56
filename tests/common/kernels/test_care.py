"""Inputs that break other losses: converged pairs, NaN in what is left out, zero rows, forward-mode derivatives."""

import math

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import Diagonal, Index, Self, contrast_stats, kept_bytes, unit

BACKENDS = ("dense", "tiled")


def cross_entropy(q, k, backend, scale=200.0):
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True, backend=backend)
    return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean() / 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gap", [12, 20, 27])
def test_converged_pairs_keep_a_percent_of_their_gradient(backend, gap):
    """Losses of about 1e-3, 1e-6 and 1e-9 nats: 1 - p is far below float32's rounding of p."""
    torch.manual_seed(0)
    base = F.normalize(torch.randn(16, dtype=torch.double), dim=0)
    own = F.normalize(torch.randn(64, 512, dtype=torch.double), dim=1)
    share = 1 - gap / 200
    z = torch.cat([math.sqrt(share) * base.expand(64, 16), math.sqrt(1 - share) * own], 1).float()
    q, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    (found,) = torch.autograd.grad(cross_entropy(q, z.clone(), backend), q)
    logits = 200.0 * wide @ z.double().T
    others = logits.masked_fill(torch.eye(64, dtype=torch.bool), -torch.inf)
    loss = sum(F.softplus(others.logsumexp(i) - logits.diagonal()).mean() for i in (0, 1)) / 2
    (exact,) = torch.autograd.grad(loss, wide)
    assert (found - exact).norm() < 1e-2 * exact.norm()


def test_a_converged_self_similarity_keeps_its_gradient():
    torch.manual_seed(0)
    half = F.normalize(torch.randn(32, 64, dtype=torch.double), dim=1)
    z = torch.cat([half, half]).float()
    partner = (torch.arange(64) + 32) % 64
    one, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    stats = contrast_stats(one, one, scale=40.0, positive=Index(partner), exclude=Self(), backend="tiled")
    (found,) = torch.autograd.grad((stats.lse - stats.positive).mean(), one)
    logits = 40.0 * wide @ wide.T
    left_out = torch.eye(64, dtype=torch.bool) | (partner[:, None] == torch.arange(64))
    others = logits.masked_fill(left_out, -torch.inf).logsumexp(1)
    (exact,) = torch.autograd.grad(F.softplus(others - logits[torch.arange(64), partner]).mean(), wide)
    assert (found - exact).norm() < 1e-2 * exact.norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["valid_cols", "exclude"])
def test_columns_left_out_may_hold_nan(backend, how):
    torch.manual_seed(0)
    q, k = torch.randn(5, 4, requires_grad=True), torch.randn(6, 4)
    k[5] = torch.nan
    given = {"valid_cols": torch.arange(6) < 5} if how == "valid_cols" else {"exclude": Index(torch.full((5, 1), 5))}
    (found,) = torch.autograd.grad(contrast_stats(q, k, backend=backend, **given).lse.sum(), q)
    (wanted,) = torch.autograd.grad(contrast_stats(q, k[:5], backend="dense").lse.sum(), q)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_that_is_kept_is_not_hidden(backend):
    q, k = torch.randn(5, 4, requires_grad=True), torch.randn(6, 4)
    k[5] = torch.nan
    only_first = Index(torch.tensor([[-1], [5], [5], [5], [5]]))
    (found,) = torch.autograd.grad(contrast_stats(q, k, backend=backend, exclude=only_first).lse.sum(), q)
    assert found.isnan().all(1).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_and_function_transforms_agree_with_reverse_mode(backend):
    torch.manual_seed(0)
    q, k, t = (torch.randn(12, 4, dtype=torch.double) for _ in range(3))

    def loss(q):
        return cross_entropy(q, k, backend, scale=2.0)

    leaf = q.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.jvp(loss, (q,), (t,))[1], (gradient * t).sum())
    torch.testing.assert_close(torch.func.grad(loss)(q), gradient)
    batch = torch.stack([q, t])
    torch.testing.assert_close(torch.func.vmap(loss)(batch), torch.stack([loss(q), loss(t)]))
    with torch.autograd.forward_ad.dual_level():
        tangent = torch.autograd.forward_ad.unpack_dual(loss(torch.autograd.forward_ad.make_dual(q, t))).tangent
        torch.testing.assert_close(tangent, (gradient * t).sum())


@pytest.mark.parametrize("same", [False, True])
def test_kept_tiles_change_nothing(same):
    torch.manual_seed(0)
    q, k = (torch.randn(70, 5, dtype=torch.double, requires_grad=True) for _ in range(2))

    def gradients():
        keys = q if same else k
        stats = contrast_stats(q, keys, positive=Diagonal(), columns=True, exclude=Self(), backend="tiled")
        total = (stats.lse * 0.3 - stats.positive + stats.columns.lse).sum()
        return torch.autograd.grad(total, [q] if same else [q, k])

    kept = gradients()
    with kept_bytes(0):
        recomputed = gradients()
    for a, b in zip(kept, recomputed):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_row_has_no_gradient_and_others_keep_theirs(dtype):
    torch.manual_seed(0)
    z = torch.randn(6, 4, dtype=dtype)
    z[2] = 0
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    weight = torch.randn(6, 4, dtype=dtype)
    torch.testing.assert_close(unit(ours), F.normalize(theirs, dim=1), rtol=0, atol=0)
    (unit(ours) * weight).sum().backward()
    (F.normalize(theirs, dim=1) * weight).sum().backward()
    rest = torch.arange(6) != 2
    assert ours.grad[2].tolist() == [0.0] * 4
    torch.testing.assert_close(ours.grad[rest], theirs.grad[rest])
