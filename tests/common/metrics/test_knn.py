"""Which neighbours vote: leaving one out, with labels missing, for every k."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common import metrics as m
from counterpoint.common.metrics.scores import Score


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=30)
@given(st.integers(5, 30), st.floats(0, 0.5), st.integers(0, 10**6), st.sampled_from([1, 2, 4]))
def test_every_sample_is_classified_by_the_labelled_others(n, missing, seed, k):
    rng = np.random.default_rng(seed)
    z = gaussian(n, 3, seed)
    labels = [None if rng.random() < missing else int(c) for c in rng.integers(0, 3, n)]
    labels[:3] = [0, 1, 2]
    result = m.knn(z, labels, ks=(k,), n_boot=1)
    (k,) = result.by_k  # capped at the labelled others
    unit = torch.nn.functional.normalize(z, dim=1)
    for i in range(n):
        others = [j for j in range(n) if j != i and labels[j] is not None]
        cosines = unit[others] @ unit[i]
        near = cosines.argsort(descending=True)[:k]
        weight = (cosines[near] / 0.07).softmax(0)
        expected = np.zeros(3)
        np.add.at(expected, [labels[others[j]] for j in near.tolist()], weight.numpy())
        np.testing.assert_allclose(result.probabilities[k][i], expected, atol=1e-9)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=8, max_size=25), st.integers(0, 10**6))
def test_with_groups_every_sample_is_classified_by_the_other_groups(groups, seed):
    if len(set(groups)) < 3:
        return
    n, groups = len(groups), np.array(groups)
    z, labels = gaussian(n, 3, seed), np.random.default_rng(seed).integers(0, 2, n).tolist()
    labels[0], labels[1], labels[2] = 0, 1, None
    if max(np.bincount(np.delete(groups, 2))) == n - 1:
        return
    result = m.knn(z, labels, ks=(2,), groups=groups, n_boot=1)
    (k,) = result.by_k
    unit = torch.nn.functional.normalize(z, dim=1)
    for i in range(n):
        others = [j for j in range(n) if groups[j] != groups[i] and labels[j] is not None]
        cosines = unit[others] @ unit[i]
        near = cosines.argsort(descending=True)[:k]
        expected = np.zeros(2)
        np.add.at(expected, [labels[others[j]] for j in near.tolist()], (cosines[near] / 0.07).softmax(0).numpy())
        np.testing.assert_allclose(result.probabilities[k][i], expected, atol=1e-9)


def test_features_that_name_the_patient_name_no_class():
    """Every slice lies beside its patient's other slices; with them as neighbours the accuracy would be perfect."""
    patient = np.repeat(np.arange(60), 8)
    y = (np.random.default_rng(0).permutation(60) % 3)[patient].tolist()
    z = gaussian(60, 32)[torch.from_numpy(patient)] + 0.3 * gaussian(480, 32, 1)
    by_row, by_patient = (m.knn(z, y, ks=(5,), groups=g, n_boot=50).best for g in (None, patient))
    assert by_row.metrics["balanced_accuracy"] > 0.95
    interval = by_patient.intervals["balanced_accuracy"]
    assert interval.low <= 1 / 3 <= interval.high
    alone = m.knn(z, y, ks=(5,), groups=np.arange(480), n_boot=1)  # every row a group of its own
    np.testing.assert_allclose(alone.probabilities[5], m.knn(z, y, ks=(5,), n_boot=1).probabilities[5], atol=1e-12)
    other = z + 0.01 * gaussian(480, 32, 2)  # another picture of every row, its patient known
    paired = m.knn(z, y, other, y, ks=(5,), groups=patient, leave_one_out=True, n_boot=1).best
    assert paired.metrics["balanced_accuracy"] < 0.6
    apart = m.knn(z, y, other, y, ks=(5,), groups=patient, n_boot=1).best  # groups of a test set only resample
    assert apart.metrics["balanced_accuracy"] > 0.95
    with pytest.raises(ValueError, match="at least one labelled neighbour of another group"):
        m.knn(z, y, groups=["one"] * 480)


def test_every_k_is_capped_at_the_labelled_neighbours_there_are():
    labels = [0, 1, None, 0, 1, None]
    assert list(m.knn(gaussian(6, 3), labels, ks=(1, 9), n_boot=1).by_k) == [1, 3]
    assert list(m.knn(gaussian(6, 3), labels, gaussian(2, 3), [0, 1], ks=(1, 9), n_boot=1).by_k) == [1, 4]


def test_the_best_k_is_the_one_of_greatest_accuracy():
    y = torch.arange(90) % 3
    z = gaussian(90, 8) + 1.2 * torch.eye(8).double()[y]
    result = m.knn(z, y, ks=(1, 15, 80), n_boot=1)
    figures = {k: s.metrics["accuracy"] for k, s in result.by_k.items()}
    assert len(set(figures.values())) > 1
    assert figures[result.k] == max(figures.values())
    assert result.best is result.by_k[result.k]


def test_one_neighbour_at_any_temperature_is_the_nearest_and_a_high_one_counts_heads():
    z, y = gaussian(60, 4), torch.arange(60) % 3
    cold, warm = (m.knn(z[:40], y[:40], z[40:], y[40:], ks=(9,), temperature=t, n_boot=1) for t in (1e-4, 1e6))
    nearest = m.knn(z[:40], y[:40], z[40:], y[40:], ks=(1,), n_boot=1)
    np.testing.assert_allclose(cold.probabilities[9], nearest.probabilities[1], atol=1e-3)
    np.testing.assert_allclose(warm.probabilities[9] * 9, (warm.probabilities[9] * 9).round(), atol=1e-4)


