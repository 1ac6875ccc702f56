"""Bootstrap intervals by group: patients, tiles, tracks, scaffolds or users are drawn, never single rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit
from torch import Tensor

from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.result import Result

Statistic = Callable[..., float]

NO_INTERVAL = "nothing is known of others, so there is no interval"


@dataclass(frozen=True)
class Interval(Result):
    """An estimate with its interval: `value` [`low`, `high`] over `n` values in `groups` groups.

    `low` and `high` are NaN where there is no interval: one group or one value alone tells nothing of others.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.known else f"{self.value:.3f}"

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def missing(self) -> str:
        """Why there is no interval where too little was measured for one; empty elsewhere."""
        if self.known or self.groups > 1:
            return ""
        what = "there is one test sample" if self.n == 1 else f"all {self.n} test samples are of one group"
        return f"{what}: {NO_INTERVAL}"

    def span(self, between: str = " .. ") -> str:
        """The interval as tables show it, empty where there is none.

        >>> Interval(0.5, 0.25, 0.75, 9, 3).span(), Interval(0.5, float("nan"), float("nan"), 9, 1).span()
        ('0.25 .. 0.75', '')
        """
        return f"{short(self.low)}{between}{short(self.high)}" if self.known else ""


def short(x: float) -> str:
    """A figure in three digits; what is not defined is a dash, and rounding errors around zero are zero.

    >>> short(0.12345), short(1e-17), short(float("nan"))
    ('0.123', '0', '–')
    """
    return "–" if np.isnan(x) else f"{0.0 if abs(x) < 1e-12 else x:.3g}"


@dataclass(frozen=True)
class PairedDifference(Interval):
    """Mean of `second - first` on the same samples; `p_value` tests "no difference" by flipping signs of groups."""

    p_value: float = 1.0


def _array(name: str, values: Tensor | np.ndarray | Sequence[float]) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} must hold at least one value")
    return array


def _numbers(name: str, values: Tensor | np.ndarray | Sequence[float]) -> np.ndarray:
    array = _array(name, values).astype(np.float64)
    if np.isnan(array).any():
        raise ValueError(f"{name} holds NaN in {int(np.isnan(array).sum())} of {len(array)} rows: leave those rows out")
    return array


def numbered_groups(groups: object | None, n: int) -> tuple[np.ndarray, int]:
    """Number the groups 0..G-1; without groups every row is its own group.

    >>> numbered_groups(["ann", "bob", "ann"], 3)
    (array([0, 1, 0]), 2)
    """
    if groups is None:
        return np.arange(n), n
    names = np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
    if names.shape != (n,):
        raise ValueError(f"groups must name one group for each of the {n} values, got shape {names.shape}")
    if (missing := np.array([g is None or g != g for g in names.tolist()])).any():
        raise ValueError(f"row {int(missing.argmax())} has no group: name one for every row, or give none at all")
    _, codes = np.unique(names, return_inverse=True)
    return codes, int(codes.max()) + 1


@accepts(arrays=["values", "groups"])
def bootstrap_interval(
    values: Tensor | np.ndarray | Sequence[float],
    groups: object | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    statistic: str | Statistic = "mean",
) -> Interval:
    r"""Percentile bootstrap interval of a statistic of `values`, resampling whole groups with replacement.

    Rows of one group are not independent: a patient with forty slices is one observation, not forty. Every replicate
    draws G groups out of G and takes all their rows; the interval is the central `level` mass of the replicates, with
    Hesterberg's expanded percentiles: the plain ones are too narrow by about 1/G. One group alone has no interval
    (NaN), for nothing is known about other groups.

    Args:
        values: [rows] per-row values, or any array whose first axis is rows when `statistic` is a function.
        groups: [rows] group of each row; None makes every row its own group (right only for independent rows).
        n: replicates.
        statistic: "mean", "median", or a function of an array of rows (for example AUROC of score/label columns).
            Replicates for which it returns NaN (AUROC without both classes) are left out.

    >>> bootstrap_interval([0.0, 1.0, 1.0, 1.0], seed=1).value
    0.75
    >>> i = bootstrap_interval([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    >>> (i.low, i.high, i.groups)
    (0.0, 1.0, 2)

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979; Hesterberg, "What teachers should know
    about the bootstrap", 2015, for the expanded percentiles.
    """
    rows = _array("values", values)
    if statistic in ("mean", "median"):
        medians = ("values",) if statistic == "median" else ()
        return bootstrap_columns({"values": rows}, groups, n=n, seed=seed, level=level, medians=medians)["values"]
    if not callable(statistic):
        raise ValueError(f'statistic must be "mean", "median" or a function, got {statistic!r}')
    codes, count = numbered_groups(groups, len(rows))
    order = np.argsort(codes, kind="stable")
    rng = np.random.default_rng(seed)
    replicates = [
        float(statistic(rows[np.repeat(order, weight[codes[order]])])) for weight in _group_weights(count, n, rng)
    ]
    value = float(statistic(rows))
    low, high = _central(np.array(replicates), level, count, value)
    return Interval(value, low, high, len(rows), count, level)


