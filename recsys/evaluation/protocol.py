"""The evaluation of a recommender's run: full ranking, beyond accuracy, slices, conventions by name.

Settings are chosen by the validation alone. Published tables of MMRec's family are the test figures of settings that
were chosen on the test (best Recall@20 over a grid); SELFRec's best epoch is chosen on the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from counterpoint.common.data import Links
from counterpoint.common.metrics import Interval, NotRun, PerQuery, Result, bootstrap_columns
from counterpoint.common.runs.opened import OpenRun
from counterpoint.recsys.evaluation.measures import accuracy, beyond_accuracy, chance, hits_of
from counterpoint.recsys.evaluation.ranking import top_items
from counterpoint.recsys.evaluation.sampled import sampled_figures
from counterpoint.recsys.evaluation.slices import item_slices, user_slices


@dataclass(frozen=True)
class Convention:
    """How figures are counted.

    Attributes:
        mask: splits whose items a user is not offered in the test.
        strangers: whether users without a training item count.
        decimals: figures are rounded to so many, also where the best epoch is chosen; None: not at all.
    """

    name: str
    mask: tuple[str, ...]
    strangers: bool
    decimals: int | None


CONVENTIONS = {
    one.name: one
    for one in (
        Convention("counterpoint", ("train", "val"), True, None),
        Convention("mmrec", ("train",), False, 4),
        Convention("recbole", ("train", "val"), True, 4),
    )
}


def convention_of(config: Any) -> Convention:
    """The convention that a `RankingConfig` names, with a mask of its own where it has one."""
    known = CONVENTIONS[config.convention]
    masks = {"": known.mask, "train": ("train",), "train+valid": ("train", "val")}
    return Convention(known.name, masks[config.mask], known.strangers, known.decimals)


@dataclass(frozen=True)
class RankingResult(PerQuery):
    """Figures of top lists over users.

    Attributes:
        name: what was ranked.
        queries: users; pool: the items of the catalogue that the user with most candidates was ranked over.
        protocol: mask, convention, ties, and fingerprints of data and split.
        intervals: figure -> its value with a 95 % bootstrap interval over users.
        chance: what a random order scores, where it has a closed form.
    """

    name: str
    queries: int
    pool: int
    protocol: dict[str, str]
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    chance: dict[str, float]
    per_query: dict[str, np.ndarray] = field(metadata={"json": False})
    rows: np.ndarray = field(metadata={"json": False})
    groups: np.ndarray | None = field(default=None, metadata={"json": False})
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lists:
    """The best items of a split's users.

    Attributes:
        rows: which of the split's users.
        items: [users, K] best first, -1 where there are no more.
        truth, exclude: [users, items] of these users.
    """

    rows: np.ndarray
    items: np.ndarray
    truth: Links
    exclude: Links


def ranked(system: Any, asked: Any, convention: Convention, n: int, rows: np.ndarray, seed: int) -> Lists:
    """Rank the catalogue for the users of a split."""
    if not convention.strangers:
        rows = rows[np.diff(system.assets["starts"])[asked.rows[rows]] > 0]
    truth, exclude = (links.of_queries(rows) for links in (asked.truth, asked.left_out_items))
    return Lists(rows, top_items(system.scorer(asked), asked.rows[rows], exclude, n, seed), truth, exclude)


def protocols(run: OpenRun) -> dict[str, Result]:
    """The full ranking of the split under evaluation, and its slices."""
    system, asked = run.system, run.samples()
    config = system.config.ranking
    convention = convention_of(config)
    every = np.arange(len(asked) if run.limit is None else min(run.limit, len(asked)))
    cuts = tuple(sorted(set(config.cuts)))
    lists = ranked(system, asked, convention, max(cuts), every, run.seed)
    if not len(lists.rows):
        return {"ranking": NotRun(f"no user of {run.split} has a training item, as {convention.name} wants")}
    said = {
        "convention": convention.name,
        "mask": "+".join(asked.mask) or "nothing",
        "ties": "random order, drawn for every user",
        **asked.data.fingerprint,
    }
    counts, lengths = system.item_counts, np.diff(system.assets["starts"])[asked.rows[lists.rows]]
    options = {"n_boot": run.n_boot, "seed": run.seed, "decimals": convention.decimals, "protocol": said}
    title = "ranking user -> item"
    whole = {"counts": counts, "users": system.n_users}
    found: dict[str, Result] = {title: _result(title, lists, cuts, **whole, **options)}
    parts = {name: _of_items(lists, mask) for name, mask in item_slices(counts, config.rare).items()}
    parts |= {name: _of_users(lists, mask) for name, mask in user_slices(lengths).items()}
    for name, part in parts.items():
        if len(part.rows):
            found[f"ranking: {name}"] = _result(f"ranking: {name}", part, (max(cuts),), ("recall", "ndcg"), **options)
    if config.sampled:
        name = f"SAMPLED ranking against {config.sampled} drawn items"
        rows, values = sampled_figures(system.scorer(asked), asked, lists, config.sampled, cuts, run.seed)
        note = "ranks among a few drawn items do not agree with full rankings, also about which model is better"
        found[name] = _summary(name, rows, values, {}, config.sampled + 1, notes=(note,), **options)
    return found


def _of_items(lists: Lists, mask: np.ndarray) -> Lists:
    """The users who met an item of a slice, with these items as their only answers."""
    kept = mask[lists.truth.keys]
    truth = Links(lists.truth.queries[kept], lists.truth.keys[kept], lists.truth.shape)
    return _of_users(Lists(lists.rows, lists.items, truth, lists.exclude), truth.counts > 0)


def _of_users(lists: Lists, mask: np.ndarray) -> Lists:
    chosen = np.flatnonzero(mask)
    truth, exclude = (links.of_queries(chosen) for links in (lists.truth, lists.exclude))
    return Lists(lists.rows[chosen], lists.items[chosen], truth, exclude)


def _result(
    name: str, lists: Lists, cuts: Sequence[int], figures: Sequence[str] = (), *, counts: np.ndarray | None = None,
    users: int = 0, **options: Any,
) -> RankingResult:  # fmt: skip
    values = accuracy(hits_of(lists.items, lists.truth), lists.truth.counts, cuts)
    pool = lists.truth.shape[1] - lists.exclude.counts
    level = chance(lists.truth.counts, pool, cuts)
    values, level = ({n: v for n, v in x.items() if not figures or n.partition("@")[0] in figures}
                     for x in (values, level))  # fmt: skip
    more: dict[str, np.ndarray] = {}
    whole: dict[str, float] = {}
    if counts is not None:
        more, whole = beyond_accuracy(lists.items, counts, users, max(cuts))
    return _summary(name, lists.rows, values, level, int(pool.max()), more=more, whole=whole, **options)


def _summary(
    name: str, rows: np.ndarray, values: Mapping[str, np.ndarray], level: dict[str, float], pool: int, *,
    protocol: dict[str, str], n_boot: int, seed: int, decimals: int | None,
    more: Mapping[str, np.ndarray] | None = None, whole: Mapping[str, float] | None = None, notes: tuple[str, ...] = (),
) -> RankingResult:  # fmt: skip
    intervals = bootstrap_columns({**values, **(more or {})}, n=max(n_boot, 1), seed=seed)
    nan = float("nan")  # of all lists together: resampled users would reach fewer items
    intervals |= {name: Interval(value, nan, nan, len(rows), len(rows)) for name, value in (whole or {}).items()}
    if decimals is not None:
        intervals = {n: _rounded(i, decimals) for n, i in intervals.items()}
    metrics = {name: interval.value for name, interval in intervals.items()}
    return RankingResult(
        name, len(rows), pool, protocol, metrics, intervals, level, dict(values), rows, None, notes
    )


def _rounded(interval: Interval, decimals: int) -> Interval:
    low, value, high = (round(x, decimals) for x in (interval.low, interval.value, interval.high))
    return Interval(value, low, high, interval.n, interval.groups, interval.level)


def validation_figures(rows: Mapping[str, Tensor], config: Any) -> dict[str, float]:
    """Means over all validation users, rounded where the convention does: what the best epoch is chosen by."""
    decimals = convention_of(config).decimals
    means = {f"val/{name}": float(values.double().mean()) for name, values in rows.items()}
    return means if decimals is None else {name: round(value, decimals) for name, value in means.items()}
