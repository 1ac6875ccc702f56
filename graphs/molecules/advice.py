"""Which of several models to use, from their figures on the same splits: intervals that know the splits overlap, and
one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from counterpoint.common.metrics.bootstrap import Interval

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""Arm -> split kind -> one figure per seed."""


def resampled_interval(
    values: Sequence[float] | np.ndarray,
    test_share: float,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    r"""Interval of a mean over repeated splits of one set, whose training molecules overlap: with k splits

        mean +- t_{k-1} sd sqrt(1/k + n_test/n_train)

    Without the second term, repeating splits would make any difference certain. NaN figures (a test split of one class)
    are left out, and the interval ends at `bounds`, beyond which no value can lie.

    Source: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.

    >>> str(resampled_interval([1.0, 2.0, 3.0], 0.0)), str(resampled_interval([1.0, 2.0, 3.0], 1 / 9))
    ('2.000 [-0.484, 4.484]', '2.000 [-0.868, 4.868]')
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else float("nan"), float("nan"), float("nan"), len(x), len(x), level)
    half = stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) * np.sqrt(1 / len(x) + test_share)
    low, high = max(x.mean() - half, bounds[0]), min(x.mean() + half, bounds[1])
    return Interval(float(x.mean()), float(low), float(high), len(x), len(x), level)


def advise(figures: Figures, *, baseline: str, chance: str, higher: bool, metric: str, test_share: float) -> str:
    """One sentence: the baseline unless another arm is better beyond what splits alone do, and none of them where the
    chosen one does not beat `chance`.

    An arm's figure of a seed is its mean over the kinds of split; arms are compared seed by seed, and the level of
    their intervals is shared out among them (Bonferroni), so that more arms do not find a winner by luck.

    >>> runs = {"mean": [0.5, 0.5, 0.5], "forest": [0.8, 0.82, 0.81], "net": [0.9, 0.93, 0.91]}
    >>> table = {arm: {"scaffold": values} for arm, values in runs.items()}
    >>> named = {"baseline": "forest", "chance": "mean", "metric": "AUROC", "higher": True, "test_share": 1 / 9}
    >>> advise(table, **named)
    'Use net: AUROC better than forest by 0.103 [0.087, 0.120] over 3 seeds.'
    """
    sign = 1.0 if higher else -1.0
    seeds = {arm: np.mean([np.asarray(v, float) for v in kinds.values()], axis=0) for arm, kinds in figures.items()}
    others = [arm for arm in seeds if arm not in (baseline, chance)]
    level = 1 - 0.05 / max(len(others), 1)
    gain = {arm: resampled_interval(sign * (seeds[arm] - seeds[baseline]), test_share, level) for arm in others}
    best = max((arm for arm in others if gain[arm].low > 0), key=lambda arm: gain[arm].value, default=baseline)
    over = resampled_interval(sign * (seeds[best] - seeds[chance]), test_share)
    if over.n < 2:
        return f"No advice: {metric} is known of {over.n} split(s) alone; give more labelled molecules or more seeds."
    if not over.low > 0:
        return (
            f"Use none of them: even {best} is not above chance beyond the spread of the splits "
            f"({metric} better than the {chance} by {over})."
        )
    if best != baseline:
        return f"Use {best}: {metric} better than {baseline} by {gain[best]} over {gain[best].n} seeds."
    closest = max(others, key=lambda arm: np.nan_to_num(gain[arm].value, nan=-np.inf), default=None)
    near = f"; the closest, {closest}, differs by {gain[closest]}" if closest else ""
    return f"Use {baseline}: nothing was better in {metric} beyond the spread of {over.n} seeds{near}."
