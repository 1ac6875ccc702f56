"""Ranks of relevant items by comparing streamed scores: the scores themselves are never kept.

Ties fall at random, and every figure is its expectation over their orders: the rank is the middle one of the tied
block, and R@k the share of the block within the first k. With the usual "count the strictly greater ones" a collapsed
encoder, whose scores are all equal, ranks everything first and looks perfect; here every figure of it is exactly what a
random order gives. Two scores count as tied when they differ by less than the rounding error of the dot product that
made them, `tie_tolerance`: below that their order is an accident of the matrix multiplication's blocking.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.data.links import Links
from counterpoint.common.metrics.scores import Score, score_named

ROWS, COLS = 512, 2048  # a tile of float32 scores is 4 MB: it stays in the cache while it is compared


def tie_tolerance(q: Float[Tensor, "n dim"], k: Float[Tensor, "m dim"]) -> float:
    """Rounding error of a score, summed in two different orders: 4 sqrt(dim) * eps * the largest |q| |k|.

    Random rounding stays below sqrt(dim) * eps; sums of equal terms (sparse or binary features) reach twice that.
    """
    size = float(q.norm(dim=1).max()) * float(k.norm(dim=1).max())
    return 4 * q.shape[1] ** 0.5 * torch.finfo(q.dtype).eps * size


class Scoring:
    """Queries and the pool that they are ranked against under one score.

    >>> scoring = Scoring(torch.ones(3, 2), torch.ones(5, 2), metric="dot")
    >>> [tile.shape for _, _, tile in scoring.tiles(rows=2, cols=4)]
    [torch.Size([2, 4]), torch.Size([2, 1]), torch.Size([1, 4]), torch.Size([1, 1])]
    """

    def __init__(
        self,
        queries: Float[Tensor, "n dim"],
        *keys: Float[Tensor, "m dim"],
        metric: str | Score = "cosine",
        exclude: Links | None = None,
    ) -> None:
        self.score = score_named(metric)
        self.q = self.score.scaled(queries)
        self.prepared = self.score.keys(*keys)
        self.exclude, self.flipped = exclude, False
        self.shape = (len(queries), len(keys[0]))
        if exclude is not None and exclude.shape != self.shape:
            raise ValueError(f"`exclude` is about {exclude.shape} queries and keys, there are {self.shape}")
        if self.score.tile is None:
            self.dtype, self.tolerance = self.q.dtype, tie_tolerance(self.q, *self.prepared)
        else:
            self.dtype, self.tolerance = torch.float64, 4 * queries.shape[1] ** 0.5 * torch.finfo(torch.float64).eps

    @property
    def T(self) -> Scoring:
        """The same scores with the keys as queries."""
        other = copy.copy(self)
        other.flipped, other.shape = not self.flipped, self.shape[::-1]
        other.exclude = None if self.exclude is None else self.exclude.T
        return other

    @property
    def device(self) -> torch.device:
        return self.q.device

    def of_pairs(self, keys: Int[Tensor, n]) -> Float[Tensor, n]:
        """The score of key `keys[i]` for query i."""
        rows = torch.arange(self.shape[0], device=self.device)
        q, k = (keys, rows) if self.flipped else (rows, keys)
        if self.score.tile is None:
            return (self.q[q] * self.prepared[0][k]).sum(1)
        parts = zip(self.q[q].split(ROWS), *(p[k].split(ROWS) for p in self.prepared))
        return torch.cat([self.score.tile(*part).diagonal() for part in parts])

    def tiles(self, rows: int = ROWS, cols: int | None = COLS) -> Iterator[tuple[slice, slice, Float[Tensor, "r c"]]]:
        """Stream the scores in tiles, -inf at excluded pairs; a tile's memory is reused: a caller keeps counts, never
        tiles."""
        n, m = self.shape
        cols = min(cols or m, m)
        buffer = torch.empty(min(rows, n) * cols, dtype=self.dtype, device=self.device)
        for i in range(0, n, rows):
            r = slice(i, min(i + rows, n))
            left_out = None if self.exclude is None else [torch.as_tensor(x) for x in self.exclude.within(r)]
            for j in range(0, m, cols):
                c = slice(j, min(j + cols, m))
                tile = self._tile(r, c, buffer[: (r.stop - i) * (c.stop - j)].view(r.stop - i, c.stop - j))
                if left_out is not None:
                    here = (left_out[1] >= c.start) & (left_out[1] < c.stop)
                    tile[left_out[0][here], left_out[1][here] - j] = -torch.inf
                yield r, c, tile

    def _tile(self, r: slice, c: slice, out: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        q, k = (c, r) if self.flipped else (r, c)
        if self.score.tile is not None:
            tile = self.score.tile(self.q[q], *(p[k] for p in self.prepared))
            return out.copy_(tile.T if self.flipped else tile)
        one, other = self.q[q], self.prepared[0][k]
        return torch.mm(other, one.T, out=out) if self.flipped else torch.mm(one, other.T, out=out)


@dataclass(frozen=True)
class Places:
    """Where items stand when ties fall at random: after `above` others, anywhere in a block of `block` tied ones.

    >>> tied = Places(torch.zeros(1).double(), torch.full((1,), 4.0).double())
    >>> tied.middle.item(), tied.within(1).item(), round(tied.reciprocal.item(), 4)
    (2.5, 0.25, 0.5208)
    """

    above: Float[Tensor, "*shape"]
    block: Float[Tensor, "*shape"]

    @property
    def middle(self) -> Float[Tensor, "*shape"]:
        """The expected rank, counted from one."""
        return self.above + (self.block + 1) / 2

    def within(self, k: int) -> Float[Tensor, "*shape"]:
        """Probability to stand among the first k."""
        return torch.minimum((k - self.above).clamp_min(0), self.block) / self.block

    @property
    def reciprocal(self) -> Float[Tensor, "*shape"]:
        """Expected 1 / rank: (H(above + block) - H(above)) / block with harmonic numbers H."""
        mean = (torch.digamma(self.above + self.block + 1) - torch.digamma(self.above + 1)) / self.block
        return torch.where(self.block == 1, 1 / (self.above + 1), mean)

    def gain(self, k: int) -> Float[Tensor, "*shape"]:
        """Expected discounted gain 1 / log2(1 + rank) within the first k."""
        ranks = torch.arange(1, k + 1, dtype=torch.float64, device=self.above.device)
        upto = torch.nn.functional.pad((1 / torch.log2(1 + ranks)).cumsum(0), (1, 0))
        first, last = (x.clamp_max(k).long() for x in (self.above, self.above + self.block))
        return (upto[last] - upto[first]) / self.block


def paired_ranks(scoring: Scoring, target: Int[Tensor, n], *, both: bool = False) -> tuple[Places, Places | None]:
    """Place of key `target[i]` for query i, and with `both` that of query i for its key, in one pass.

    above = #{> t + tol}, block = #{>= t - tol} - above, the target being one of the block. `both` asks for a one-to-one
    truth: `target` must be a permutation of the keys.
    """
    n, m = scoring.shape
    tol = scoring.tolerance
    t = scoring.of_pairs(target)
    high, low = (t + tol)[:, None], (t - tol)[:, None]
    row = torch.zeros(2, n, dtype=torch.float64, device=t.device)  # strictly above; above or tied
    col = torch.zeros(2, m, dtype=torch.float64, device=t.device)
    if both:
        column_t = torch.empty_like(t).index_copy_(0, target, t)
        column_high, column_low = column_t + tol, column_t - tol
    flags = torch.empty(min(ROWS, n) * min(COLS, m), dtype=t.dtype, device=t.device)
    for r, c, s in scoring.tiles():
        flag = flags[: s.numel()].view_as(s)
        # Comparisons written as 0.0/1.0 into a float tile vectorise; boolean sums run five times slower on CPUs.
        row[0, r] += torch.gt(s, high[r], out=flag).sum(1)
        row[1, r] += torch.ge(s, low[r], out=flag).sum(1)
        if both:
            col[0, c] += torch.gt(s, column_high[c], out=flag).sum(0)
            col[1, c] += torch.ge(s, column_low[c], out=flag).sum(0)
    # The target is in its own block even where its score, computed again in a tile, strays beyond the tolerance.
    one, other = (Places(strictly, (at_least - strictly).clamp_min(1)) for strictly, at_least in (row, col))
    return one, other if both else None


class SortedRanks:
    """Places of the relevant keys of a block of queries, and how many relevant ones stand above each.

    Attributes ([rows, most], relevant keys from best to worst; rows with fewer than `most` are padded):
        valid: whether there is a key.
        places: where the key stands among the keys kept.
        precision: expected share of relevant keys at or above the key; its mean over them is average precision.
        n_relevant: [rows] how many there are.
        first: [rows] expected rank of the first relevant key.
    """

    def __init__(
        self,
        scores: Float[Tensor, "r m"],
        relevant: Tensor,
        keep: Tensor | None = None,
        *,
        tol: float,
    ) -> None:
        scores = scores if keep is None else scores.masked_fill(~keep, float("-inf"))
        relevant = relevant if keep is None else relevant & keep
        ascending, order = (-scores).sort(dim=1)
        self.n_relevant = relevant.sum(1)
        row, column = relevant.gather(1, order).nonzero(as_tuple=True)
        nth = torch.arange(len(row), device=row.device) - (self.n_relevant.cumsum(0) - self.n_relevant)[row]
        most = max(int(self.n_relevant.max()), 1)
        self.valid = torch.arange(most, device=row.device) < self.n_relevant[:, None]
        value = ascending.new_full((len(scores), most), torch.inf)
        value[row, nth] = ascending[row, column]

        def counts(among: Tensor) -> tuple[Tensor, Tensor]:
            """How many stand strictly above (score > value + tol), and how many above or level (>= value - tol)."""
            return torch.searchsorted(among, value - tol), torch.searchsorted(among, value + tol, right=True)

        above, upto = counts(ascending)
        self.places = Places(above.double(), (upto - above).clamp_min(1).double())
        hits_above, hits_upto = counts(value)
        hits = (hits_upto - hits_above).clamp_min(1).double()
        # A key at place j of its block of b, h of them relevant, has (h - 1) (j - 1) / (b - 1) expected hits before it
        # in the block; over the uniform j this sums with the harmonic numbers of `reciprocal`.
        rate = (hits - 1) / (self.places.block - 1).clamp_min(1)
        self.precision = rate + (hits_above + 1 - rate * (self.places.above + 1)) * self.places.reciprocal
        # The first relevant key of a row stands in a block of b tied ones, h of them relevant.
        self._above, self._block, self._hits = self.places.above[:, 0], self.places.block[:, 0], hits[:, 0]
        self.first = self._above + (self._block + 1) / (self._hits + 1)

    def mean(self, values: Float[Tensor, "r most"]) -> Float[Tensor, r]:
        """Mean over a row's relevant keys; 0 where there is none."""
        return torch.where(self.valid, values, 0.0).sum(1) / self.n_relevant.clamp_min(1)

    def any_within(self, k: int) -> Float[Tensor, r]:
        """Probability of a relevant key among the first k: 1 - C(b - t, h) / C(b, h) with t = k - above."""
        rest = self._block - (k - self._above).clamp_min(0)
        none = (_log_choose(rest, self._hits) - _log_choose(self._block, self._hits)).exp()
        return 1 - torch.where(rest < self._hits, 0.0, none)

    def first_reciprocal(self) -> Float[Tensor, r]:
        """Expected 1 / rank of the first relevant key: P(place j of the block) = C(b - j, h - 1) / C(b, h)."""
        value = 1 / (self._above + 1)
        tied = (self._block > 1).nonzero().flatten()
        if len(tied):
            a, b, h = (x[tied, None] for x in (self._above, self._block, self._hits))
            j = torch.arange(1, int(b.max()) + 1, dtype=torch.float64, device=a.device)
            rest = b - j
            chance = (_log_choose(rest, h - 1) - _log_choose(b, h)).exp()
            value[tied] = torch.where(rest >= h - 1, chance / (a + j), 0.0).sum(1)
        return value


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """ln C(n, k); meaningless where n < k, which callers leave out."""
    n = torch.maximum(n, k)
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
