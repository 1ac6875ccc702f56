"""Self-similarities by half: where q is k, the logits are symmetric and only tiles on and above the diagonal are made.

With E = exp(logit - shift) symmetric, row i's sum collects E from the tiles right of and below the diagonal alike, and
the gradient is (dS + dS') z with (dS + dS')_ij = E_ij (A_i + A_j): half the matrix products of a general contrast.
"""

import torch
from torch import Tensor

from counterpoint.common.kernels.problem import (
    Band,
    Gradients,
    Labels,
    Problem,
    RawStats,
    Upstream,
    positive_gradient,
)
from counterpoint.common.kernels.sweep import LN2, LOG2E, Sweep, row_dots

__all__ = ["applies", "backward", "forward"]


def applies(problem: Problem) -> bool:
    """Whether logits and masks are symmetric, with one scale and no mean."""
    p = problem
    plain = p.same and p.uniform and p.shape[1] == 1 and not p.mean
    absent = all(t is None for t in (p.col_scale, p.row_bias, p.col_bias, p.valid_cols, p.score_floor))
    return plain and absent and all(_symmetric(m) for m in (*p.exclude, *p.only))


def _symmetric(primitive: object) -> bool:
    if isinstance(primitive, Band):
        return primitive.offset == 0
    return isinstance(primitive, Labels) and torch.equal(primitive.row, primitive.col)


def forward(
    problem: Problem, n: int, shifts: list[float], stats: RawStats, kept: list[Tensor] | None = None
) -> None:
    """Row sums (equal to the column sums) from the upper triangle."""
    sweep = Sweep(problem, n, LOG2E, folded=True)
    shift, total, count = shifts[0], stats.sum[n, 0], stats.count[n]
    stats.shift[n] = shift
    for t in sweep.triangle():
        x = sweep.product(t, keep=kept)
        places = [f for transposed in (False, True) if (f := sweep.positives(t, transposed)) is not None]
        drop = sweep.mask(t, None)
        logit = [found.of(x) * LN2 for found in places]
        e = sweep.exponentials(t, x, drop, shift)
        for found, value in zip(places, logit):
            stats.positive[n, 0, found.row] = value
            stats.own[n, 0, found.row] = torch.where(found.of(e) > 0, value, -torch.inf)
        for found in places:
            found.put(e, 0.0)
        total[t.i0 : t.i1] += e.sum(1)
        keep = sweep.kept(t, drop)
        count[t.i0 : t.i1] += t.j1 - t.j0 if keep is None else keep.sum(1)
        if t.i0 != t.j0:
            total[t.j0 : t.j1] += e.sum(0)
            count[t.j0 : t.j1] += t.i1 - t.i0 if keep is None else keep.sum(0)
    if problem.positive is not None:
        own = torch.exp(stats.own[n, 0] - shift)
        partner, mutual = _partners(problem.positive[n])
        lone = (problem.positive[n] >= 0) & ~mutual  # left out with the pair seen from its other end
        total.index_add_(0, partner[lone], own[lone])
        stats.rest[n, 0] = total
        total += own
    if problem.columns:
        stats.col_shift[n], stats.col_sum[n], stats.col_count[n] = stats.shift[n], stats.sum[n], stats.count[n]
        if stats.col_rest is not None:
            row = torch.arange(len(total), device=total.device) - problem.diagonal
            named = (row >= 0) & (row < len(total))
            stats.col_rest[n, 0] = total - torch.where(named, own[row.clamp(0, len(total) - 1)], 0.0)
            if problem.diagonal == 0:
                stats.col_rest[n, 0] = stats.rest[n, 0]


def _partners(positive: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's positive (its own number where it has none) and whether that row's positive is the row itself."""
    row = torch.arange(len(positive), device=positive.device)
    partner = torch.where(positive < 0, row, positive)
    return partner, (positive >= 0) & (positive[partner] == row)


def backward(
    problem: Problem,
    n: int,
    shifts: list[float],
    saved: RawStats,
    upstream: Upstream,
    out: Gradients,
    kept: list[Tensor],
) -> None:
    """The whole gradient of z into out.q, and the (shared) scale's into out.scale."""
    sweep = Sweep(problem, n, LOG2E, folded=True, buffers=2)
    shift, z = shifts[0], problem.q[n].to(problem.dtype)
    g = [t[n, 0] for t in (upstream.lse, upstream.col_lse) if t is not None]
    inverse = (1.0 / saved.sum[n, 0]).masked_fill(saved.sum[n, 0] == 0, 0.0)
    a = inverse * sum(g) if g else torch.zeros_like(inverse)
    both = _both_ends(problem, saved, upstream, n, inverse, shift)
    dz = out.q[n]
    for number, t in enumerate(sweep.triangle()):
        w = torch.add(a[t.i0 : t.i1, None], a[None, t.j0 : t.j1], out=sweep.buffer(t, 1))
        if kept:
            w.mul_(kept[number])
        else:
            w.mul_(sweep.exponentials(t, sweep.product(t), sweep.mask(t, None), shift))
        if both is not None:
            for transposed in (False, True):
                found = sweep.positives(t, transposed)
                if found is not None:
                    found.put(w, both[found.row])
        dz[t.i0 : t.i1].addmm_(w, z[t.j0 : t.j1])
        if t.i0 != t.j0:
            dz[t.j0 : t.j1].addmm_(w.t(), z[t.i0 : t.i1])
    out.scale[n, 0] = row_dots(z, dz) / 2  # every pair was met from both ends
    dz.mul_(problem.scale[n, 0, 0])


def _both_ends(
    problem: Problem, saved: RawStats, upstream: Upstream, n: int, inverse: Tensor, shift: float
) -> Tensor | None:
    """d loss / d logit of each row's positive, met from both ends of the pair."""
    if problem.positive is None:
        return None
    mine = positive_gradient(problem, saved, upstream, n)
    mine = torch.zeros_like(inverse) if mine is None else mine[0]
    partner, mutual = _partners(problem.positive[n])
    # The pair seen from its other end: that row's softmax weight, and this row's as a column.
    lse, col_lse = (None if t is None else t[n, 0] for t in (upstream.lse, upstream.col_lse))
    weight = torch.zeros_like(inverse)
    if lse is not None:
        weight += (inverse * lse)[partner]
    if col_lse is not None:
        weight += inverse * col_lse
    seen = weight * torch.exp(saved.own[n, 0] - shift)
    return mine + torch.where(mutual, mine[partner], seen)
