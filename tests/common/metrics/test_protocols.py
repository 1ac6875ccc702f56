"""Probes, few-shot, zero-shot, clusters, likeness, calibration, robustness, control, and all of them by `evaluate`."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from counterpoint.common import metrics as m
from counterpoint.common.metrics.fewshot import nested_subset
from counterpoint.common.metrics.probe import _folds


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:900]
    return torch.from_numpy(data.data[order]), torch.from_numpy(data.target[order])


class TestLogistic:
    def test_equals_scikit_learn_at_a_given_penalty(self, digits):
        x, y = digits
        probe = m.logistic_probe(x[:400], y[:400], x[400:], y[400:], c_grid=(0.1,), n_boot=2)
        scale = StandardScaler().fit(x[:400])
        oracle = LogisticRegression(C=0.1, max_iter=3000, tol=1e-8).fit(scale.transform(x[:400]), y[:400])
        np.testing.assert_allclose(probe.predictions, oracle.predict_proba(scale.transform(x[400:])), atol=2e-3)
        assert probe.chosen_on == "given"

    def test_penalty_is_the_squared_norm(self):
        x = gaussian(60, 3)
        y = (x[:, 0] + 0.5 * gaussian(60, 1, 1)[:, 0] > 0).long()
        probe = m.logistic_probe(x, y, x, y, c_grid=(0.5,), n_boot=2)
        z = StandardScaler().fit(x)
        scaled = z.transform(x)
        p = probe.predictions[:, 1]
        w = probe.weights[0] * z.scale_
        # Stationarity of C sum CE + |w|^2 / 2: w = C sum (y - p) x. With |w| in place of |w|^2 it would be w / |w|.
        np.testing.assert_allclose(w, 0.5 * (y.numpy() - p) @ scaled, atol=2e-3)

    def test_chosen_penalty_has_the_best_validation_accuracy_and_ties_go_to_the_stiffer(self, digits):
        x, y = digits
        options = {"val": x[200:400], "val_labels": y[200:400], "n_boot": 2}
        probe = m.logistic_probe(x[:200], y[:200], x[400:], y[400:], **options)
        assert probe.chosen_on == "validation"
        best = max(probe.grid.values())
        assert probe.penalty == min(c for c, v in probe.grid.items() if v >= best - 1e-9)
        assert probe.train == 400

    def test_weights_act_on_raw_features(self, digits):
        x, y = digits
        probe = m.logistic_probe(x[:300], y[:300], x[300:], y[300:], c_grid=(0.01,), n_boot=2)
        logits = x[300:].numpy() @ probe.weights.T + probe.bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(p / p.sum(1, keepdims=True), probe.predictions, atol=1e-9)

    def test_folds_keep_groups_apart(self):
        x, y, groups = gaussian(60, 2).numpy(), np.arange(60) % 2, np.repeat(np.arange(12), 5)
        for fit, check in _folds(x, y, groups, 5, 0, stratify=True):
            assert not set(groups[fit]) & set(groups[check])

    def test_random_features_are_at_chance_within_the_interval(self):
        x, y = gaussian(600, 20), torch.arange(600) % 3
        probe = m.logistic_probe(x[:300], y[:300], x[300:], y[300:], n_boot=300)
        for key in ("balanced_accuracy", "auroc"):
            i = probe.scores.intervals[key]
            assert i.low <= probe.scores.chance[key] <= i.high, (key, i)

    def test_multilabel_is_one_probe_a_label_with_holes(self):
        x = gaussian(300, 6)
        y = (x[:, :3] + 0.3 * gaussian(300, 3, 1) > 0).double()
        y[:40, 1] = float("nan")
        probe = m.logistic_probe(x[:200], y[:200], x[200:], y[200:], c_grid=(0.1, 1.0), n_boot=2)
        assert probe.scores.metrics["auroc"] > 0.95
        alone = m.logistic_probe(
            x[40:200], y[40:200, 1].long(), x[200:], y[200:, 1].long(), c_grid=(probe.penalty,), n_boot=2
        )
        np.testing.assert_allclose(probe.predictions[:, 1], alone.predictions[:, 1], atol=0.02)

    def test_one_class_in_training_predicts_it(self):
        probe = m.logistic_probe(
            gaussian(5, 2), ["a"] * 5, gaussian(4, 2), ["a", "a", "b", "b"], c_grid=(1.0,), n_boot=2
        )
        assert probe.scores.metrics["accuracy"] == 0.5


class TestRidge:
    def test_equals_scikit_learn(self):
        x, w = gaussian(200, 5), torch.arange(5).double()
        y = (x @ w + 0.1 * gaussian(200, 1, 1)[:, 0] + 3).numpy()
        probe = m.ridge_probe(x[:120], y[:120], x[120:], y[120:], alphas=(10.0,), n_boot=2)
        scale = StandardScaler().fit(x[:120])
        oracle = Ridge(alpha=10.0).fit(scale.transform(x[:120]), y[:120]).predict(scale.transform(x[120:]))
        np.testing.assert_allclose(probe.predictions, oracle, atol=1e-8)
        np.testing.assert_allclose(x[120:].numpy() @ probe.weights[0] + probe.bias[0], oracle, atol=1e-8)

    def test_noise_chooses_a_stiff_penalty_and_signal_a_soft_one(self):
        x = gaussian(150, 40)
        noise, signal = gaussian(150, 1, 3)[:, 0].numpy(), x[:, 0].numpy()
        stiff = m.ridge_probe(x[:100], noise[:100], x[100:], noise[100:], n_boot=2)
        soft = m.ridge_probe(x[:100], signal[:100], x[100:], signal[100:], n_boot=2)
        assert stiff.penalty > 100 * soft.penalty
        assert soft.scores.metrics["R2"] > 0.99


class TestFewShot:
    def test_simpleshot_is_nearest_mean_after_centring_and_normalising(self, digits):
        x, y = digits
        scores = m.simpleshot(x[:300], y[:300], x[300:], y[300:], n_boot=2)
        mean = x[:300].mean(0)
        a, b = (torch.nn.functional.normalize(z - mean, dim=1) for z in (x[:300], x[300:]))
        means = torch.stack([a[y[:300] == c].mean(0) for c in range(10)])
        expected = (torch.cdist(b, means).argmin(1) == y[300:]).double().mean()
        assert scores.metrics["accuracy"] == pytest.approx(float(expected))

    def test_episodes_of_noise_are_at_chance(self):
        result = m.few_shot(gaussian(400, 16), torch.arange(400) % 8, n_way=5, k_shot=3, n_query=5, episodes=400)
        assert result.accuracy.low - 0.01 <= 0.2 <= result.accuracy.high + 0.01
        assert result.chance == 0.2

    def test_queries_never_share_a_group_with_supports(self):
        # Each group sits on its own direction: with leakage the accuracy is perfect, without it chance.
        groups = np.repeat(np.arange(40), 10)
        labels = groups % 4
        z = torch.eye(40).double()[torch.from_numpy(groups)] + 0.01 * gaussian(400, 40)
        leaking = m.few_shot(z, labels, k_shot=5, n_query=5, episodes=60)
        honest = m.few_shot(z, labels, k_shot=5, n_query=5, episodes=60, groups=groups)
        assert leaking.accuracy.value > honest.accuracy.value + 0.2

    def test_too_few_samples_say_how_many_are_needed(self):
        with pytest.raises(ValueError, match="at least 20 samples"):
            m.few_shot(gaussian(10, 2), [0, 1] * 5, k_shot=5, n_query=15)

    def test_subsets_are_nested_grouped_and_keep_every_class(self):
        codes, groups = np.repeat(np.arange(4), 100), np.arange(400) // 4
        subsets = nested_subset(codes, groups, (0.01, 0.1, 0.5, 1.0), seed=3)
        previous: set = set()
        for f, rows in subsets.items():
            assert previous <= set(rows)
            assert set(codes[rows]) == {0, 1, 2, 3}
            assert all((np.isin(groups, groups[rows]) == np.isin(np.arange(400), rows)).tolist())
            previous = set(rows)
            if f >= 0.1:
                assert len(rows) == pytest.approx(f * 400, abs=4 * 4)
                assert np.bincount(codes[rows]).max() - np.bincount(codes[rows]).min() <= 8

    def test_more_labels_do_not_hurt(self, digits):
        x, y = digits
        result = m.label_efficiency(
            x[:600], y[:600], x[600:], y[600:], fractions=(0.05, 1.0), seeds=(0, 1, 2), method="simpleshot"
        )
        assert result.intervals[1].value > result.intervals[0].value
        assert result.samples[1] == 600
        assert result.chance == pytest.approx(0.1)


class TestZeroShot:
    def test_prompts_are_normalised_averaged_and_normalised(self):
        p = gaussian(5, 7)
        expected = torch.nn.functional.normalize(torch.nn.functional.normalize(p, dim=1).mean(0), dim=0)
        assert torch.allclose(m.prompt_ensemble(p), expected)
        assert torch.allclose(m.prompt_ensemble(p * torch.arange(1, 6)[:, None]), expected)

    def test_class_order_does_not_matter_and_missing_descriptions_are_named(self):
        z, words = gaussian(30, 4), {c: gaussian(2, 4, i + 1) for i, c in enumerate("abc")}
        labels = [*"abc"] * 10
        one = m.zero_shot(z, labels, words, n_boot=5)
        two = m.zero_shot(z, labels, dict(reversed(words.items())), n_boot=5)
        assert one.metrics["accuracy"] == two.metrics["accuracy"]
        assert one.metrics["auroc"] == pytest.approx(two.metrics["auroc"])
        with pytest.raises(ValueError, match="no description of class 'z'"):
            m.zero_shot(z, ["z"] * 30, words)

    def test_evaluate_takes_descriptions_for_the_modalities_of_their_width(self):
        z, words = gaussian(30, 4), {c: gaussian(2, 4, i + 1) for i, c in enumerate("abc")}
        split = m.Split({"image": z, "sound": gaussian(30, 5)}, [*"abc"] * 10)
        report = m.evaluate_features(split, protocols="zeroshot", descriptions=words, n_boot=5)
        assert set(report.results) == {"zeroshot of image"}
        alone = m.zero_shot(z, [*"abc"] * 10, words, n_boot=5)
        assert report.results["zeroshot of image"].metrics == alone.metrics
        with pytest.raises(ValueError, match="descriptions have 7 dimensions"):
            m.evaluate_features(split, protocols="zeroshot", descriptions={c: gaussian(1, 7) for c in "abc"})

    def test_a_class_read_as_a_number_is_found_by_its_name(self):
        (labels,) = m.encode_labels([1.0, 0.0, float("nan"), 1, True])
        assert labels.classes == ("0", "1")
        assert labels.codes.tolist() == [1, 0, -1, 1, 1]
        assert m.encode_labels([0.5, 1.5])[0].classes == ("0.5", "1.5")


class TestCluster:
    def test_perfect_clusters_and_renamed_ones(self):
        z = torch.eye(4).repeat(10, 1).double() + 0.01 * gaussian(40, 4)
        for labels in (torch.arange(40) % 4, [f"c{(i * 3) % 4}" for i in range(40)]):
            result = m.cluster(z, labels)
            assert all(i.value == pytest.approx(1.0) for i in result.metrics.values())

    def test_noise_is_at_chance(self):
        result = m.cluster(gaussian(300, 8), torch.arange(300) % 3)
        assert abs(result.metrics["ARI"].value) < 0.03
        assert result.metrics["accuracy"].value == pytest.approx(result.chance_accuracy, abs=0.06)

    def test_old_and_new_share_one_matching(self):
        z = torch.eye(3).repeat(10, 1).double() + 0.01 * gaussian(30, 3)
        result = m.cluster(z, [*"abc"] * 10, old=["a", "b"], method="gmm")
        assert result.metrics["accuracy_new"].value == pytest.approx(1.0)
        assert result.metrics["accuracy_old"].value == pytest.approx(1.0)


class TestSimilarity:
    def test_cka_is_blind_to_rotation_and_scale_but_not_to_stretching(self):
        x = gaussian(100, 6)
        q, _ = torch.linalg.qr(gaussian(6, 6, 1))
        for debiased in (True, False):
            assert m.cka(x, 5 * x @ q + 3, debiased=debiased) == pytest.approx(1.0)
            assert m.cka(x, x * torch.tensor([9.0, 1, 1, 1, 1, 1]), debiased=debiased) < 0.9

    def test_debiasing_removes_chance_likeness(self):
        x, y = gaussian(60, 50, 1), gaussian(60, 50, 2)
        assert m.cka(x, y, debiased=False) > 0.4
        assert abs(m.cka(x, y)) < 0.12

    def test_unbiased_hsic_equals_the_kernel_formula(self):
        x, y = gaussian(20, 3, 1), gaussian(20, 4, 2) + gaussian(20, 3, 1)[:, :1]

        def hsic(a, b):
            n = 20
            k, l = (z @ z.T for z in (a, b))
            k, l = k - k.diag().diag(), l - l.diag().diag()
            one = torch.ones(n).double()
            return (
                (k @ l).trace()
                + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
                - 2 / (n - 2) * (one @ k @ l @ one)
            ) / (n * (n - 3))

        expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
        assert m.cka(x, y) == pytest.approx(float(expected))

    def test_mutual_knn_limits_and_chance(self):
        x = gaussian(400, 10)
        assert m.mutual_knn(x, x * 3) == 1.0
        assert m.mutual_knn(x, gaussian(400, 10, 9), k=20) == pytest.approx(20 / 399, abs=0.015)

    def test_mutual_knn_equals_sets_of_neighbours(self):
        x, y = gaussian(50, 5, 1), gaussian(50, 5, 1) + 0.5 * gaussian(50, 5, 2)
        overlap = []
        tops = []
        for z in (x, y):
            z = torch.nn.functional.normalize(z, dim=1)
            tops.append((z @ z.T).fill_diagonal_(-2).topk(7).indices)
        for a, b in zip(*tops):
            overlap.append(len(set(a.tolist()) & set(b.tolist())) / 7)
        assert m.mutual_knn(x, y, k=7) == pytest.approx(np.mean(overlap))

    def test_cca_finds_the_shared_directions(self):
        shared = gaussian(2000, 2)
        x = torch.cat([shared, gaussian(2000, 3, 1)], 1) @ gaussian(5, 5, 2)
        y = torch.cat([gaussian(2000, 4, 3), shared], 1) @ gaussian(6, 6, 4)
        result = m.cca(x, y)
        assert result.correlations[:2] == pytest.approx([1, 1], abs=1e-6)
        assert result.correlations[2] < 0.15
        a, b = result.transform_x(x), result.transform_y(y)
        assert torch.allclose(a.T @ a / 2000, torch.eye(5).double(), atol=1e-6)
        np.testing.assert_allclose((a * b).mean(0).numpy(), result.correlations, atol=1e-6)


class TestCalibration:
    def test_honest_probabilities_have_no_error_and_overconfident_ones_their_gap(self):
        rng = np.random.default_rng(0)
        p = rng.uniform(0.5, 1, 50_000)
        y = (rng.random(50_000) > p).astype(int)
        honest = np.stack([p, 1 - p], 1)
        assert m.calibration(honest, y).ece < 0.01
        boast = np.tile([0.99, 0.01], (50_000, 1))
        assert m.calibration(boast, y).ece == pytest.approx(0.99 - (y == 0).mean(), abs=1e-9)

    def test_equal_mass_bins_hold_equal_counts(self):
        p = np.random.default_rng(1).dirichlet([1, 1, 1], 90)
        bins = m.calibration(p, np.zeros(90, int), bins=9, equal_mass=True).bins
        assert {b["n"] for b in bins} == {10}

    def test_temperature_undoes_a_known_one(self):
        rng = np.random.default_rng(2)
        logits = rng.normal(size=(20_000, 4)) * 2
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        y = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1)
        assert m.fit_temperature(logits * 2.5, y) == pytest.approx(2.5, rel=0.03)


class TestRobustness:
    def test_drop_is_measured_against_what_could_be_lost(self):
        sweep = m.corruption_sweep(
            lambda t: 0.9 if t is None else t(0.9), {"half": lambda x, s: 0.5, "none": lambda x, s: x}, [1], chance=0.1
        )
        assert sweep.relative_drop == {"half": pytest.approx(0.5), "none": 0.0}

    def test_every_subset_of_modalities_is_scored(self):
        result = m.missing_modality(lambda kept: {1: 0.5, 2: 0.7, 3: 0.9}[len(kept)], ["a", "b", "c"])
        assert len(result.scores) == 7
        assert result.drop_without["a"] == pytest.approx(0.2)


class TestControl:
    def score(self, leak):
        x, y = gaussian(120, 6), torch.arange(120) % 2

        def run(labels):
            z = x if not leak else torch.cat([x, 5 * torch.tensor(labels).double()[:, None]], 1)
            return m.knn(z, labels, ks=(5,), n_boot=1).best.metrics["balanced_accuracy"]

        return m.shuffled_control(run, y, chance=0.5, repeats=10)

    def test_an_honest_evaluation_of_noise_is_at_chance(self):
        control = self.score(leak=False)
        assert not control.leak
        assert control.p_value > 0.05

    def test_a_leak_is_found(self):
        control = self.score(leak=True)
        assert control.leak
        assert control.shuffled_mean > 0.9


class TestEvaluate:
    def test_all_default_protocols_on_labelled_pairs(self, digits, tmp_path):
        x, y = digits
        halves = {"left": x[:, :32].float(), "right": x[:, 32:].float()}
        train = m.Split({k: v[:400] for k, v in halves.items()}, y[:400])
        val = m.Split({k: v[400:500] for k, v in halves.items()}, y[400:500])
        test = m.Split({k: v[500:] for k, v in halves.items()}, y[500:], groups=np.arange(400) // 2)
        report = m.evaluate_features(test, train, val, n_boot=20)
        assert {
            "knn of left",
            "logreg of right",
            "retrieval left -> right (pool 400)",
            "alignment left ~ right",
        } <= set(report.results)
        assert report.skipped == {"zeroshot": "needs descriptions of the classes"}
        assert report.groups["test"] == 200
        loaded = json.loads(report.write_json(tmp_path / "evaluation.json").read_text())
        assert loaded["data_hash"]["test"] == test.digest()
        assert loaded["versions"]["torch"] == torch.__version__.split("+")[0] or loaded["versions"]["torch"]
        assert "| knn of left | accuracy |" in report.markdown()

    def test_regression_runs_ridge_and_skips_what_needs_classes(self):
        x = gaussian(200, 5)
        y = (x[:, 0] + 0.1 * gaussian(200, 1, 1)[:, 0]).numpy()
        report = m.evaluate_features(m.Split(x[100:], y[100:]), m.Split(x[:100], y[:100]), n_boot=10)
        assert report.task == "regression"
        assert report.results["ridge"].scores.metrics["R2"] > 0.9
        assert "fewshot" in report.skipped

    def test_asking_for_the_impossible_says_what_is_missing(self):
        with pytest.raises(ValueError, match="'probe' needs labels, which the data given lack"):
            m.evaluate_features(m.Split(gaussian(20, 3)), protocols=["probe"])
        with pytest.raises(ValueError, match="unknown protocol 'magic'"):
            m.evaluate_features(m.Split(gaussian(20, 3)), protocols="magic")

    def test_digest_sees_every_change(self):
        x = gaussian(10, 2)
        base = m.Split(x, labels=[0] * 10).digest()
        assert base == m.Split(x.clone(), labels=[0] * 10).digest()
        assert base != m.Split(x, labels=[0] * 9 + [1]).digest()
        x[0, 0] += 1
        assert base != m.Split(x, labels=[0] * 10).digest()

    def test_the_control_protocol_is_at_chance(self):
        report = m.evaluate_features(m.Split(gaussian(90, 4), [0, 1, 2] * 30), protocols="control")
        assert not report.results["control"].leak
