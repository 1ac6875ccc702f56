"""Seeds and groups: the interval covers as it says, and a pilot of one method foretells how narrow it will be."""

import numpy as np
import pytest

from counterpoint.common.metrics import (
    Spread,
    auroc,
    bootstrap_interval,
    group_shares,
    logistic_probe,
    probe_shares,
    ridge_probe,
    seeds_and_groups,
)

# Deviations over seeds, groups, and what is left; seeds and groups.
DESIGNS = [
    (0.02, 0.00, 0.05, 5, 60),
    (0.02, 0.10, 0.10, 8, 80),
    (0.00, 0.20, 0.10, 5, 40),
    (0.05, 0.05, 0.05, 12, 30),
]


def drawn(rng, seed, group, rest, seeds, groups, mean=0.0):
    """A two-way table with known deviations."""
    a, b = rng.normal(0, seed, (seeds, 1)), rng.normal(0, group, (1, groups))
    return mean + a + b + rng.normal(0, rest, (seeds, groups))


@pytest.mark.parametrize(("seed", "group", "rest", "seeds", "groups"), DESIGNS)
def test_the_hierarchical_interval_covers_the_truth_as_often_as_it_says(seed, group, rest, seeds, groups):
    rng = np.random.default_rng(0)
    intervals = [seeds_and_groups(drawn(rng, seed, group, rest, seeds, groups, 0.3), n=300, seed=i) for i in range(300)]
    assert 0.925 <= np.mean([i.low <= 0.3 <= i.high for i in intervals]) <= 0.99


def test_rows_of_one_group_count_as_one():
    """A patient with ten windows says no more than one with a single window that is their mean."""
    table = drawn(np.random.default_rng(1), 0.02, 0.1, 0.05, 6, 25)
    alone = seeds_and_groups(table, n=500)
    windows = seeds_and_groups(np.repeat(table, 10, axis=1), np.repeat(np.arange(25), 10), n=500)
    assert (windows.low, windows.high) == pytest.approx((alone.low, alone.high))


def test_ignoring_either_level_covers_too_seldom():
    """Why both are drawn: by rows alone the interval of a table with seed effects covers far below 95 %."""
    rng, hits = np.random.default_rng(2), []
    for i in range(200):
        table = drawn(rng, 0.05, 0.0, 0.05, 5, 100)
        one_level = bootstrap_interval(table.mean(0), n=200, seed=i)
        hits.append(one_level.low <= 0 <= one_level.high)
    assert np.mean(hits) < 0.5


@pytest.mark.parametrize(("seed", "group", "rest", "seeds", "groups"), DESIGNS)
def test_deviations_are_found_again(seed, group, rest, seeds, groups):
    rng = np.random.default_rng(3)
    found = [Spread.of(drawn(rng, seed, group, rest, 12, 200)) for _ in range(60)]
    for name, true in (("seed", seed), ("group", group), ("rest", rest)):
        mean = np.sqrt(np.mean([getattr(s, name) ** 2 for s in found]))
        assert mean == pytest.approx(true, rel=0.15, abs=0.004)


@pytest.mark.parametrize(("seed", "group", "rest", "seeds", "groups"), DESIGNS)
def test_the_expected_half_width_is_that_of_the_interval(seed, group, rest, seeds, groups):
    rng = np.random.default_rng(4)
    widths = []
    for i in range(80):
        found = seeds_and_groups(drawn(rng, seed, group, rest, seeds, groups), n=400, seed=i)
        widths.append((found.high - found.low) / 2)
    assert np.median(widths) == pytest.approx(Spread(seed, group, rest, 9, 9).half_width(seeds, groups), rel=0.15)


