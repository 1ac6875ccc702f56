"""Between which values a figure can lie, by its name: no interval reaches beyond them."""

from __future__ import annotations

import math

_SIGNED = ("kappa", "quadratic_kappa", "ARI", "spearman")
_POSITIVE = ("MAE", "RMSE")
_RANKS = ("median_rank", "mean_rank")


def metric_bounds(metric: str) -> tuple[float, float]:
    """Lowest and highest value of a figure; shares and areas lie in 0..1, as does what is not known here.

    >>> metric_bounds("R@10"), metric_bounds("quadratic_kappa"), metric_bounds("R2"), metric_bounds("mean_rank")
    ((0.0, 1.0), (-1.0, 1.0), (-inf, 1.0), (1.0, inf))
    """
    if metric in _SIGNED:
        return -1.0, 1.0
    if metric == "R2":
        return -math.inf, 1.0
    if metric in _POSITIVE or metric in _RANKS:
        return float(metric in _RANKS), math.inf
    return 0.0, 1.0
