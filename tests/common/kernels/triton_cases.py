"""The fused kernels against the dense definition, in Triton's interpreter. Run by test_triton.py in its own process:
TRITON_INTERPRET=1 must be set before the kernels are imported."""

from dataclasses import replace

import pytest
import torch

from counterpoint.common.kernels import (
    Diagonal,
    Index,
    Pairs,
    SameLabel,
    Self,
    contrast_stats,
    dense,
    pair_sum,
    triton_backend,
    triton_gradients,
)
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.problem import Problem, RawStats, Upstream
from counterpoint.common.kernels.triton_backend import TritonBackend

STATS = {"lse": "lse", "positive": "positive", "mean": "mean", "col_lse": "col_lse", "col_mean": "col_mean"}
INPUTS = ("q", "k", "scale", "col_scale", "row_bias", "col_bias")


def features(rows, cols, dim, seed=0, spread=0.3, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(rows, dim, generator=g), dim=-1)
    k = torch.nn.functional.normalize(torch.randn(cols, dim, generator=g), dim=-1)
    both = min(rows, cols)
    k[:both] = torch.nn.functional.normalize(q[:both] + spread * k[:both], dim=-1)
    return q.to(dtype), k.to(dtype)


def exact(problem: Problem) -> Problem:
    """The same problem in float64, its tensors leaves."""
    leaves = {n: t.double().clone().requires_grad_() for n in INPUTS if (t := getattr(problem, n)) is not None}
    if problem.same:
        leaves["k"] = leaves["q"]
    floor = None if problem.score_floor is None else problem.score_floor.double()
    return replace(problem, **leaves, score_floor=floor)


def compare(problem: Problem, backend=None, tolerance=2e-6) -> RawStats:
    """Statistics and gradients of a random combination of them, relative to their largest value."""
    backend = backend or TritonBackend()
    assert backend.unsupported(problem) is None
    stats, reference = backend.forward(problem), exact(problem)
    outputs = dense.statistics(reference)
    torch.testing.assert_close(stats.count, outputs.count)
    g = torch.Generator().manual_seed(7)
    upstream, total = Upstream(), 0.0
    for name in STATS:
        value = getattr(outputs, name)
        if value is None:
            continue
        torch.testing.assert_close(getattr(stats, name).double(), value, rtol=tolerance, atol=5 * tolerance)
        weight = torch.rand(value.shape, generator=g, dtype=torch.float64) - 0.3
        if name in ("lse", "col_lse"):  # an empty row has no gradient
            weight = torch.where(value == -torch.inf, 0.0, weight)
            value = torch.where(value == -torch.inf, 0.0, value)
        setattr(upstream, name, weight.float())
        total = total + (weight * value).sum()
    if outputs.col_count is not None:
        torch.testing.assert_close(stats.col_count, outputs.col_count)
    grads = backend.backward(problem, stats, upstream)
    names = [n for n in INPUTS if getattr(problem, n) is not None and not (n == "k" and problem.same)]
    expected = torch.autograd.grad(total, [getattr(reference, n) for n in names])
    for name, want in zip(names, expected, strict=True):
        got = getattr(grads, name).double()
        if name == "scale" and problem.uniform:
            got, want = got.sum(-1), want.sum(-1)
        error = (got - want).norm() / want.norm().clamp(min=1e-12)
        assert error < 5 * tolerance, f"{name}: {error:.2e}"
    return stats


def make(rows=70, cols=50, dim=24, dtype=torch.float32, **kwargs) -> Problem:
    q, k = features(rows, cols, dim, dtype=dtype)
    if kwargs.pop("same", False):
        k = q
    return flatten(q, k, **{"scale": 10.0, **kwargs})[0]


def rng():
    return torch.Generator().manual_seed(3)


