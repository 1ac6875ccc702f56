"""What every fused kernel does with one tile of the score matrix: scores, kept entries, logits, their derivatives.

A tile is `[BM rows, BN columns]` of s = q k^T. It lives in registers only. The optional parts of a problem travel in
named tuples whose absent fields are None, which Triton specialises on: a mask that is not asked for costs no
instruction. Row and column numbers are int32 for the comparisons inside a tile and int64 in every address.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Match(NamedTuple):
    """A union of rules, each naming entries (i, j) of the score matrix."""

    offset: Any = None  # int: entries with j == i + offset
    index: Any = None  # int32 [R, width]: entries with j among index[i]; -1 names nothing
    width: Any = None
    row_ids: Any = None  # int64 [labels, R] against
    col_ids: Any = None  # int64 [labels, C]: entries with row_ids[l, i] == col_ids[l, j] for some l
    labels: Any = None


class Keep(NamedTuple):
    """Which entries take part: a valid column, a raw score at least the row's floor, not excluded, in `only`."""

    valid: Any = None  # uint8 [C]
    floor: Any = None  # float32 [R]
    exclude: Match | None = None
    only: Match | None = None


class Terms(NamedTuple):
    """logit[a, i, j] = scale[a, i] * col_scale[j] * s_ij + row_bias[a, i] + col_bias[a, j], all float32."""

    scale: Any  # [S, R]
    col_scale: Any = None  # [C]
    row_bias: Any = None  # [S, R]
    col_bias: Any = None  # [S, C]


class UpstreamSide(NamedTuple):
    """Upstream of one side's statistics, divided by its sums: with e = exp(logit - shift) the logit's derivative is

    e * (lse + mean_grad * (s - mean)), and the raw score's own is e * mean_grad. Float32 [S, n]."""

    shift: Any
    lse: Any
    mean: Any = None
    mean_grad: Any = None


class PositiveColumn(NamedTuple):
    """Column of each row's positive (int32 [R], -1 none) and the derivative of its logit (float32 [S, R])."""

    index: Any
    grad: Any


@triton.jit
def load_block(X, rows, n_rows, dims, n_dims, UPCAST: tl.constexpr):
    """Rows of a contiguous matrix, zero outside it. UPCAST: the interpreter multiplies bfloat16 bit patterns."""
    inside = (rows[:, None] < n_rows) & (dims[None, :] < n_dims)
    block = tl.load(X + rows.to(tl.int64)[:, None] * n_dims + dims[None, :], mask=inside, other=0.0)
    if UPCAST:
        block = block.to(tl.float32)
    return block


@triton.jit
def load_vector(X, a, n, o):
    """X[a, o] of a float32 [S, n]; zero outside."""
    return tl.load(X + tl.cast(a, tl.int64) * n + o, mask=o < n, other=0.0)