def test_evaluating_in_parts_is_evaluating_the_whole():
    """As processes do that share a test set whose size they do not divide."""
    z, y = gaussian(103, 6), torch.arange(103) % 4
    whole = m.knn(z[:50], y[:50], z[50:], y[50:], ks=(5,), n_boot=1).probabilities[5]
    parts = [
        m.knn(z[:50], y[:50], z[50 + i : 50 + i + 9], y[50 + i : 50 + i + 9], ks=(5,), n_boot=1)
        for i in range(0, 53, 9)
    ]
    assert len(parts) == 6
    np.testing.assert_allclose(np.concatenate([p.probabilities[5] for p in parts]), whole, atol=1e-12)


def test_multilabel_splits_must_have_the_same_classes():
    with pytest.raises(ValueError, match="same classes"):
        m.knn(gaussian(4, 2), np.eye(4)[:, :2], gaussian(3, 2), np.eye(3))
    with pytest.raises(ValueError, match="must all be"):
        m.knn(gaussian(4, 2), np.eye(4)[:, :2], gaussian(3, 2), [0, 1, 0])


def brute_force(scores, labels, k, temperature=0.07):
    """Votes of the k best of a table of scores, an own vote never."""
    scores = scores.clone().fill_diagonal_(-torch.inf)
    best, places = scores.topk(k, dim=1)
    weight = (best / temperature).softmax(1)
    return torch.zeros(len(scores), max(labels) + 1).double().scatter_add_(1, torch.tensor(labels)[places], weight)


class TestMetrics:
    def test_by_inner_product_a_long_vector_is_everybodys_neighbour(self):
        """Its angle is right for none; and the unit of the vectors has no say."""
        z = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0], [9.0, 9.0]]).double()
        labels = [0, 0, 1, 1, 2]
        assert m.knn(z, labels, ks=(1,), n_boot=1).probabilities[1][:4].argmax(1).tolist() == [0, 0, 1, 1]
        found = m.knn(z, labels, ks=(1,), metric="dot", n_boot=1)
        assert found.probabilities[1][:4].argmax(1).tolist() == [2] * 4
        assert (found.metric, found.notes) == ("dot", ())

    @settings(max_examples=10)
    @given(st.integers(6, 20), st.integers(0, 10**6), st.floats(0.01, 100))
    def test_inner_products_are_in_units_of_the_usual_lengths(self, n, seed, unit):
        z, labels = gaussian(n, 3, seed), ([0, 1, 2] * n)[:n]
        found = m.knn(unit * z, labels, ks=(3,), metric="dot", n_boot=1)
        expected = brute_force(z @ z.T / z.square().sum(1).mean(), labels, 3)
        np.testing.assert_allclose(found.probabilities[3], expected, atol=1e-9)
        round_ones = torch.nn.functional.normalize(z, dim=1)
        by_angle = m.knn(round_ones, labels, ks=(3,), n_boot=1)
        same = m.knn(round_ones, labels, ks=(3,), metric="dot", n_boot=1)
        np.testing.assert_allclose(same.probabilities[3], by_angle.probabilities[3], atol=1e-9)

    def test_a_score_of_ones_own_is_streamed_and_leaves_groups_out(self, monkeypatch):
        import importlib

        module = importlib.import_module("counterpoint.common.metrics.knn")
        monkeypatch.setattr(module, "BLOCK", 4)  # several parts of the bank
        near = Score("near", "minus the distance", unit=False, tile=lambda q, k: -torch.cdist(q, k))
        z, labels, groups = gaussian(19, 3), ([0, 1, 2] * 7)[:19], np.arange(19) // 2
        found = m.knn(z, labels, ks=(2,), metric=near, groups=groups, temperature=1.0, n_boot=1)
        scores = -torch.cdist(z, z)
        scores[torch.tensor(groups[:, None] == groups)] = -torch.inf
        size = z.square().sum(1).mean()
        np.testing.assert_allclose(found.probabilities[2], brute_force(scores / size, labels, 2, 1.0), atol=1e-9)

    def test_a_joint_metric_says_that_neighbours_are_by_cosine(self):
        z, labels = gaussian(12, 4), [0, 1, 2] * 4
        found = m.evaluate_features(m.Split({"a": z, "b": z + 1}, labels, metric="volume"), protocols=["knn"], n_boot=2)
        assert found.results["knn of a"].metric == "cosine"
        said = "neighbours are those by cosine: volume compares the modalities of a sample, not samples of one"
        assert ("knn of a", said) in found.notes()
        plain = m.knn(z, labels, n_boot=1)
        for k, p in plain.probabilities.items():
            assert np.array_equal(found.results["knn of a"].probabilities[k], p)

    def test_a_pool_with_labels_of_its_own_is_classified_too(self):
        a, b = gaussian(9, 4), gaussian(15, 4, 1)
        learnt = m.Split(gaussian(9, 4, 2), [0, 1, 2] * 3)
        train = m.Split({"a": learnt.features}, learnt.labels, pools={"b": m.Split(gaussian(15, 4, 3), [0, 1, 2] * 5)})
        test = m.Split({"a": a}, [0, 1, 2] * 3, pools={"b": m.Split(b, [2, 1, 0] * 5), "c": m.Split(b)}, metric="dot")
        found = m.evaluate_features(test, train, protocols=["knn"], n_boot=2).results
        assert set(found) == {"knn of a", "knn of b"}  # the pool without labels is left alone
        alone = m.knn(gaussian(15, 4, 3), [0, 1, 2] * 5, b, [2, 1, 0] * 5, metric="dot", n_boot=2)
        assert found["knn of b"].best.metrics == alone.best.metrics
