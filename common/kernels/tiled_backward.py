"""The backward sweep of `tiled`: d loss / d logit of each recomputed tile, and its two matrix products.

With p_ij = exp(logit_ij - lse_i) and upstream gradients g of lse and m of mean,

    d loss / d logit_ij = p_ij (g_i + m_i (s_ij - mean_i)) + (column's side) + g_positive at the positive
    d loss / d s_ij     = scale_i col_scale_j d loss / d logit_ij + m_i p_ij + (column's side)
"""

import torch
from torch import Tensor

from counterpoint.common.kernels.problem import (
    Gradients,
    Problem,
    RawStats,
    Upstream,
    finite_features,
    positive_gradient,
)
from counterpoint.common.kernels.sweep import LOG2E, Sweep, Tile, row_dots

__all__ = ["accumulate", "unfold"]


class Weights:
    """Per-row (or per-column) factors of d loss / d logit: p (A + raw A') with p = exp(logit - shift)."""

    def __init__(self, total: Tensor, mean: Tensor | None, g_lse: Tensor | None, g_mean: Tensor | None):
        inverse = (1.0 / total).masked_fill(total == 0, 0.0)
        g_lse = torch.zeros_like(total) if g_lse is None else g_lse
        self.mean, self.raw = mean, None if g_mean is None else inverse * g_mean
        self.plain = inverse * g_lse if g_mean is None else inverse * (g_lse - g_mean * mean)


def _weights(saved: RawStats, upstream: Upstream, n: int) -> tuple[Weights | None, Weights | None]:
    def at(t: Tensor | None) -> Tensor | None:
        return None if t is None else t[n]

    row = col = None
    if upstream.lse is not None or upstream.mean is not None:
        row = Weights(saved.sum[n], at(saved.mean), at(upstream.lse), at(upstream.mean))
    if upstream.col_lse is not None or upstream.col_mean is not None:
        col = Weights(saved.col_sum[n], at(saved.col_mean), at(upstream.col_lse), at(upstream.col_mean))
    return row, col


def accumulate(
    problem: Problem,
    n: int,
    shifts: list[float] | None,
    saved: RawStats,
    upstream: Upstream,
    out: Gradients,
    kept: list[Tensor],
) -> None:
    """Add batch element n's gradients to `out`; `shifts` is given when all sums were taken under one shift a scale.

    `kept`: the tiles' exponentials, where the forward pass has kept them.
    """
    row, col = _weights(saved, upstream, n)
    of_mean = upstream.mean is not None or upstream.col_mean is not None
    # With one scale and no gradient of a mean, the scale's gradient is q_i . (sum_j dlogit_ij k_j): no extra pass.
    folded = problem.shape[1] == 1 and not of_mean and problem.score_floor is None
    sweep = Sweep(problem, n, LOG2E, folded, buffers=2 if folded else 5)
    own = positive_gradient(problem, saved, upstream, n)
    for number, t in enumerate(sweep):
        if folded and kept:
            dlogit = _scaled(sweep, t, kept[number], row, col)
            found = sweep.positives(t)
            if found is not None and own is not None:
                found.put(dlogit, own[0, found.row])
            sweep.add_bias_gradients(t, 0, dlogit, out)
            _products(sweep, t, n, dlogit, out)
            continue
        product = sweep.product(t)
        drop = sweep.mask(t, product)
        total = None if folded else sweep.buffer(t, 4).zero_()
        for s in range(problem.shape[1]):
            x = sweep.logits(t, s, product, 1)
            if shifts is not None:
                e = sweep.exponentials(t, x, drop, shifts[s])
                dlogit = _one_exp_weights(sweep, t, s, e, product, row, col, total)
            else:
                sweep.fill(t, x, drop, -torch.inf)
                dlogit = _two_exp_weights(sweep, t, s, x, product, row, col, saved, n, total)
            found = sweep.positives(t)
            if found is not None and own is not None:
                values = own[s, found.row]
                for weights, index in ((row, found.row), (col, found.column)):
                    if weights is not None and weights.raw is not None:
                        p = (saved.own[n, s, found.row] - _shift_at(saved, weights is col, n, s, index)).exp()
                        values = values + p * weights.raw[s, index] * (found.of(product) - weights.mean[s, index])
                found.put(dlogit, values)
            sweep.add_bias_gradients(t, s, dlogit, out)
            if not folded:
                _unfolded(sweep, t, n, s, dlogit, product, total, out)
        _products(sweep, t, n, dlogit if folded else total, out)
    if folded:
        unfold(problem, n, out, LOG2E)


def _shift_at(saved: RawStats, column: bool, n: int, s: int, index: slice | Tensor) -> Tensor:
    return (saved.col_shift if column else saved.shift)[n, s, index]


def _products(sweep: Sweep, t: Tile, n: int, weight: Tensor, out: Gradients) -> None:
    out.q[n, t.i0 : t.i1].addmm_(weight, sweep.weighed("k", t.j0, t.j1))
    if out.k is not None:
        out.k[n, t.j0 : t.j1].addmm_(weight.t(), sweep.weighed("q", t.i0, t.i1))


