"""Fused forward kernels: row and column statistics of every tile from one pass over the score matrix.

Rows keep a running (maximum, sum, weighted sum, count) in registers. Columns leave one partial per row tile in a
buffer that a second kernel merges in a fixed order: nothing is added atomically, so results repeat bit for bit. The
host launches row tiles in chunks small enough to bound that buffer (triton_launch).
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from counterpoint.common.kernels.triton_tiles import kept_entries, logits, tile_scores


class Partial(NamedTuple):
    """Statistics over part of the other axis: shift, sum of exp(logit - shift), of s times that, entries kept.

    shift, sum, weighted: float32 [parts, S, n]; count: int32 [parts, n]. `weighted` and `count` may be None.
    """

    shift: Any
    sum: Any
    weighted: Any = None
    count: Any = None


@triton.jit
def running(BM: tl.constexpr, S: tl.constexpr, value):
    """One float per row and scale."""
    if S == 1:
        return tl.full([BM], value, tl.float32)
    else:
        return tl.full([BM, triton.next_power_of_2(S)], value, tl.float32)


@triton.jit
def pick(x, a: tl.constexpr, S: tl.constexpr):
    if S == 1:
        return x
    else:
        return tl.sum(tl.where(tl.arange(0, triton.next_power_of_2(S))[None, :] == a, x, 0.0), 1)


@triton.jit
def put(x, a: tl.constexpr, value, S: tl.constexpr):
    if S == 1:
        return value
    else:
        return tl.where(tl.arange(0, triton.next_power_of_2(S))[None, :] == a, value[:, None], x)


@triton.jit
def finite(x):
    return tl.where(x == float("-inf"), 0.0, x)


@triton.jit
def stats_kernel(
    Q, K, terms, keep, row_part, col_part, R, C, D, row0, chunk, splits,
    S: tl.constexpr, TRIANGLE: tl.constexpr, ONE_EXP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Rows row0 + [0, chunk), grid (row tiles, splits): every splits-th column tile.

    row_part is [splits, S, chunk], col_part [row tiles, S, C]. TRIANGLE (k is q, symmetric logits, BM == BN): only
    tiles on and above the diagonal; those above also serve their columns as rows. ONE_EXP: logits are known to be
    small, so the shift is 0 and rows and columns share one exponential.
    """
    tile = tl.program_id(0)
    split = tl.program_id(1)
    om = row0 + tile * BM + tl.arange(0, BM)
    shift = running(BM, S, 0.0 if ONE_EXP else float("-inf"))
    total = running(BM, S, 0.0)
    weighted = running(BM, S, 0.0)
    count = tl.zeros([BM], tl.int32)
    diagonal = row0 // BM + tile
    first = diagonal if TRIANGLE else 0
    for t in range(first + split, tl.cdiv(C, BN), splits):
        on = t * BN + tl.arange(0, BN)
        s = tile_scores(Q, K, om, on, R, C, D, BM, BN, BD, PRECISION, UPCAST)
        kept = kept_entries(s, keep, om, on, R, C, BM, BN)
        column_store = on < C
        if TRIANGLE:
            column_store = column_store & (t != diagonal)
        if row_part.count is not None:
            count += tl.sum(kept.to(tl.int32), 1)
        if col_part is not None and col_part.count is not None:
            tl.store(col_part.count + tl.cast(tile, tl.int64) * C + on, tl.sum(kept.to(tl.int32), 0), mask=column_store)
        for a in tl.static_range(S):
            logit = logits(s, kept, a, terms, om, on, R, C)
            if ONE_EXP:
                e = tl.exp(logit)
                total = put(total, a, pick(total, a, S) + tl.sum(e, 1), S)
                if row_part.weighted is not None:
                    weighted = put(weighted, a, pick(weighted, a, S) + tl.sum(e * s, 1), S)
            else:
                before = pick(shift, a, S)
                after = tl.maximum(before, tl.max(logit, 1))
                e = tl.exp(logit - finite(after)[:, None])
                shrink = tl.exp(before - finite(after))
                total = put(total, a, pick(total, a, S) * shrink + tl.sum(e, 1), S)
                if row_part.weighted is not None:
                    weighted = put(weighted, a, pick(weighted, a, S) * shrink + tl.sum(e * s, 1), S)
                shift = put(shift, a, after, S)
            if col_part is not None:
                at = (tl.cast(tile, tl.int64) * S + a) * C + on
                if not ONE_EXP:
                    top = tl.max(logit, 0)
                    e = tl.exp(logit - finite(top)[None, :])
                    tl.store(col_part.shift + at, top, mask=column_store)
                tl.store(col_part.sum + at, tl.sum(e, 0), mask=column_store)
                if col_part.weighted is not None:
                    tl.store(col_part.weighted + at, tl.sum(e * s, 0), mask=column_store)
    local = tile * BM + tl.arange(0, BM)
    inside = local < chunk
    if row_part.count is not None:
        tl.store(row_part.count + tl.cast(split, tl.int64) * chunk + local, count, mask=inside)
    for a in tl.static_range(S):
        at = (tl.cast(split, tl.int64) * S + a) * chunk + local
        tl.store(row_part.shift + at, pick(shift, a, S), mask=inside)
        tl.store(row_part.sum + at, pick(total, a, S), mask=inside)
        if row_part.weighted is not None:
            tl.store(row_part.weighted + at, pick(weighted, a, S), mask=inside)


