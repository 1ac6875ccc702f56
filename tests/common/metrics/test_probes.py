"""How probes choose their penalty and few-shot figures their samples: by what they may see, equal to scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from counterpoint.common import metrics as m
from counterpoint.common.metrics.fewshot import nested_subset

GRID = (1e-3, 1e-1, 10.0)


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


def logistic(c):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-8))


def ridge(alpha):
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


# Weak signal in many dimensions: what is fitted on a sample knows that sample by heart.
X = gaussian(200, 60) * torch.linspace(0.1, 5, 60) + 3
Y = ((X[:, 0] - 3) / 0.1 + (X[:, 1] - 3) / 0.18 + gaussian(200, 1, 1)[:, 0] > 0).long()
TARGET = ((X[:, 0] - 3) / 0.1 + 2 * gaussian(200, 1, 2)[:, 0]).numpy()
A, V, T = slice(0, 80), slice(80, 140), slice(140, 200)


class TestChoice:
    def test_validation_scores_are_of_fits_on_training_rows_alone(self):
        probe = m.logistic_probe(X[A], Y[A], X[T], Y[T], val=X[V], val_labels=Y[V], c_grid=GRID, n_boot=2)
        for c, score in probe.grid.items():
            assert score == pytest.approx(logistic(c).fit(X[A], Y[A]).score(X[V], Y[V]), abs=0.02), c
        both = logistic(probe.penalty).fit(X[:140], Y[:140])  # and the last fit is on both
        np.testing.assert_allclose(probe.predictions, both.predict_proba(X[T]), atol=0.01)

    def test_cross_validation_scores_are_scikit_learns(self):
        probe = m.logistic_probe(X[A], Y[A], X[T], Y[T], c_grid=GRID, n_boot=2, seed=3)
        folds = StratifiedKFold(5, shuffle=True, random_state=3)
        for c, score in probe.grid.items():
            assert score == pytest.approx(cross_val_score(logistic(c), X[A], Y[A], cv=folds).mean(), abs=0.03), c
        assert probe.chosen_on == "5-fold cross-validation"

    def test_ridge_scores_are_scikit_learns(self):
        alphas = (0.1, 10.0, 1000.0)
        probe = m.ridge_probe(
            X[A], TARGET[A], X[T], TARGET[T], val=X[V], val_targets=TARGET[V], alphas=alphas, n_boot=2
        )
        for a, score in probe.grid.items():
            assert score == pytest.approx(r2_score(TARGET[V], ridge(a).fit(X[A], TARGET[A]).predict(X[V]))), a
        np.testing.assert_allclose(probe.predictions, ridge(probe.penalty).fit(X[:140], TARGET[:140]).predict(X[T]))
        crossed = m.ridge_probe(X[A], TARGET[A], X[T], TARGET[T], alphas=alphas, n_boot=2, seed=3)
        for a, score in crossed.grid.items():
            held = cross_val_predict(ridge(a), X[A], TARGET[A], cv=KFold(5, shuffle=True, random_state=3))
            assert score == pytest.approx(r2_score(TARGET[A], held)), a
        assert probe.scores.chance["MAE"] == pytest.approx(np.abs(TARGET[T] - TARGET[:140].mean()).mean())

    def test_multilabel_choice_is_by_the_mean_auroc_of_the_validation_split(self):
        y = torch.stack([Y, (X[:, 5] > 3).long(), torch.zeros(200).long()], 1).double()
        y[::7, 0] = float("nan")
        probe = m.logistic_probe(X[A], y[A], X[T], y[T], val=X[V], val_labels=y[V], c_grid=GRID, n_boot=2)
        for c, score in probe.grid.items():
            areas = []
            for column in (0, 1):
                a, v = (torch.isfinite(y[part, column]) for part in (A, V))
                scale = StandardScaler().fit(X[A])
                fit = LogisticRegression(C=c, max_iter=5000).fit(scale.transform(X[A][a]), y[A][a, column])
                areas.append(roc_auc_score(y[V][v, column], fit.predict_proba(scale.transform(X[V][v]))[:, 1]))
            assert score == pytest.approx(np.mean(areas), abs=0.01), c
        assert (probe.predictions[:, 2] == 0).all()  # a label nobody has is never said

    def test_test_labels_change_nothing_but_the_score(self):
        one = m.logistic_probe(X[A], Y[A], X[T], Y[T], c_grid=GRID, n_boot=2)
        two = m.logistic_probe(X[A], Y[A], X[T], 1 - Y[T], c_grid=GRID, n_boot=2)
        assert (one.penalty, one.grid) == (two.penalty, two.grid)
        np.testing.assert_array_equal(one.weights, two.weights)
        assert one.scores.metrics["accuracy"] == pytest.approx(1 - two.scores.metrics["accuracy"])

    def test_the_edge_of_the_grid_is_reported(self):
        fit, crossed = (
            m.ridge_probe(X[A], TARGET[A], X[T], TARGET[T], n_boot=2, alphas=alphas)
            for alphas in ((1e-9, 1e-8), (1e-9, 50.0, 1e9))
        )
        assert fit.at_edge
        assert not crossed.at_edge
        assert m.logistic_probe(X[A], Y[A], X[T], Y[T], c_grid=(1e-9, 1e-8), n_boot=2).at_edge
        assert not m.logistic_probe(X[A], Y[A], X[T], Y[T], c_grid=(1.0,), n_boot=2).at_edge

    def test_folds_do_not_split_a_group_of_which_some_rows_lack_a_label(self):
        """Features that name the group: only a fold that splits groups can do better than chance."""
        groups = np.repeat(np.arange(40), 4)
        z = torch.eye(40).double()[torch.from_numpy(groups)]
        labels = [None if i < 40 and i % 4 == 0 else (g * 7) % 2 for i, g in enumerate(groups)]
        split = m.logistic_probe(z, labels, z, labels, c_grid=(1.0, 10.0), n_boot=2)
        whole = m.logistic_probe(z, labels, z, labels, train_groups=groups, c_grid=(1.0, 10.0), n_boot=2)
        assert min(split.grid.values()) > 0.95
        assert max(whole.grid.values()) < 0.7
        assert whole.chosen_on == "5-fold grouped cross-validation"
        targets = [float("nan") if v is None else float(v) for v in labels]
        assert max(m.ridge_probe(z, targets, z, targets, train_groups=groups, n_boot=2).grid.values()) < 0.1
        assert max(m.ridge_probe(z, targets, z, targets, n_boot=2).grid.values()) > 0.7

    def test_a_class_without_a_training_sample_shifts_no_other(self):
        z = torch.eye(3).double().repeat(20, 1)
        names = ["a", "b", "c"] * 20
        train = [i for i in range(60) if names[i] != "b"]
        for probe in (
            m.logistic_probe(z[train], [names[i] for i in train], z, names, c_grid=(1.0,), n_boot=2).scores,
            m.simpleshot(z[train], [names[i] for i in train], z, names, n_boot=2),
        ):
            assert probe.classes == ("a", "b", "c")
            assert probe.metrics["accuracy"] == pytest.approx(2 / 3)
            assert probe.metrics["balanced_accuracy"] == pytest.approx(2 / 3)


class TestFewLabels:
    def test_simpleshot_probabilities_are_softmax_of_squared_distances_after_centring_by_the_support(self):
        support, query = X[:120], X[120:] + 2  # the queries' own mean is another one
        y = torch.from_numpy(np.digitize(TARGET, [-2, 0]))
        scores = m.simpleshot(support, y[:120], query, y[120:], n_boot=2)
        a, b = (torch.nn.functional.normalize(z - support.mean(0), dim=1) for z in (support, query))
        means = torch.stack([a[y[:120] == c].mean(0) for c in range(3)])
        p = (-((b[:, None] - means) ** 2).sum(2)).softmax(1)
        assert scores.metrics["accuracy"] == pytest.approx(float((p.argmax(1) == y[120:]).double().mean()))
        areas = [roc_auc_score(y[120:] == c, p[:, c]) for c in range(3)]
        assert scores.metrics["auroc"] == pytest.approx(np.mean(areas))

    def test_episodes_hold_so_many_queries_of_so_many_different_classes(self):
        z, y = gaussian(120, 6), torch.arange(120) % 4
        found = m.few_shot(z, y, n_way=2, k_shot=2, n_query=3, episodes=60)
        right = found.per_episode * 6
        np.testing.assert_allclose(right, right.round())
        assert len(set(right.round().tolist())) > 3
        same = m.few_shot(torch.eye(4).double()[y], y, n_way=4, k_shot=1, n_query=2, episodes=30)
        assert (same.per_episode == 1.0).all()  # a class drawn twice would be its own rival

    def test_no_query_is_a_support(self):
        """A sample like no other is recognised only by itself."""
        found = m.few_shot(torch.eye(60).double(), torch.arange(60) % 2, k_shot=10, n_query=10, episodes=100)
        assert found.accuracy.value < 0.6

    def test_groups_that_reach_over_classes_are_kept_out_too(self):
        """Each recording holds both classes along a direction of its own: only itself tells which is which."""
        groups = np.repeat(np.arange(60), 2)
        labels = np.tile([0, 1], 60)
        z = torch.eye(60).double()[torch.from_numpy(groups)] * torch.from_numpy(np.where(labels, 1.0, -1.0))[:, None]
        leaking = m.few_shot(z, labels, k_shot=20, n_query=10, episodes=40)
        honest = m.few_shot(z, labels, k_shot=20, n_query=10, episodes=40, groups=groups)
        assert leaking.accuracy.value > honest.accuracy.value + 0.05
        assert honest.accuracy.value == pytest.approx(0.5, abs=0.05)

    def test_without_a_query_outside_the_supports_groups_there_is_no_episode(self):
        with pytest.raises(ValueError, match="no episode had a query outside its support's groups"):
            m.few_shot(X[:40], Y[:40], k_shot=5, n_query=2, episodes=5, groups=["one patient"] * 40)

    def test_subsets_keep_the_shares_of_the_classes_by_rows(self):
        codes = np.repeat([0, 1], [900, 100])
        for seed in range(5):
            subset = nested_subset(codes, np.arange(1000), (0.1, 0.5), seed)
            assert [len(subset[f]) for f in (0.1, 0.5)] == [100, 500]
            assert np.bincount(codes[subset[0.1]]) == pytest.approx([90, 10], abs=1)
        sizes = np.repeat(np.arange(50), np.random.default_rng(0).integers(1, 30, 50))
        half = nested_subset(np.zeros(len(sizes), int), sizes, (0.5,), 0)[0.5]
        assert len(half) == pytest.approx(len(sizes) / 2, abs=30)  # by rows, not by groups

    def test_a_class_that_no_group_has_most_of_is_not_lost(self):
        codes = np.array([0, 0, 0, 0] * 9 + [0, 0, 0, 2] + [1, 1, 1, 1] * 10)
        for seed in range(5):
            subset = nested_subset(codes, np.repeat(np.arange(20), 4), (0.01, 0.5), seed)
            assert set(codes[subset[0.01]]) == {0, 1, 2}
            assert set(subset[0.01]) <= set(subset[0.5])
            assert len(subset[0.01]) <= 4 * 3

    def test_groups_are_stratified_by_their_most_frequent_class(self):
        codes = np.array([0, 0, 0, 2] * 20 + [1, 1, 2, 1] * 20)
        for seed in range(5):
            half = codes[nested_subset(codes, np.repeat(np.arange(40), 4), (0.5,), seed)[0.5]]
            assert np.bincount(half) == pytest.approx([30, 30, 20], abs=3)

    def test_unlabelled_rows_and_names_of_classes_do_not_matter_but_seeds_do(self):
        z = gaussian(200, 4) + 1.5 * torch.eye(4).double()[torch.arange(200) % 4]
        test, y = z[150:], (torch.arange(200) % 4)[150:]
        options = {"fractions": (0.05, 1.0), "seeds": (0, 1, 2), "method": "simpleshot"}
        plain = m.label_efficiency(z[:150], torch.arange(150) % 4, test, y, **options)
        holes = torch.cat([torch.full((3, 4), 9.0).double(), z[:150]])
        found = m.label_efficiency(holes, [None] * 3 + [i % 4 for i in range(150)], test, y, **options)
        np.testing.assert_array_equal(found.per_seed, plain.per_seed)
        assert plain.samples == [pytest.approx(8, abs=1), 150]
        assert len(set(plain.per_seed[0])) > 1
        assert len(set(plain.per_seed[1])) == 1
        tens = m.label_efficiency(
            z[:150], torch.arange(150) % 12, test, torch.arange(50) % 12, **options, metric="quadratic_kappa"
        )
        direct = m.simpleshot(z[:150], torch.arange(150) % 12, test, torch.arange(50) % 12, n_boot=1)
        assert tens.per_seed[1, 0] == pytest.approx(direct.metrics["quadratic_kappa"])  # 10 comes after 9, not after 1

    def test_the_probe_of_a_label_share_keeps_groups_together_when_it_chooses(self):
        """Features that name the group make folds that split groups choose another penalty."""
        groups = np.repeat(np.arange(40), 5)
        y = (np.random.default_rng(4).random(40) < 0.5)[groups].astype(int)
        signal = gaussian(200, 6, 4) + 0.5 * torch.from_numpy(y)[:, None]
        z = torch.cat([signal, 6 * torch.eye(40).double()[torch.from_numpy(groups)]], 1)
        sets = z[:140], y[:140], z[140:], y[140:]
        c_grid = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
        curve = m.label_efficiency(*sets, fractions=(1.0,), seeds=(0,), train_groups=groups[:140])
        whole = m.logistic_probe(*sets, train_groups=groups[:140], c_grid=c_grid, n_boot=1)
        split = m.logistic_probe(*sets, c_grid=c_grid, n_boot=1)
        assert curve.per_seed[0, 0] == whole.scores.metrics["balanced_accuracy"]
        assert whole.penalty != split.penalty
