"""The label-shuffled control: what is shuffled with what, and what the verdict and the p-value mean."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common import metrics as m
from counterpoint.common.metrics.control import shuffle_labels


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 10**6))
def test_whole_groups_swap_labels_when_every_group_has_one(groups, seed):
    labels = [g % 3 for g in groups]
    dealt = shuffle_labels(labels, groups, np.random.default_rng(seed))
    assert all(len({d for d, h in zip(dealt, groups) if h == g}) == 1 for g in groups)
    held = dict(zip(groups, labels))
    assert sorted(dict(zip(groups, dealt)).values()) == sorted(held.values())  # as many groups of each label


def test_missing_labels_count_as_one_label_of_a_group():
    for seed in range(20):
        dealt = shuffle_labels([np.nan, np.nan, 1.0, 1.0], ["p", "p", "q", "q"], np.random.default_rng(seed))
        assert np.isnan(dealt).tolist() in ([True, True, False, False], [False, False, True, True])


def test_rows_are_shuffled_when_labels_differ_within_a_group():
    labels = list(range(50))
    dealt = shuffle_labels(labels, ["p"] * 50, np.random.default_rng(0))
    assert dealt != labels
    assert sorted(dealt) == labels


class TestVerdict:
    truth = tuple(range(40))

    def agreement(self, labels):
        return float(np.mean([a == b for a, b in zip(labels, self.truth)]))

    def test_real_is_of_the_labels_as_given_and_beats_every_shuffle(self):
        for labels in (list(self.truth), torch.arange(40), np.arange(40)):
            control = m.shuffled_control(self.agreement, labels, chance=1 / 40, repeats=19)
            assert control.real == 1.0
            assert control.p_value == pytest.approx(1 / 20)
            assert control.shuffled_mean < 0.2

    def test_a_real_figure_like_the_shuffled_ones_has_a_large_p_value(self):
        flat = m.shuffled_control(lambda labels: 0.5, self.truth, chance=0.5, repeats=9)
        assert flat.p_value == 1.0
        worse = m.shuffled_control(lambda labels: -self.agreement(labels), self.truth, chance=0.0, repeats=9)
        assert worse.p_value == 1.0

    def spread_around(self, centre):
        values = iter([0.0, *(centre + 0.05 * np.random.default_rng(0).normal(size=400))])
        return m.shuffled_control(lambda labels: next(values), self.truth, chance=0.5, repeats=400)

    def test_chance_within_the_central_shuffles_is_no_leak_however_sure_the_mean(self):
        control = self.spread_around(0.47)
        assert control.low < 0.5 < control.high
        assert not control.leak
        assert self.spread_around(0.8).leak

    def test_the_protocol_scores_the_real_labels_of_a_tensor(self):
        y = torch.arange(60) % 4
        z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(4)[y]
        by_tensor, by_list = (
            m.evaluate_features(m.Split(z, labels), protocols="control").results["control"]
            for labels in (y, y.tolist())
        )
        assert by_tensor.real == by_list.real > 0.8
        assert by_tensor.p_value == pytest.approx(1 / 21)


def probe_of(z, train, test):
    """Balanced accuracy of a probe, as a function of all labels."""

    def score(labels):
        y = np.asarray(labels)
        return m.logistic_probe(z[train], y[train], z[test], y[test], c_grid=(0.1,), n_boot=1).scores.metrics[
            "balanced_accuracy"
        ]

    return score


def test_a_probe_of_random_features_is_at_chance_within_its_interval_and_so_is_its_control():
    z = torch.randn(240, 10, generator=torch.Generator().manual_seed(0)).double()
    y = np.random.default_rng(1).integers(0, 3, 240)
    rows = slice(0, 120), slice(120, 240)
    interval = m.logistic_probe(z[:120], y[:120], z[120:], y[120:], c_grid=(0.1,), n_boot=300).scores.intervals
    assert interval["balanced_accuracy"].low <= 1 / 3 <= interval["balanced_accuracy"].high
    control = m.shuffled_control(probe_of(z, *rows), y, chance=1 / 3, repeats=30)
    assert not control.leak
    assert control.p_value > 0.05
    assert control.shuffled_mean == pytest.approx(1 / 3, abs=0.04)


def test_a_probe_tested_on_its_training_rows_is_a_leak():
    z = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)).double()
    control = m.shuffled_control(probe_of(z, slice(0, 60), slice(0, 60)), np.arange(60) % 2, chance=0.5, repeats=20)
    assert control.leak
    assert control.shuffled_mean > 0.8