def test_an_experiment_of_the_planned_size_is_as_narrow_as_planned():
    """Pilot of one method alone, then both: here they share their seeds' effects by half and their groups' by 80 %."""
    rng, target, met, planned = np.random.default_rng(5), 0.02, [], []
    for i in range(60):
        pilot = Spread.of(drawn(rng, 0.03, 0.2, 0.1, 5, 200, 0.8)).of_difference
        seeds = pilot.seeds_for(target, 1000)
        groups = pilot.groups_for(target, seeds)
        planned.append(seeds)
        difference = drawn(rng, 0.03, 0.2 * np.sqrt(0.4), 0.1 * np.sqrt(2), seeds, groups)
        found = seeds_and_groups(difference, n=400, seed=i)
        met.append((found.high - found.low) / 2 <= target)
    assert np.mean(met) > 0.75
    assert min(planned) >= 3


def test_fewer_seeds_or_groups_than_needed_are_not_enough():
    spread = Spread(0.03, 0.2, 0.1, 5, 200).of_difference
    seeds = spread.seeds_for(0.02, 1000)
    groups = spread.groups_for(0.02, seeds)
    assert spread.half_width(seeds, groups) <= 0.02 < spread.half_width(seeds, groups - 1)
    assert spread.half_width(seeds - 1, 1000) > 0.02
    assert spread.seeds_for(0.02, 100) is None, "no number of seeds makes up for too few groups"


def test_without_groups_the_width_is_a_t_interval_over_seeds():
    figures = np.array([[0.1], [0.2], [0.4]])
    spread = Spread.of(figures)
    assert spread.seed == pytest.approx(figures.std(ddof=1))
    assert spread.half_width(3, 0) == pytest.approx(4.302653 * spread.seed / np.sqrt(3))
    assert spread.groups_for(0.1, 3) is None


def test_shares_of_a_mean_over_groups_of_equal_size_are_their_means():
    rng = np.random.default_rng(6)
    x, groups = rng.normal(size=40), np.repeat(list("abcdefgh"), 5)
    shares = group_shares(lambda w: float(w @ x / w.sum()), 40, groups)
    assert shares == pytest.approx({g: x[groups == g].mean() for g in "abcdefgh"})


def test_shares_of_an_auroc_average_to_it_and_spread_as_drawn_groups_do():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(60), 6)
    positive = groups % 2 == 1
    score = positive + rng.normal(0, 1, 60)[groups] + rng.normal(0, 1, 360)
    shares = np.array(list(group_shares(lambda w: auroc(score, positive, w), 360, groups).values()))
    assert shares.mean() == pytest.approx(auroc(score, positive))
    drawn_groups = bootstrap_interval(
        np.stack([score, positive], 1), groups, statistic=lambda r: auroc(r[:, 0], r[:, 1] > 0), n=1000
    )
    width = bootstrap_interval(shares, n=1000)
    assert width.high - width.low == pytest.approx(drawn_groups.high - drawn_groups.low, rel=0.15)


def test_a_figure_that_needs_a_group_says_so():
    with pytest.raises(ValueError, match="not defined without the rows of group a"):
        group_shares(lambda w: auroc([0.1, 0.9], np.array([False, True]), w), 2, ["a", "b"])


def test_shares_of_a_probe_average_to_its_figures():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(240, 4)), rng.integers(0, 2, 240)
    x[:, 0] += y
    groups = np.repeat(np.arange(12), 10)
    probe = logistic_probe(x[:120], y[:120], x[120:], y[120:], groups=groups, n_boot=0)
    for metric in ("accuracy", "macro_f1", "auroc"):
        shares = probe_shares(probe, metric)
        assert len(shares) == 12
        assert np.mean(list(shares.values())) == pytest.approx(probe.scores.metrics[metric])
    rate = ridge_probe(x[:120], x[:120, 0], x[120:], x[120:, 0] + 1, groups=groups, n_boot=0)
    assert np.mean(list(probe_shares(rate, "MAE").values())) == pytest.approx(rate.scores.metrics["MAE"])
    with pytest.raises(ValueError, match="choose accuracy"):
        probe_shares(probe, "kappa")
    with pytest.raises(ValueError, match="no groups"):
        probe_shares(logistic_probe(x[:120], y[:120], x[120:], y[120:], n_boot=0), "accuracy")