def everything(rows=70, cols=50, dim=24, dtype=torch.float32, scale=None) -> Problem:
    """Every modifier at once: two scales per row, biases, masks of all kinds, an empty row and an empty column."""
    g = rng()
    floor = torch.full((rows,), -0.5)
    floor[3] = 9.0  # nothing reaches it: row 3 is empty
    valid = torch.rand(cols, generator=g) > 0.1
    valid[5] = False
    index = torch.randint(-1, cols, (rows, 2), generator=g)
    positive = torch.randint(-1, cols, (rows,), generator=g)
    return make(
        rows, cols, dim, dtype,
        scale=torch.rand(2, rows, generator=g) * 20 + 1 if scale is None else scale,
        col_scale=torch.rand(cols, generator=g) + 0.5,
        row_bias=torch.randn(rows, generator=g),
        col_bias=torch.randn(2, cols, generator=g),
        positive=Index(positive),
        exclude=[Self(), Index(index), SameLabel(torch.arange(rows) % 7, torch.arange(cols) % 11)],
        only=[SameLabel(torch.arange(rows) % 2, torch.arange(cols) % 2), Diagonal(1), Diagonal(2)],
        columns=True, mean=True, valid_cols=valid, score_floor=floor, row_offset=2,
    )  # fmt: skip


def by_blocks(monkeypatch):
    """Send narrow features the way of wide ones."""
    narrow = dict.fromkeys(triton_gradients.SIDE_MAX_DIM, 16)
    monkeypatch.setattr(triton_gradients, "SIDE_MAX_DIM", narrow)


def test_plain_rows():
    compare(make())


def test_clip_both_directions_share_one_exponential():
    stats = compare(make(50, 50, positive=Diagonal(), columns=True))
    assert (stats.shift == 0).all()
    assert (stats.col_shift == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [100.0, 200.0])
def test_large_scales_need_the_online_maximum(scale):
    stats = compare(make(50, 50, scale=scale, positive=Diagonal(), columns=True), tolerance=1e-5)
    assert stats.shift.unique().numel() > 1


def test_everything_at_once_on_ragged_tiles_by_sides():
    stats = compare(everything(40, 35), tolerance=5e-6)
    assert stats.count[0, 3] == 0
    assert stats.lse[0, :, 3].tolist() == [-torch.inf] * 2
    assert stats.col_count[0, 5] == 0


@pytest.mark.slow
def test_everything_at_once_with_atomic_additions():
    compare(everything(), TritonBackend(deterministic=False), tolerance=5e-6)


def test_everything_at_once_by_blocks_of_weights(monkeypatch):
    by_blocks(monkeypatch)
    monkeypatch.setattr(triton_gradients, "WEIGHT_BYTES", 1)  # blocks of 128, the smallest
    compare(everything(70, 135), tolerance=5e-6)


@pytest.mark.slow
def test_wide_features_take_the_block_path():
    compare(make(40, 33, 272, positive=Diagonal(), columns=True))


