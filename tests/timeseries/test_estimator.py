"""Time-series systems through the scikit-learn door."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from counterpoint.common.estimators import Encoder

SMALL = {
    "preset": "small", "encoder__dim": 4, "encoder__hidden": 4, "encoder__depth": 1, "train__max_steps": 2,
    "train__accelerator": "cpu",
}  # fmt: skip
EXPECTED_TO_FAIL: dict[str, str] = {}


@parametrize_with_checks([Encoder("ts2vec", **SMALL)], expected_failed_checks=lambda _: EXPECTED_TO_FAIL)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
