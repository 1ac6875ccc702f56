"""Paired comparison of two encoders: what is paired with what, and which way the verdict points."""

import numpy as np
import pytest
import torch

from counterpoint.common import metrics as m
from counterpoint.common.metrics.compare import sample_values


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


X, Y = gaussian(300, 8), torch.arange(300) % 3
SIGNAL = X + 2 * torch.eye(8).double()[Y]


def evaluations(protocol, labels=Y, **options):
    """A weak and a strong encoder of the same samples."""
    groups = np.arange(150) // 2
    found = []
    for z in (X, SIGNAL):
        test, train = m.Split(z[:150], labels[:150], groups), m.Split(z[150:], labels[150:])
        found.append(m.evaluate_features(test, train, protocols=protocol, n_boot=20, **options))
    return found, groups


@pytest.mark.parametrize(
    ("protocol", "name", "metric"),
    [
        ("knn", "knn", "accuracy (k = 20)"),
        ("probe", "logreg", "accuracy"),
        ("simpleshot", "simpleshot", "accuracy"),
    ],
)
def test_differences_are_those_of_the_figures_and_paired_by_group(protocol, name, metric):
    (weak, strong), groups = evaluations(protocol)
    (found,) = m.compare_evaluations(weak, strong, groups, n_boot=200)
    assert (found.protocol, found.metric, found.verdict) == (name, metric, "better")
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert found.difference.groups == 75
    (back,) = m.compare_evaluations(strong, weak, groups, n_boot=200)
    assert back.verdict == "worse"
    assert back.difference.value == pytest.approx(-found.difference.value)


def test_a_smaller_error_is_better():
    target = (X[:, 0] + 0.1 * gaussian(300, 1, 3)[:, 0]).numpy()
    runs = []
    for z in (gaussian(300, 4, 9), X):
        test, train = m.Split(z[:150], target[:150]), m.Split(z[150:], target[150:])
        runs.append(m.evaluate_features(test, train, protocols="probe", n_boot=9))
    (found,) = m.compare_evaluations(*runs, n_boot=100)
    assert (found.metric, found.verdict) == ("MAE", "better")
    assert found.difference.value < 0


def test_unlabelled_samples_keep_every_row_with_its_group():
    """Rows without a label are left out of the accuracy; the others must still meet their own group."""
    labels = [None if i % 5 == 0 else int(y) for i, y in enumerate(Y)]
    (weak, strong), groups = evaluations("knn", labels)
    (found,) = m.compare_evaluations(weak, strong, groups, n_boot=50)
    assert found.difference.n == 120
    assert found.difference.groups == len({g for i, g in enumerate(groups) if i % 5})


