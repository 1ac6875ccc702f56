"""Clusters against classes: the best matching by trying them all, scikit-learn's clusterings, chance."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from counterpoint.common import metrics as m
from counterpoint.common.metrics.clustering import hungarian_accuracy


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=25))
def test_the_matching_is_the_best_of_all_one_to_one_matchings(pairs):
    clusters, codes = map(np.array, zip(*pairs))
    size = max(clusters.max(), codes.max()) + 1
    best = max(np.mean(np.array(p)[clusters] == codes) for p in itertools.permutations(range(size)))
    accuracy, right = hungarian_accuracy(clusters, codes)
    assert accuracy == pytest.approx(best)
    assert right.mean() == pytest.approx(best)


def test_figures_are_the_mean_over_seeds_of_scikit_learns_clusterings():
    z, y = gaussian(90, 3), np.arange(90) % 4
    unit = torch.nn.functional.normalize(z, dim=1).numpy()
    found = [KMeans(4, n_init=10, random_state=s).fit_predict(unit) for s in (3, 4, 5)]
    got = m.cluster(z * torch.rand(90, 1).double(), y, seeds=(3, 4, 5))  # only directions count
    for name, measure in (("NMI", normalized_mutual_info_score), ("ARI", adjusted_rand_score)):
        values = [measure(y, f) for f in found]
        assert got.metrics[name].value == pytest.approx(np.mean(values), abs=1e-9)
        assert got.metrics[name].high - got.metrics[name].low == pytest.approx(
            m.t_interval(values).high - m.t_interval(values).low, abs=1e-9
        )
    loud = m.cluster(z, y, seeds=(3,), normalize=False).metrics["NMI"].value
    expected = KMeans(4, n_init=10, random_state=3).fit_predict(z.numpy())
    assert loud == pytest.approx(normalized_mutual_info_score(y, expected))


def test_old_and_new_classes_have_their_own_accuracy():
    """Old classes fall into clusters of their own, the two new ones into each other's."""
    z = torch.eye(4).double()[torch.arange(80) % 4] + 0.01 * gaussian(80, 4)
    labels = [i % 4 for i in range(80)]
    mixed = [label if label < 2 else 2 + (i // 4) % 2 for i, label in enumerate(labels)]
    found = m.cluster(z, mixed, old=[0, 1], clusters=4).metrics
    assert found["accuracy_old"].value == pytest.approx(1.0)
    assert found["accuracy_new"].value == pytest.approx(0.5)
    assert found["accuracy"].value == pytest.approx(0.75)


def test_chance_ignores_the_features_and_unlabelled_samples_take_no_part():
    z = torch.eye(5).double()[torch.arange(100) % 5] + 0.01 * gaussian(100, 5)
    labels = [None if i >= 80 else i % 5 for i in range(100)]
    found = m.cluster(z, labels)
    assert found.n == 80
    assert found.metrics["accuracy"].value == pytest.approx(1.0)
    assert 0.2 < found.chance_accuracy < 0.45
