"""The label-shuffled control: an evaluation that finds something in random labels has a leak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from counterpoint.common.metrics.bootstrap import numbered_groups
from counterpoint.common.metrics.inputs import accepts, as_list
from counterpoint.common.metrics.labels import LabelsLike
from counterpoint.common.metrics.result import Result


@dataclass(frozen=True)
class Control(Result):
    """The real figure, what shuffled labels give, and whether the latter is at chance.

    `p_value` is the share of shuffles at least as good as the real figure, counting the real one. `leak` is True when
    chance lies outside `low`..`high`, the central 95 % of shuffled figures: something other than the labels tells.
    """

    real: float
    shuffled_mean: float
    low: float
    high: float
    chance: float
    p_value: float
    leak: bool
    shuffled: np.ndarray = field(metadata={"json": False})


def shuffle_labels(labels: LabelsLike, groups: object | None, rng: np.random.Generator) -> list:
    """Labels dealt anew: whole groups swap labels when a group has one label, else rows are shuffled.

    >>> shuffle_labels(["a", "a", "b"], ["p", "p", "q"], np.random.default_rng(3))
    ['b', 'b', 'a']
    """
    values = as_list(labels)
    codes, count = numbered_groups(groups, len(values))
    first = [values[i] for i in np.unique(codes, return_index=True)[1]]
    if groups is None or not all(_same(values[i], first[g]) for i, g in enumerate(codes)):
        return [values[i] for i in rng.permutation(len(values))]
    dealt = [first[i] for i in rng.permutation(count)]
    return [dealt[g] for g in codes]


@accepts(arrays=["groups"])
def shuffled_control(
    score: Callable[[list], float],
    labels: LabelsLike,
    *,
    chance: float,
    groups: object | None = None,
    repeats: int = 20,
    seed: int = 0,
) -> Control:
    """Run an evaluation on the real labels and on `repeats` shuffles of them.

    Args:
        score: takes the labels of ALL samples (train and test) and returns the figure.
        chance: what the figure should be when labels mean nothing (0.5 for AUROC, 1/classes for balanced accuracy).
    """
    rng = np.random.default_rng(seed)
    real = float(score(as_list(labels)))
    shuffled = np.array([float(score(shuffle_labels(labels, groups, rng))) for _ in range(repeats)])
    low, high = np.quantile(shuffled, [0.025, 0.975])
    # With few repeats the quantiles are nearly the extremes; the mean's own error is the sharper test.
    error = 4 * shuffled.std(ddof=1) / np.sqrt(repeats) if repeats > 1 else np.inf
    leak = not low <= chance <= high and abs(shuffled.mean() - chance) > error
    p = (1 + int((shuffled >= real).sum())) / (1 + repeats)
    return Control(real, float(shuffled.mean()), float(low), float(high), chance, p, bool(leak), shuffled)


def _same(a: object, b: object) -> bool:
    return a == b or (a != a and b != b)  # two missing labels (NaN) are alike
