"""The tiled backend: plain PyTorch on tiles of logits, memory O(rows + columns), closed-form backward.

Forward, with one exponential per element where it can be certified (`_one_exp`), else by running maxima (`_online`).
Backward recomputes each tile once for all statistics: four matrix products in all for both directions of a contrast.

Certificate of the single exponential: |logit| <= B = max_i |scale_i q_i| max_j |col_scale_j k_j| + biases. With the
shift c = max(0, B - H) nothing overflows (logit - c <= H); nothing that matters underflows when every non-empty row and
column ends with lse > c - H, which is certain for B <= H and checked otherwise. H = 60 in float32, 600 in float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import pairsum, selfsim, tiled_backward
from counterpoint.common.kernels.precision import products
from counterpoint.common.kernels.problem import Gradients, Problem, RawStats, Upstream
from counterpoint.common.kernels.sweep import LN2, LOG2E, Sweep, Tile, TilePlaces, headroom

__all__ = ["backward", "forward", "pair_sum_backward", "pair_sum_forward"]


def forward(problem: Problem, keep: bool = False) -> RawStats:
    """All statistics, tile by tile; with `keep` the tiles stay for the backward pass where one exponential serves."""
    batch, scales, rows, columns, _ = problem.shape
    p = problem

    def zeros(*shape: int, wanted: bool = True, dtype: torch.dtype = problem.dtype) -> Tensor | None:
        return torch.zeros(shape, dtype=dtype, device=p.q.device) if wanted else None

    row, col = (batch, scales, rows), (batch, scales, columns)
    named = p.positive is not None
    stats = RawStats(
        shift=zeros(*row),
        sum=zeros(*row),
        count=zeros(batch, rows, dtype=torch.int64),
        positive=zeros(*row, wanted=named),
        mean=zeros(*row, wanted=p.mean),
        col_shift=zeros(*col, wanted=p.columns),
        col_sum=zeros(*col, wanted=p.columns),
        col_mean=zeros(*col, wanted=p.columns and p.mean),
        col_count=zeros(batch, columns, wanted=p.columns, dtype=torch.int64),
        own=zeros(*row, wanted=named),
        rest=zeros(*row, wanted=named),
        col_rest=zeros(*col, wanted=named and p.columns and p.diagonal is not None),
    )
    if named:
        stats.own.fill_(-torch.inf)
    if problem.empty:
        return stats
    one_exp = selfsim.forward if selfsim.applies(problem) else _one_exp
    kept: list[list[Tensor]] = []
    with products(problem.fast):
        for n in range(batch):
            shifts = certified_shifts(problem, n)
            if shifts is not None:
                kept.append([])
                one_exp(problem, n, shifts, stats, kept[-1] if keep and folds(problem) else None)
                if _representable(stats, n, shifts, problem.dtype):
                    continue
                kept.pop()
            kept.append([])
            _online(problem, n, stats)
    stats.kept = kept if keep else None
    return stats


def backward(problem: Problem, saved: RawStats, upstream: Upstream) -> Gradients:
    """Gradients for any upstream derivative of the statistics; `saved` may describe more columns than the problem."""
    p = problem
    if p.empty:
        return empty_gradients(p, not p.same)
    shifts = [constant_shifts(saved, n) for n in range(p.q.shape[0])]
    half = selfsim.applies(problem) and None not in shifts
    wants_k = (upstream.needs_k or p.same or p.col_scale is not None) and not half
    out = empty_gradients(problem, wants_k)
    kept = saved.kept or [[]] * p.q.shape[0]
    with products(problem.fast):
        for n, shift in enumerate(shifts):
            if half:
                selfsim.backward(problem, n, shift, saved, upstream, out, kept[n])
            else:
                tiled_backward.accumulate(problem, n, shift, saved, upstream, out, kept[n])
    return one_sided(problem, out)


def pair_sum_forward(problem: Problem, fn: str) -> Float[Tensor, "batch rows"]:
    """sum_j fn(logit_ij), with fn(-logit) at the positive, tile by tile."""
    if problem.empty:
        return problem.scale.new_zeros(problem.shape[0], problem.shape[2])
    with products(problem.fast):
        return pairsum.forward(problem, fn)


def pair_sum_backward(problem: Problem, fn: str, upstream: Float[Tensor, "batch rows"]) -> Gradients:
    """Gradients of sum_i upstream_i (sum_j fn(logit_ij))."""
    if problem.empty:
        return empty_gradients(problem, not problem.same)
    with products(problem.fast):
        out = pairsum.backward(problem, fn, upstream, empty_gradients(problem, True))
    for n in range(problem.q.shape[0]):
        tiled_backward.unfold(problem, n, out, 1.0)
    return one_sided(problem, out)


def empty_gradients(p: Problem, wants_k: bool) -> Gradients:
    """Zeros to add to. q's is always there: the scale's gradient comes by way of it."""

    def like(t: Tensor | None) -> Tensor | None:
        return None if t is None else torch.zeros(t.shape, dtype=p.dtype, device=p.q.device)

    k = like(p.k) if wants_k else None
    return Gradients(like(p.q), k, like(p.scale), like(p.col_scale), like(p.row_bias), like(p.col_bias))


def one_sided(problem: Problem, out: Gradients) -> Gradients:
    """For self-similarities, both sides' gradients belong to the one tensor."""
    if problem.same and out.k is not None:
        out.q, out.k = out.q.add_(out.k), None
    return out


