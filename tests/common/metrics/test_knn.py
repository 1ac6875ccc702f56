"""Which neighbours vote: leaving one out, with labels missing, for every k."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common import metrics as m


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