def _scaled(sweep: Sweep, t: Tile, e: Tensor, row: Weights | None, col: Weights | None) -> Tensor:
    """e (A_i + B_j) of a kept tile, in a buffer."""
    out = sweep.buffer(t, 1)
    if row is None and col is None:
        return out.zero_()
    if row is not None and col is not None:
        return torch.add(row.plain[0, t.i0 : t.i1, None], col.plain[0, None, t.j0 : t.j1], out=out).mul_(e)
    factor = col.plain[0, None, t.j0 : t.j1] if row is None else row.plain[0, t.i0 : t.i1, None]
    return torch.mul(e, factor, out=out)


def _one_exp_weights(
    sweep: Sweep,
    t: Tile,
    s: int,
    e: Tensor,
    raw: Tensor,
    row: Weights | None,
    col: Weights | None,
    total: Tensor | None,
) -> Tensor:
    """e (A_i + B_j) (+ raw (A'_i + B'_j)), in place of e; adds the means' direct part to `total`."""
    if not sweep.folded and any(w is not None and w.raw is not None for w in (row, col)):
        slope = _outer(t, s, row and row.raw, col and col.raw, sweep.buffer(t, 2)).mul_(e)
        total.add_(slope)
        plain = _outer(t, s, row and row.plain, col and col.plain, sweep.buffer(t, 3))
        return e.mul_(plain).addcmul_(slope, raw)
    if row is None and col is None:
        return e.zero_()
    if col is None:
        return e.mul_(row.plain[s, t.i0 : t.i1, None])
    if row is None:
        return e.mul_(col.plain[s, None, t.j0 : t.j1])
    return e.mul_(_outer(t, s, row.plain, col.plain, sweep.buffer(t, 1 if sweep.folded else 3)))


def _outer(t: Tile, s: int, a: Tensor | None, b: Tensor | None, out: Tensor) -> Tensor:
    """a_i + b_j over the tile; an absent one is 0."""
    left = 0.0 if a is None else a[s, t.i0 : t.i1, None]
    right = 0.0 if b is None else b[s, None, t.j0 : t.j1]
    if a is not None and b is not None:
        return torch.add(left, right, out=out)
    return out.fill_(0.0).add_(left).add_(right)


def _two_exp_weights(
    sweep: Sweep,
    t: Tile,
    s: int,
    x: Tensor,
    raw: Tensor,
    row: Weights | None,
    col: Weights | None,
    saved: RawStats,
    n: int,
    total: Tensor | None,
) -> Tensor:
    """The same from two exponentials, each under its own row's or column's shift."""
    result = None
    for weights, shift, cut, dim in (
        (row, saved.shift, slice(t.i0, t.i1), 1),
        (col, saved.col_shift, slice(t.j0, t.j1), 0),
    ):
        if weights is None:
            continue
        e = torch.exp2(x - (shift[n, s, cut] * LOG2E).unsqueeze(dim))
        part = e * weights.plain[s, cut].unsqueeze(dim)
        if weights.raw is not None:
            slope = e.mul_(weights.raw[s, cut].unsqueeze(dim))
            total.add_(slope)
            part.addcmul_(slope, raw)
        result = part if result is None else result.add_(part)
    return x.copy_(result) if result is not None else x.zero_()


def _unfolded(
    sweep: Sweep, t: Tile, n: int, s: int, dlogit: Tensor, raw: Tensor, total: Tensor, out: Gradients
) -> None:
    """d loss / d raw score of one scale into `total`, and the scale's gradient by its own sums."""
    scale = sweep.problem.scale[n, s, t.i0 : t.i1, None]
    col_scale = None if sweep.col_scale is None else sweep.col_scale[None, t.j0 : t.j1]
    weighted = torch.mul(dlogit, raw, out=sweep.buffer(t, 2))
    if col_scale is None:
        out.scale[n, s, t.i0 : t.i1] += weighted.sum(1)
    else:
        out.scale[n, s, t.i0 : t.i1] += (weighted * col_scale).sum(1)
        out.col_scale[n, t.j0 : t.j1] += weighted.mul_(scale).sum(0)
        dlogit.mul_(col_scale)
    total.addcmul_(dlogit, scale)


def unfold(problem: Problem, n: int, out: Gradients, base: float) -> None:
    """Gradients of scale, column scale, q and k from sum_j dlogit_ij col_scale_j k_j and its counterpart."""
    q, k = (finite_features(t[n]) if problem.masked else t[n] for t in (problem.q, problem.k))
    out.scale[n, 0] = row_dots(q, out.q[n])
    out.q[n].mul_(problem.scale[n, 0, :, None])
    if out.k is not None:
        out.k[n].mul_(1.0 / base)  # the rows' strips carry the change of base
        if problem.col_scale is not None:
            out.col_scale[n] = row_dots(k, out.k[n])
            out.k[n].mul_(problem.col_scale[n, :, None])
