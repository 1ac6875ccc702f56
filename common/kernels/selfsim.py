"""Self-similarities by half: where q is k, the logits are symmetric and only tiles on and above the diagonal are made.

With E = exp(logit - shift) symmetric, row i's sum collects E from the tiles right of and below the diagonal alike, and
the gradient is (dS + dS') z with (dS + dS')_ij = E_ij (A_i + A_j): half the matrix products of a general contrast.
"""

import torch

from counterpoint.common.kernels.problem import Band, Gradients, Labels, Problem, RawStats, Upstream
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


def forward(problem: Problem, n: int, shifts: list[float], stats: RawStats) -> None:
    """Row sums (equal to the column sums) from the upper triangle."""
    sweep = Sweep(problem, n, LOG2E, folded=True)
    shift, total, count = shifts[0], stats.sum[n, 0], stats.count[n]
    stats.shift[n] = shift
    for t in sweep.triangle():
        x = sweep.product(t)
        for transposed in (False, True)[: 1 + (t.i0 != t.j0)]:
            found = sweep.positives(t, transposed)
            if found is not None:
                stats.positive[n, 0, found[0]] = x.view(-1)[found[1]] * LN2
        drop = sweep.mask(t, None)
        e = sweep.exponentials(t, x, drop, shift)
        total[t.i0 : t.i1] += e.sum(1)
        keep = sweep.kept(t, drop)
        count[t.i0 : t.i1] += t.j1 - t.j0 if keep is None else keep.sum(1)
        if t.i0 != t.j0:
            total[t.j0 : t.j1] += e.sum(0)
            count[t.j0 : t.j1] += t.i1 - t.i0 if keep is None else keep.sum(0)
    if problem.columns:
        stats.col_shift[n], stats.col_sum[n], stats.col_count[n] = stats.shift[n], stats.sum[n], stats.count[n]


def backward(
    problem: Problem, n: int, shifts: list[float], saved: RawStats, upstream: Upstream, out: Gradients
) -> None:
    """The whole gradient of z into out.q, and the (shared) scale's into out.scale."""
    sweep = Sweep(problem, n, LOG2E, folded=True, buffers=2)
    shift, z = shifts[0], problem.q[n]
    g = sum(t[n, 0] for t in (upstream.lse, upstream.col_lse) if t is not None)
    inverse = torch.where(saved.sum[n, 0] > 0, 1.0 / saved.sum[n, 0], 0.0)
    a = inverse * g
    dz = out.q[n]
    for t in sweep.triangle():
        x = sweep.product(t)
        w = sweep.exponentials(t, x, sweep.mask(t, None), shift)
        w.mul_(torch.add(a[t.i0 : t.i1, None], a[None, t.j0 : t.j1], out=sweep.buffer(t, 1)))
        if upstream.positive is not None:
            # A diagonal tile is its own transpose: it takes both halves of its positives, too.
            for transposed in (False, True):
                found = sweep.positives(t, transposed)
                if found is not None:
                    w.view(-1).index_add_(0, found[1], upstream.positive[n, 0, found[0]])
        dz[t.i0 : t.i1].addmm_(w, sweep.col_strip(t))
        if t.i0 != t.j0:
            dz[t.j0 : t.j1].addmm_(w.t(), z[t.i0 : t.i1].to(problem.dtype))
    out.scale[n, 0] = row_dots(z, dz) / 2  # every pair was met from both ends
    dz.mul_(problem.scale[n, 0, 0])
