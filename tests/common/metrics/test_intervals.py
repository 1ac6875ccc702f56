"""Every figure of every protocol: its value lies in its interval, the interval in the range of the figure, and what was
measured on too little for an interval has none and says so.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common import metrics as m
from counterpoint.common.metrics.bounds import metric_bounds
from counterpoint.common.metrics.segmentation import score_dense

KINDS = ("classes", "binary", "multilabel", "numbers", "none")


def figures_of(results: dict[str, m.Result]) -> list[tuple[str, str, m.Interval]]:
    """Everything of kNN at each k, too, which tables show for the best k alone."""
    shown = m.Evaluation(results, {}, "", {}, {}, {}, 0, 0, "")
    found = [(name, metric, i) for name, metric, i, _ in shown.figures()]
    for name, result in results.items():
        if isinstance(result, m.KNN):
            each = [(k, metric, i) for k, scores in result.by_k.items() for metric, i in scores.intervals.items()]
            found += [(f"{name}, k = {k}", metric, i) for k, metric, i in each]
    return found


def check(figures: list[tuple[str, str, m.Interval]]) -> None:
    for name, metric, i in figures:
        low, high = metric_bounds(metric.partition(",")[0])
        assert math.isnan(i.value) or low - 1e-9 <= i.value <= high + 1e-9, (name, metric, i)
        if i.known:
            assert i.low <= i.value <= i.high, (name, metric, i)
            assert low - 1e-9 <= i.low, (name, metric, i)
            assert i.high <= high + 1e-9, (name, metric, i)
        else:
            assert math.isnan(i.low), (name, metric, i)
            assert math.isnan(i.high), (name, metric, i)


def splits(rng: np.random.Generator, kind: str, n: int, groups: int, signal: float):
    def one(first: int, n: int) -> m.Split:
        unit = rng.integers(groups, size=n)
        codes = np.where(rng.random(n) < 0.7, unit % 3, rng.integers(3, size=n))
        z = rng.normal(size=(n, 3)) + signal * codes[:, None]
        labels = {
            "classes": [f"c{c}" if rng.random() < 0.95 else None for c in codes],
            "binary": (codes > 0).astype(int).tolist(),
            "multilabel": np.stack([codes > 0, codes > 1], 1).astype(float),
            "numbers": codes + rng.random(n),
            "none": None,
        }[kind]
        both = {"a": torch.from_numpy(z), "b": torch.from_numpy(z + rng.normal(size=z.shape))}
        return m.Split(both, labels, [f"g{first + u}" for u in unit])

    return one(0, n), one(100, 40), one(200, 20)


SEEDS, SIGNALS = st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 9.0])


@settings(deadline=None, max_examples=12)
@given(SEEDS, st.sampled_from(KINDS), st.integers(2, 40), st.integers(1, 9), SIGNALS)
def test_values_lie_in_intervals_and_these_in_the_range_of_the_figure(seed, kind, n, groups, signal):
    """Few samples, one group, perfect and random features: all protocols that the data allow."""
    test, train, val = splits(np.random.default_rng(seed), kind, n, groups, signal)
    words = {name: torch.randn(2, 3, dtype=torch.float64) for name in ("c0", "c1", "c2", "0", "1")}
    results = {}
    for name in set(m.PROTOCOLS) - {"efficiency", "control"}:  # many fits: once is enough, below
        try:
            results |= m.evaluate_features(test, train, val, protocols=name, descriptions=words, n_boot=25).results
        except ValueError:  # the data do not allow it
            continue
    assert results
    check(figures_of(results))


def test_every_protocol_with_intervals_is_among_those_checked():
    """Nothing is left out of the property: with labels of each kind, every protocol has run."""
    ran = set()
    for kind in ("classes", "numbers"):
        test, train, val = splits(np.random.default_rng(3), kind, 60, 12, 1.0)
        words = {f"c{i}": torch.randn(2, 3, dtype=torch.float64) for i in range(3)}
        for name in m.PROTOCOLS:
            try:
                found = m.evaluate_features(test, train, val, protocols=name, descriptions=words, n_boot=10).results
            except ValueError:
                continue
            ran.add(name)
            check(figures_of(found))
    assert ran == set(m.PROTOCOLS)


def test_student_intervals_end_at_the_bounds():
    """Clusterings, episodes and shares of labels that are nearly perfect: the t interval alone reaches beyond 1."""
    pairs = torch.arange(40) % 2
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(25)).double()
    near = m.cluster(noise + 3 * torch.eye(2).double()[pairs], pairs.tolist(), method="gmm")
    z, labels = torch.eye(2).double().repeat(20, 1), [1, 1, *[0, 1] * 19]  # the first one is mislabelled
    episodes = m.few_shot(z, labels, episodes=5, n_query=10)
    parts = {"fractions": (0.1, 0.5, 1.0), "seeds": (0, 1, 2), "method": "simpleshot"}
    share = m.label_efficiency(z + noise / 3, labels, z + noise / 4, pairs.tolist(), **parts)
    for values, intervals in (
        (episodes.per_episode, [episodes.accuracy]),
        (share.per_seed[0], share.intervals[:1]),
    ):
        assert m.t_interval(values).high > 1
        assert intervals[0].high == 1.0
        assert intervals[0].low == pytest.approx(m.t_interval(values).low)
    assert near.metrics["ARI"].high == 1.0
    check(figures_of({"cluster": near, "episodes": episodes, "efficiency": share}))


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 8), st.integers(1, 5))
def test_dense_figures_too(seed, samples, groups):
    rng = np.random.default_rng(seed)
    confusions = rng.integers(0, 3, size=(samples, 3, 3))
    confusions[0, 0, 0] += 1
    scores = score_dense(confusions, ("a", "b", "c"), groups=rng.integers(groups, size=samples), n_boot=25)
    check([("dense", metric, i) for metric, i in scores.intervals.items()])


@pytest.mark.parametrize("groups", [["p"] * 12, None])
def test_one_group_or_one_sample_has_no_interval_and_a_sentence(groups):
    """One molecule to test on is no population of molecules; neither are all slices of one patient."""
    n = 12 if groups else 1
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(40, 3)))
    labels = [0, 1] * 20
    train = m.Split({"a": z, "b": z.flip(1)}, labels, [f"t{i}" for i in range(40)] if groups else None)
    test = m.Split({"a": z[:n] + 0.1, "b": z[:n].flip(1)}, labels[:n], groups)
    found = m.evaluate_features(test, train, protocols=["knn", "probe", "simpleshot", "retrieval"], n_boot=20)
    figures = found.figures()
    assert {name.split()[0] for name, *_ in figures} == {"knn", "logreg", "simpleshot", "retrieval"}
    assert not any(i.known for *_, i, _ in figures)
    said = dict(found.notes()) | {name: note for name, note in found.notes() if "no interval" in note}
    for name, *_ in figures:
        assert said[name].endswith("nothing is known of others, so there is no interval"), name
        assert ("one group" if groups else "one test sample") in said[name]
    ridge = m.ridge_probe(z, rng.normal(size=40), z[:1], [0.5], n_boot=20).scores
    assert not any(i.known for i in ridge.intervals.values())
    assert any("there is one test sample" in note for note in ridge.notes)
    assert "inf" not in found.markdown()


def test_shares_of_the_labels_that_come_to_the_same_samples_are_shown_once():
    """Six groups of two classes: 1 % and 10 % both keep one group of each class."""
    z = torch.randn(48, 4, generator=torch.Generator().manual_seed(0)).double()
    labels, groups = [i // 4 % 2 for i in range(48)], [f"g{i // 4}" for i in range(48)]
    train, test = m.Split(z[:24], labels[:24], groups[:24]), m.Split(z[24:], labels[24:], groups[24:])
    found = m.evaluate_features(test, train, protocols="efficiency")
    curve = found.results["efficiency"]
    assert curve.fractions == [0.1, 1.0]
    assert curve.samples == [8.0, 24.0]
    assert [metric for _, metric, *_ in found.figures()] == [
        "balanced_accuracy, 10 % of labels", "balanced_accuracy, 100 % of labels"
    ]  # fmt: skip
    note = "1 % of the labels are the same samples as 10 %, for every class keeps one group"
    assert found.notes() == [("efficiency", note)]
    apart = m.label_efficiency(z[:24], labels[:24], z[24:], labels[24:], fractions=(0.1, 0.5, 1.0), seeds=(0,))
    assert apart.fractions == [0.1, 0.5, 1.0]
    assert apart.notes == []
