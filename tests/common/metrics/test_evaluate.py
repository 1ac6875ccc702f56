"""`evaluate`: what is measured on what, and what its record says of it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from counterpoint.common import metrics as m


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


Y = torch.arange(180) % 3
Z = gaussian(180, 6) + 2 * torch.eye(6).double()[Y]
TEST, TRAIN, VAL = (m.Split(Z[a:b], Y[a:b], np.arange(b - a) // 2) for a, b in ((0, 60), (60, 150), (150, 180)))


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (np.linspace(0, 1, 180), "regression"),
        (np.arange(180.0), "classification"),  # whole numbers, however many
        (np.linspace(0, 1, 180).round(1), "classification"),  # eleven values: grades
        (np.eye(3)[Y], "multilabel"),
        ([None, *Y[1:].tolist()], "classification"),
        (None, "unlabelled"),
    ],
)
def test_the_task_is_read_from_the_labels(labels, task):
    assert m.evaluate_features(m.Split(Z, labels), protocols="labelfree").task == task


def test_the_record_is_of_each_split():
    report = m.evaluate_features(TEST, TRAIN, VAL, protocols="knn", n_boot=5)
    assert report.samples == {"test": 60, "train": 90, "val": 30}
    assert report.groups == {"test": 30, "train": 45, "val": 15}
    assert report.data_hash == {"test": TEST.digest(), "train": TRAIN.digest(), "val": VAL.digest()}
    assert (report.seed, report.bootstrap, report.dtype) == (0, 5, "float64")


def test_a_digest_sees_groups_names_and_shapes():
    z = gaussian(6, 2)
    same = {
        m.Split(z).digest(),
        m.Split(z, groups=[0, 0, 1, 1, 2, 2]).digest(),
        m.Split(z.view(4, 3)).digest(),
        m.Split({"a": z}).digest(),
        m.Split({"b": z}).digest(),
    }
    assert len(same) == 5


def test_every_figure_stands_beside_its_own_chance():
    report = m.evaluate_features(TEST, TRAIN, protocols=["knn", "fewshot", "cluster"], n_boot=5)
    figures = {(name, metric): chance for name, metric, _, chance in report.figures()}
    assert figures["knn", "accuracy"] == pytest.approx(1 / 3)
    assert figures["knn", "auroc"] == 0.5
    assert figures["fewshot", "accuracy"] == pytest.approx(1 / 3)
    assert ("cluster", "NMI") in figures


def test_a_protocol_asked_for_by_name_that_cannot_run_is_an_error_and_else_a_reason():
    few = m.Split(Z[:6], Y[:6])
    with pytest.raises(ValueError, match="classes of at least 15 samples"):
        m.evaluate_features(few, protocols="fewshot")
    assert "at least 15 samples" in m.evaluate_features(few, n_boot=2).skipped["fewshot"]


def test_a_usual_protocol_that_cannot_run_is_listed_and_one_that_was_asked_for_is_an_error():
    one = m.Split(Z[:1])
    with pytest.raises(ValueError, match="uniformity needs at least two samples"):
        m.evaluate_features(one, protocols=["labelfree"])
    skipped = m.evaluate_features(one, protocols=["labelfree"], strict=False).skipped
    assert "at least two samples" in skipped["labelfree"]


def test_protocols_are_the_functions_with_the_splits_in_their_places():
    options = {"groups": TEST.groups, "n_boot": 5, "seed": 4}
    report = m.evaluate_features(TEST, TRAIN, VAL, protocols=["knn", "probe", "simpleshot"], n_boot=5, seed=4)
    knn = m.knn(TRAIN.features, TRAIN.labels, TEST.features, TEST.labels, **options)
    assert report.results["knn"].as_dict() == knn.as_dict()
    probe = m.logistic_probe(
        TRAIN.features, TRAIN.labels, TEST.features, TEST.labels, val=VAL.features, val_labels=VAL.labels, **options
    )
    assert report.results["logreg"].as_dict() == probe.as_dict()
    crossed = m.logistic_probe(
        TRAIN.features, TRAIN.labels, TEST.features, TEST.labels, train_groups=TRAIN.groups, **options
    )
    without = m.evaluate_features(TEST, TRAIN, protocols="probe", n_boot=5, seed=4).results["logreg"]
    assert without.as_dict() == crossed.as_dict()
    assert "grouped" in without.chosen_on
    simple = m.simpleshot(TRAIN.features, TRAIN.labels, TEST.features, TEST.labels, **options)
    assert report.results["simpleshot"].as_dict() == simple.as_dict()
    alone = m.evaluate_features(TEST, protocols=["knn", "fewshot"], n_boot=5, seed=4).results
    assert alone["knn"].as_dict() == m.knn(TEST.features, TEST.labels, **options).as_dict()
    episodes = m.few_shot(TEST.features, TEST.labels, n_query=10, episodes=200, seed=4, groups=TEST.groups)
    assert alone["fewshot"].as_dict() == episodes.as_dict()


def test_pairs_of_modalities_are_named_in_the_direction_measured():
    a, b = gaussian(40, 5), gaussian(40, 5, 1)
    groups = np.arange(40) // 4
    split = m.Split({"a": a, "b": b}, groups=groups)
    report = m.evaluate_features(split, protocols=["retrieval", "alignment"], n_boot=5)
    both = m.retrieval(a, b, groups=groups, names=("a", "b"), n_boot=5)
    assert set(report.results) == {"retrieval a -> b (pool 40)", "retrieval b -> a (pool 40)", "alignment a ~ b"}
    assert report.results["retrieval a -> b (pool 40)"].as_dict() == both.a_to_b.as_dict()
    assert report.results["retrieval b -> a (pool 40)"].as_dict() == both.b_to_a.as_dict()
    likeness = report.results["alignment a ~ b"]
    assert (likeness.k, likeness.chance_mutual_knn) == (10, 10 / 39)
    assert likeness.cka == pytest.approx(m.cka(a, b))


def test_partly_labelled_sets_have_no_tolerance_and_the_control_deals_whole_groups():
    whole = m.evaluate_features(m.Split(Z, Y), protocols="labelfree").results["labelfree"]
    assert whole.tolerance == pytest.approx(m.tolerance(Z, Y))
    partly = m.evaluate_features(m.Split(Z, [None, *Y[1:].tolist()]), protocols="labelfree").results["labelfree"]
    assert partly.tolerance is None
    # Ten recordings of one class each: shuffled rows would pretend that there are 120 independent samples.
    groups = np.arange(120) // 12
    labels = (groups % 2).tolist()
    z = torch.eye(10).double()[torch.from_numpy(groups)] + 0.1 * gaussian(120, 10)
    control = m.evaluate_features(m.Split(z, labels, groups), protocols="control").results["control"]
    assert not control.leak  # neighbours are of other recordings, which a recording's features say nothing of
    assert control.shuffled_mean < 0.7


def test_a_modality_that_the_training_split_lacks_is_named():
    test, train = m.Split({"ct": Z, "report": Z}, Y), m.Split({"ct": Z}, Y)
    for protocol in ("knn", "probe", "simpleshot"):
        with pytest.raises(ValueError, match="modality 'report', the split learnt from only ct"):
            m.evaluate_features(test, train, protocols=protocol, n_boot=2)


def test_a_verticals_own_result_may_call_its_fields_as_it_likes():
    """Only intervals stand in the tables; a field of another kind under one of our names is not read as ours."""

    @dataclass(frozen=True)
    class Own(m.Result):
        notes: int = 3
        accuracy: float = 0.5
        metrics: dict = field(default_factory=lambda: {"a": 1.0})

    @dataclass(frozen=True)
    class Measured(m.Result):
        intervals: dict
        notes: tuple = ("few samples",)

    found = m.evaluate_features(m.Split(torch.randn(30, 4)), protocols="labelfree", n_boot=5)
    interval = m.Interval(0.5, 0.4, 0.6, 9, 3)
    found = replace(found, results={"own": Own(), "measured": Measured({"b": interval, "c": 2.0})})
    assert found.figures() == [("measured", "b", interval, None)]
    assert found.notes() == [("measured", "few samples")]
