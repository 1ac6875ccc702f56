r"""How many seeds and held-out groups a comparison needs, from the spread of one method alone.

A figure of seed s is the mean over groups g (patients, scaffolds, pieces) of their shares y_sg:

    y_sg = m + a_s + b_g + e_sg,    deviations `seed`, `group`, `rest`

The interval of `seeds_and_groups` over S seeds and G groups has the half-width t_nu sqrt(V) with

    V_s = (seed^2 + rest^2 / G) / S,    V_g = (group^2 + rest^2 / S) / G
    V   = V_s + V_g + rest^2 / (S G)                 (drawing both ways counts e three times: Owen 2007)
    nu  = (V_s + V_g)^2 / (V_s^2 / (S - 1) + V_g^2 / (G - 1))          (Satterthwaite's degrees of freedom)

Two methods on the same seeds and groups differ by less than two strangers do; how much less is not known before the
second one has run, which a pilot must not do. `Spread.of_difference` therefore assumes that sharing seeds helps not at
all (their parts are independent: 2 seed^2, 2 rest^2) and that what makes a group hard is half shared (group^2).

Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007; Satterthwaite, "An approximate distribution
of estimates of variance components", Biometrics 1946.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from counterpoint.common.metrics.bootstrap import numbered_groups
from counterpoint.common.metrics.classification import auroc, confusion, confusion_figures
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.probe import Probe

SEEDS_AT_MOST, GROUPS_AT_MOST = 10_000, 10_000_000


@dataclass(frozen=True)
class Spread:
    """Deviations of a figure over seeds and held-out groups (see the module's text), and what they were measured on.

    `groups` is 0 where only whole figures are known: then `seed` holds all of it.
    """

    seed: float
    group: float
    rest: float
    seeds: int
    groups: int

    @classmethod
    def of(cls, shares: Float[np.ndarray, "seeds groups"]) -> Spread:
        """Deviations by the method of moments (two-way analysis of variance); negative variances are 0.

        One column is taken as whole figures.

        >>> Spread.of(np.array([[0.1, 0.3], [0.2, 0.4]])).rest < 1e-9
        True
        """
        y = np.asarray(shares, dtype=np.float64)
        s, g = y.shape
        if g == 1:
            return cls(float(y.std(ddof=1)) if s > 1 else math.nan, 0.0, 0.0, s, 0)
        centred = y - y.mean()
        rows, columns = centred.mean(1), centred.mean(0)
        rest = ((centred - rows[:, None] - columns) ** 2).sum() / max((s - 1) * (g - 1), 1)
        seed = (g * (rows**2).sum() / (s - 1) - rest) / g if s > 1 else math.nan
        group = (s * (columns**2).sum() / (g - 1) - rest) / s
        return cls(*(math.sqrt(max(v, 0.0)) if v == v else v for v in (seed, group, rest)), s, g)

    @property
    def of_difference(self) -> Spread:
        """What is assumed of the difference of two methods that spread like this one."""
        twice = math.sqrt(2)
        return Spread(twice * self.seed, self.group, twice * self.rest, self.seeds, self.groups)

    def half_width(self, seeds: int, groups: int, level: float = 0.95) -> float:
        """Expected half-width of the interval over so many seeds and groups; of a t interval without groups."""
        if seeds < 2:
            return math.inf
        if not self.groups:
            return float(stdtrit(seeds - 1, 0.5 + level / 2)) * self.seed / math.sqrt(seeds)
        if groups < 2:
            return math.inf
        each = self.rest**2 / (seeds * groups)
        by_seed, by_group = self.seed**2 / seeds + each, self.group**2 / groups + each
        if by_seed + by_group == 0:
            return 0.0
        freedom = (by_seed + by_group) ** 2 / (by_seed**2 / (seeds - 1) + by_group**2 / (groups - 1))
        return float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(by_seed + by_group + each)

    def seeds_for(self, half_width: float, groups: int, *, least: int = 3) -> int | None:
        """The fewest seeds, `least` or more, with which the interval is so narrow; None where no number of them does.

        >>> Spread(0.1, 0.0, 0.0, 5, 0).seeds_for(0.05, 0)
        18
        """
        return _fewest(lambda n: self.half_width(n, groups) <= half_width, least, SEEDS_AT_MOST)

    def groups_for(self, half_width: float, seeds: int, *, least: int = 2) -> int | None:
        """The fewest groups, `least` or more, with which the interval of `seeds` seeds is so narrow."""
        if not self.groups:
            return None
        return _fewest(lambda n: self.half_width(seeds, n) <= half_width, least, GROUPS_AT_MOST)


def _fewest(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest number from `least` to `most` for which a condition holds that, once it holds, goes on holding."""
    if not enough(most):
        return None
    low, high = least - 1, most  # enough(high), and not enough(low) or low < least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@accepts(arrays=["groups"])
def group_shares(
    statistic: Callable[[Float[np.ndarray, " rows"]], float], rows: int, groups: object
) -> dict[str, float]:
    r"""The share of every group in a figure that is a function of row weights (AUROC, F1, a mean error).

        share_g = f + (G - 1) (mean_h f_{-h} - f_{-g}),    f_{-g}: the figure without the rows of group g

    Their mean is the figure itself; their differences between two methods are what `seeds_and_groups` draws (the
    jackknife's pseudo-values, centred on the figure). Of a mean over groups of equal size they are the groups' means.

    Raises:
        ValueError: fewer than two groups, or a figure that is not defined without one of them.

    >>> x = np.array([1.0, 3.0, 5.0, 5.0])
    >>> shares = group_shares(lambda w: float(w @ x / w.sum()), 4, ["a", "a", "b", "b"])
    >>> {name: round(share, 9) for name, share in shares.items()}
    {'a': 2.0, 'b': 5.0}

    Source: Tukey, "Bias and confidence in not quite large samples", 1958.
    """
    codes, count = numbered_groups(groups, rows)
    if count < 2:
        raise ValueError("all rows are of one group: a figure has no shares then")
    names = np.asarray(groups).astype(str)[np.unique(codes, return_index=True)[1]]
    figure, ones = statistic(np.ones(rows)), np.ones(rows)
    without = np.empty(count)
    for g in range(count):
        weight = ones.copy()
        weight[codes == g] = 0.0
        without[g] = statistic(weight)
    if not np.isfinite(without).all():
        raise ValueError(f"the figure is not defined without the rows of group {names[~np.isfinite(without)][0]}")
    shares = figure + (count - 1) * (without.mean() - without)
    return dict(zip(names.tolist(), shares.tolist()))


def probe_shares(probe: Probe, metric: str) -> dict[str, float]:
    """The share of every test group in a figure of a probe: `accuracy`, `macro_f1`, `auroc` (of two classes) or `MAE`.

    Raises:
        ValueError: another figure, or a probe whose test rows were given without groups.
    """
    rows = probe.scores.per_row
    if "group" not in rows:
        raise ValueError("the probe's test rows have no groups: give it groups=")
    if metric == "auroc" and len(probe.scores.classes) == 2:
        score, positive = probe.predictions[rows["row"], 1], rows["label"] == 1
        statistic = lambda w: auroc(score, positive, w)  # noqa: E731
    elif metric in ("accuracy", "MAE"):
        value = rows["correct" if metric == "accuracy" else "error"]
        statistic = lambda w: float(w @ value / w.sum())  # noqa: E731
    elif metric == "macro_f1":
        said = (rows["label"], rows["predicted"], len(probe.scores.classes))
        statistic = lambda w: confusion_figures(confusion(*said, w))["macro_f1"]  # noqa: E731
    else:
        raise ValueError(f"shares of {metric!r} are not known; choose accuracy, macro_f1, auroc (two classes) or MAE")
    return group_shares(statistic, len(rows["row"]), rows["group"])
