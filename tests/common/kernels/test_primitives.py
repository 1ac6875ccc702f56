"""`target_scores`, `topk_scores`, `pair_sum`, `merge` and `sinkhorn` against their definitions."""

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import (
    Affine,
    Diagonal,
    Gibbs,
    Index,
    Mix,
    SameLabel,
    Self,
    Uniform,
    Weighted,
    contrast_stats,
    merge,
    pair_sum,
    sinkhorn,
    target_scores,
    topk_scores,
)
from counterpoint.common.kernels.sweep import tile_size

R, C, D = 5, 7, 3
ROW_IDS, COL_IDS = torch.tensor([0, 1, 2, 1, 9]), torch.tensor([1, 1, 0, 3, 1, 2, 0])


@pytest.fixture
def features():
    torch.manual_seed(0)
    return (torch.randn(n, D, dtype=torch.float64, requires_grad=True) for n in (R, C))


def _targets():
    """Each target with the matrix t it stands for."""
    torch.manual_seed(1)
    idx = torch.tensor([[0, 6], [3, -1], [-1, -1], [2, 2], [5, 4]])
    w = torch.rand(R, 2, dtype=torch.float64)
    dense = torch.zeros(R, C + 1, dtype=torch.float64)
    several = dense.scatter_add(1, idx % (C + 1), torch.ones_like(w))[:, :C]
    weighted = dense.scatter_add(1, idx % (C + 1), w)[:, :C]
    same = (ROW_IDS[:, None] == COL_IDS).double()
    own = torch.eye(R, C, dtype=torch.float64)
    e_row, e_col = torch.randn(R, 2, dtype=torch.float64), torch.randn(C, 2, dtype=torch.float64)
    row_bias, col_bias = torch.randn(R, dtype=torch.float64), torch.randn(C, dtype=torch.float64)
    logits = 3 * e_row @ e_col.T + col_bias
    valid = torch.tensor([True] * 5 + [False] * 2)
    uniform = torch.full((R, C), 1 / C, dtype=torch.float64)
    return {
        "index": (Index(idx[:, 0]), torch.eye(C, dtype=torch.float64)[idx[:, 0]] * (idx[:, :1] >= 0)),
        "several": (Index(idx), several),
        "diagonal": (Diagonal(4), torch.eye(R, C + 4, dtype=torch.float64).roll(4, 1)[:, :C]),
        "weighted": (Weighted(idx, w), weighted),
        "same label": (SameLabel(ROW_IDS, COL_IDS), same),
        "same label but self": (SameLabel(ROW_IDS, COL_IDS, exclude_self=True), same * (1 - own)),
        "uniform": (Uniform(), uniform),
        "affine": (Affine(e_row, e_col, 0.25, 0.75), 0.25 + 0.75 * e_row @ e_col.T),
        "gibbs": (Gibbs(e_row, e_col, 3.0, row_bias, col_bias), logits.softmax(1)),
        "gibbs valid": (
            Gibbs(e_row, e_col, 3.0, None, col_bias, valid),
            logits.masked_fill(~valid, -torch.inf).softmax(1),
        ),
        "plan": (
            Gibbs(e_row, e_col, 3.0, row_bias, col_bias, normalized=False),
            (logits + row_bias[:, None]).exp(),
        ),
        "mix": (Mix([(0.9, Index(idx)), (w[:, 0], Uniform())]), 0.9 * several + w[:, :1] * uniform),
    }


@pytest.mark.parametrize("name", _targets())
def test_target_scores_equal_the_dense_target(features, name):
    q, k = features
    target, t = _targets()[name]
    score, mass = target_scores(q, k, target)
    torch.testing.assert_close(mass, t.sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, (t * (q @ k.T)).sum(1), rtol=1e-12, atol=1e-12)
    upstream = torch.randn(R, dtype=torch.float64)
    ours = torch.autograd.grad((score * upstream).sum(), (q, k))
    theirs = torch.autograd.grad(((t * (q @ k.T)).sum(1) * upstream).sum(), (q, k))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_teacher_target_has_second_derivatives(features):
    q, k = features
    target, _ = _targets()["gibbs"]
    assert torch.autograd.gradgradcheck(lambda q, k: target_scores(q, k, target)[0] ** 2, (q, k))


