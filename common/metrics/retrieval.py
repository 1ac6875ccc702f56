"""Retrieval between two sets of embeddings: ranks, recall, precision, gain, with pool size and chance beside them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.links import Links
from counterpoint.common.metrics.bootstrap import Interval, bootstrap_columns
from counterpoint.common.metrics.chance import chance_levels
from counterpoint.common.metrics.inputs import accepts, as_array, as_list
from counterpoint.common.metrics.labels import encode_labels
from counterpoint.common.metrics.ranking import Places, Scoring, SortedRanks, paired_ranks
from counterpoint.common.metrics.result import Result, features
from counterpoint.common.metrics.scores import Score

Truth = Tensor | Links | tuple[object, object] | None


@dataclass(frozen=True)
class RetrievalResult(Result):
    """Retrieval in one direction. Per-query values stay as tensors for intervals and paired comparisons.

    Tied keys fall in random order, and every figure is its expectation over those orders: the rank of a key is the
    middle one of its tied block, and R@k counts the share of the block within the first k. A collapsed encoder
    therefore scores exactly at chance in every figure.

    Attributes:
        name: direction, for example "audio -> sheet".
        queries, pool: how many queries had at least one relevant key; how many keys each was ranked against.
        excluded: how many further keys a query was not ranked against, on average over the queries.
        unanswerable: queries left out because no key is relevant to them.
        metrics: "R@k" (share of queries with a relevant key in the first k), "MRR", "median_rank", "mean_rank", "mAP",
            "NDCG@k"; with several relevant keys also "coverage@k", the share of them found.
        chance: the same figures for a random order of the pool, exact.
        intervals: 95 % bootstrap interval of each metric, over groups.
        ranks: [queries] expected rank of the first relevant key: the middle one of the keys tied with it.
        per_query: metric -> [queries] values whose mean is the metric.
        rows: [queries] which rows of the query matrix these are.
        groups: [queries] their groups, where intervals are over groups.
    """

    name: str
    queries: int
    pool: int
    unanswerable: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    ranks: Tensor = field(metadata={"json": False})
    per_query: dict[str, Tensor] = field(metadata={"json": False})
    rows: Tensor = field(metadata={"json": False})
    groups: np.ndarray | None = field(default=None, metadata={"json": False})
    excluded: float = 0.0

    def __str__(self) -> str:
        head = f"{self.name} ({self.queries} queries, pool {self.pool})"
        return (
            head
            + ": "
            + ", ".join(
                f"{k} {v:.3g} (chance {self.chance[k]:.3g})" for k, v in self.metrics.items() if k in self.chance
            )
        )


@dataclass(frozen=True)
class Retrieval(Result):
    """Both directions of `retrieval`."""

    a_to_b: RetrievalResult
    b_to_a: RetrievalResult

    def as_dict(self) -> dict[str, object]:
        """Keyed by direction and pool size, because recall means nothing without the pool."""
        return {f"{r.name} (pool {r.pool})": r.as_dict() for r in (self.a_to_b, self.b_to_a)}


@accepts(matrices=["qa", "kb"], arrays=["groups", "groups_b"])
def retrieval(
    qa: Float[Tensor, "n dim"],
    kb: Float[Tensor, "m dim"] | tuple[Float[Tensor, "m dim"], ...],
    *,
    relevant: object = None,
    exclude: object = None,
    metric: str | Score = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    groups: object | None = None,
    groups_b: object | None = None,
    names: tuple[str, str] = ("a", "b"),
    n_boot: int = 1000,
    seed: int = 0,
) -> Retrieval:
    """Retrieval between two modalities in both directions.

    Args:
        qa, kb: embeddings of the two modalities; for a joint metric `kb` is a tuple of all modalities of a key.
        relevant: the truth. None: row i belongs to row i. [n] integers: query i's one key. A pair of label
            sequences (of qa's rows, of kb's rows): every key of the same label (captions of an image, sections of a
            piece); rows without a label (None, NaN, "") belong to nothing. `Links`, a sparse matrix of SciPy or a bool
            matrix [n, m] for anything else.
        exclude: keys that are not in a query's pool (items seen before, other scans of the same patient), as `Links`, a
            sparse matrix or a bool matrix; a relevant key may not be among them.
        metric: `cosine`, `dot`, or a joint score (see `SCORES`).
        ks: cut-offs.
        groups, groups_b: resampling unit (patient, piece) of each row of qa and of kb for the intervals; `groups_b`
            defaults to `groups` when the rows are paired.

    >>> z = torch.eye(8)
    >>> both = retrieval(z, z)
    >>> both.a_to_b.metrics["R@1"], both.a_to_b.chance["R@1"], both.b_to_a.metrics["median_rank"]
    (1.0, 0.125, 1.0)

    A collapsed encoder scores at chance instead of at the top:

    >>> flat = retrieval(torch.ones(8, 4), torch.ones(8, 4)).a_to_b
    >>> flat.metrics["R@1"], flat.chance["R@1"], flat.metrics["median_rank"], flat.chance["median_rank"]
    (0.125, 0.125, 4.5, 4.5)
    """
    scoring = _scoring(qa, kb, metric, exclude)
    relevant = _truth(relevant)
    _check_cuts(ks)
    options = {"ks": tuple(ks), "n_boot": n_boot, "seed": seed}
    ab, ba = f"{names[0]} -> {names[1]}", f"{names[1]} -> {names[0]}"
    if relevant is None:
        _check_paired(scoring)
        target = torch.arange(scoring.shape[0], device=scoring.device)
        _check_not_excluded(scoring, target)
        forward, backward = paired_ranks(scoring, target, both=True)
        assert backward is not None
        groups_b = groups if groups_b is None else groups_b
        return Retrieval(
            _from_places(ab, forward, scoring, groups, **options),
            _from_places(ba, backward, scoring.T, groups_b, **options),
        )
    forward_truth, backward_truth = _both_truths(relevant, *scoring.shape)
    return Retrieval(
        _ranked(ab, scoring, forward_truth, False, groups, **options),
        _ranked(ba, scoring.T, backward_truth, False, groups_b, **options),
    )


@accepts(matrices=["q", "k"], arrays=["groups"])
def rank_queries(
    q: Float[Tensor, "n dim"],
    k: Float[Tensor, "m dim"] | tuple[Float[Tensor, "m dim"], ...],
    *,
    relevant: object = None,
    exclude: object = None,
    exclude_self: bool = False,
    metric: str | Score = "cosine",
    ks: Sequence[int] = (1, 5, 10),
    groups: object | None = None,
    name: str = "q -> k",
    n_boot: int = 1000,
    seed: int = 0,
) -> RetrievalResult:
    """Retrieval in one direction; `exclude_self` leaves row i out of query i's pool (a set searched in itself). The
    other parameters are those of `retrieval`.

    Several relevant keys per query are ranked in blocks of rows against the whole pool; one relevant key per query (the
    common case) only needs counting and never holds more than a tile.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> same = rank_queries(z, z, relevant=(["a", "a", "b"], ["a", "a", "b"]), exclude_self=True)
    >>> same.queries, same.unanswerable, same.pool, same.metrics["R@1"]
    (2, 1, 2, 1.0)
    """
    _check_cuts(ks)
    options = {"ks": tuple(ks), "n_boot": n_boot, "seed": seed}
    return _ranked(name, _scoring(q, k, metric, exclude), _truth(relevant), exclude_self, groups, **options)


def _ranked(
    name: str, scoring: Scoring, relevant: Truth, exclude_self: bool, groups: object | None, **options
) -> RetrievalResult:
    n, m = scoring.shape
    if exclude_self:
        _check_paired(scoring)
    if relevant is None or (isinstance(relevant, Tensor) and relevant.ndim == 1 and not exclude_self):
        if relevant is None:
            _check_paired(scoring)
            if exclude_self:
                raise ValueError("exclude_self needs a truth: without one the only relevant key is the query itself")
        target = torch.arange(n) if relevant is None else relevant
        _check_target(target, n, m)
        _check_not_excluded(scoring, target)
        return _from_places(name, paired_ranks(scoring, target.to(scoring.device))[0], scoring, groups, **options)
    truth = _truth_rows(relevant, n, m, scoring.device)
    return _many_to_many(name, scoring, truth, exclude_self, groups, **options)


def _scoring(q: Tensor, k: object, metric: str | Score, exclude: object) -> Scoring:
    """Checked queries and keys of one precision under their metric."""
    q = features("queries", q)
    keys = [features("keys", one) for one in (k if isinstance(k, tuple) else (k,))]
    for key in keys:
        if q.shape[1] != key.shape[1]:
            raise ValueError(f"queries and keys differ in dimension: {q.shape[1]} and {key.shape[1]}")
    dtype = q.dtype
    for key in keys:
        dtype = torch.promote_types(dtype, key.dtype)
    links = None if exclude is None else _links(exclude, len(q), len(keys[0]), "exclude")
    return Scoring(q.to(dtype), *(key.to(dtype) for key in keys), metric=metric, exclude=links)


def _links(found: object, n: int, m: int, what: str) -> Links:
    """Sparse or dense pairs as `Links` between n queries and m keys."""
    if not isinstance(found, Links) and not hasattr(found, "tocoo"):
        matrix = _matrix(torch.as_tensor(as_array(found)), n, m, what)
        return Links(*(x.numpy() for x in matrix.cpu().nonzero(as_tuple=True)), (n, m))
    links = Links.of(found)
    if links.shape != (n, m):
        raise ValueError(f"{what} is about {links.shape[0]} queries and {links.shape[1]} keys, there are {n} and {m}")
    return links


def _check_cuts(ks: Sequence[int]) -> None:
    if any(k < 1 for k in ks):
        raise ValueError(f"ks are cut-offs, at least 1, got {list(ks)}")


def _check_paired(scoring: Scoring) -> None:
    n, m = scoring.shape
    if n != m:
        raise ValueError(f"row i belongs to row i, but there are {n} queries and {m} keys; give `relevant`")


def _check_not_excluded(scoring: Scoring, target: Tensor) -> None:
    """A query's one answer must be in its pool."""
    if scoring.exclude is None:
        return
    n = scoring.shape[0]
    wanted = Links(np.arange(n), target.cpu().numpy(), scoring.shape)
    lost = scoring.exclude.has(wanted)
    if lost.any():
        row = int(lost.argmax())
        raise ValueError(f"query {row}: its relevant key {int(target[row])} is also excluded ({int(lost.sum())} such)")


