"""The flattened form in which every backend meets a contrast, and the protocol a backend answers.

A backend is a module (or any object) with

    forward(problem: Problem) -> RawStats
    backward(problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients
    pair_sum_forward(problem: Problem, fn: str) -> Tensor [batch, rows]
    pair_sum_backward(problem: Problem, fn: str, upstream: Tensor [batch, rows]) -> Gradients

(the last two are optional: `tiled` stands in). `saved` holds row and column sums as pairs (shift, sum) with
lse = shift + log(sum). They need not come from the same key block: a backward pass over one block with the statistics
of the whole union gives that block's exact gradients, which is what a ring over ranks does. Keeping the pair, instead
of lse alone, is what keeps `p - 1` exact when a positive dominates its row at large scales.

Across ranks, `ring.distributed_backend(mode, process_group, local)` returns such an object: its problem holds the local
rows and the local keys; columns named by `Columns`, `CsrPairs`, `positive` count over the union in rank order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Band",
    "Columns",
    "CsrPairs",
    "Gradients",
    "Labels",
    "Primitive",
    "Problem",
    "RawStats",
    "Upstream",
    "finite_features",
    "positive_gradient",
    "share",
]


# ---- mask primitives: `tile` answers which pairs of rows i0:i1 and columns j0:j1 they name --------------------------


@dataclass(frozen=True)
class Band:
    """column == row + offset. Across ranks `scope` says whether positions are "global" (Self) or "rank" (Diagonal)."""

    offset: int
    scope: str = "global"

    def tile(self, n: int, i0: int, i1: int, j0: int, j1: int, device: torch.device) -> Bool[Tensor, "r c"]:
        rows = torch.arange(i0, i1, device=device)
        return rows[:, None] + self.offset == torch.arange(j0, j1, device=device)[None]

    def columns_from(self, start: int, stop: int) -> "Band":
        return replace(self, offset=self.offset - start)


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns idx[n, i, :] of each row; entries outside the key block (and -1) name nothing."""

    idx: Int[Tensor, "batch rows several"]  # batch may be 1: shared

    def tile(self, n: int, i0: int, i1: int, j0: int, j1: int, device: torch.device) -> Bool[Tensor, "r c"]:
        local = self.idx[min(n, self.idx.shape[0] - 1), i0:i1] - j0
        width = j1 - j0
        # One spare column catches whatever lies outside the tile.
        hit = torch.zeros(i1 - i0, width + 1, dtype=torch.bool, device=device)
        hit.scatter_(1, torch.where((local >= 0) & (local < width), local, width), True)
        return hit[:, :width]

    def columns_from(self, start: int, stop: int) -> "Columns":
        inside = (self.idx >= start) & (self.idx < stop)
        return Columns(torch.where(inside, self.idx - start, -1))


@dataclass(frozen=True, eq=False)
class Labels:
    """row[n, i] == col[n, j]."""

    row: Int[Tensor, "batch rows"]
    col: Int[Tensor, "batch columns"]

    def tile(self, n: int, i0: int, i1: int, j0: int, j1: int, device: torch.device) -> Bool[Tensor, "r c"]:
        row, col = (t[min(n, t.shape[0] - 1)] for t in (self.row, self.col))
        return row[i0:i1, None] == col[None, j0:j1]

    def columns_from(self, start: int, stop: int) -> "Labels":
        return Labels(self.row, self.col[:, start:stop])


@dataclass(frozen=True, eq=False)
class CsrPairs:
    """An explicit list in compressed rows, shared by the batch; column numbers count from `start`."""

    ptr: Int[Tensor, "rows_plus_one"]
    col: Int[Tensor, "pairs"]
    start: int = 0

    def tile(self, n: int, i0: int, i1: int, j0: int, j1: int, device: torch.device) -> Bool[Tensor, "r c"]:
        first, last = int(self.ptr[i0]), int(self.ptr[i1])
        row = torch.repeat_interleave(torch.arange(i1 - i0, device=device), self.ptr[i0 : i1 + 1].diff())
        col = self.col[first:last] - (self.start + j0)
        inside = (col >= 0) & (col < j1 - j0)
        hit = torch.zeros(i1 - i0, j1 - j0, dtype=torch.bool, device=device)
        hit[row[inside], col[inside]] = True
        return hit

    def columns_from(self, start: int, stop: int) -> "CsrPairs":
        return replace(self, start=self.start + start)


Primitive = Band | Columns | Labels | CsrPairs


