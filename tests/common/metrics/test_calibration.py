"""Calibration against closed forms and scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from counterpoint.common import metrics as m

P3 = np.array([[0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.1, 0.9, 0.0]])
Y3 = np.array([0, 1, 1])  # right, wrong, right


def test_a_bin_holds_its_upper_edge_and_weighs_by_its_samples():
    """Guo et al.: bin b is ((b - 1) / B, b / B]. {0.5 right, 0.4 wrong} and {0.9 right}: 2/3 * 0.05 + 1/3 * 0.1."""
    found = m.calibration(P3, Y3, bins=2)
    assert found.ece == pytest.approx(2 / 3 * 0.05 + 1 / 3 * 0.1)
    assert [(b["n"], b["accuracy"]) for b in found.bins] == [(2, 0.5), (1, 1.0)]
    assert [b["confidence"] for b in found.bins] == pytest.approx([0.45, 0.9])


def test_gaps_of_both_signs_do_not_cancel():
    p = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    y = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1])  # 0.9 is said where 0.6 is true, 0.6 where 0.9 is
    assert m.calibration(p, y).ece == pytest.approx(0.3)


def test_brier_and_likelihood_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    found = m.calibration(p, y)
    assert found.nll == pytest.approx(log_loss(y, p, labels=range(4)))  # nats
    assert found.brier == pytest.approx(np.mean(((p - np.eye(4)[y]) ** 2).sum(1)))  # Brier 1950: summed over classes
    assert m.calibration(np.full((6, 4), 0.25), np.zeros(6, int)).brier == pytest.approx(0.75)


def test_certainty_stands_in_the_last_bin():
    assert m.calibration(np.eye(2)[[0, 1, 0]], np.array([0, 1, 1])).bins == [
        {"confidence": 1.0, "accuracy": pytest.approx(2 / 3), "n": 3}
    ]


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
def test_the_temperature_is_where_the_likelihood_is_greatest(t):
    rng = np.random.default_rng(1)
    logits, y = t * rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    y = np.where(rng.random(300) < 0.7, logits.argmax(1), y)

    def nll(temperature):
        p = np.exp(logits / temperature)
        return log_loss(y, p / p.sum(1, keepdims=True), labels=range(3))

    expected = minimize_scalar(nll, bounds=(0.01, 50), method="bounded").x
    assert m.fit_temperature(logits, y) == pytest.approx(expected, rel=1e-3)