def test_nothing_is_called_better_on_three_groups():
    """With three groups no sign-flip test can reach 5 %, however clear the interval of the bootstrap looks."""
    d = m.paired_difference(np.zeros(9), np.full(9, 0.5), np.arange(9) // 3)
    assert d.low > 0
    assert m.Comparison("p", "R@1", 0.0, 0.5, d).verdict == "inconclusive"
    many = m.paired_difference(np.zeros(9), np.full(9, 0.5))
    assert m.Comparison("p", "R@1", 0.0, 0.5, many).verdict == "better"
    assert m.Comparison("p", "mean_rank", 0.0, 0.5, many).verdict == "worse"


def test_a_verdict_needs_both_the_interval_and_the_sign_flips():
    def verdict(low, high, p):
        d = m.PairedDifference(value=0.2, low=low, high=high, n=50, groups=50, p_value=p)
        return m.Comparison("p", "R@1", 0.0, 0.2, d).verdict

    assert verdict(0.1, 0.3, 0.01) == "better"
    assert verdict(-0.1, 0.3, 0.01) == verdict(0.1, 0.3, 0.06) == "inconclusive"


def test_average_precision_is_compared_where_it_is_not_the_reciprocal_rank():
    def metrics(result):
        return [metric for metric, *_ in sample_values(result)]

    one = m.retrieval(X[:20], SIGNAL[:20], n_boot=2).a_to_b
    many = m.retrieval(X[:20], SIGNAL[:20], relevant=(Y[:20], Y[:20]), n_boot=2).a_to_b
    assert "mAP" not in metrics(one)
    assert "mAP" in metrics(many)


def test_as_many_but_other_labelled_samples_are_not_paired():
    runs = []
    for hidden in (0, 1):
        labels = [None if i % 5 == hidden else int(y) for i, y in enumerate(Y)]
        runs.append(evaluations("knn", labels)[0][hidden])
    assert m.compare_evaluations(*runs, n_boot=5) == []


def test_other_samples_are_refused():
    (weak, _), _ = evaluations("knn")
    other = m.evaluate_features(m.Split(X[:40], Y[:40]), protocols="knn", n_boot=5)
    with pytest.raises(ValueError, match="same samples: 150 and 40"):
        m.compare_evaluations(weak, other)


class TestCorruptions:
    x = gaussian(200, 64, 1).float() * 3 + 5

    def rng(self):
        return torch.Generator().manual_seed(0)

    @pytest.mark.parametrize("name", m.CORRUPTIONS)
    def test_nothing_changes_at_zero_and_shape_and_input_stay(self, name):
        before = self.x.clone()
        assert torch.equal(m.CORRUPTIONS[name](self.x, 0.0, self.rng()), self.x)
        hard = m.CORRUPTIONS[name](self.x, 0.5, self.rng())
        assert hard.shape == self.x.shape
        assert not torch.equal(hard, self.x)
        assert torch.equal(before, self.x)
        assert torch.equal(hard, m.CORRUPTIONS[name](self.x, 0.5, self.rng()))

    def test_severity_means_what_it_says(self):
        noise = m.CORRUPTIONS["noise"](self.x, 0.5, self.rng()) - self.x
        assert float(noise.std() / self.x.std()) == pytest.approx(0.5, rel=0.02)
        hidden = m.CORRUPTIONS["hide"](self.x, 0.3, self.rng()) == self.x.mean()
        assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.02)
        gap = (m.CORRUPTIONS["cut"](self.x, 0.25, self.rng()) == self.x.mean()).all(1)
        assert int(gap.sum()) == 50
        assert int((gap[1:] != gap[:-1]).sum()) <= 2  # one stretch
        steps = m.CORRUPTIONS["quantize"](self.x, 0.5, self.rng()) / (0.5 * self.x.std())
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)

    def test_at_severity_one_nothing_of_the_sample_is_left_but_its_mean(self):
        x = gaussian(40, 3) + 5
        for name in ("hide", "cut"):
            gone = m.CORRUPTIONS[name](x, 1.0, torch.Generator().manual_seed(0))
            torch.testing.assert_close(gone, x.mean().expand(40, 3))

    def test_a_gap_may_lie_anywhere_to_the_very_end(self):
        x = torch.arange(8.0)[:, None]
        starts = set()
        for seed in range(80):
            gone = m.CORRUPTIONS["cut"](x, 0.5, torch.Generator().manual_seed(seed))
            starts.add(int((gone != x).any(1).nonzero()[0]))
        assert starts == {0, 1, 2, 3, 4}


class TestMissing:
    def test_what_is_missing_cannot_help(self):
        """One modality tells the class, the other is noise: without the first the figure falls to chance."""
        tells, noise = SIGNAL + 4 * torch.eye(8).double()[Y], gaussian(300, 8, 5)
        train = m.Split({"a": tells[150:], "b": noise[150:]}, Y[150:])
        test = m.Split({"a": tells[:150], "b": noise[:150]}, Y[:150])
        for bank in (train, None):
            (found,) = m.evaluate_features(test, bank, protocols="missing").results.values()
            assert found.scores["a"] > 0.9
            assert found.scores["b"] == pytest.approx(1 / 3, abs=0.13)
            assert found.drop_without["a"] > 0.4

    def test_each_sample_is_left_out_of_its_own_neighbours(self):
        z = {"a": gaussian(120, 6, 1), "b": gaussian(120, 6, 2)}
        (found,) = m.evaluate_features(m.Split(z, torch.arange(120) % 2), protocols="missing").results.values()
        assert all(abs(score - 0.5) < 0.2 for score in found.scores.values())