# ---- problem, statistics, gradients ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """logit[n, s, i, j] = scale[n, s, i] col_scale[n, j] (q[n, i] . k[n, j]) + row_bias[n, s, i] + col_bias[n, s, j].

    A column is kept for a row unless an `exclude` primitive names the pair, `only` is non-empty and none of its
    primitives names it, valid_cols[n, j] is false, or the raw score q.k lies below score_floor[n, i].
    """

    q: Float[Tensor, "batch rows dim"]
    k: Float[Tensor, "batch columns dim"]
    scale: Float[Tensor, "batch scales rows"]  # accumulation dtype
    col_scale: Float[Tensor, "batch columns"] | None = None
    row_bias: Float[Tensor, "batch scales rows"] | None = None
    col_bias: Float[Tensor, "batch scales columns"] | None = None
    positive: Int[Tensor, "batch rows"] | None = None  # column of each row's positive, -1 none
    diagonal: int | None = None  # set when `positive` is row + diagonal wherever that column exists
    exclude: tuple[Primitive, ...] = ()
    only: tuple[Primitive, ...] = ()
    valid_cols: Bool[Tensor, "batch columns"] | None = None
    score_floor: Float[Tensor, "batch rows"] | None = None
    columns: bool = False
    mean: bool = False
    same: bool = False  # k is q (the very tensor): a self-similarity
    uniform: bool = False  # scale does not vary with the row
    fast: bool = False  # matrix products may round float32 operands (see precision.py)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(batch, scales, rows, columns, dim)."""
        return self.q.shape[0], self.scale.shape[1], self.q.shape[1], self.k.shape[1], self.q.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of logits, sums and accumulators: float64 for float64 inputs, else float32."""
        return self.scale.dtype

    @property
    def empty(self) -> bool:
        """No rows or no columns (an empty batch, a queue before its first push): every statistic is that of nothing."""
        return 0 in self.shape[:4]

    @property
    def masked(self) -> bool:
        return len(self.exclude) + len(self.only) > 0 or self.valid_cols is not None or self.score_floor is not None

    def keys(self, start: int, stop: int) -> "Problem":
        """The same rows against the columns start:stop alone."""
        positive = self.positive
        if positive is not None:
            positive = torch.where((positive >= start) & (positive < stop), positive - start, -1)
        return replace(
            self,
            k=self.k[:, start:stop],
            col_scale=None if self.col_scale is None else self.col_scale[:, start:stop],
            col_bias=None if self.col_bias is None else self.col_bias[..., start:stop],
            positive=positive,
            diagonal=None if self.diagonal is None else self.diagonal - start,
            exclude=tuple(p.columns_from(start, stop) for p in self.exclude),
            only=tuple(p.columns_from(start, stop) for p in self.only),
            valid_cols=None if self.valid_cols is None else self.valid_cols[:, start:stop],
            same=False,
        )

    def dropped(self, n: int, i0: int, i1: int, j0: int, j1: int, raw: Tensor | None) -> Bool[Tensor, "r c"] | None:
        """Which pairs of a tile are left out (None: none). `raw` holds the tile's raw scores, for the score floor."""
        device, drop = self.q.device, None
        if self.only:
            drop = ~_union(p.tile(n, i0, i1, j0, j1, device) for p in self.only)
        if self.exclude:
            hit = _union(p.tile(n, i0, i1, j0, j1, device) for p in self.exclude)
            drop = hit if drop is None else drop.logical_or_(hit)
        if self.valid_cols is not None:
            invalid = ~self.valid_cols[n, None, j0:j1]
            drop = invalid.expand(i1 - i0, -1) if drop is None else drop.logical_or_(invalid)
        if self.score_floor is not None:
            low = raw < self.score_floor[n, i0:i1, None]
            drop = low if drop is None else drop.logical_or(low)
        return drop


def _union(hits: Iterable[Tensor]) -> Tensor:
    total = None
    for hit in hits:
        total = hit if total is None else total.logical_or_(hit)
    return total