@pytest.mark.slow
def test_column_partials_in_chunks_change_nothing(monkeypatch):
    problem = make(150, 40, positive=Diagonal(), columns=True, mean=True, scale=100.0)
    whole = TritonBackend().forward(problem)
    monkeypatch.setattr(triton_backend, "PARTIAL_BYTES", 1)  # one row tile at a time
    chunked = compare(problem, tolerance=1e-5)
    torch.testing.assert_close(chunked.lse, whole.lse, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(chunked.col_lse, whole.col_lse, rtol=1e-6, atol=1e-6)


def test_one_row_one_column():
    compare(make(1, 1, 3, positive=Diagonal(), columns=True, mean=True))


@pytest.mark.parametrize("dim", [24, pytest.param(272, marks=pytest.mark.slow)])
def test_self_similarity_by_half_of_the_tiles(dim, monkeypatch):
    monkeypatch.setattr(triton_gradients, "WEIGHT_BYTES", 1)
    rows = 150
    positive = Index((torch.arange(rows) + 75) % rows)
    problem = make(rows, rows, dim, same=True, exclude=Self(), positive=positive, mean=True)
    assert triton_backend.symmetric(problem)
    compare(problem)
    if dim > 24:
        compare(replace(problem, columns=True))
        compare(make(rows, rows, dim, same=True, scale=150.0, positive=positive, columns=True), tolerance=1e-5)


@pytest.mark.slow
def test_self_similarity_with_labels_counts_exactly():
    ids = torch.arange(70) % 9
    problem = make(70, 70, same=True, only=SameLabel(ids), exclude=Self())
    assert triton_backend.symmetric(problem)
    stats = compare(problem)
    assert stats.count.tolist() == [[int((ids == i).sum()) - 1 for i in ids]]


@pytest.mark.slow
def test_self_similarity_without_symmetry_returns_one_gradient():
    bias = torch.linspace(-1, 1, 40)
    problem = make(40, 40, same=True, exclude=Self(), col_bias=bias, columns=True)
    assert not triton_backend.symmetric(problem)
    compare(problem)


@pytest.mark.slow
def test_pairs_in_compressed_rows():
    pairs = Pairs.from_rows(torch.tensor([0, 0, 4, 39]), torch.tensor([1, 7, 2, 30]), rows=40)
    compare(make(40, 33, exclude=pairs, positive=Diagonal()))
    compare(make(40, 33, only=pairs, columns=True))


def test_long_pair_lists_name_their_reason():
    pairs = Pairs.from_rows(torch.zeros(65, dtype=torch.int64), torch.arange(65), rows=3)
    q, k = features(3, 70, 8)
    assert "64 columns" in TritonBackend().unsupported(flatten(q, k, exclude=pairs)[0])


def test_float64_names_its_reason():
    q, k = features(3, 4, 8, dtype=torch.float64)
    assert "float64" in TritonBackend().unsupported(flatten(q, k)[0])


@pytest.mark.slow
def test_leading_dimensions():
    q = torch.randn(3, 20, 8, generator=rng())
    k = torch.randn(3, 40, 8, generator=rng())
    idx = torch.randint(-1, 40, (3, 20), generator=rng())
    problem = flatten(q, k, scale=0.7, positive=Index(idx), exclude=Index(idx), columns=True)[0]
    compare(problem)


@pytest.mark.slow
def test_bias_of_minus_infinity_removes_a_column():
    bias = torch.zeros(50)
    bias[4] = -torch.inf
    problem = make(col_bias=bias)
    stats, without = TritonBackend().forward(problem), TritonBackend().forward(make(valid_cols=bias == 0))
    torch.testing.assert_close(stats.lse, without.lse)
    upstream = Upstream(lse=torch.ones_like(stats.lse))
    assert TritonBackend().backward(problem, stats, upstream).k[0, 4].abs().max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blocks", [False, True])
def test_half_precision_inputs_with_tiny_upstream(dtype, blocks, monkeypatch):
    """Logits are float32-exact for the rounded inputs; gradients of 1e-9 survive float16 weights."""
    if blocks:
        by_blocks(monkeypatch)
    problem = make(60, 60, 32, dtype, positive=Diagonal(), columns=True, scale=14.3)
    stats, reference = TritonBackend().forward(problem), exact(problem)
    outputs = dense.statistics(reference)
    torch.testing.assert_close(stats.lse.double(), outputs.lse, rtol=1e-6, atol=1e-5)
    tiny = 1e-9
    ((outputs.lse - outputs.positive).sum() * tiny + outputs.col_lse.sum() * tiny).backward()
    ones = torch.full_like(stats.lse, tiny)
    grads = TritonBackend().backward(problem, stats, Upstream(lse=ones, positive=-ones, col_lse=ones))
    for got, want in ((grads.q, reference.q.grad), (grads.k, reference.k.grad)):
        error = (got.double() - want).norm() / want.norm()
        assert error < 3e-3, error


def test_separated_pairs_keep_their_gradient():
    """p - 1 is formed before rounding: at a loss of 2e-5 nats the gradient is still right, even in bfloat16."""
    q, k = features(40, 40, 32, spread=0.02, dtype=torch.bfloat16)
    problem = flatten(q, k, scale=20.0, positive=Diagonal())[0]
    stats, reference = TritonBackend().forward(problem), exact(problem)
    outputs = dense.statistics(reference)
    (outputs.lse - outputs.positive).sum().backward()
    ones = torch.ones_like(stats.lse)
    grads = TritonBackend().backward(problem, stats, Upstream(lse=ones, positive=-ones))
    error = (grads.q.double() - reference.q.grad).norm() / reference.q.grad.norm()
    assert error < 0.05, error


@pytest.mark.slow
@pytest.mark.parametrize("route", ["sides", "atomic", "blocks"])
@pytest.mark.parametrize("fn", ["softplus", "sigmoid"])
def test_pair_sums(fn, route, monkeypatch):
    if route == "blocks":
        by_blocks(monkeypatch)
    g = rng()
    problem = make(
        70, 50, scale=torch.rand(70, generator=g) * 20, positive=Index(torch.randint(-1, 50, (70,), generator=g)),
        col_bias=torch.randn(50, generator=g) - 10, row_bias=torch.randn(70, generator=g),
        col_scale=torch.rand(50, generator=g), exclude=[Self(), SameLabel(torch.arange(70) % 7, torch.arange(50) % 11)],
        valid_cols=torch.rand(50, generator=g) > 0.1,
    )  # fmt: skip
    backend, reference = TritonBackend(deterministic=route != "atomic"), exact(problem)
    want = dense.pair_sums(reference, fn)
    torch.testing.assert_close(backend.pair_sum_forward(problem, fn).double(), want, rtol=1e-5, atol=1e-7)
    upstream = torch.rand(1, 70, generator=g)
    (want * upstream).sum().backward()
    grads = backend.pair_sum_backward(problem, fn, upstream)
    for name in INPUTS:
        got, expected = getattr(grads, name).double(), getattr(reference, name).grad
        assert (got - expected).norm() < 1e-5 * expected.norm(), name


def test_small_softplus_terms_keep_their_digits():
    """softplus(-12) = 6.14e-6 is far below float32's spacing at 1, and sums of it are what SigLIP starts with."""
    q, k = torch.zeros(1, 16), torch.zeros(64, 16)
    sums = TritonBackend().pair_sum_forward(flatten(q, k, col_bias=torch.full((64,), -12.0))[0], "softplus")
    want = 64 * torch.nn.functional.softplus(torch.tensor(-12.0, dtype=torch.float64))
    assert abs(sums.item() / want.item() - 1) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("narrow", [True, False])
def test_unasked_key_gradients_are_left_out(narrow, monkeypatch):
    if not narrow:
        by_blocks(monkeypatch)
    problem = everything()
    stats = TritonBackend().forward(problem)
    lse = torch.where(stats.sum > 0, 1.0, 0.0)
    whole = TritonBackend().backward(problem, stats, Upstream(lse=lse))
    part = TritonBackend().backward(problem, stats, Upstream(lse=lse, needs_k=False))
    assert part.k is None
    for name in ("q", "scale", "col_scale", "row_bias", "col_bias"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name))


