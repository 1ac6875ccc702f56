"""Figures that cannot flatter themselves: what was not learnt, not labelled or not telling is said beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common import metrics as m


def gaussian(n: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", [m.knn, m.logistic_probe, m.simpleshot])
def test_a_class_without_a_training_sample_is_said_and_ranks_nothing(method):
    train, test = gaussian(40), gaussian(20, seed=1)
    result = method(train, ["a", "b"] * 20, test, ["a"] * 10 + ["c"] * 10, n_boot=20)
    scores = getattr(result, "best", None) or getattr(result, "scores", None) or result
    assert not {"auroc", "auprc"} & set(scores.metrics)
    assert any("class(es) c: their 10 of 20 samples count as wrong" in note for note in scores.notes)
    assert scores.metrics["accuracy"] <= 0.5


def test_missing_labels_one_class_and_one_group_stand_in_the_notes():
    z = gaussian(12)
    labels = [None, float("nan"), ""] + ["a"] * 9
    scores = m.simpleshot(gaussian(10, seed=1), ["a", "b"] * 5, z, labels, groups=["p"] * 12, n_boot=20)
    assert (scores.n, scores.unlabelled) == (9, 3)
    said = " | ".join(scores.notes)
    assert "3 of 12 samples carry no label" in said
    assert "all test samples are of one class (a)" in said
    assert "all test samples are of one group (p)" in said
    one = m.logistic_probe(z[3:], ["a"] * 9, z[:4], ["a", "b", "a", "b"], n_boot=5).scores
    assert any("all training samples are of one class (a)" in note for note in one.notes)


def test_equal_targets_are_said():
    train = m.ridge_probe(gaussian(20), torch.randn(20).tolist(), gaussian(6, seed=1), [2.0] * 6, n_boot=5)
    assert any("all 6 targets are equal" in note for note in train.scores.notes)


def test_a_label_that_names_the_groups_is_no_target_but_zero_shot_runs():
    z, names = gaussian(30), [f"g{i // 3}" for i in range(30)]
    words = {name: gaussian(2, seed=i) for i, name in enumerate(sorted(set(names)))}
    test, train = m.Split(z[:15], names[:15], names[:15]), m.Split(z[15:], names[15:], names[15:])
    found = m.evaluate_features(test, train, descriptions=words, n_boot=5)
    assert sorted(found.results) == ["labelfree", "zeroshot"]
    for name in ("knn", "probe", "simpleshot", "fewshot", "cluster"):
        assert "another name of the groups" in found.skipped[name]
    with pytest.raises(ValueError, match="another name of the groups"):
        m.evaluate_features(test, train, protocols="knn", n_boot=5)
    two = m.Split(z[:15], ["a", "b", "a"] * 5, names[:15])
    assert "knn" in m.evaluate_features(two, n_boot=5).results


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 9))
def test_no_figure_lies_outside_its_own_interval(seed, groups, classes):
    """Groups that hold whole classes bias every figure over classes: resamples lose them."""
    rng = np.random.default_rng(seed)
    unit = rng.integers(groups, size=40)
    labels = np.where(rng.random(40) < 0.7, unit % classes, rng.integers(classes, size=40))
    z = torch.as_tensor(rng.normal(size=(40, 3)) + labels[:, None], dtype=torch.float32)
    names = [f"g{u}" for u in unit]
    test = m.Split({"a": z, "b": z + torch.as_tensor(rng.normal(size=(40, 3)), dtype=torch.float32)}, labels, names)
    train = m.Split({"a": z.flip(0), "b": z}, labels[::-1].copy(), names[::-1])
    report = m.evaluate_features(test, train, protocols=["knn", "simpleshot", "retrieval", "cluster"], n_boot=30)
    ridge = m.ridge_probe(z[:20], labels[:20] + 0.5, z[20:], labels[20:] + 0.5, groups=names[20:], n_boot=30)
    figures = [(name, metric, i) for name, metric, i, _ in report.figures()]
    figures += [("ridge", metric, i) for metric, i in ridge.scores.intervals.items()]
    assert len(figures) > 30
    for name, metric, i in figures:
        assert math.isnan(i.value) or math.isnan(i.low) or i.low <= i.value <= i.high, (name, metric, i)


def test_a_moved_interval_keeps_its_value_and_stays_in_the_range_of_the_figure():
    labels = np.arange(20)  # every group is a class of its own: no resample holds them all
    interval = m.bootstrap_interval(labels, statistic=lambda rows: len(set(rows.tolist())) / 20, n=200)
    assert interval.value == 1.0 == interval.high
    assert 0 < interval.low < 1


def test_class_names_and_groups():
    assert m.class_names([1.0, None, float("nan"), "", True]) == ["1", "", "", "", "1"]
    assert not m.defines_groups(["a", "a"], ["g", "g"])  # one class in one group: nothing is told apart anyway
    assert not m.defines_groups(["a", "b", "a"], ["g", "h", "i"])
    assert m.defines_groups(["a", None, "b"], ["g", "g", "h"])


def test_a_constant_encoder_is_called_collapsed_and_a_narrow_cone_is_not():
    z = gaussian(200, 16)
    for flat in (torch.zeros(200, 16), torch.ones(200, 16), torch.ones(200, 16) + 1e-6 * z):
        found = m.label_free(flat)
        assert found.collapsed
        assert found.notes[0].startswith("COLLAPSED: the embeddings of all 200 samples are")
    cone = z + 10 * torch.ones(16)
    assert m.mean_cosine(cone) > 0.98
    assert not m.label_free(cone).collapsed
    assert not any("COLLAPSED" in note for note in m.label_free(cone).notes)


def test_arrays_lists_and_columns_of_a_table_are_measured_as_tensors_are():
    import pandas as pd

    z, names = gaussian(40), ["a", "b"] * 20
    column = pd.DataFrame({"vector": list(z.double().numpy()), "label": names})
    forms = [(z.numpy(), np.array(names)), (z.tolist(), tuple(names)), (column["vector"], column["label"])]
    wanted = m.evaluate_features(m.Split(z.double(), names), n_boot=5)
    for features, labels in forms:
        found = m.evaluate_features(m.Split(features, labels), n_boot=5)
        assert found.results["knn"].best.metrics == pytest.approx(wanted.results["knn"].best.metrics)
        assert found.results["labelfree"].rankme == pytest.approx(wanted.results["labelfree"].rankme, abs=1e-4)
