"""Do probabilities mean what they say, and the one number that mends them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.result import Result


@dataclass(frozen=True)
class Calibration(Result):
    """Expected calibration error, Brier score, negative log-likelihood, and the reliability curve's bins."""

    ece: float
    brier: float
    nll: float
    bins: list[dict[str, float]]


@accepts(arrays=["probabilities", "codes"])
def calibration(
    probabilities: np.ndarray, codes: np.ndarray, *, bins: int = 15, equal_mass: bool = False
) -> Calibration:
    r"""Calibration of the predicted class: :math:`\sum_b \frac{n_b}{n}\,|\mathrm{acc}_b - \mathrm{conf}_b|`.

    Args:
        probabilities: [n, classes]; codes: [n] true classes.
        equal_mass: bins of equal count instead of equal width.

    >>> calibration(np.array([[0.8, 0.2]] * 5), np.array([0, 0, 0, 0, 1])).ece
    0.0

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(codes)
    if p.ndim != 2 or y.shape != (len(p),) or len(p) == 0:
        raise ValueError(f"need probabilities [n, classes] and n codes, got {p.shape} and {y.shape}")
    if p.min() < 0 or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError("rows of probabilities must be non-negative and sum to one")
    _check_codes(y, p.shape[1])
    confidence, right = p.max(1), p.argmax(1) == y
    if equal_mass:
        place = np.argsort(np.argsort(confidence, kind="stable"), kind="stable") * bins // len(p)
    else:
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows, ece = [], 0.0
    for b in range(bins):
        inside = place == b
        if inside.any():
            conf, acc = float(confidence[inside].mean()), float(right[inside].mean())
            rows.append({"confidence": conf, "accuracy": acc, "n": int(inside.sum())})
            ece += inside.mean() * abs(acc - conf)
    target = np.zeros_like(p)
    target[np.arange(len(p)), y] = 1
    nll = -np.log(np.clip(p[np.arange(len(p)), y], 1e-12, None)).mean()
    return Calibration(round(float(ece), 12), float(((p - target) ** 2).sum(1).mean()), float(nll), rows)


@accepts(arrays=["logits", "codes"])
def fit_temperature(logits: np.ndarray, codes: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of softmax(logits / T) on held-out samples.

    Accuracy does not change. The likelihood is convex in 1/T, so the search is exact.

    >>> logits = np.array([[6.0, 0.0]] * 4)  # odds of e^6 are claimed where 3 to 1 are true: T = 6 / ln 3
    >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 3)
    5.461
    """
    from scipy.optimize import minimize_scalar

    z, y = np.asarray(logits, dtype=np.float64), np.asarray(codes)
    if z.ndim != 2 or y.shape != (len(z),) or len(z) == 0:
        raise ValueError(f"need logits [n, classes] and n codes, got {z.shape} and {y.shape}")
    _check_codes(y, z.shape[1])

    def nll(log_inverse: float) -> float:
        return float(-log_softmax(z * np.exp(log_inverse), axis=1)[np.arange(len(y)), y].mean())

    return float(np.exp(-minimize_scalar(nll, bounds=(-7, 7), method="bounded", options={"xatol": 1e-6}).x))


def _check_codes(codes: np.ndarray, classes: int) -> None:
    if codes.min() < 0 or codes.max() >= classes:
        found = f"{codes.min()}..{codes.max()}"
        raise ValueError(f"codes of {classes} classes lie in 0..{classes - 1}, got {found}: leave out missing labels")
