"""No rows, no columns, or neither: every call of the engine answers with the statistics of nothing."""

import pytest
import torch

from counterpoint.common.kernels import (
    Affine,
    Diagonal,
    Gibbs,
    Index,
    Mix,
    Pairs,
    SameLabel,
    Self,
    Uniform,
    Weighted,
    contrast_stats,
    pair_sum,
    sinkhorn,
    target_scores,
    topk_scores,
)

SIZES = [(0, 5), (5, 0), (0, 0)]


def integers(*shape, value=0):
    return torch.full(shape, value, dtype=torch.int64)


MASKS = {
    "self": lambda r, c: Self(),
    "diagonal": lambda r, c: Diagonal(),
    "index": lambda r, c: Index(integers(r, value=-1)),
    "several": lambda r, c: Index(integers(r, 2, value=-1)),
    "label": lambda r, c: SameLabel(integers(r), integers(c)),
    "pairs": lambda r, c: Pairs(integers(r + 1), integers(0)),
}
TARGETS = {
    "diagonal": lambda r, c: Diagonal(),
    "index": lambda r, c: Index(integers(r, value=-1)),
    "weighted": lambda r, c: Weighted(integers(r, 2, value=-1), torch.ones(r, 2)),
    "label": lambda r, c: SameLabel(integers(r), integers(c), exclude_self=True),
    "uniform": lambda r, c: Uniform(),
    "affine": lambda r, c: Affine(torch.ones(r, 2), torch.ones(c, 2)),
    "gibbs": lambda r, c: Gibbs(torch.ones(r, 2), torch.ones(c, 2)),
    "plan": lambda r, c: Gibbs(torch.ones(r, 2), torch.ones(c, 2), normalized=False),
    "mix": lambda r, c: Mix([(0.5, Uniform()), (0.5, SameLabel(integers(r), integers(c)))]),
}


def features(rows, columns):
    return torch.ones(rows, 3).requires_grad_(), torch.ones(columns, 3).requires_grad_()


def no_gradient(value, *leaves):
    for grad in torch.autograd.grad(value, leaves, allow_unused=True):
        assert grad is None or not grad.any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ["auto", "dense", "tiled"])
@pytest.mark.parametrize("role", ["exclude", "only"])
@pytest.mark.parametrize("mask", [None, *MASKS])
def test_statistics_of_nothing(size, backend, role, mask):
    (rows, columns), (q, k) = size, features(*size)
    masks = {role: MASKS[mask](*size)} if mask else {}
    for positive in (None, Diagonal(), Index(integers(rows, value=-1))):
        how = {"positive": positive, "backend": backend, **masks}
        stats = contrast_stats(q, k, scale=torch.full((2, 1), 3.0), columns=True, mean=True, **how)
        for side, n in ((stats, rows), (stats.columns, columns)):
            assert side.lse.shape == side.mean.shape == (2, n)
            assert side.lse.isneginf().all()
            assert not side.mean.any()
            assert side.count.tolist() == [0] * n
            assert side.positive is None or not side.positive.any()
        no_gradient(stats.lse.masked_fill(stats.count == 0, 0.0).sum() + stats.columns.mean.sum(), q, k)
        total = pair_sum(q, k, **how)
        assert total.tolist() == [0.0] * rows
        no_gradient(total.sum(), q, k)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_over_nothing_have_no_score(size, target):
    q, k = features(*size)
    score, mass = target_scores(q, k, TARGETS[target](*size))
    assert score.tolist() == mass.tolist() == [0.0] * size[0]
    no_gradient(score.sum(), q, k)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [None, *MASKS])
def test_the_best_of_nothing_is_missing(size, mask):
    q, k = features(*size)
    values, indices = topk_scores(q, k, 2, exclude=MASKS[mask](*size) if mask else None)
    assert values.isneginf().all()
    assert indices.tolist() == [[-1, -1]] * size[0]


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_transported(size):
    f, g = sinkhorn(*features(*size), epsilon=1.0)
    assert (f.tolist(), g.tolist()) == ([0.0] * size[0], [0.0] * size[1])