@accepts(numbers=["columns"], arrays=["groups"])
def bootstrap_columns(
    columns: dict[str, Tensor | np.ndarray],
    groups: object | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    medians: Sequence[str] = (),
) -> dict[str, Interval]:
    """`bootstrap_interval` of the mean (of the median for names in `medians`) of several columns over the same rows.

    One set of draws serves all columns: a replicate is a weight per group, so means are two dot products and medians
    one cumulative sum over values sorted once. A hundred thousand rows take seconds.
    """
    names = list(columns)
    table = np.stack([_numbers(name, columns[name]) for name in names], axis=1)
    codes, count = numbered_groups(groups, len(table))
    sizes = np.bincount(codes, minlength=count)
    sums = np.stack([np.bincount(codes, column, count) for column in table.T], axis=1)
    order = {name: np.argsort(columns_i, kind="stable") for name, columns_i in zip(names, table.T) if name in medians}
    replicates = np.empty((n, len(names)))
    ascending = {name: (names.index(name), table[rows, names.index(name)], codes[rows]) for name, rows in order.items()}
    draws = _group_weights(count, n, np.random.default_rng(seed))
    for start in range(0, n, 16):  # several replicates in one matrix product: the table is read once for all of them
        weights = np.stack([weight for _, weight in zip(range(min(16, n - start)), draws)])
        rows = slice(start, start + len(weights))
        drawn = weights.astype(np.float64)
        replicates[rows] = drawn @ sums / (drawn @ sizes)[:, None]
        for j, values, group in ascending.values():
            replicates[rows, j] = [_weighted_median(values, weight[group]) for weight in weights]
    values = table.mean(0)
    result = {}
    for j, name in enumerate(names):
        value = float(np.median(table[:, j])) if name in order else float(values[j])
        low, high = _central(replicates[:, j], level, count, value)
        result[name] = Interval(value, low, high, len(table), count, level)
    return result