@pytest.mark.slow
def test_repeat_gives_the_same_bits():
    problem = everything()
    runs = [TritonBackend().forward(problem) for _ in range(2)]
    upstream = Upstream(lse=torch.where(runs[0].sum > 0, 1.0, 0.0))
    first, second = (TritonBackend().backward(problem, r, upstream) for r in runs)
    assert torch.equal(runs[0].lse, runs[1].lse)
    assert torch.equal(first.q, second.q)
    assert torch.equal(first.k, second.k)


def test_blocks_of_keys_with_the_union_s_statistics_add_up():
    """What a ring over ranks asks of a backend: each block's gradients under the statistics of all keys."""
    problem = make(40, 40, scale=100.0, positive=Diagonal(), columns=True)
    backend = TritonBackend()
    whole = backend.forward(problem)
    upstream = Upstream(lse=torch.ones_like(whole.sum), positive=-torch.ones_like(whole.sum))
    upstream.col_lse = torch.rand(whole.col_sum.shape, generator=rng())
    expected = backend.backward(problem, whole, upstream)
    parts = []
    for start, stop in ((0, 15), (15, 40)):
        cut = {name: getattr(whole, name)[..., start:stop] for name in ("col_shift", "col_sum", "col_count")}
        side = replace(upstream, col_lse=upstream.col_lse[..., start:stop])
        parts.append(backend.backward(problem.keys(start, stop), replace(whole, **cut), side))
    found = {"q": parts[0].q + parts[1].q, "k": torch.cat([p.k for p in parts], 1)}
    for name, got in found.items():
        want = getattr(expected, name)
        assert (got - want).norm() < 1e-4 * want.norm(), name


