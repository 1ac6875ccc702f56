"""Classification figures equal scikit-learn's, with and without weights; missing and unseen classes are counted."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import metrics as sk

from counterpoint.common.metrics import encode_labels, knn, score_classes, score_multilabel, score_regression
from counterpoint.common.metrics.classification import _correlation, _Ranked, confusion, confusion_figures

rng = np.random.default_rng(0)
N, C = 300, 5
Y = rng.integers(0, C, N)
P = rng.dirichlet(np.ones(C), N)
P[np.arange(N), Y] += 0.3
P = np.round(P / P.sum(1, keepdims=True), 2)  # ties


@pytest.mark.parametrize("weights", [np.ones(N), rng.integers(0, 4, N).astype(float)])
def test_figures_equal_scikit_learn(weights):
    predicted = P.argmax(1)
    got = confusion_figures(confusion(Y, predicted, C, weights))
    w = {"sample_weight": weights}
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(Y, predicted, **w))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(Y, predicted, **w))
    assert got["kappa"] == pytest.approx(sk.cohen_kappa_score(Y, predicted, **w))
    assert got["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(Y, predicted, weights="quadratic", **w))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(Y, predicted, average="macro", **w))
    assert got["weighted_f1"] == pytest.approx(sk.f1_score(Y, predicted, average="weighted", **w))
    for c in range(C):
        area, precision = _Ranked(P[:, c], c == Y).figures(weights)
        assert area == pytest.approx(sk.roc_auc_score(c == Y, P[:, c], **w))
        assert precision == pytest.approx(sk.average_precision_score(c == Y, P[:, c], **w))


def test_macro_figures_skip_absent_classes_and_say_so():
    train, test = encode_labels(["a", "b", "z"], ["a", "b", "b", "c"])
    p = np.eye(4)[[0, 1, 0, 0]]
    scores = score_classes(p, test, n_boot=20)
    assert scores.classes == ("a", "b", "c", "z")
    assert scores.metrics["accuracy"] == 0.5
    assert scores.metrics["balanced_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores.notes == ["classes without a test sample: z"]
    assert train.classes == test.classes


def test_unlabelled_samples_are_left_out_and_counted():
    (labels,) = encode_labels(["a", None, "b", float("nan"), ""])
    scores = score_classes(np.eye(2)[[0, 1, 1, 0, 0]], labels, n_boot=5)
    assert (scores.n, scores.unlabelled) == (2, 3)
    assert scores.per_row["row"].tolist() == [0, 2]
    assert scores.metrics["accuracy"] == 1.0


def test_chance_of_a_constant_prediction():
    (labels,) = encode_labels([0] * 70 + [1] * 30)
    chance = score_classes(np.random.default_rng(0).random((100, 2)), labels, n_boot=5).chance
    assert chance["accuracy"] == 0.7
    assert chance["balanced_accuracy"] == 0.5
    assert chance["auroc"] == 0.5
    assert chance["auprc"] == pytest.approx(0.3)  # the share of the positive class
    assert chance["kappa"] == 0


@pytest.mark.parametrize(
    ("names", "positive"), [((0, 1), 1), ((False, True), 1), (("c0", "c1"), 1), (("afib", "normal"), 0)]
)
def test_of_two_classes_the_positive_one_is_ranked_and_stands_first(names, positive):
    y = rng.random(120) < 0.2
    p = np.clip(0.3 * y + 0.7 * rng.random(120), 0, 1)
    labels = [names[positive] if one else names[1 - positive] for one in y]
    table = np.stack([1 - p, p] if positive else [p, 1 - p], axis=1)
    scores = score_classes(table, encode_labels(labels)[0], n_boot=20)
    assert list(scores.metrics)[:2] == ["auroc", "auprc"]
    assert scores.metrics["auroc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert scores.metrics["auprc"] == pytest.approx(sk.average_precision_score(y, p))
    assert scores.chance["auprc"] == pytest.approx(y.mean())
    said = [note for note in scores.notes if "AUPRC" in note]
    assert said == ([] if names[1] in (1, True) else [f"AUPRC is that of the class {names[positive]}"])


def test_of_many_classes_the_chance_of_auprc_is_the_mean_share():
    scores = score_classes(P[:40], encode_labels([0] * 30 + [1] * 6 + [2] * 4, Y)[0], n_boot=5)
    assert scores.chance["auprc"] == pytest.approx((0.75 + 0.15 + 0.1) / 3)
    assert next(iter(scores.metrics)) == "accuracy"


def test_kappa_is_not_defined_where_all_are_of_one_class_and_called_so():
    """Resamples that lose a class say nothing of it, instead of drawing the interval of a perfect kappa down to 0."""
    assert np.isnan(confusion_figures(np.array([[5.0, 0.0], [0.0, 0.0]]))["kappa"])
    (labels,) = encode_labels([0, 0, 1, 1])
    i = score_classes(np.eye(2)[[0, 0, 1, 1]], labels, groups=np.array([*"aabb"]), n_boot=100).intervals["kappa"]
    assert (i.low, i.value, i.high) == (1.0, 1.0, 1.0)


def test_grouped_intervals_are_wider_when_groups_agree():
    groups = np.repeat(np.arange(20), 15)
    right = np.repeat(np.arange(20) % 2, 15)
    (labels,) = encode_labels(Y)
    p = np.eye(C)[np.where(right, Y, (Y + 1) % C)]
    alone, grouped = (score_classes(p, labels, groups=g, n_boot=300).intervals["accuracy"] for g in (None, groups))
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)


def test_multilabel_equals_scikit_learn_and_skips_missing_entries():
    y = (rng.random((200, 4)) < 0.3).astype(float)
    p = np.clip(0.4 * y + 0.6 * rng.random((200, 4)), 0, 1)
    (labels,) = encode_labels(y)
    scores = score_multilabel(p, labels, n_boot=10)
    assert scores.metrics["auroc"] == pytest.approx(sk.roc_auc_score(y, p, average="macro"))
    assert scores.metrics["auprc"] == pytest.approx(sk.average_precision_score(y, p, average="macro"))
    assert scores.metrics["macro_f1"] == pytest.approx(sk.f1_score(y, p >= 0.5, average="macro"))
    holes = y.copy()
    holes[:50, 0] = np.nan
    (labels,) = encode_labels(holes)
    scores = score_multilabel(p, labels, n_boot=10)
    per_label = [sk.roc_auc_score(y[50:, 0], p[50:, 0])] + [sk.roc_auc_score(y[:, c], p[:, c]) for c in (1, 2, 3)]
    assert scores.metrics["auroc"] == pytest.approx(np.mean(per_label))


def test_regression_equals_scikit_learn_and_a_constant_is_its_chance():
    y, noise = rng.normal(size=150), rng.normal(size=150)
    p = y + 0.5 * noise
    scores = score_regression(p, y, train_mean=float(y.mean()), n_boot=50)
    assert scores.metrics["R2"] == pytest.approx(sk.r2_score(y, p))
    assert scores.metrics["MAE"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert scores.metrics["spearman"] == pytest.approx(spearmanr(y, p).statistic)
    assert scores.chance["R2"] == pytest.approx(0, abs=1e-12)


def test_probabilities_are_scored_one_class_against_the_rest():
    (labels,) = encode_labels(Y)
    scores = score_classes(P, labels, n_boot=300)
    p = P / P.sum(1, keepdims=True)
    areas = [sk.roc_auc_score(c == Y, P[:, c]) for c in range(C)]
    assert scores.metrics["auroc"] == pytest.approx(np.mean(areas))
    assert scores.metrics["auroc"] == pytest.approx(sk.roc_auc_score(Y, p, multi_class="ovr"), abs=0.01)
    precisions = [sk.average_precision_score(c == Y, P[:, c]) for c in range(C)]
    assert scores.metrics["auprc"] == pytest.approx(np.mean(precisions))
    assert scores.metrics["macro_f1"] == pytest.approx(sk.f1_score(Y, P.argmax(1), average="macro"))
    assert scores.notes == []  # all replicates asked for were drawn
    wider = confusion_figures(confusion(Y, P.argmax(1), C + 2, np.ones(N)))  # classes nobody has and nobody says
    assert wider["macro_f1"] == pytest.approx(scores.metrics["macro_f1"])


def test_chance_is_the_most_frequent_class_wherever_it_stands_in_the_list():
    (labels,) = encode_labels(["a"] * 20 + ["b"] * 70 + ["c"] * 10)
    chance = score_classes(np.full((100, 3), 1 / 3), labels, n_boot=5).chance
    assert chance["accuracy"] == 0.7
    assert chance["weighted_f1"] == pytest.approx(0.7 * 2 * 0.7 / 1.7)


def test_multilabel_figures_with_holes_are_those_of_what_is_known():
    y = (rng.random((120, 3)) < [0.2, 0.5, 0.8]).astype(float)
    p = np.clip(0.5 * y + 0.5 * rng.random((120, 3)), 0, 1)
    y[rng.random((120, 3)) < 0.3] = np.nan
    y[0] = np.nan  # nothing is known of the first row
    (labels,) = encode_labels(y)
    scores = score_multilabel(p, labels, groups=np.arange(120) // 2, n_boot=10)
    known, said = np.isfinite(y), p >= 0.5
    f1 = [sk.f1_score(y[k, c], said[k, c]) for c, k in enumerate(known.T)]
    assert scores.metrics["macro_f1"] == pytest.approx(np.mean(f1))
    rows = np.flatnonzero(known.any(1))
    right = [all(said[i, c] == y[i, c] for c in range(3) if known[i, c]) for i in rows]
    assert scores.metrics["exact"] == pytest.approx(np.mean(right))
    none = [all(y[i, c] == 0 for c in range(3) if known[i, c]) for i in rows]
    assert scores.chance["exact"] == pytest.approx(np.mean(none))
    yes = [sk.f1_score(y[k, c], np.ones(k.sum())) for c, k in enumerate(known.T)]
    assert scores.chance["macro_f1"] == pytest.approx(np.mean(yes))
    assert scores.per_row["row"].tolist() == rows.tolist()
    assert scores.per_row["correct"].tolist() == [float(r) for r in right]
    assert (scores.n, scores.unlabelled) == (len(rows), 120 - len(rows))
    assert scores.intervals["exact"].groups == len(set(rows // 2))


def test_regression_with_holes_and_ties_equals_scikit_learn_and_scipy():
    y = rng.integers(0, 6, 80).astype(float)
    p = np.round(y + rng.normal(size=80))
    y[::9] = np.nan
    keep = np.isfinite(y)
    scores = score_regression(p, y, train_mean=1.0, groups=np.arange(80) // 4, n_boot=30)
    a, b = y[keep], p[keep]
    assert scores.metrics["R2"] == pytest.approx(sk.r2_score(a, b))
    assert scores.metrics["RMSE"] == pytest.approx(sk.root_mean_squared_error(a, b))
    assert scores.metrics["spearman"] == pytest.approx(spearmanr(a, b).statistic)
    assert scores.chance["MAE"] == pytest.approx(np.abs(a - 1).mean())  # the training mean, whatever the test mean is
    assert scores.chance["R2"] == pytest.approx(sk.r2_score(a, np.ones(len(a))))
    assert scores.per_row["row"].tolist() == np.flatnonzero(keep).tolist()
    np.testing.assert_allclose(scores.per_row["error"], np.abs(a - b))
    assert scores.intervals["MAE"].groups == 20


def test_a_weighted_correlation_is_that_of_repeated_rows():
    a, b, w = rng.normal(size=30), rng.normal(size=30), rng.integers(0, 4, 30)
    expected = np.corrcoef(np.repeat(a, w), np.repeat(b, w))[0, 1]
    assert _correlation(a, b, w.astype(float)) == pytest.approx(expected)


class TestKNN:
    x = torch.randn(120, 8, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(8)[torch.arange(120) % 4]
    y = torch.arange(120) % 4

    def test_equals_the_written_vote(self):
        result = knn(self.x[:80], self.y[:80], self.x[80:], self.y[80:], ks=(7,), n_boot=5)
        z = torch.nn.functional.normalize(self.x, dim=1)
        values, index = (z[80:] @ z[:80].T).topk(7)
        weight = (values / 0.07).softmax(1)
        expected = torch.zeros(40, 4).scatter_add_(1, self.y[:80][index], weight)
        np.testing.assert_allclose(result.probabilities[7], expected, atol=1e-5)

    def test_probabilities_sum_to_one_for_every_k(self):
        result = knn(self.x[:80], self.y[:80], self.x[80:], self.y[80:], n_boot=5)
        for p in result.probabilities.values():
            np.testing.assert_allclose(p.sum(1), 1)
        assert list(result.by_k) == [1, 5, 20, 80]

    def test_class_seen_only_in_the_test_set_is_missed_not_fatal(self):
        names = ["a", "b", "c", "d", "new"]
        truth = [names[i] for i in self.y[80:].tolist()[:-1]] + ["new"]
        train = [names[i] for i in self.y[:80].tolist()]
        result = knn(self.x[:80], train, self.x[80:], truth, ks=(5,), n_boot=5)
        assert result.best.classes == ("a", "b", "c", "d", "new")
        whole = knn(self.x[:80], train, self.x[80:-1], truth[:-1], ks=(5,), n_boot=5)
        assert result.best.metrics["accuracy"] == pytest.approx(whole.best.metrics["accuracy"] * 39 / 40)

    def test_non_contiguous_and_string_labels_do_not_matter(self):
        one = knn(self.x[:80], self.y[:80] * 100 - 7, self.x[80:], self.y[80:] * 100 - 7, ks=(5,), n_boot=5)
        two = knn(self.x[:80], self.y[:80], self.x[80:], self.y[80:], ks=(5,), n_boot=5)
        assert one.best.metrics == two.best.metrics

    def test_leave_one_out_never_uses_the_sample_itself(self):
        z = torch.eye(6)
        assert knn(z, [0, 0, 0, 1, 1, 1], ks=(1,), n_boot=5).best.metrics["accuracy"] < 1
        loo = knn(self.x, self.y, ks=(3,), n_boot=5)
        for i in (0, 17):
            rest = torch.arange(120) != i
            alone = knn(self.x[rest], self.y[rest], self.x[i : i + 1], self.y[i : i + 1], ks=(3,), n_boot=1)
            np.testing.assert_allclose(alone.probabilities[3][0], loo.probabilities[3][i], atol=1e-6)

    def test_multilabel_averages_labels_and_ignores_missing_ones(self):
        y = torch.tensor([[1.0, 0.0], [1.0, float("nan")], [0.0, 1.0], [0.0, 1.0]])
        z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        result = knn(z, y, z, y, ks=(2,), n_boot=2)
        np.testing.assert_allclose(result.probabilities[2], [[1, 0], [1, 0], [0, 1], [0, 1]], atol=1e-12)

    def test_order_and_batching_of_queries_do_not_matter(self):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
        a = knn(self.x[:80], self.y[:80], self.x[80:], self.y[80:], ks=(5,), n_boot=2).probabilities[5]
        b = knn(self.x[:80], self.y[:80], self.x[80:][order], self.y[80:][order], ks=(5,), n_boot=2).probabilities[5]
        np.testing.assert_allclose(a[order.numpy()], b, atol=1e-7)


def test_no_warnings_on_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (labels,) = encode_labels(Y)
        score_classes(P, labels, n_boot=20)


def test_classes_of_a_single_group_are_told_with_the_figures():
    y = [0, 0, 1, 1, 2, 2, 3, 3]
    probabilities = np.eye(4)[y]
    (labels,) = encode_labels(y)
    alone = score_classes(probabilities, labels, groups=np.array(y), n_boot=5)
    assert any("4 of 4 classes stand in a single group" in note for note in alone.notes)
    spread = score_classes(probabilities, labels, groups=np.array([0, 1] * 4), n_boot=5)
    assert spread.notes == score_classes(probabilities, labels, n_boot=5).notes == []