# ---- shifts ---------------------------------------------------------------------------------------------------------


def certified_shifts(problem: Problem, n: int) -> list[float] | None:
    """A constant shift for each scale under which no exponential can overflow; None where logits are not bounded."""
    norms = [torch.linalg.vector_norm(t[n], dim=-1, dtype=problem.dtype) for t in (problem.q, problem.k)]
    if problem.col_scale is not None:
        norms[1] = norms[1] * problem.col_scale[n].abs()
    largest = problem.scale[n, :, 0].abs() * norms[0].amax() if problem.uniform else None
    bound = ((problem.scale[n].abs() * norms[0]).amax(-1) if largest is None else largest) * norms[1].amax()
    for bias in (problem.row_bias, problem.col_bias):
        if bias is not None:
            bound = bound + bias[n].abs().amax(-1)
    bounds = bound.tolist()
    if not all(b < 1e4 for b in bounds):  # also false for NaN
        return None
    return [float(max(0.0, round(b - headroom(problem.dtype)))) for b in bounds]


def constant_shifts(saved: RawStats, n: int) -> list[float] | None:
    """Each scale's shift when all its rows and columns were summed under the same one."""
    parts = [saved.shift[n]] if saved.col_shift is None else [saved.shift[n], saved.col_shift[n]]
    shifts = torch.cat(parts, -1)
    low, high = shifts.amin(-1), shifts.amax(-1)
    return low.tolist() if torch.equal(low, high) else None


def _representable(stats: RawStats, n: int, shifts: list[float], dtype: torch.dtype) -> bool:
    if not any(shifts):
        return True
    floor = torch.exp(torch.tensor(-headroom(dtype), dtype=dtype))
    for total, count in ((stats.sum, stats.count), (stats.col_sum, stats.col_count)):
        if total is not None and not bool((total[n].isfinite() & (total[n] > floor.item()) | (count[n] == 0)).all()):
            return False
    return True


# ---- forward --------------------------------------------------------------------------------------------------------


def folds(problem: Problem) -> bool:
    """Whether raw scores are not needed beside the logits."""
    return problem.shape[1] == 1 and not problem.mean and problem.score_floor is None


def count_kept(sweep: Sweep, t: Tile, drop: Tensor | None, n: int, stats: RawStats) -> None:
    keep = sweep.kept(t, drop)
    stats.count[n, t.i0 : t.i1] += t.j1 - t.j0 if keep is None else keep.sum(1)
    if stats.col_count is not None:
        stats.col_count[n, t.j0 : t.j1] += t.i1 - t.i0 if keep is None else keep.sum(0)


def _one_exp(
    problem: Problem, n: int, shifts: list[float], stats: RawStats, kept: list[Tensor] | None = None
) -> None:
    folded = folds(problem)
    sweep = Sweep(problem, n, LOG2E, folded, buffers=1 if folded else 2 + problem.mean)
    for record in (stats.shift, stats.col_shift):
        if record is not None:
            record[n] = torch.tensor(shifts, dtype=problem.dtype, device=sweep.device)[:, None]
    for t in sweep:
        rows, cols = slice(t.i0, t.i1), slice(t.j0, t.j1)
        product = sweep.product(t, keep=kept)
        drop = sweep.mask(t, product)
        count_kept(sweep, t, drop, n, stats)
        found = sweep.positives(t)
        for s, shift in enumerate(shifts):
            x = sweep.logits(t, s, product, 1)
            if found is not None:
                stats.positive[n, s, found.row] = found.of(x) * LN2
            e = sweep.exponentials(t, x, drop, shift)
            if problem.mean:
                weighted = torch.mul(e, product, out=sweep.buffer(t, 2))
                stats.mean[n, s, rows] += weighted.sum(1)
                if problem.columns:
                    stats.col_mean[n, s, cols] += weighted.sum(0)
            if found is not None:
                own = found.of(e)
                stats.own[n, s, found.row] = torch.where(own > 0, stats.positive[n, s, found.row], -torch.inf)
                stats.sum[n, s, found.row] += own
                if problem.columns:
                    _add(stats.col_sum[n, s], found.column, own)
                found.put(e, 0.0)
            others = e.sum(1)
            stats.sum[n, s, rows] += others
            if stats.rest is not None:
                stats.rest[n, s, rows] += others
            if problem.columns:
                others = e.sum(0)
                stats.col_sum[n, s, cols] += others
                if stats.col_rest is not None:
                    stats.col_rest[n, s, cols] += others
    if problem.mean:
        stats.mean[n] /= stats.sum[n].masked_fill(stats.sum[n] == 0, 1.0)
        if problem.columns:
            stats.col_mean[n] /= stats.col_sum[n].masked_fill(stats.col_sum[n] == 0, 1.0)


