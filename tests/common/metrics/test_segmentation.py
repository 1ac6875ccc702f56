"""Dense figures equal those of all places pooled; samples are drawn by group."""

import numpy as np
import pytest
from sklearn import metrics as sk

from counterpoint.common.metrics.segmentation import mean_iou, score_dense

RNG = np.random.default_rng(0)
TRUTH, SAID = RNG.integers(0, 3, (8, 50)), RNG.integers(0, 4, (8, 50))
SAID[:, :25] = TRUTH[:, :25]
SAID[SAID == 3] = 2
NAMES = ("rest", "onset", "offset", "never")
CONFUSIONS = np.stack([sk.confusion_matrix(t, s, labels=range(4)) for t, s in zip(TRUTH, SAID)])


def test_figures_are_of_all_places_together():
    scores = score_dense(CONFUSIONS, NAMES, n_boot=20)
    y, p = TRUTH.ravel(), SAID.ravel()
    assert scores.metrics["accuracy"] == pytest.approx(sk.accuracy_score(y, p))
    assert scores.metrics["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p))
    assert scores.metrics["mean_iou"] == pytest.approx(sk.jaccard_score(y, p, average="macro"))
    assert scores.notes == ["400 places", "classes without a place: never"]


def test_a_class_said_but_never_true_costs_iou():
    assert mean_iou(np.array([[2.0, 2.0], [0.0, 0.0]])) == pytest.approx((0.5 + 0) / 2)
    assert mean_iou(np.array([[2.0, 0.0], [2.0, 0.0]])) == pytest.approx((0.5 + 0) / 2)  # true, never said


def test_chance_is_the_most_frequent_true_class_everywhere():
    one = np.array([[[1, 0, 0], [6, 2, 0], [1, 0, 0]]])  # truth 1, 8, 1: "onset" everywhere has 8 of 10 right
    chance = score_dense(one, NAMES[:3], n_boot=5).chance
    assert chance["accuracy"] == pytest.approx(0.8)
    assert chance["balanced_accuracy"] == pytest.approx(1 / 3)
    assert chance["mean_iou"] == pytest.approx(0.8 / 3)


def test_samples_without_a_labelled_place_are_counted_and_take_their_group_with_them():
    holes = np.concatenate([np.zeros((2, 4, 4), int), CONFUSIONS])
    scores = score_dense(holes, NAMES, groups=np.array([0, 1, *np.repeat([2, 3, 4, 5], 2)]), n_boot=20)
    assert (scores.n, scores.unlabelled) == (8, 2)
    assert scores.intervals["accuracy"].groups == 4
    whole = score_dense(CONFUSIONS, NAMES, groups=np.repeat([2, 3, 4, 5], 2), n_boot=20)
    assert scores.intervals == whole.intervals
    with pytest.raises(ValueError, match="no place carries a label"):
        score_dense(holes[:2], NAMES)