@triton.jit
def merge_kernel(part, whole, parts, n, start, length, S: tl.constexpr, BLOCK: tl.constexpr):
    """Merge part[parts, S, n] into whole[S, length] at `start`, part by part in order. whole.count is int64."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = o < n
    if part.count is not None:
        count = tl.load(whole.count + start + o, mask=inside, other=0)
        for p in range(parts):
            count += tl.load(part.count + tl.cast(p, tl.int64) * n + o, mask=inside, other=0).to(tl.int64)
        tl.store(whole.count + start + o, count, mask=inside)
    for a in tl.static_range(S):
        home = tl.cast(a, tl.int64) * length + start + o
        shift = tl.load(whole.shift + home, mask=inside, other=float("-inf"))
        total = tl.load(whole.sum + home, mask=inside, other=0.0)
        weighted = tl.zeros([BLOCK], tl.float32)
        if part.weighted is not None:
            weighted = tl.load(whole.weighted + home, mask=inside, other=0.0)
        for p in range(parts):
            at = (tl.cast(p, tl.int64) * S + a) * n + o
            other = tl.load(part.shift + at, mask=inside, other=float("-inf"))
            after = tl.maximum(shift, other)
            mine = tl.exp(shift - finite(after))
            theirs = tl.exp(other - finite(after))
            total = total * mine + tl.load(part.sum + at, mask=inside, other=0.0) * theirs
            if part.weighted is not None:
                weighted = weighted * mine + tl.load(part.weighted + at, mask=inside, other=0.0) * theirs
            shift = after
        tl.store(whole.shift + home, shift, mask=inside)
        tl.store(whole.sum + home, total, mask=inside)
        if part.weighted is not None:
            tl.store(whole.weighted + home, weighted, mask=inside)


@triton.jit
def positive_kernel(
    Q, K, INDEX, OUT, terms, R, C, D,
    S: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """OUT[S, R]: logit of the positive named by INDEX [R], 0 where it is -1. Rows of k are gathered, not stored."""
    om = tl.program_id(0) * BM + tl.arange(0, BM)
    named = tl.load(INDEX + om, mask=om < R, other=-1)
    there = named >= 0
    s = tl.zeros([BM], tl.float32)
    for d in range(0, D, BD):
        od = d + tl.arange(0, BD)
        inside = there[:, None] & (od[None, :] < D)
        q = tl.load(Q + om.to(tl.int64)[:, None] * D + od[None, :], mask=inside, other=0.0)
        k = tl.load(K + named.to(tl.int64)[:, None] * D + od[None, :], mask=inside, other=0.0)
        s += tl.sum(q.to(tl.float32) * k.to(tl.float32), 1)
    for a in tl.static_range(S):
        at = tl.cast(a, tl.int64) * R + om
        logit = s * tl.load(terms.scale + at, mask=there, other=0.0)
        if terms.col_scale is not None:
            logit *= tl.load(terms.col_scale + named, mask=there, other=0.0)
        if terms.row_bias is not None:
            logit += tl.load(terms.row_bias + at, mask=there, other=0.0)
        if terms.col_bias is not None:
            logit += tl.load(terms.col_bias + tl.cast(a, tl.int64) * C + named, mask=there, other=0.0)
        tl.store(OUT + at, tl.where(there, logit, 0.0), mask=om < R)
