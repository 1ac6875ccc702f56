"""The tiled backend equals the dense oracle, in value and gradient, whatever the shape, the tiles and the masks."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterpoint.common.kernels import Diagonal, Index, Pairs, SameLabel, Self, contrast_stats
from counterpoint.common.kernels.sweep import tile_size

FAST = settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def problems(draw, dtype=torch.float64):
    """Arguments of `contrast_stats`: any shapes, masks, scales and biases."""
    rows, columns, dim = draw(st.integers(1, 12)), draw(st.integers(1, 14)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch = draw(st.sampled_from([(), (), (2,), (2, 1)]))

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def ids(n, high):
        return torch.randint(0, high, (n,), generator=generator)

    same = draw(st.booleans())
    columns = rows if same else columns
    largest = draw(st.sampled_from([0.0, 0.5, 3.0, 200.0]))
    unit = draw(st.booleans())
    q, k = random(*batch, rows, dim), random(columns, dim)
    if unit:
        q, k = (torch.nn.functional.normalize(t, dim=-1) for t in (q, k))
    scales = {
        "number": largest,
        "tensor": torch.tensor(largest, dtype=dtype),
        "rows": largest * torch.rand(rows, generator=generator, dtype=dtype),
        "several": largest * torch.rand(2, 1, generator=generator, dtype=dtype),
        "both": largest * torch.rand(3, rows, generator=generator, dtype=dtype),
    }
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), ids(rows, 4).cumsum(0)])
    masks = {
        "self": Self(),
        "diagonal": Diagonal(draw(st.integers(-3, 3))),
        "index": Index(torch.randint(-1, columns, (rows, 2), generator=generator)),
        "labels": SameLabel(ids(rows, 3)) if same else SameLabel(ids(rows, 3), ids(columns, 3)),
        "pairs": Pairs(ptr, ids(int(ptr[-1]), columns)),
    }
    names = st.lists(st.sampled_from(sorted(masks)), max_size=2, unique=True)
    excluded = draw(names)
    allowed = [name for name in draw(names) if name not in excluded] if draw(st.booleans()) else []
    arguments = {
        "scale": scales[draw(st.sampled_from(sorted(scales)))],
        "exclude": [masks[name] for name in excluded] or None,
        "only": [masks[name] for name in allowed] or None,
        "columns": draw(st.booleans()),
        "mean": draw(st.booleans()),
        "row_offset": draw(st.sampled_from([0, 0, 1])),
    }
    if draw(st.booleans()):
        which = draw(st.sampled_from(["diagonal", "index"]))
        idx = torch.randint(-1, columns, (rows,), generator=generator)
        arguments["positive"] = Diagonal(draw(st.integers(-2, 2))) if which == "diagonal" else Index(idx)
    for name, length in (("row_bias", rows), ("col_bias", columns), ("col_scale", columns)):
        if draw(st.integers(0, 3)) == 0:
            arguments[name] = random(length)
    if draw(st.integers(0, 3)) == 0:
        arguments["valid_cols"] = torch.rand(columns, generator=generator) > 0.3
    if draw(st.integers(0, 4)) == 0:
        # A little below one of the scores, so that rounding cannot decide who is kept.
        arguments["score_floor"] = (q @ k.T).flatten(0, -3)[0, :, 0] - 1e-3 if batch else (q @ k.T)[:, 0] - 1e-3
    return q, q if same else k, arguments


def evaluate(q, k, arguments, backend):
    """All statistics, and the gradients of a random combination of them."""
    leaves = {"q": q.clone().requires_grad_()}
    leaves["k"] = leaves["q"] if k is q else k.clone().requires_grad_()
    floats = ("scale", "row_bias", "col_bias", "col_scale")
    for name in floats:
        if isinstance(arguments.get(name), torch.Tensor):
            leaves[name] = arguments[name].clone().requires_grad_()
    given_ = {**arguments, **{name: leaves[name] for name in floats if name in leaves}}
    stats = contrast_stats(leaves["q"], leaves["k"], backend=backend, **given_)
    found = {}
    for prefix, part in (("", stats), ("columns.", stats.columns)):
        for name in ("lse", "positive", "mean", "count"):
            value = getattr(part, name, None)
            if value is not None:
                found[prefix + name] = value
    generator = torch.Generator().manual_seed(0)
    loss = 0.0
    for value in found.values():
        if value.is_floating_point():
            weight = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
            loss = loss + (weight * value.masked_fill(value.isinf(), 0.0)).sum()
    unique = list(dict.fromkeys(leaves.values()))
    gradients = torch.autograd.grad(loss, unique, allow_unused=True)
    names = [name for name in leaves if not (name == "k" and k is q)]
    return found, {name: g for name, g in zip(names, gradients) if g is not None}


def assert_equal(ours, theirs, tolerance):
    for mine, reference in zip(ours, theirs):
        assert mine.keys() == reference.keys()
        for name, value in mine.items():
            expected = reference[name]
            if value.is_floating_point():
                size = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
                torch.testing.assert_close(
                    value, expected, rtol=0, atol=tolerance * max(1.0, size), msg=lambda m, name=name: f"{name}: {m}"
                )
            else:
                assert torch.equal(value, expected), name


@FAST
@given(problems(), st.tuples(st.integers(1, 6), st.integers(1, 7)))
def test_tiled_equals_dense_in_float64(problem, tile):
    q, k, arguments = problem
    with tile_size(*tile):
        ours = evaluate(q, k, arguments, "tiled")
    assert_equal(ours, evaluate(q, k, arguments, "dense"), 1e-10)


@pytest.mark.slow
@settings(FAST, max_examples=600)
@given(problems(), st.tuples(st.integers(1, 6), st.integers(1, 7)))
def test_tiled_equals_dense_in_float64_at_length(problem, tile):
    test_tiled_equals_dense_in_float64.hypothesis.inner_test(problem, tile)


@FAST
@given(problems(torch.float32), st.tuples(st.integers(1, 6), st.integers(1, 7)))
def test_tiled_equals_dense_in_float32(problem, tile):
    q, k, arguments = problem
    with tile_size(*tile):
        ours = evaluate(q, k, arguments, "tiled")
    widened = {
        name: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for name, v in arguments.items()
    }
    q64 = q.double()
    theirs = evaluate(q64, q64 if k is q else k.double(), widened, "dense")
    theirs = [{n: t.float() if t.is_floating_point() else t for n, t in part.items()} for part in theirs]
    # Relative to the logits' size: a logit of 200 carries a rounding error of 1e-5 into its exponential.
    logits = 1 + _largest_logit(q64, k.double(), widened)
    assert_equal(ours, theirs, 1e-6 * logits)


def _largest_logit(q, k, arguments):
    stats_scale = torch.as_tensor(arguments["scale"]).abs().max()
    norms = q.norm(dim=-1).max() * k.norm(dim=-1).max()
    if "col_scale" in arguments:
        norms = norms * arguments["col_scale"].abs().max()
    return float(stats_scale * norms)


@pytest.mark.parametrize("tile", [(1, 1), (3, 64), (64, 3), (17, 17), (512, 1024)])
@pytest.mark.parametrize("same", [False, True])
def test_results_do_not_depend_on_the_tiles(tile, same):
    torch.manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(41, 8, dtype=torch.float64), dim=1)
    k = q if same else torch.nn.functional.normalize(torch.randn(53, 8, dtype=torch.float64), dim=1)
    arguments = {
        "scale": torch.tensor(14.0, dtype=torch.float64),
        "exclude": [Self(), SameLabel(torch.arange(41) % 7, None if same else torch.arange(53) % 7)],
        "positive": Diagonal(2),
        "columns": True,
    }
    whole = evaluate(q, k, arguments, "tiled")
    with tile_size(*tile):
        parts = evaluate(q, k, arguments, "tiled")
    assert_equal(parts, whole, 1e-13)


@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.07])
@pytest.mark.parametrize("aligned", [False, True])
def test_converged_pairs_keep_their_gradient_in_float32(temperature, aligned):
    """p - 1 of a dominating positive is formed in its tile: at temperature 0.005 the error stays at rounding level."""
    torch.manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(64, 32), dim=1)
    k = torch.nn.functional.normalize(q + 0.02 * torch.randn(64, 32), dim=1) if aligned else q.roll(1, 0)
    arguments = {"scale": torch.tensor(1 / temperature), "positive": Diagonal(), "columns": True}

    def gradient(q, k, backend):
        q = q.clone().requires_grad_()
        scale = arguments["scale"].to(q.dtype)
        stats = contrast_stats(q, k, **{**arguments, "scale": scale}, backend=backend)
        loss = (stats.lse - stats.positive).mean() + (stats.columns.lse - stats.columns.positive).mean()
        return loss, torch.autograd.grad(loss, q)[0]

    with tile_size(16, 32):
        loss, ours = gradient(q, k, "tiled")
    exact_loss, exact = gradient(q.double(), k.double(), "dense")
    assert abs(loss.item() - exact_loss.item()) <= 1e-6 / temperature
    # 1 is formed to float32 rounding, not to the rounding of a logit (1e-5 at 200), in each of 64 rows and columns.
    bound = 5e-7 / temperature / 64 + 2e-6 / temperature * exact.abs().max().item()
    assert (ours - exact).abs().max() <= bound


def test_unbounded_logits_are_summed_exactly():
    """Where a single shift cannot hold the range, running maxima do."""
    torch.manual_seed(0)
    q, k = torch.randn(20, 4, dtype=torch.float64) * 30, torch.randn(30, 4, dtype=torch.float64) * 30
    with tile_size(8, 8):
        ours = evaluate(q, k, {"scale": 5.0, "columns": True, "positive": Diagonal()}, "tiled")
    assert_equal(ours, evaluate(q, k, {"scale": 5.0, "columns": True, "positive": Diagonal()}, "dense"), 1e-12)


def test_repeated_runs_agree_bit_for_bit():
    torch.manual_seed(0)
    q, k = torch.randn(70, 16), torch.randn(90, 16)
    arguments = {
        "scale": 3.0,
        "columns": True,
        "positive": Diagonal(),
        "exclude": SameLabel(torch.arange(70) % 9, torch.arange(90) % 9),
    }
    with tile_size(32, 32):
        first, second = (evaluate(q, k, arguments, "tiled") for _ in range(2))
    for a, b in zip(first, second):
        for name in a:
            assert torch.equal(a[name], b[name])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_low_precision_features_cost_only_their_own_rounding(dtype, bound):
    """bf16 features with float32 logits: a gradient error of 0.25 % at scale 14, against 1.7 % for bf16 logits."""
    torch.manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(256, 128), dim=1)
    k = torch.nn.functional.normalize(q + 0.3 * torch.randn(256, 128), dim=1)

    def gradient(q, k, backend):
        q = q.clone().requires_grad_()
        stats = contrast_stats(q, k, scale=14.3, positive=Diagonal(), columns=True, backend=backend)
        loss = ((stats.lse - stats.positive).mean() + (stats.columns.lse - stats.columns.positive).mean()) / 2
        assert loss.dtype in (torch.float32, torch.float64)
        return loss, torch.autograd.grad(loss, q)[0]

    with tile_size(64, 128):
        loss, ours = gradient(q.to(dtype), k.to(dtype), "tiled")
    same_inputs, _ = gradient(q.to(dtype).double(), k.to(dtype).double(), "dense")
    assert abs(loss - same_inputs) < 1e-5
    assert ours.dtype == dtype
    _, exact = gradient(q.double(), k.double(), "dense")
    assert (ours.double() - exact).norm() / exact.norm() < bound


def test_autocast_leaves_the_engine_alone():
    torch.manual_seed(0)
    q, k = torch.randn(40, 8), torch.randn(50, 8)
    plain = {b: contrast_stats(q, k, scale=5.0, backend=b).lse for b in ("dense", "tiled")}
    with torch.autocast("cpu", torch.bfloat16):
        for backend, lse in plain.items():
            assert torch.equal(contrast_stats(q, k, scale=5.0, backend=backend).lse, lse)