def _check_target(target: Tensor, n: int, m: int) -> None:
    if target.shape != (n,) or target.dtype.is_floating_point or target.dtype == torch.bool:
        raise ValueError(f"relevant must be {n} integer key indices, got {target.dtype} {tuple(target.shape)}")
    if int(target.min()) < 0 or int(target.max()) >= m:
        raise ValueError(f"relevant names key {int(target.max())} or below 0, but there are {m} keys")


def _both_truths(relevant: Truth, n: int, m: int) -> tuple[Truth, Truth]:
    if isinstance(relevant, tuple):
        return relevant, (relevant[1], relevant[0])
    if isinstance(relevant, Links) or relevant.ndim == 2:
        return relevant, relevant.T
    _check_target(relevant, n, m)
    return relevant, (torch.arange(m), relevant.cpu())


def _truth_rows(relevant: Truth, n: int, m: int, device: torch.device):
    """A function from a slice of queries to the bool matrix [rows, m] of what is relevant to them."""
    if isinstance(relevant, Tensor) and relevant.ndim == 1:
        _check_target(relevant, n, m)
        relevant = (relevant, torch.arange(m))
    if isinstance(relevant, tuple):
        a, b = list(map(as_list, relevant))
        if (len(a), len(b)) != (n, m):
            raise ValueError(f"relevant labels must be {n} and {m} long, got {len(a)} and {len(b)}")
        code = torch.as_tensor(np.concatenate([s.codes for s in encode_labels(a, b)]), device=device)
        return lambda rows: (code[:n][rows, None] == code[n:]) & (code[n:] >= 0)
    if isinstance(relevant, Links):
        links = _links(relevant, n, m, "relevant")

        def block(rows: slice) -> Tensor:
            found = torch.zeros(rows.stop - rows.start, m, dtype=torch.bool, device=device)
            query, key = (torch.as_tensor(x, device=device) for x in links.within(rows))
            found[query, key] = True
            return found

        return block
    relevant = _matrix(relevant, n, m, "relevant")
    return lambda rows: relevant[rows].to(device)