def clip_loss(q, k, scale):
    stats = contrast_stats(q, k, scale=scale, positive=Diagonal(), columns=True, backend="triton")
    return (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean()


def test_public_function_reaches_the_kernels(caplog):
    q, k = features(40, 40, 24)
    leaves = [q.requires_grad_(), k.requires_grad_(), torch.tensor(10.0, requires_grad=True)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    stats = contrast_stats(exact[0], exact[1], scale=exact[2], positive=Diagonal(), columns=True, backend="dense")
    (stats.lse - stats.positive + stats.columns.lse - stats.columns.positive).mean().backward()
    clip_loss(*leaves).backward()
    for t, reference in zip(leaves, exact):
        torch.testing.assert_close(t.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)
    assert not caplog.records  # no other backend stood in


def test_public_pair_sum_reaches_the_kernels(caplog):
    q, k = features(40, 40, 24)
    got = pair_sum(q, k, scale=10.0, positive=Diagonal(), backend="triton")
    want = pair_sum(q.double(), k.double(), scale=10.0, positive=Diagonal(), backend="dense")
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    assert not caplog.records


def test_refused_problems_fall_back_with_one_reason(caplog):
    q, k = features(40, 40, 24, dtype=torch.float64)
    for _ in range(2):
        contrast_stats(q, k, backend="triton")
    assert [r.message for r in caplog.records if "float64" in r.message][1:] == []
    assert "float64" in caplog.text


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_block_of_nothing_needs_no_kernel(size):
    """What a rank without rows, or a ring block without keys, asks for."""
    q, k = (torch.ones(n, 8) for n in size)
    problem, _, _ = flatten(q, k, columns=True, mean=True, exclude=Self())
    backend = TritonBackend()
    stats = backend.forward(problem)
    assert stats.lse.isneginf().all()
    assert stats.col_lse.isneginf().all()
    grads = backend.backward(problem, stats, Upstream(lse=torch.ones_like(stats.sum)))
    assert (grads.q.shape, grads.k.shape) == (problem.q.shape, problem.k.shape)
    assert backend.pair_sum_forward(problem, "softplus").tolist() == [[0.0] * size[0]]
    assert backend.pair_sum_backward(problem, "softplus", torch.ones(1, size[0])).scale.shape == (1, 1, size[0])


@pytest.mark.slow
def test_autocast_leaves_float32_features_alone(monkeypatch):
    by_blocks(monkeypatch)
    problem = make(positive=Diagonal(), columns=True)
    with torch.autocast("cpu", torch.bfloat16):
        stats = TritonBackend().forward(problem)
        upstream = Upstream(lse=torch.ones_like(stats.sum))
        inside = TritonBackend().backward(problem, stats, upstream)
    outside = TritonBackend().backward(problem, stats, upstream)
    assert torch.equal(inside.q, outside.q)
    assert torch.equal(inside.k, outside.k)