@pytest.mark.parametrize("tile", [(2, 3), (1024, 4096)])
def test_topk_finds_the_largest_scores_kept(features, tile):
    q, k = (t.detach() for t in features)
    values, indices = topk_scores(q, k, 4, scale=2.0, exclude=SameLabel(ROW_IDS, COL_IDS), tile=tile)
    scores = (2 * q @ k.T).masked_fill(ROW_IDS[:, None] == COL_IDS, -torch.inf)
    expected, where = scores.topk(4, 1)
    torch.testing.assert_close(values, expected)
    assert indices.tolist() == where.tolist()


@pytest.mark.parametrize("masks", [{}, {"exclude": Self()}, {"only": SameLabel(torch.arange(300) % 3)}])
@pytest.mark.parametrize("width", [7, 64, 512])
def test_topk_of_a_set_against_itself_needs_only_the_upper_triangle(masks, width):
    z = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    found = topk_scores(z, z, 9, scale=3.0, tile=(50, width), **masks)
    whole = topk_scores(z, z.clone(), 9, scale=3.0, tile=(50, width), **_named(masks))
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-5)
    scores = 3 * z @ z.T
    if "exclude" in masks:
        scores.fill_diagonal_(-torch.inf)
    if "only" in masks:
        label = torch.arange(300) % 3
        scores = scores.masked_fill(label[:, None] != label, -torch.inf)
    assert found[1].tolist() == scores.topk(9, 1).indices.tolist()


def _named(masks):
    """The same masks for keys that are another tensor, whose labels must be given."""
    if "only" not in masks:
        return masks
    label = masks["only"].row_ids
    return {"only": SameLabel(label, label.clone())}


def test_topk_marks_missing_columns(features):
    q, k = (t.detach() for t in features)
    values, indices = topk_scores(q, k, 3, only=Index(torch.tensor([[0, 1], [2, -1], [-1, -1], [4, 5], [6, 6]])))
    assert (indices >= 0).sum(1).tolist() == [2, 1, 0, 2, 1]
    assert values[indices < 0].isneginf().all()


def test_gumbel_top_1_samples_from_the_softmax():
    scores = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    k = scores.T.contiguous()
    q = torch.ones(40000, 1)
    _, index = topk_scores(q, k, 1, noise=torch.Generator().manual_seed(0))
    frequency = torch.bincount(index[:, 0], minlength=4) / len(q)
    # Five standard errors of a frequency of 1/2 at 40000 draws.
    torch.testing.assert_close(frequency, scores[0].softmax(0), rtol=0, atol=0.0125)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("fn", ["softplus", "sigmoid"])
def test_tiled_pair_sums_equal_dense(features, fn, same):
    q, k = features
    k = q if same else k
    bias = torch.randn(k.shape[0], dtype=torch.float64, requires_grad=True)
    arguments = {
        "fn": fn,
        "scale": torch.linspace(-3, 30, R, dtype=torch.float64, requires_grad=True),
        "col_scale": torch.linspace(0.5, 2, k.shape[0], dtype=torch.float64, requires_grad=True),
        "col_bias": bias,
        "positive": Diagonal(1),
        "exclude": [SameLabel(ROW_IDS, None if same else COL_IDS), Diagonal(2)],
    }
    leaves = [q, bias, arguments["scale"], arguments["col_scale"]] + ([] if same else [k])
    found = []
    for backend, tile in (("dense", (9, 9)), ("tiled", (9, 9)), ("tiled", (2, 3))):
        with tile_size(*tile):
            sums = pair_sum(q, k, **arguments, backend=backend)
            found.append((sums, *torch.autograd.grad((sums * torch.arange(1, R + 1)).sum(), leaves)))
    for other in found[1:]:
        for a, b in zip(other, found[0]):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fn", ["softplus", "sigmoid"])