def _matrix(found: Tensor, n: int, m: int, what: str) -> Tensor:
    if found.shape != (n, m) or found.dtype != torch.bool:
        raise ValueError(f"{what} must be a bool matrix [{n}, {m}], got {found.dtype} {tuple(found.shape)}")
    return found


def _truth(relevant: object) -> Truth:
    """The truth as a tensor, or as two columns of labels, whatever held it."""
    pair = isinstance(relevant, tuple) and len(relevant) == 2 and not isinstance(relevant[0], int | np.integer)
    if relevant is None or isinstance(relevant, Tensor | Links) or pair:
        return relevant
    if hasattr(relevant, "tocoo"):
        return Links.of(relevant)
    return torch.as_tensor(as_array(relevant))


def _from_places(
    name: str, places: Places, scoring: Scoring, groups: object | None, *, ks: tuple[int, ...], n_boot: int, seed: int
) -> RetrievalResult:
    places = Places(places.above.cpu(), places.block.cpu())
    ranks, reciprocal = places.middle, places.reciprocal
    per_query = {f"R@{k}": places.within(k) for k in ks}
    per_query |= {"MRR": reciprocal, "mean_rank": ranks, "mAP": reciprocal}
    per_query |= {f"NDCG@{k}": places.gain(k) for k in ks}
    ones, rows = torch.ones(len(ranks), dtype=torch.int64), torch.arange(len(ranks))
    return _result(name, scoring, 0, ranks, per_query, rows, ones, groups, ks, n_boot, seed)