@dataclass(eq=False)
class RawStats:
    """What a forward pass returns. Column fields are None unless problem.columns, means unless problem.mean.

    lse == shift + log(sum) for every row (sum == 0: empty row, lse -inf), likewise for columns. `shift` is any finite
    number near the row's maximum; a constant shift over all rows and columns lets a backward pass use one exponential.
    """

    shift: Float[Tensor, "batch scales rows"]
    sum: Float[Tensor, "batch scales rows"]
    count: Int[Tensor, "batch rows"] | None  # a backward pass is given none
    positive: Float[Tensor, "batch scales rows"] | None = None  # logit of the positive, 0 where there is none
    mean: Float[Tensor, "batch scales rows"] | None = None
    col_shift: Float[Tensor, "batch scales columns"] | None = None
    col_sum: Float[Tensor, "batch scales columns"] | None = None
    col_mean: Float[Tensor, "batch scales columns"] | None = None
    col_count: Int[Tensor, "batch columns"] | None = None
    # With positives: the positive's logit as it entered the sum (-inf where it did not), and the sums without it, so
    # that 1 - p of a dominant positive is known to full precision. `col_rest` where `diagonal` names the positives.
    own: Float[Tensor, "batch scales rows"] | None = None
    rest: Float[Tensor, "batch scales rows"] | None = None
    col_rest: Float[Tensor, "batch scales columns"] | None = None
    kept: list[list[Tensor]] | None = None  # each batch element's tiles of exp(logit - shift), where they were kept

    @property
    def lse(self) -> Float[Tensor, "batch scales rows"]:
        return self.shift + self.sum.log()

    @property
    def col_lse(self) -> Float[Tensor, "batch scales columns"]:
        return self.col_shift + self.col_sum.log()


@dataclass(eq=False)
class Upstream:
    """The loss's derivatives with respect to the statistics; None means zero. Rows without columns carry zeros."""

    lse: Float[Tensor, "batch scales rows"] | None = None
    positive: Float[Tensor, "batch scales rows"] | None = None
    mean: Float[Tensor, "batch scales rows"] | None = None
    col_lse: Float[Tensor, "batch scales columns"] | None = None
    col_mean: Float[Tensor, "batch scales columns"] | None = None
    needs_q: bool = True  # a backend may leave out gradients nobody asks for
    needs_k: bool = True


@dataclass(eq=False)
class Gradients:
    """Derivatives with respect to the problem's tensors, in their shapes. For `same` problems all of it is in q.

    q and k are in the accumulation dtype or the inputs' own; a bias or column scale that is absent stays None.
    """

    q: Float[Tensor, "batch rows dim"] | None
    k: Float[Tensor, "batch columns dim"] | None
    scale: Float[Tensor, "batch scales rows"]
    col_scale: Float[Tensor, "batch columns"] | None = None
    row_bias: Float[Tensor, "batch scales rows"] | None = None
    col_bias: Float[Tensor, "batch scales columns"] | None = None


def positive_gradient(problem: Problem, saved: RawStats, upstream: Upstream, n: int) -> Tensor | None:
    """d loss / d logit at each row's positive [S, R], apart from the means' part; None where nothing asks for it.

    With w = g + g_lse + g_col_lse (0 for a cross-entropy) this is w - g_lse (1 - p) - g_col_lse (1 - p_col), and 1 - p
    is the share of the others' sum: nothing is lost when p rounds to 1.
    """
    if problem.positive is None or all(t is None for t in (upstream.lse, upstream.positive, upstream.col_lse)):
        return None
    total = torch.zeros_like(saved.sum[n]) if upstream.positive is None else upstream.positive[n]
    lse, others = 0.0, None
    if upstream.lse is not None:
        lse = upstream.lse[n]
        others = lse * share(saved.rest[n], saved.sum[n])
    if upstream.col_lse is not None:
        column = problem.positive[n]
        if problem.diagonal == 0 and problem.shape[2] == problem.shape[3]:
            col_lse, at = upstream.col_lse[n], slice(None)
        else:
            at = column.clamp(min=0)
            col_lse = upstream.col_lse[n][:, at].masked_fill(column < 0, 0.0)
        if problem.diagonal is not None:
            part = col_lse * share(saved.col_rest[n], saved.col_sum[n])[:, at]
            lse = lse + col_lse
        else:
            part = -col_lse * share((saved.own[n] - saved.col_shift[n][:, at]).exp(), saved.col_sum[n][:, at], 0.0)
        others = part if others is None else others + part
    return total + lse if others is None else (total + lse) - others


def share(part: Tensor, total: Tensor, empty: float = 1.0) -> Tensor:
    """part / total; `empty` where total is 0."""
    return (part / total).masked_fill(total == 0, empty)


def finite_features(t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Features with 0 in place of what is not finite, for products with weights that are 0 where a pair is left out.

    A pair that is kept has a NaN weight then, so that nothing is hidden.
    """
    return t if bool(t.isfinite().all()) else t.nan_to_num(0.0, 0.0, 0.0)


def tensors(record: RawStats | Upstream | Gradients) -> dict[str, Tensor]:
    """The tensors a record holds, by name."""
    return {f.name: value for f in fields(record) if isinstance(value := getattr(record, f.name), Tensor)}