@triton.jit
def tile_scores(
    Q, K, om, on, R, C, D,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """s = q k^T on one tile, accumulated in float32."""
    s = tl.zeros([BM, BN], tl.float32)
    for d in range(0, D, BD):
        od = d + tl.arange(0, BD)
        q = load_block(Q, om, R, od, D, UPCAST)
        k = load_block(K, on, C, od, D, UPCAST)
        s = tl.dot(q, tl.trans(k), s, input_precision=PRECISION)
    return s


@triton.jit
def matches(match, om, on, R, C, BM: tl.constexpr, BN: tl.constexpr):
    """Entries named by a union of rules."""
    hit = tl.full([BM, BN], 0, tl.int1)
    if match.offset is not None:
        hit = hit | (on[None, :] == om[:, None] + match.offset)
    if match.index is not None:
        for p in range(match.width):
            named = tl.load(match.index + om.to(tl.int64) * match.width + p, mask=om < R, other=-1)
            hit = hit | (on[None, :] == named[:, None])
    if match.row_ids is not None:
        for label in range(match.labels):
            row = tl.load(match.row_ids + tl.cast(label, tl.int64) * R + om, mask=om < R, other=0)
            col = tl.load(match.col_ids + tl.cast(label, tl.int64) * C + on, mask=on < C, other=0)
            hit = hit | (row[:, None] == col[None, :])
    return hit


@triton.jit
def kept_entries(s, keep, om, on, R, C, BM: tl.constexpr, BN: tl.constexpr):
    """Entries inside the matrix that take part."""
    kept = (om[:, None] < R) & (on[None, :] < C)
    if keep.valid is not None:
        kept = kept & (tl.load(keep.valid + on, mask=on < C, other=0) != 0)[None, :]
    if keep.floor is not None:
        kept = kept & (s >= tl.load(keep.floor + om, mask=om < R, other=0.0)[:, None])
    if keep.exclude is not None:
        kept = kept & (matches(keep.exclude, om, on, R, C, BM, BN) == 0)
    if keep.only is not None:
        kept = kept & matches(keep.only, om, on, R, C, BM, BN)
    return kept


@triton.jit
def scaled_tile(x, a, terms, om, on, R, C):
    """x times d logit / d s of scale number a."""
    x *= load_vector(terms.scale, a, R, om)[:, None]
    if terms.col_scale is not None:
        x *= load_vector(terms.col_scale, 0, C, on)[None, :]
    return x


@triton.jit
def all_logits(s, a, terms, om, on, R, C):
    """Logits of scale number a."""
    logit = scaled_tile(s, a, terms, om, on, R, C)
    if terms.row_bias is not None:
        logit += load_vector(terms.row_bias, a, R, om)[:, None]
    if terms.col_bias is not None:
        logit += load_vector(terms.col_bias, a, C, on)[None, :]
    return logit


@triton.jit
def logits(s, kept, a, terms, om, on, R, C):
    """Logits of scale number a; -inf where the entry does not take part."""
    return tl.where(kept, all_logits(s, a, terms, om, on, R, C), float("-inf"))


@triton.jit
def tile_softplus(x):
    """log(1 + exp(x)) to float32's last digits: log1p by its series in t = y / (2 + y), where libraries are absent."""
    y = tl.exp(-tl.abs(x))
    t = y / (2.0 + y)
    u = t * t
    series = 1.0 + u * (1 / 3 + u * (1 / 5 + u * (1 / 7 + u * (1 / 9 + u * (1 / 11 + u * (1 / 13))))))
    return tl.maximum(x, 0.0) + 2.0 * t * series


@triton.jit
def named_entries(positive, om, on, R):
    """Entries (i, positive of i)."""
    named = tl.load(positive.index + om, mask=om < R, other=-1)
    return on[None, :] == named[:, None]


@triton.jit
def pair_logits(s, kept, a, terms, positive, om, on, R, C):
    """Logits with the positives' sign turned, and that sign."""
    sign = tl.where(kept, 1.0, 0.0)
    if positive is not None:
        sign = tl.where(named_entries(positive, om, on, R), -sign, sign)
    return tl.where(kept, all_logits(s, a, terms, om, on, R, C), 0.0) * sign, sign


@triton.jit
def logit_gradient(
    s, kept, a, terms, rows, cols, positive, om, on, R, C,
    FN: tl.constexpr, ONE_EXP: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    """(d / d logit, direct d / d s) of scale number a. The positive's part is added before anything is rounded."""
    if FN == "softmax":
        return softmax_gradient(s, kept, a, terms, rows, cols, positive, om, on, R, C, ONE_EXP, SYMMETRIC)
    else:
        x, sign = pair_logits(s, kept, a, terms, positive, om, on, R, C)
        slope = 1.0 / (1.0 + tl.exp(-x))
        if FN == "sigmoid":
            slope *= 1.0 - slope
        return slope * sign * load_vector(rows.lse, a, R, om)[:, None], tl.zeros_like(s)


@triton.jit
def softmax_gradient(
    s, kept, a, terms, rows, cols, positive, om, on, R, C, ONE_EXP: tl.constexpr, SYMMETRIC: tl.constexpr
):
    logit = logits(s, kept, a, terms, om, on, R, C)
    direct = tl.zeros_like(s)
    e = tl.exp(logit - load_vector(rows.shift, a, R, om)[:, None])
    w = load_vector(rows.lse, a, R, om)[:, None]
    if rows.mean_grad is not None:
        row_mean_grad = load_vector(rows.mean_grad, a, R, om)[:, None]
        w = w + row_mean_grad * (s - load_vector(rows.mean, a, R, om)[:, None])
        direct += e * row_mean_grad
    gradient = e * w
    if cols is not None:
        if not ONE_EXP:
            e = tl.exp(logit - load_vector(cols.shift, a, C, on)[None, :])
        w = load_vector(cols.lse, a, C, on)[None, :]
        if cols.mean_grad is not None:
            col_mean_grad = load_vector(cols.mean_grad, a, C, on)[None, :]
            w = w + col_mean_grad * (s - load_vector(cols.mean, a, C, on)[None, :])
            direct += e * col_mean_grad
        gradient += e * w
    if positive is not None:
        gradient += tl.where(named_entries(positive, om, on, R), load_vector(positive.grad, a, R, om)[:, None], 0.0)
        if SYMMETRIC:  # q is k: row i also meets the rows whose positive it is
            named = tl.load(positive.index + on, mask=on < C, other=-1)
            gradient += tl.where(om[:, None] == named[None, :], load_vector(positive.grad, a, C, on)[None, :], 0.0)
    return gradient, direct
