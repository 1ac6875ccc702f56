"""What cannot be measured is refused in words, before it becomes a figure; odd but honest input is measured rightly."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from counterpoint.common import metrics as m
from counterpoint.common.metrics.ranking import Scoring, paired_ranks
from counterpoint.common.metrics.result import features
from counterpoint.common.metrics.segmentation import score_dense


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


X, Y = gaussian(60, 4) + 3 * torch.eye(4).double()[torch.arange(60) % 4], torch.arange(60) % 4
HALF = (X[:30], Y[:30], X[30:], Y[30:])
NAMES = [None, "a", "b", "a"]


class TestFeatures:
    def test_one_number_that_is_none_spoils_its_row(self):
        for value in (float("nan"), float("inf"), -float("inf")):
            z = X.clone()
            z[[4, 9], [1, 2]] = value
            with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 60 rows \(first: row 4\)"):
                m.rankme(z)

    def test_half_precision_is_measured_in_single(self):
        z = X.to(torch.bfloat16)
        assert m.knn(z[:30], Y[:30], z[30:], Y[30:], n_boot=2).as_dict() == (
            m.knn(z[:30].float(), Y[:30], z[30:].float(), Y[30:], n_boot=2).as_dict()
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.float64])
    def test_nothing_is_measured_below_single_precision(self, dtype):
        assert features("z", torch.ones(3, 2, dtype=dtype)).dtype == (
            torch.float64 if dtype == torch.float64 else torch.float32
        )

    @pytest.mark.parametrize("shape", [(0, 3), (5,), (2, 3, 4)])
    def test_only_a_matrix_with_rows_is_a_set_of_features(self, shape):
        with pytest.raises(ValueError, match=r"non-empty \[samples, dim\] matrix"):
            features("z", torch.zeros(shape))


class TestLabels:
    def test_elements_are_compared_by_value_whatever_holds_them(self):
        plain = m.encode_labels([0, 10, 2, 10])[0]
        for other in (list(torch.tensor([0, 10, 2, 10])), list(np.array([0, 10, 2, 10])), np.array([0, 10, 2, 10])):
            coded = m.encode_labels(other)[0]
            assert coded.classes == plain.classes == ("0", "2", "10")  # in the order of numbers, as the kappa needs it
            assert coded.codes.tolist() == plain.codes.tolist()

    def test_a_class_that_is_a_number_here_and_text_there_is_refused(self):
        """Else every test sample would be of a class that training never saw."""
        with pytest.raises(ValueError, match="class 0 stands there as a number and as text"):
            m.knn(X[:30], Y[:30], X[30:], [str(int(y)) for y in Y[30:]])

    @pytest.mark.parametrize("value", [-1.0, 2.0, 0.5, float("inf")])
    def test_a_multilabel_matrix_holds_only_yes_no_and_missing(self, value):
        y = np.array([[1.0, 0.0], [value, np.nan]])
        with pytest.raises(ValueError, match=f"0, 1 and NaN .*not {value:g}"):
            m.encode_labels(y)


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda: m.knn(*HALF, ks=(0, 5)), "at least 1"),
            (lambda: m.knn(X[:30], [None] * 30, X[30:], Y[30:]), "at least one labelled neighbour"),
            (lambda: m.knn(X[:30], Y[:29], X[30:], Y[30:]), "train: 30 feature rows but 29 labels"),
            (lambda: m.logistic_probe(X[:30], Y[:29], X[30:], Y[30:]), "train: 30 feature rows but 29 labels"),
            (lambda: m.logistic_probe(X[:30], Y[:30], X[30:], Y[31:]), "test: 30 feature rows but 29 labels"),
            (lambda: m.logistic_probe(*HALF, train_groups=[1] * 29), "train: 29 groups for 30 samples"),
            (lambda: m.logistic_probe(*HALF, val=X[:5]), "given together"),
            (lambda: m.logistic_probe(*HALF, val=X[:5], val_labels=[None] * 5), "no validation sample"),
            (lambda: m.logistic_probe(X[:30], [None] * 30, X[30:], Y[30:]), "no training sample carries a label"),
            (lambda: m.logistic_probe(*HALF, train_groups=["one"] * 30), "at least two groups of training samples"),
            (lambda: m.ridge_probe(*HALF, val=X[:5], val_targets=[np.nan] * 5), "no validation sample"),
            (lambda: m.ridge_probe(X[:30], Y[:29], X[30:], Y[30:]), "train: 30 feature rows but 29 labels"),
            (lambda: m.ridge_probe(X[:30], Y[:30], X[30:], [np.nan] * 30), "nothing to score"),
            (lambda: m.simpleshot(X[:30], [None] * 30, X[30:], Y[30:]), "no training sample carries a label"),
            (lambda: m.simpleshot(X[:30], Y[:29], X[30:], Y[30:]), "train: 30 feature rows but 29 labels"),
            (lambda: m.few_shot(X, Y.tolist() + [0]), "z: 60 feature rows but 61 labels"),
            (lambda: m.label_efficiency(*HALF, fractions=(0.0, 1.0)), r"lie in \(0, 1\]"),
            (lambda: m.cluster(X, [0] * 60), "at least two classes, the labels hold 1"),
            (lambda: m.cluster(X, Y, old=["q"]), "no sample of the old class 'q'"),
            (lambda: m.retrieval(X, X, ks=(0,)), "at least 1"),
            (lambda: m.rank_queries(X, X, relevant=(Y, Y), groups=list(range(80))), "each of the 60 queries, got 80"),
            (lambda: m.bootstrap_interval([1.0, float("nan")]), "NaN in 1 of 2 rows"),
            (lambda: m.bootstrap_interval([1.0, 2.0], ["a", None]), "row 1 has no group"),
            (lambda: m.bootstrap_interval([1.0, 2.0], [1.0, float("nan")]), "row 1 has no group"),
            (lambda: m.calibration(np.full((2, 2), 0.5), np.array([0, -1])), r"0\.\.1, got -1\.\.0"),
            (lambda: m.calibration(np.full((2, 2), 0.5), np.array([0, 2])), r"0\.\.1, got 0\.\.2"),
            (lambda: m.fit_temperature(np.zeros((2, 2)), np.array([0, -1])), "leave out missing labels"),
            (lambda: m.score_classes(np.full((4, 2), np.nan), m.encode_labels(NAMES)[0]), "NaN or infinity"),
            (lambda: m.score_classes(np.full((3, 2), 0.5), m.encode_labels(NAMES)[0]), r"\[4 labels, 2 classes\]"),
            (lambda: m.score_classes(np.full((1, 0), 0.5), m.encode_labels([None])[0]), "no sample carries a label"),
            (lambda: m.score_multilabel(np.ones((2, 2)), m.encode_labels(np.full((2, 2), np.nan))[0]), "nothing to"),
            (lambda: m.score_regression(np.ones(2), np.full(2, np.nan), train_mean=0.0), "nothing to score"),
            (lambda: m.score_regression(np.ones(2), np.ones(3), train_mean=0.0), "2 predictions and 3 targets"),
            (lambda: score_dense(np.ones((2, 2, 2), int), ("a",)), "one row and column a class"),
            (lambda: m.corruption_sweep(lambda t: 1.0, {}, []), "at least one severity"),
        ],
    )
    def test_the_reason_is_said(self, call, words):
        with pytest.raises(ValueError, match=words):
            call()

    def test_evaluate_refuses_nan_instead_of_skipping_every_protocol(self):
        broken = X.clone()
        broken[3, 1] = float("nan")
        for splits in ((m.Split(broken, Y),), (m.Split(X, Y), m.Split(broken, Y))):
            with pytest.raises(ValueError, match=r"1 of 60 rows \(first: row 3\)"):
                m.evaluate_features(*splits)
        with pytest.raises(ValueError, match="train: 59 labels for 60 samples"):
            m.evaluate_features(m.Split(X, Y), m.Split(X, Y[:59]))
        with pytest.raises(ValueError, match="test b: 59 rows, but 60"):
            m.evaluate_features(m.Split({"a": X, "b": X[:59]}))

    def test_comparing_needs_a_group_for_every_test_sample(self):
        run = m.evaluate_features(m.Split(X, Y), protocols="knn", n_boot=2)
        with pytest.raises(ValueError, match="59 groups for 60 test samples"):
            m.compare_evaluations(run, run, list(range(59)))


def test_numbers_with_holes_are_a_regression_task():
    targets = [None if i == 3 else v for i, v in enumerate(X[:, 0].tolist())]
    report = m.evaluate_features(m.Split(X, targets), m.Split(X, targets), protocols="probe", n_boot=2)
    assert report.task == "regression"
    assert report.results["ridge"].scores.unlabelled == 1
    assert m.evaluate_features(m.Split(X, [None, *Y[1:].tolist()]), protocols="knn", n_boot=2).task == "classification"


class TestConstantTargets:
    @pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1, 0.0])
    def test_equal_targets_have_no_r2_but_an_error(self, value):
        scores = m.score_regression(np.full(7, value + 1), np.full(7, value), train_mean=value, n_boot=5)
        assert np.isnan(scores.metrics["R2"])
        assert scores.metrics["MAE"] == pytest.approx(1.0)
        assert scores.metrics["spearman"] == 0.0

    def test_targets_far_from_zero_have_an_r2(self):
        year = 2000 + X[:, 0].numpy()
        scores = m.score_regression(year + 0.1 * X[:, 1].numpy(), year, train_mean=2000.0, n_boot=5)
        assert scores.metrics["R2"] == pytest.approx(r2_score(year, year + 0.1 * X[:, 1].numpy()))

    def test_ridge_chooses_alpha_where_every_fold_is_one_patient_of_one_target(self):
        """A fold of equal targets has no R2 of its own; the folds together have."""
        age, patient = np.repeat(np.arange(5.0), 10), np.repeat(np.arange(5), 10)
        x = torch.from_numpy(age)[:, None] + 0.01 * gaussian(50, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            probe = m.ridge_probe(x, age, x, age, train_groups=patient, n_boot=5)
            small = m.ridge_probe(x[::8], age[::8], x, age, n_boot=5)
        assert probe.penalty <= 1
        assert probe.scores.metrics["R2"] > 0.99
        assert np.isfinite(list(small.grid.values())).all()
        assert small.penalty <= 1

    def test_a_single_validation_sample_still_chooses_by_its_error(self):
        x, target = X[:, :1], X[:, 0].numpy()
        probe = m.ridge_probe(x[:40], target[:40], x, target, val=x[40:41], val_targets=target[40:41], n_boot=2)
        assert probe.penalty < 1
        assert probe.grid[probe.penalty] == max(probe.grid.values())

    def test_ridge_on_targets_that_never_vary_is_their_mean(self):
        probe = m.ridge_probe(X[:30], np.full(30, 0.1), X[30:], np.full(30, 0.1), n_boot=5)
        np.testing.assert_allclose(probe.predictions, 0.1)
        assert probe.penalty == 1e6  # a tie goes to the stiffest


class TestMissingTruth:
    def test_rows_without_a_label_belong_to_nothing_not_to_each_other(self):
        z = torch.eye(5).double()
        for missing in (None, float("nan"), ""):
            labels = ["a", missing, "b", missing, "c"]
            result = m.retrieval(z, z, relevant=(labels, labels)).a_to_b
            assert (result.queries, result.unanswerable) == (3, 2)
            assert result.rows.tolist() == [0, 2, 4]
            assert result.metrics["R@1"] == 1.0

    def test_groups_of_the_answerable_queries_stay_with_them(self):
        z, labels = gaussian(40, 3), [None if i % 2 else i // 4 for i in range(40)]
        patients = [i // 4 for i in range(40)]
        got = m.rank_queries(z, z, relevant=(labels, labels), exclude_self=True, groups=patients)
        assert got.intervals["MRR"].groups == 10


class TestDiscreteFeatures:
    @pytest.mark.parametrize("dim", [96, 128, 192])
    def test_rounding_never_costs_a_sample_its_own_rank(self, dim):
        """Sums of equal terms round alike, and further apart in two summation orders than random ones do."""
        for seed in range(20):
            z = (torch.rand(300, dim, generator=torch.Generator().manual_seed(seed)) < 0.1).float() + 1e-3
            z = torch.nn.functional.normalize(z, dim=1)
            rows, columns = paired_ranks(Scoring(z, z, metric="dot"), torch.arange(300), both=True)
            for places in (rows, columns):
                assert int(places.above.max()) == 0
                assert int(places.block.min()) >= 1

    def test_scores_apart_by_more_than_rounding_are_no_ties(self):
        near = torch.zeros(2, 256)
        near[:, 0], near[1, 1] = 1.0, 0.015  # cosines 1 and 1 - 1.1e-4
        result = m.retrieval(near, near, n_boot=2).a_to_b
        assert result.metrics["R@1"] == 1.0

    def test_two_collapsed_encoders_share_neighbours_by_chance_only(self):
        flat = torch.full((300, 8), 0.1)
        assert m.mutual_knn(flat, flat, k=20) == pytest.approx(20 / 299, abs=0.02)
        assert m.mutual_knn(flat, gaussian(300, 8), k=20) == pytest.approx(20 / 299, abs=0.02)
        assert m.mutual_knn(gaussian(300, 8), gaussian(300, 8), k=20) == 1.0


class TestSmallSets:
    def test_clusters_of_known_classes_only_have_no_figure_for_new_ones(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = m.cluster(X, Y, old=[0, 1, 2, 3])
        assert "accuracy_new" not in found.metrics
        assert found.metrics["accuracy_old"] == found.metrics["accuracy"]

    def test_a_label_that_nobody_knows_is_left_out_without_a_warning(self):
        y = np.array([[1, np.nan], [0, np.nan], [1, np.nan], [0, np.nan]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = m.score_multilabel(
                np.array([[0.9, 0.2], [0.1, 0.2], [0.8, 0.9], [0.4, 0.1]]), m.encode_labels(y)[0]
            )
        assert scores.metrics["auroc"] == scores.metrics["exact"] == 1.0

    def test_noise_of_one_number_is_no_noise(self):
        one = torch.tensor([3.0])
        assert torch.equal(m.CORRUPTIONS["noise"](one, 0.5, torch.Generator().manual_seed(0)), one)
