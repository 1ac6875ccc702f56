"""The dense oracle against the definition, pair by pair, and its first and second derivatives."""

import sys
from pathlib import Path

import pytest
import torch

from counterpoint.common.kernels import Diagonal, Index, Pairs, SameLabel, Self, contrast_stats

sys.path.insert(0, str(Path(__file__).parent))
from reference import keep_matrix, row_statistics


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(5, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)


MASKS = {
    "none": ([], []),
    "self": ([Self()], []),
    "index": ([Index(torch.tensor([[0, 5], [1, -1], [-1, -1], [3, 3], [2, 4]]))], []),
    "labels": ([SameLabel(torch.tensor([0, 1, 0, 2, 1]), torch.tensor([0, 0, 1, 2, 2, 3]))], []),
    "pairs": ([Pairs(torch.tensor([0, 2, 2, 3, 3, 5]), torch.tensor([1, 4, 0, 2, 5]))], []),
    "only": ([Self()], [SameLabel(torch.tensor([0, 1, 0, 2, 9]), torch.tensor([0, 0, 1, 2, 2, 3])), Diagonal(2)]),
    "empty rows": ([SameLabel(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0] * 6))], []),
}


@pytest.mark.parametrize("name", MASKS)
def test_statistics_equal_the_definition(features, name):
    q, k = features
    exclude, only = MASKS[name]
    scale, col_scale = torch.rand(5, dtype=torch.float64) * 4, torch.rand(6, dtype=torch.float64)
    row_bias, col_bias = torch.randn(5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    valid = torch.tensor([True, True, False, True, True, True])
    stats = contrast_stats(
        q,
        k,
        scale=scale,
        col_scale=col_scale,
        row_bias=row_bias,
        col_bias=col_bias,
        exclude=exclude or None,
        only=only or None,
        valid_cols=valid,
        columns=True,
        mean=True,
        row_offset=1,
        positive=Index(torch.tensor([4, -1, 0, 1, 2])),
        backend="dense",
    )
    raw = q @ k.T
    logits = scale[:, None] * raw * col_scale + row_bias[:, None] + col_bias
    keep = keep_matrix(q, k, exclude, only, valid, row_offset=1)
    for ours, theirs in ((stats, (raw, logits, keep)), (stats.columns, (raw.T, logits.T, keep.T))):
        lse, mean, count = row_statistics(*theirs)
        torch.testing.assert_close(ours.lse, lse, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.mean, mean, rtol=1e-12, atol=1e-12)
        assert ours.count.tolist() == count.tolist()
    # The positive is reported as it would enter lse, even where it is masked; a row without one says 0.
    expected = torch.stack([logits[0, 4], logits.new_tensor(0), logits[2, 0], logits[3, 1], logits[4, 2]])
    torch.testing.assert_close(stats.positive, expected)
    assert stats.columns.positive.tolist()[5] == 0
    torch.testing.assert_close(stats.columns.positive[4], logits[0, 4])


def test_column_positive_is_absent_when_two_rows_share_it(features):
    q, k = features
    stats = contrast_stats(q, k, positive=Index(torch.tensor([0, 0, 1, 2, 3])), columns=True)
    assert stats.columns.positive is None


def test_score_floor_keeps_the_hard_columns(features):
    q, k = features
    raw = q @ k.T
    floor = raw.median(1).values - 1e-9
    stats = contrast_stats(q, k, score_floor=floor)
    expected = row_statistics(raw, raw, raw >= floor[:, None])
    torch.testing.assert_close(stats.lse, expected[0])
    assert stats.count.tolist() == expected[2].tolist()


def test_several_scales_equal_single_passes(features):
    q, k = features
    scales = torch.tensor([[1.0], [3.0], [9.0]], dtype=torch.float64)
    together = contrast_stats(q, k, scale=scales, mean=True, positive=Diagonal())
    assert together.lse.shape == (3, 5)
    assert together.count.shape == (5,)
    for s, lse, mean, positive in zip(scales, together.lse, together.mean, together.positive):
        one = contrast_stats(q, k, scale=s.item(), mean=True, positive=Diagonal())
        torch.testing.assert_close(lse, one.lse)
        torch.testing.assert_close(mean, one.mean)
        torch.testing.assert_close(positive, one.positive)


def test_leading_dimensions_broadcast(features):
    q, k = features
    batched = contrast_stats(torch.stack([q, 2 * q]), k, exclude=Self(), columns=True)
    for n, factor in enumerate((1, 2)):
        one = contrast_stats(factor * q, k, exclude=Self(), columns=True)
        torch.testing.assert_close(batched.lse[n], one.lse)
        torch.testing.assert_close(batched.columns.lse[n], one.columns.lse)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_first_and_second_order(masked):
    torch.manual_seed(1)
    q, k, scale, col_bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2), (4, 2), (2, 3), (2, 4))
    )
    exclude = SameLabel(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1, 2])) if masked else None
    only = Index(torch.tensor([[0, 1, 2], [0, 3, -1], [3, -1, -1]])) if masked else None  # row 2 keeps nothing

    def statistics(q, k, scale, col_bias):
        stats = contrast_stats(
            q,
            k,
            scale=scale,
            col_bias=col_bias,
            exclude=exclude,
            only=only,
            positive=Diagonal(1),
            columns=True,
            mean=True,
            backend="dense",
        )
        found = (stats.lse, stats.positive, stats.mean, stats.columns.lse, stats.columns.mean)
        return tuple(t.masked_fill(t.isinf(), 0.0) for t in found)

    assert torch.autograd.gradcheck(statistics, (q, k, scale, col_bias))
    assert torch.autograd.gradgradcheck(statistics, (q, k, scale, col_bias))


def test_empty_rows_are_quiet(features):
    q, k = (t.clone().requires_grad_() for t in features)
    stats = contrast_stats(q, k, only=Index(torch.full((5, 1), -1)), mean=True, columns=True)
    assert stats.lse.tolist() == [-torch.inf] * 5
    assert stats.mean.tolist() == [0.0] * 5
    assert stats.count.tolist() == [0] * 5
    (stats.mean.sum() + stats.columns.mean.sum() + stats.lse.sum()).backward()
    assert q.grad.abs().max() == 0
    assert k.grad.abs().max() == 0
