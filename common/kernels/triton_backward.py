"""Fused backward kernels. Each recomputes a tile of scores and turns it into W = d loss / d s.

    dq = W k        dk = W^T q        and the sums of d loss / d logit that scales and biases need.

Three ways to use W, all over the same tile function:
- `side_kernel`, for widths that fit the registers (SIDE_MAX_DIM): one program owns a tile of rows (or of columns),
  walks the other axis and writes its own gradient. Twice, once a side: deterministic, 10 R C D operations.
- `fused_kernel`, same widths: one program owns a tile of columns and adds the rows' gradients atomically: 8 R C D
  operations, the last digits depend on the order of the additions.
- `weights_kernel`, any width: writes W of a chunk of rows for two library matrix products (triton_launch).
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from counterpoint.common.kernels.triton_forward import pick, put, running
from counterpoint.common.kernels.triton_tiles import (
    kept_entries,
    load_block,
    load_vector,
    logit_gradient,
    scaled_tile,
    tile_scores,
)


class Sums(NamedTuple):
    """Where sums over the other axis go, float32 [parts, S, n]; None where nobody asks.

    row_scale[i] = sum_j g_ij s_ij col_scale_j, row_bias[i] = sum_j g_ij, col_scale[j] = sum_i g_ij s_ij scale_i,
    col_bias[j] = sum_i g_ij, with g = d loss / d logit.
    """

    row_scale: Any = None
    row_bias: Any = None
    col_scale: Any = None
    col_bias: Any = None


@triton.jit
def score_gradient(
    s, terms, keep, rows, cols, positive, sums, row_scale, row_bias, col_scale, col_bias, om, on, R, C,
    S: tl.constexpr, FN: tl.constexpr, ONE_EXP: tl.constexpr, SYMMETRIC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """W of one tile, and the four running sums with this tile added."""
    kept = kept_entries(s, keep, om, on, R, C, BM, BN)
    weight = tl.zeros([BM, BN], tl.float32)
    for a in tl.static_range(S):
        gradient, direct = logit_gradient(
            s, kept, a, terms, rows, cols, positive, om, on, R, C, FN, ONE_EXP, SYMMETRIC
        )  # fmt: skip
        weight += scaled_tile(gradient, a, terms, om, on, R, C) + direct
        if sums.row_scale is not None:
            moment = gradient * s
            if terms.col_scale is not None:
                moment *= load_vector(terms.col_scale, 0, C, on)[None, :]
            row_scale = put(row_scale, a, pick(row_scale, a, S) + tl.sum(moment, 1), S)
        if sums.row_bias is not None:
            row_bias = put(row_bias, a, pick(row_bias, a, S) + tl.sum(gradient, 1), S)
        if sums.col_scale is not None:
            moment = gradient * s * load_vector(terms.scale, a, R, om)[:, None]
            col_scale = put(col_scale, a, pick(col_scale, a, S) + tl.sum(moment, 0), S)
        if sums.col_bias is not None:
            col_bias = put(col_bias, a, pick(col_bias, a, S) + tl.sum(gradient, 0), S)
    return weight, row_scale, row_bias, col_scale, col_bias


@triton.jit
def store_sums(X, x, part, o, inside, n, S: tl.constexpr):
    if X is not None:
        for a in tl.static_range(S):
            tl.store(X + (tl.cast(part, tl.int64) * S + a) * n + o, pick(x, a, S), mask=inside)


@triton.jit
def store_block(X, x, part, rows, n_rows, dims, n_dims):
    at = (tl.cast(part, tl.int64) * n_rows + rows.to(tl.int64))[:, None] * n_dims + dims[None, :]
    tl.store(X + at, x, mask=(rows[:, None] < n_rows) & (dims[None, :] < n_dims))


@triton.jit
def side_kernel(
    Q, K, OUT, terms, keep, rows, cols, positive, sums, R, C, D, splits,
    S: tl.constexpr, ROWS: tl.constexpr, FN: tl.constexpr, ONE_EXP: tl.constexpr, SYMMETRIC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """OUT[splits, R, D] = W k (ROWS) or OUT[splits, C, D] = W^T q; grid (tiles of that side, splits). BD >= D."""
    split = tl.program_id(1)
    od = tl.arange(0, BD)
    row_scale = running(BM, S, 0.0)
    row_bias = running(BM, S, 0.0)
    col_scale = running(BN, S, 0.0)
    col_bias = running(BN, S, 0.0)
    if ROWS:
        om = tl.program_id(0) * BM + tl.arange(0, BM)
        q = load_block(Q, om, R, od, D, UPCAST)
        out = tl.zeros([BM, BD], tl.float32)
        for t in range(split, tl.cdiv(C, BN), splits):
            on = t * BN + tl.arange(0, BN)
            k = load_block(K, on, C, od, D, UPCAST)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            weight, row_scale, row_bias, col_scale, col_bias = score_gradient(
                s, terms, keep, rows, cols, positive, sums, row_scale, row_bias, col_scale, col_bias,
                om, on, R, C, S, FN, ONE_EXP, SYMMETRIC, BM, BN,
            )  # fmt: skip
            out = tl.dot(weight.to(k.dtype), k, out, input_precision=PRECISION)
        store_block(OUT, out, split, om, R, od, D)
        store_sums(sums.row_scale, row_scale, split, om, om < R, R, S)
        store_sums(sums.row_bias, row_bias, split, om, om < R, R, S)
    else:
        on = tl.program_id(0) * BN + tl.arange(0, BN)
        k = load_block(K, on, C, od, D, UPCAST)
        out = tl.zeros([BN, BD], tl.float32)
        for t in range(split, tl.cdiv(R, BM), splits):
            om = t * BM + tl.arange(0, BM)
            q = load_block(Q, om, R, od, D, UPCAST)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            weight, row_scale, row_bias, col_scale, col_bias = score_gradient(
                s, terms, keep, rows, cols, positive, sums, row_scale, row_bias, col_scale, col_bias,
                om, on, R, C, S, FN, ONE_EXP, SYMMETRIC, BM, BN,
            )  # fmt: skip
            out = tl.dot(tl.trans(weight.to(q.dtype)), q, out, input_precision=PRECISION)
        store_block(OUT, out, split, on, C, od, D)
        store_sums(sums.col_scale, col_scale, split, on, on < C, C, S)
        store_sums(sums.col_bias, col_bias, split, on, on < C, C, S)


@triton.jit
def fused_kernel(
    Q, K, DQ, DK, terms, keep, rows, cols, positive, sums, R, C, D, splits,
    S: tl.constexpr, FN: tl.constexpr, ONE_EXP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """DK[splits, C, D] = W^T q by its owner; DQ[R, D] += W k and row sums atomically; grid (column tiles, splits)."""
    split = tl.program_id(1)
    od = tl.arange(0, BD)
    on = tl.program_id(0) * BN + tl.arange(0, BN)
    col_scale = running(BN, S, 0.0)
    col_bias = running(BN, S, 0.0)
    k = load_block(K, on, C, od, D, UPCAST)
    dk = tl.zeros([BN, BD], tl.float32)
    for t in range(split, tl.cdiv(R, BM), splits):
        om = t * BM + tl.arange(0, BM)
        q = load_block(Q, om, R, od, D, UPCAST)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        weight, row_scale, row_bias, col_scale, col_bias = score_gradient(
            s, terms, keep, rows, cols, positive, sums, running(BM, S, 0.0), running(BM, S, 0.0), col_scale, col_bias,
            om, on, R, C, S, FN, ONE_EXP, False, BM, BN,
        )  # fmt: skip
        dk = tl.dot(tl.trans(weight.to(q.dtype)), q, dk, input_precision=PRECISION)
        dq = tl.dot(weight.to(k.dtype), k, input_precision=PRECISION)
        at = om.to(tl.int64)[:, None] * D + od[None, :]
        tl.atomic_add(DQ + at, dq, mask=(om[:, None] < R) & (od[None, :] < D), sem="relaxed")
        for a in tl.static_range(S):
            if sums.row_scale is not None:
                tl.atomic_add(sums.row_scale + a * R + om, pick(row_scale, a, S), mask=om < R, sem="relaxed")
            if sums.row_bias is not None:
                tl.atomic_add(sums.row_bias + a * R + om, pick(row_bias, a, S), mask=om < R, sem="relaxed")
    store_block(DK, dk, split, on, C, od, D)
    store_sums(sums.col_scale, col_scale, split, on, on < C, C, S)
    store_sums(sums.col_bias, col_bias, split, on, on < C, C, S)


@triton.jit
def weights_kernel(
    Q, K, W, terms, keep, rows, cols, positive, sums, R, C, D, row0, col0, n_rows, n_cols,
    S: tl.constexpr, FN: tl.constexpr, ONE_EXP: tl.constexpr, SYMMETRIC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """W[n_rows, n_cols] of the block at (row0, col0), in W's dtype; sums part by part: one part a tile."""
    row_tile = tl.program_id(1)
    col_tile = tl.program_id(0)
    local_m = row_tile * BM + tl.arange(0, BM)
    local_n = col_tile * BN + tl.arange(0, BN)
    # Entries of the tile beyond the block belong to another block: move them outside the matrix.
    om = tl.where(local_m < n_rows, row0 + local_m, R)
    on = tl.where(local_n < n_cols, col0 + local_n, C)
    s = tile_scores(Q, K, om, on, R, C, D, BM, BN, BD, PRECISION, UPCAST)
    weight, row_scale, row_bias, col_scale, col_bias = score_gradient(
        s, terms, keep, rows, cols, positive, sums,
        running(BM, S, 0.0), running(BM, S, 0.0), running(BN, S, 0.0), running(BN, S, 0.0),
        om, on, R, C, S, FN, ONE_EXP, SYMMETRIC, BM, BN,
    )  # fmt: skip
    at = local_m.to(tl.int64)[:, None] * n_cols + local_n[None, :]
    tl.store(W + at, weight.to(W.dtype.element_ty), mask=(local_m[:, None] < n_rows) & (local_n[None, :] < n_cols))
    store_sums(sums.row_scale, row_scale, col_tile, local_m, local_m < n_rows, n_rows, S)
    store_sums(sums.row_bias, row_bias, col_tile, local_m, local_m < n_rows, n_rows, S)
    store_sums(sums.col_scale, col_scale, row_tile, local_n, local_n < n_cols, n_cols, S)
    store_sums(sums.col_bias, col_bias, row_tile, local_n, local_n < n_cols, n_cols, S)