@accepts(numbers=["first", "second"], arrays=["groups"])
def paired_difference(
    first: Tensor | np.ndarray | Sequence[float],
    second: Tensor | np.ndarray | Sequence[float],
    groups: object | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Mean of `second - first` over the same rows (two checkpoints, same samples), with interval and p-value.

    The p-value is that of the sign-flip permutation test over groups, exact under "the two are exchangeable":
    (1 + #{|flipped mean| >= |mean|}) / (1 + n).

    >>> d = paired_difference([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    >>> round(d.value, 3), round(d.low, 3), d.p_value < 0.06
    (0.1, 0.1, True)
    """
    a, b = _numbers("first", first), _numbers("second", second)
    if a.shape != b.shape:
        raise ValueError(f"paired values must have one shape, got {a.shape} and {b.shape}")
    interval = bootstrap_interval(b - a, groups, n=n, seed=seed, level=level)
    codes, count = numbered_groups(groups, len(a))
    sums = np.bincount(codes, b - a, count)
    rng = np.random.default_rng(seed + 1)
    hits = 0
    for start in range(0, n, 256):
        signs = rng.integers(0, 2, size=(min(256, n - start), count)) * 2 - 1
        hits += int((np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-12)).sum())
    fields = {k: getattr(interval, k) for k in ("value", "low", "high", "n", "groups", "level")}
    return PairedDifference(**fields, p_value=(1 + hits) / (1 + n))


@accepts(matrices=["differences"], arrays=["groups"])
def seeds_and_groups(
    differences: Tensor | np.ndarray, groups: object | None = None, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean of differences [seeds, rows] of two methods on the same test rows, with a hierarchical bootstrap: seeds are
    drawn, and groups of rows, for a method may be better by its seed or by these patients.

    The percentiles are expanded as those of a t interval with Satterthwaite's degrees of freedom, which lie near the
    number of seeds where seeds matter most, near that of groups where groups do. One seed, or one group, has no
    interval (NaN).

    >>> i = seeds_and_groups(np.full((5, 40), 0.1) + np.linspace(-0.01, 0.01, 5)[:, None])
    >>> round(i.value, 3), i.low > 0.08, i.high < 0.12
    (0.1, True, True)

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007, for drawing both; Hesterberg 2015 and
    Satterthwaite 1946 for the expansion.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 2 or not differences.size:
        raise ValueError(f"differences must be [seeds, rows], got {differences.shape}")
    codes, count = numbered_groups(groups, differences.shape[1])
    sizes = np.bincount(codes, minlength=count)
    sums = np.stack([np.bincount(codes, row, count) for row in differences])
    drawn_seeds, drawn_groups = np.random.default_rng(seed).spawn(2)
    replicates = np.empty(n)
    draws = zip(_group_weights(len(sums), n, drawn_seeds), _group_weights(count, n, drawn_groups))
    for start in range(0, n, 64):  # several replicates in one matrix product
        seeds, weights = (np.stack(w) for w in zip(*(pair for _, pair in zip(range(min(64, n - start)), draws))))
        means = weights @ sums.T / (weights @ sizes)[:, None]
        replicates[start : start + len(means)] = (seeds * means).sum(1) / len(sums)
    value = float(differences.mean())
    low, high = _central(replicates, level, _freedom(sums, sizes, value) + 1, value)
    return Interval(value, low, high, differences.shape[1], count, level)


def _freedom(sums: np.ndarray, sizes: np.ndarray, value: float) -> float:
    """Satterthwaite's degrees of freedom of a mean over seeds and groups: between those of the two counts."""
    seeds, groups = sums.shape
    if min(seeds, groups) < 2:
        return 0.0
    by_seed = ((sums.sum(1) / sizes.sum() - value) ** 2).sum() / (seeds * (seeds - 1))
    residual = (sums.mean(0) - value * sizes) * groups / sizes.sum()
    by_group = (residual**2).sum() / (groups * (groups - 1))
    parts = by_seed**2 / (seeds - 1) + by_group**2 / (groups - 1)
    return float((by_seed + by_group) ** 2 / parts) if parts > 0 else float(min(seeds, groups) - 1)


@accepts(numbers=["values"])
def t_interval(
    values: Sequence[float] | np.ndarray | Tensor,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Student's t interval of a mean of a few independent values, such as one figure per seed.

    With five seeds the bootstrap cannot reach beyond the values it has seen and is far too narrow; t is right for
    roughly normal differences. One value has no interval (NaN): nothing is known about its spread. The interval ends
    at `bounds`, beyond which no value can lie (`metric_bounds`).

    >>> i = t_interval([1.0, 2.0, 3.0])
    >>> round(i.low, 3), round(i.high, 3)
    (-0.484, 4.484)
    >>> t_interval([0.8, 0.9, 1.0], bounds=(0.0, 1.0)).high
    1.0
    """
    x = _array("values", values).astype(np.float64)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), 1, 1, level)
    half = float(stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / np.sqrt(len(x)))
    low, high = max(mean - half, min(bounds[0], mean)), min(mean + half, max(bounds[1], mean))
    return Interval(mean, low, high, len(x), len(x), level)


def _group_weights(count: int, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of `count` groups is drawn, for `n` replicates."""
    for _ in range(n):
        yield np.bincount(rng.integers(count, size=count), minlength=count)


def _weighted_median(ascending: np.ndarray, weight: np.ndarray) -> float:
    """Median of values repeated `weight` times: the middle one, or the mean of the two in the middle."""
    cumulative = np.cumsum(weight)
    total = cumulative[-1]
    lower = ascending[np.searchsorted(cumulative, (total - 1) // 2, side="right")]
    upper = ascending[np.searchsorted(cumulative, total // 2, side="right")]
    return float(lower + upper) / 2


def _central(replicates: np.ndarray, level: float, groups: float, value: float) -> tuple[float, float]:
    """Expanded percentiles of the replicates; moved by the estimated bias where the value is no part of them.

    Resampling biases some figures: a resample of groups loses classes and repeats rows. BCa and the basic bootstrap
    both leave the value outside exactly where the percentiles do, so the interval keeps its width and is moved by
    mean(replicates) - value; it never reaches beyond the replicates and the value themselves, hence never out of the
    figure's range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    finite = replicates[np.isfinite(replicates)]
    if groups < 2 or len(finite) == 0 or not np.isfinite(value):
        return float("nan"), float("nan")
    tail = float(ndtr(-np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, 0.5 + level / 2)))
    low, high = (float(q) for q in np.quantile(finite, [tail, 1 - tail]))
    if low <= value <= high:
        return low, high
    bias = float(finite.mean()) - value
    least, most = min(value, float(finite.min())), max(value, float(finite.max()))
    return max(min(low - bias, value), least), min(max(high - bias, value), most)


@accepts(arrays=["groups"])
def bootstrap_weights(
    statistic: Callable[[np.ndarray], dict[str, float]],
    rows: int,
    groups: object | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of named figures written as a function of row weights (how often each row is drawn).

    >>> x = np.array([1.0, 2.0, 3.0])
    >>> bootstrap_weights(lambda w: {"mean": float(w @ x / w.sum())}, 3, n=50)["mean"].value
    2.0
    """
    codes, count = numbered_groups(groups, rows)
    value = statistic(np.ones(rows))
    rng = np.random.default_rng(seed)
    draws = [statistic(weight[codes].astype(np.float64)) for weight in _group_weights(count, n, rng)]
    result = {}
    for name, figure in value.items():
        low, high = _central(np.array([d.get(name, np.nan) for d in draws]), level, count, figure)
        result[name] = Interval(figure, low, high, rows, count, level)
    return result
