"""The fused kernels on a CUDA device. Here the public functions are what is called: this is what users run."""

import pytest
import torch

from counterpoint.common.kernels import Diagonal, Index, SameLabel, Self, contrast_stats, pair_sum

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def features(rows, cols, dim, dtype):
    g = torch.Generator("cuda").manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(rows, dim, device="cuda", generator=g), dim=-1)
    k = torch.nn.functional.normalize(torch.randn(cols, dim, device="cuda", generator=g), dim=-1)
    return q.to(dtype).requires_grad_(), k.to(dtype).requires_grad_()


def masked_loss(q, k, scale, **how):
    """Uses every part of the kernels once."""
    rows, cols = q.shape[0], k.shape[0]
    at, to = torch.arange(rows, device="cuda"), torch.arange(cols, device="cuda")
    stats = contrast_stats(
        q, k, scale=scale, positive=Diagonal(), exclude=[Self(), Index(at[:, None] % 9)],
        only=SameLabel(at % 3, to % 3), valid_cols=to % 17 != 3, columns=True, mean=True, **how,
    )  # fmt: skip
    parts = (stats.lse, stats.positive, stats.mean, stats.columns.lse, stats.columns.mean)
    return sum((t.masked_fill(t == -torch.inf, 0.0)).mean() for t in parts)


def clip_loss(q, k, scale, **how):
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True, **how)
    return (stats.lse - stats.positive).mean() + stats.columns.lse.mean()


@pytest.mark.parametrize("loss", [clip_loss, masked_loss])
@pytest.mark.parametrize("scale", [14.3, 100.0])
@pytest.mark.parametrize("dim", [24, 64, 128, 256, 512, 768])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_gradients_equal_float64(loss, scale, dim, dtype, bound, deterministic):
    q, k = features(1000, 777, dim, dtype)
    temperature = torch.tensor(scale, device="cuda", requires_grad=True)
    exact = [t.detach().double().requires_grad_() for t in (q, k, temperature)]
    want = loss(*exact, backend="dense")
    want.backward()
    got = loss(q, k, temperature, backend="triton", deterministic=deterministic)
    got.backward()
    assert abs(got.item() - want.item()) < 1e-4 * max(1.0, abs(want.item()))
    for t, reference in zip((q, k, temperature), exact):
        assert (t.grad.double() - reference.grad).norm() < bound * reference.grad.norm()


@pytest.mark.parametrize("dim", [128, 512])
def test_self_similarity_equals_float64(dim):
    q, _ = features(1500, 1, dim, torch.float32)
    exact = q.detach().double().requires_grad_()
    partner = Index((torch.arange(1500, device="cuda") + 750) % 1500)
    for z, backend in ((exact, "dense"), (q, "triton")):
        stats = contrast_stats(z, z, scale=10.0, exclude=Self(), positive=partner, backend=backend)
        (stats.lse - stats.positive).mean().backward()
    assert (q.grad.double() - exact.grad).norm() < 2e-5 * exact.grad.norm()


@pytest.mark.parametrize("dim", [128, 512])
def test_pair_sums_equal_float64(dim):
    q, k = features(900, 1100, dim, torch.float32)
    exact = [t.detach().double().requires_grad_() for t in (q, k)]
    bias = torch.full((1100,), -10.0, device="cuda")
    pair_sum(*exact, scale=10.0, col_bias=bias.double(), positive=Diagonal(), backend="dense").mean().backward()
    pair_sum(q, k, scale=10.0, col_bias=bias, positive=Diagonal(), backend="triton").mean().backward()
    for t, reference in zip((q, k), exact):
        assert (t.grad.double() - reference.grad).norm() < 2e-5 * reference.grad.norm()


@pytest.mark.parametrize("dim", [128, 512])
def test_repeat_gives_the_same_bits(dim):
    found = []
    for _ in range(3):
        q, k = features(5000, 5000, dim, torch.bfloat16)
        clip_loss(q, k, 14.3, backend="triton").backward()
        found.append((q.grad, k.grad))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))


def test_memory_grows_with_rows_not_with_pairs():
    rows = 65536
    q, k = features(rows, rows, 512, torch.bfloat16)
    q.grad, k.grad = torch.zeros_like(q), torch.zeros_like(k)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    clip_loss(q, k, 14.3, backend="triton").backward()
    assert torch.cuda.max_memory_allocated() - before < 2 * 2**30  # one float32 logit matrix would be 16 GiB