def test_pair_sum_equals_the_definition(features, fn):
    q, k = features
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(R, dtype=torch.float64, requires_grad=True)
    exclude = SameLabel(ROW_IDS, COL_IDS)
    function = F.softplus if fn == "softplus" else torch.sigmoid

    def ours(q, k, scale, bias):
        return pair_sum(q, k, fn=fn, scale=scale, row_bias=bias, positive=Diagonal(), exclude=exclude)

    sign = 1 - 2 * torch.eye(R, C, dtype=torch.float64)
    keep = ROW_IDS[:, None] != COL_IDS
    expected = (function(sign * (scale * q @ k.T + bias[:, None])) * keep).sum(1)
    torch.testing.assert_close(ours(q, k, scale, bias), expected)
    assert torch.autograd.gradcheck(ours, (q, k, scale, bias))


def test_merged_shards_equal_the_whole(features):
    q, k = features
    arguments = {"scale": 3.0, "mean": True, "columns": True}
    whole = contrast_stats(q, k, positive=Index(torch.tensor([0, 6, 2, -1, 4])), **arguments)
    a = contrast_stats(q, k[:3], positive=Index(torch.tensor([0, -1, 2, -1, -1])), **arguments)
    b = contrast_stats(q, k[3:], positive=Index(torch.tensor([-1, 3, -1, -1, 1])), **arguments)
    union = merge(a, b)
    for name in ("lse", "mean", "positive", "count"):
        torch.testing.assert_close(getattr(union, name), getattr(whole, name))
    for name in ("lse", "mean", "positive", "count"):
        torch.testing.assert_close(getattr(union.columns, name), getattr(whole.columns, name))
    upstream = torch.randn(R, dtype=torch.float64)
    ours = torch.autograd.grad(((union.lse + union.mean) * upstream).sum(), (q, k), retain_graph=True)
    theirs = torch.autograd.grad(((whole.lse + whole.mean) * upstream).sum(), (q, k))
    for x, y in zip(ours, theirs):
        torch.testing.assert_close(x, y)


def test_merging_two_empty_rows_stays_quiet():
    q, k = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    none = Index(torch.tensor([-1, -1]))
    union = merge(contrast_stats(q, k, only=none, mean=True), contrast_stats(q, k, only=none, mean=True))
    assert union.lse.tolist() == [-torch.inf] * 2
    union.mean.sum().backward()
    assert q.grad.abs().max() == 0


def test_sinkhorn_plan_has_the_marginals(features):
    q, k = (t.detach() for t in features)
    row, col = (torch.rand(n, dtype=torch.float64) + 0.1 for n in (R, C))
    row, col = row / row.sum(), col / col.sum()
    f, g = sinkhorn(q, k, epsilon=0.7, iterations=300, row_marginal=row, col_marginal=col)
    plan = torch.exp(q @ k.T / 0.7 + f[:, None] + g)
    torch.testing.assert_close(plan.sum(1), row, rtol=1e-10, atol=0)
    torch.testing.assert_close(plan.sum(0), col, rtol=1e-8, atol=0)


def test_sinkhorn_ends_on_the_rows(features):
    q, k = (t.detach() for t in features)
    f, g = sinkhorn(q, k, epsilon=0.05, iterations=1)
    plan = torch.exp(q @ k.T / 0.05 + f[:, None] + g)
    torch.testing.assert_close(plan.sum(1), torch.full((R,), 1 / R, dtype=torch.float64))


def test_self_is_one_pair_a_row():
    z = torch.randn(6, 3)
    stats = contrast_stats(z, z, exclude=Self())
    assert stats.count.tolist() == [5] * 6