def test_leaving_one_out_of_another_picture_needs_paired_rows():
    with pytest.raises(ValueError, match="there are 150 and 10"):
        m.knn(X[:150], Y[:150], X[:10], Y[:10], leave_one_out=True)


def test_leaving_out_takes_the_sample_itself_and_nobody_else():
    """Partly labelled: an unlabelled sample stands in no bank, so all of its nearest labelled neighbours count."""
    z = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.9, 0.3], [0.0, 1.0], [0.1, 0.99]])
    result = m.knn(z, ["a", "b", None, "c", "c"], ks=(1,), n_boot=1)
    assert result.probabilities[1].argmax(1).tolist() == [1, 0, 1, 2, 2]


def test_missing_labels_of_neighbours_leave_their_weight_to_the_others():
    z = torch.eye(4).repeat(3, 1)
    labels = np.array([[1.0, 0.0]] * 4 + [[np.nan, 1.0]] * 4 + [[1.0, 1.0]] * 4)
    result = m.knn(z, labels, torch.eye(4), np.array([[1.0, 1.0]] * 4), ks=(3,), n_boot=1)
    np.testing.assert_allclose(result.probabilities[3], [[1.0, 2 / 3]] * 4)


def test_the_probe_reports_the_calibration_of_its_own_test_predictions():
    y = Y.clone()
    probe = m.logistic_probe(SIGNAL[:150], y[:150], SIGNAL[150:], y[150:], c_grid=(1.0,), n_boot=1)
    assert probe.calibration == m.calibration(probe.predictions, y[150:].numpy())
    holes = [None if i % 3 == 0 else int(c) for i, c in enumerate(y[150:])]
    probe = m.logistic_probe(SIGNAL[:150], y[:150], SIGNAL[150:], holes, c_grid=(1.0,), n_boot=1)
    kept = np.array([i for i in range(150) if i % 3])
    assert probe.calibration == m.calibration(probe.predictions[kept], y[150:].numpy()[kept])


def test_a_permutation_p_value_is_never_zero():
    assert m.paired_difference(np.zeros(50), np.ones(50), n=99).p_value == 1 / 100


def test_relative_drop_is_a_share_of_what_stood_above_chance():
    sweep = m.corruption_sweep(
        lambda change: 0.9 if change is None else change(None),
        {"fog": lambda _, s: 0.9 - 0.4 * s},
        [0.5, 1.0],
        chance=0.5,
    )
    assert sweep.relative_drop["fog"] == pytest.approx((0.2 + 0.4) / 2 / 0.4)


def test_what_is_measured_on_units_of_its_own_is_drawn_by_its_own_groups():
    """Pairs of nets, 4 to a net, beside 3 samples: the samples' groups are none of theirs."""
    rng = np.random.default_rng(0)
    target, nets = rng.normal(size=40), np.repeat(np.arange(10), 4)
    runs = [
        m.Evaluation({"pairs": m.score_regression(target + e, target, train_mean=0.0, groups=nets, n_boot=9)}, {}, "",
                     {"test": 3}, {}, {}, 0, 9, "")
        for e in (np.ones(40), np.full(40, 0.5))
    ]  # fmt: skip
    (found,) = m.compare_evaluations(*runs, groups=["a", "b", "c"], n_boot=50)
    assert (found.verdict, found.difference.groups) == ("better", 10)
    assert found.difference.value == pytest.approx(-0.5)
