"""Bootstrap by group: known variances, exact small cases, coverage."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t, ttest_1samp
from sklearn.metrics import roc_auc_score

from counterpoint.common.metrics import bootstrap_interval, paired_difference, t_interval
from counterpoint.common.metrics.bootstrap import bootstrap_weights


def test_width_matches_the_standard_error_of_the_mean():
    x = np.random.default_rng(0).normal(size=4000)
    i = bootstrap_interval(x, n=2000)
    assert (i.high - i.low) / 2 == pytest.approx(1.96 * x.std() / np.sqrt(4000), rel=0.08)


def test_copied_rows_do_not_narrow_a_grouped_interval_but_do_narrow_a_naive_one():
    x = np.random.default_rng(1).normal(size=100)
    copies, patient = np.repeat(x, 25), np.repeat(np.arange(100), 25)
    alone, grouped, naive = bootstrap_interval(x), bootstrap_interval(copies, patient), bootstrap_interval(copies)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert (naive.high - naive.low) * 4 < grouped.high - grouped.low


def test_median_of_weighted_groups_equals_the_median_of_repeated_rows():
    rng = np.random.default_rng(2)
    x, groups = rng.normal(size=60), rng.integers(0, 9, size=60)
    fast = bootstrap_interval(x, groups, n=200, statistic="median")
    slow = bootstrap_interval(x, groups, n=200, statistic=lambda rows: float(np.median(rows)))
    assert (fast.value, fast.low, fast.high) == (slow.value, slow.low, slow.high)


def test_any_statistic_of_rows_and_missing_classes_are_left_out():
    rng = np.random.default_rng(3)
    y = np.array([1] + [0] * 7)
    table = np.stack([y + rng.normal(size=8), y], axis=1)

    def auroc(rows):
        return roc_auc_score(rows[:, 1], rows[:, 0]) if 0 < rows[:, 1].sum() < len(rows) else float("nan")

    i = bootstrap_interval(table, statistic=auroc, n=300)
    assert i.low <= i.value <= i.high


def test_coverage_is_near_the_nominal_level():
    rng = np.random.default_rng(4)
    inside = [i.low <= 0.3 <= i.high for i in (bootstrap_interval(rng.random(200) < 0.3, n=300) for _ in range(200))]
    assert 0.88 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("groups", [6, 12])
def test_coverage_holds_with_few_groups(groups):
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(300):
        i = bootstrap_interval(np.repeat(rng.normal(size=groups), 3), np.repeat(np.arange(groups), 3), n=400)
        inside.append(i.low <= 0 <= i.high)
    assert 0.90 <= np.mean(inside) <= 0.99  # the plain percentiles reach 0.83 and 0.91 here


def test_one_group_and_no_replicates_claim_nothing():
    for alone in (bootstrap_interval([0.1, 0.9], ["same", "same"]), bootstrap_interval([0.5])):
        assert not alone.known
        assert (alone.as_dict()["low"], alone.as_dict()["high"], alone.span()) == (None, None, "")
        assert alone.missing.endswith("nothing is known of others, so there is no interval")
    assert bootstrap_interval([0.1, 0.9, 0.5], n=0).as_dict()["low"] is None


def test_paired_difference_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(5)
    easy = rng.normal(size=300)
    first, second = easy, easy + 0.05 + 0.01 * rng.normal(size=300)
    d = paired_difference(first, second)
    assert d.low > 0
    assert d.p_value < 0.01
    assert bootstrap_interval(first).high > bootstrap_interval(second).low


def test_no_difference_gives_uniform_p_values():
    rng = np.random.default_rng(6)
    p = [paired_difference(rng.normal(size=30), rng.normal(size=30), n=99).p_value for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.1) <= 0.18


def test_seed_fixes_everything_and_tensors_are_taken():
    x = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x.numpy(), seed=3)
    assert bootstrap_interval(x, seed=3) != bootstrap_interval(x, seed=4)


def test_one_value_says_nothing_about_spread():
    assert t_interval([1.0]).as_dict()["low"] is None


def test_a_t_interval_ends_where_the_figure_does():
    open_ended, bounded = t_interval([0.7, 1.0, 1.0]), t_interval([0.7, 1.0, 1.0], bounds=(0.0, 1.0))
    assert open_ended.high > 1
    assert (bounded.low, bounded.value, bounded.high) == (open_ended.low, open_ended.value, 1.0)


def test_wrong_group_length_is_named():
    with pytest.raises(ValueError, match="one group for each of the 3 values"):
        bootstrap_interval([1.0, 2.0, 3.0], ["a", "b"])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=2, max_size=12), st.integers(0, 99))
def test_means_and_medians_are_those_of_the_rows_drawn_however_unequal_the_groups(rows, seed):
    """A mean is over rows, so that a large group counts for its size; a median of an even number lies between two."""
    values, groups = map(np.array, zip(*rows))
    if len(set(groups)) < 2:
        return
    for name, function in (("mean", np.mean), ("median", np.median)):
        fast = bootstrap_interval(values, groups, n=16, seed=seed, statistic=name)
        slow = bootstrap_interval(values, groups, n=16, seed=seed, statistic=lambda r, f=function: float(f(r)))
        assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)


@pytest.mark.parametrize(("groups", "level"), [(5, 0.95), (40, 0.9)])
def test_percentiles_are_expanded_as_hesterberg_has_it(groups, level):
    """Phi(-sqrt(G / (G - 1)) t_{G-1}): replicates 0..n-1 in place of figures show which percentiles are read."""
    replicate = iter([500, *range(1001)])  # the value itself, then the replicates
    i = bootstrap_weights(lambda w: {"x": float(next(replicate))}, groups, n=1001, level=level)["x"]
    tail = norm.cdf(-np.sqrt(groups / (groups - 1)) * t.ppf(0.5 + level / 2, groups - 1))
    assert (i.low, i.high) == pytest.approx((1000 * tail, 1000 * (1 - tail)))


def test_weights_draw_every_group_as_often_as_any_other_and_as_many_as_there_are():
    groups, drawn = np.array([0, 0, 1, 2]), []
    bootstrap_weights(lambda w: (drawn.append(w.copy()), {"x": 0.0})[1], 4, groups, n=3000)
    table = np.array(drawn[1:])
    assert (table[:, 0] == table[:, 1]).all()  # rows of a group come together
    assert set(table[:, 1:].sum(1)) == {3.0}
    np.testing.assert_allclose(table[:, 1:].mean(0), 1.0, atol=0.06)
    assert drawn[0].tolist() == [1.0] * 4


def test_sign_flips_reach_the_exact_p_value():
    difference, groups = np.array([0.5, 0.1, 0.4, -0.2, 0.3, 0.9, -0.1]), np.array([0, 0, 1, 2, 3, 4, 5])
    sums = np.bincount(groups, difference)
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=6)]
    exact = np.mean(np.array(flipped) >= sums.sum() - 1e-12)
    d = paired_difference(np.zeros(7), difference, groups, n=20_000)
    assert d.p_value == pytest.approx(exact, abs=0.01)
    assert (d.value, d.groups) == (pytest.approx(difference.mean()), 6)


def test_t_interval_equals_scipy():
    x = np.random.default_rng(8).normal(size=7)
    expected = ttest_1samp(x, 0).confidence_interval(0.9)
    i = t_interval(x, level=0.9)
    assert (i.low, i.high) == pytest.approx((expected.low, expected.high))