def _many_to_many(
    name: str, scoring: Scoring, truth, exclude_self: bool, groups, *, ks: tuple[int, ...], n_boot: int, seed: int
) -> RetrievalResult:
    n, m = scoring.shape
    tol = scoring.tolerance
    if exclude_self:
        itself = Links(np.arange(n), np.arange(n), (n, m))
        known = scoring.exclude
        scoring = copy.copy(scoring)
        scoring.exclude = itself if known is None else Links(
            np.concatenate([itself.queries, known.queries]), np.concatenate([itself.keys, known.keys]), (n, m)
        )  # fmt: skip
    parts: dict[str, list[Tensor]] = {}
    counts: list[Tensor] = []
    discount = 1 / torch.log2(torch.arange(2, m + 2, dtype=torch.float64, device=scoring.device))
    ideal = torch.nn.functional.pad(discount.cumsum(0), (1, 0))
    block = max(1, min(512, 2_000_000 // m))
    for r, _, scores in scoring.tiles(rows=block, cols=None):
        wanted, keep = truth(r), None
        if scoring.exclude is not None:
            keep = scores > -torch.inf
            _check_kept(r.start, wanted, keep, exclude_self)
        s = SortedRanks(scores, wanted, keep, tol=tol)
        values = {"rank": s.first, "MRR": s.first_reciprocal(), "mAP": s.mean(s.precision)}
        for cut in ks:
            values[f"R@{cut}"] = s.any_within(cut)
            values[f"coverage@{cut}"] = s.mean(s.places.within(cut))
            gain = s.mean(s.places.gain(cut)) * s.n_relevant
            values[f"NDCG@{cut}"] = gain / ideal[s.n_relevant.clamp(1, cut)]
        counts.append(s.n_relevant.cpu())
        for key, value in values.items():
            parts.setdefault(key, []).append(value.cpu())
    n_relevant = torch.cat(counts)
    rows = n_relevant.nonzero().flatten()
    if len(rows) == 0:
        raise ValueError("no query has a relevant key: nothing can be retrieved")
    per_query = {key: torch.cat(value)[rows] for key, value in parts.items()}
    ranks = per_query.pop("rank")
    per_query["mean_rank"] = ranks
    if groups is not None:
        names = as_list(groups)
        if len(names) != n:
            raise ValueError(f"groups must name one group for each of the {n} queries, got {len(names)}")
        groups = [names[i] for i in rows.tolist()]
    return _result(name, scoring, n - len(rows), ranks, per_query, rows, n_relevant[rows], groups, ks, n_boot, seed)


def _check_kept(first: int, wanted: Tensor, keep: Tensor, exclude_self: bool) -> None:
    """No relevant key may be excluded, but for a query itself in a set searched in itself."""
    lost = wanted & ~keep
    if exclude_self:
        rows = torch.arange(len(lost), device=lost.device)
        lost[rows, rows + first] = False
    if lost.any():
        row, key = lost.nonzero()[0].tolist()
        raise ValueError(f"query {first + row}: its relevant key {key} is also excluded ({int(lost.sum())} such)")


def _result(name, scoring, left_out, ranks, per_query, rows, n_relevant, groups, ks, n_boot, seed) -> RetrievalResult:
    order = [f"R@{k}" for k in ks] + ["MRR", "median_rank", "mean_rank", "mAP"] + [f"NDCG@{k}" for k in ks]
    order += [f"coverage@{k}" for k in ks if f"coverage@{k}" in per_query]
    columns = {key: ranks if key == "median_rank" else per_query[key] for key in order}
    intervals = bootstrap_columns(columns, groups, n=n_boot, seed=seed, medians=("median_rank",))
    pools = torch.full((len(rows),), scoring.shape[1])
    if scoring.exclude is not None:
        pools = pools - torch.as_tensor(scoring.exclude.counts)[rows]
    pool = int(pools.max())
    return RetrievalResult(
        name=name,
        queries=len(rows),
        pool=pool,
        excluded=float(pool - pools.double().mean()),
        unanswerable=left_out,
        metrics={key: intervals[key].value for key in order},
        chance=chance_levels(pools, n_relevant, ks),
        intervals=intervals,
        ranks=ranks,
        per_query=per_query,
        rows=rows,
        groups=None if groups is None else np.asarray(groups),
    )