def _add(total: Tensor, column: slice | Tensor, values: Tensor) -> None:
    if isinstance(column, slice):
        total[column] += values
    else:
        total.index_add_(0, column, values)


def _online(problem: Problem, n: int, stats: RawStats) -> None:
    """Running maxima down rows and columns: any range of logits."""
    folded = folds(problem)
    sweep = Sweep(problem, n, LOG2E, folded, buffers=3)
    named = (stats.positive, stats.rest, stats.col_rest)
    for record in (stats.sum, stats.mean, stats.col_sum, stats.col_mean, stats.count, stats.col_count, *named):
        if record is not None:
            record[n].zero_()
    if stats.own is not None:
        stats.own[n].fill_(-torch.inf)
    for shift in (stats.shift, stats.col_shift):
        if shift is not None:
            shift[n].fill_(-torch.inf)
    for t in sweep:
        rows, cols = slice(t.i0, t.i1), slice(t.j0, t.j1)
        product = sweep.product(t)
        drop = sweep.mask(t, product)
        count_kept(sweep, t, drop, n, stats)
        found = sweep.positives(t)
        for s in range(problem.shape[1]):
            x = sweep.logits(t, s, product, 1)
            if found is not None:
                stats.positive[n, s, found.row] = found.of(x) * LN2
            sweep.fill(t, x, drop, -torch.inf)
            if found is not None:
                stats.own[n, s, found.row] = found.of(x) * LN2
            raw, spare = (None if folded else product), sweep.buffer(t, 2)
            _accumulate(x, raw, 1, found, spare, *_running(stats, "", n, s, rows))
            if problem.columns:
                _accumulate(x, raw, 0, found, spare, *_running(stats, "col_", n, s, cols))
    for side in ("", "col_")[: 1 + problem.columns]:
        _finish(*(None if (t := getattr(stats, side + name)) is None else t[n] for name in RUNNING))


RUNNING = ("shift", "sum", "mean", "rest")


def _running(stats: RawStats, side: str, n: int, s: int, cut: slice) -> list[Tensor | None]:
    return [None if (t := getattr(stats, side + name)) is None else t[n, s, cut] for name in RUNNING]


def _accumulate(
    x: Tensor,
    raw: Tensor | None,
    dim: int,
    found: TilePlaces | None,
    spare: Tensor,
    shift: Tensor,
    total: Tensor,
    mean: Tensor | None,
    rest: Tensor | None,
) -> None:
    """Take one tile into the running (maximum, sum, weighted sum, sum without positives) along `dim`; in base 2."""
    highest = torch.maximum(shift, x.amax(dim))
    reference = highest.masked_fill(highest.isneginf(), 0.0)
    old = torch.exp2(shift - reference)
    e = torch.sub(x, reference.unsqueeze(dim), out=spare).exp2_()
    total.mul_(old).add_(e.sum(dim))
    if mean is not None:
        mean.mul_(old).add_((e if raw is None else e * raw).sum(dim))
    if rest is not None:
        if found is not None:
            found.put(e, 0.0)
        rest.mul_(old).add_(e.sum(dim))
    shift.copy_(highest)


def _finish(shift: Tensor, total: Tensor, mean: Tensor | None, rest: Tensor | None) -> None:
    """Base-2 maxima to natural shifts, such that shift * LOG2E gives back what the sums were taken under."""
    if mean is not None:
        mean.div_(total.masked_fill(total == 0, 1.0))
    base2 = shift.masked_fill(shift.isneginf(), 0.0)
    shift.copy_(base2 * LN2)
    rounding = torch.exp2(base2 - shift * LOG2E)
    total.mul_(rounding)
    if rest is not None:
        rest.mul_(rounding)
