"""`topk_scores`: the best columns of every row, streamed: hard negatives, neighbours, recall, Gumbel sampling."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels import selfsim
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.problem import Problem
from counterpoint.common.kernels.ranks import Ranks
from counterpoint.common.kernels.ring import union_parts
from counterpoint.common.kernels.spec import Mask

__all__ = ["topk_scores"]


@torch.no_grad()
def topk_scores(
    q: Float[Tensor, "*batch_q rows dim"],
    k: Float[Tensor, "*batch_k columns dim"],
    n: int,
    *,
    scale: float | Float[Tensor, "..."] = 1.0,
    col_bias: Float[Tensor, "..."] | None = None,
    exclude: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    only: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    valid_cols: Bool[Tensor, "..."] | None = None,
    row_offset: int = 0,
    noise: torch.Generator | None = None,
    distributed: str = "none",
    process_group: Any = None,
    tile: tuple[int, int] = (1024, 4096),
) -> tuple[Float[Tensor, "..."], Int[Tensor, "..."]]:
    """The n largest scale_i (q_i . k_j) + col_bias_j of every row among the columns kept, largest first; no gradient.

    With `noise` (a generator on q's device) Gumbel noise is added to every logit: the n columns are then a sample
    without replacement from softmax_j(logit), and the values are the perturbed logits.

    With `distributed` ("gather", "ring" or "auto") columns are the union over ranks, as for `contrast_stats`, and the
    indices count over the union in rank order. "ring" holds two blocks of keys at a time, "gather" all of them.

    Returns:
        values [..., R, n] in float32 (float64 for float64 inputs) and indices [..., R, n]; rows that keep fewer than n
        columns are filled with (-inf, -1).

    >>> import torch
    >>> from counterpoint.common.kernels import Self
    >>> z = torch.tensor([[1.0], [2.0], [3.0]])
    >>> topk_scores(z, z, 1, exclude=Self())[1].tolist()
    [[2], [2], [1]]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    problem, batch, has_scales = flatten(
        q,
        k,
        scale=scale,
        col_bias=col_bias,
        exclude=exclude,
        only=only,
        valid_cols=valid_cols,
        row_offset=row_offset,
        sharded=distributed != "none",
    )
    if has_scales:
        raise ValueError("topk_scores takes one scale: a number or [R]")
    if distributed == "none":
        values, indices = _best(problem, n, tile, noise)
    else:
        values, indices = _best_of_all_ranks(problem, n, tile, noise, distributed, process_group)
    rows = problem.shape[2]
    return values.reshape(*batch, rows, n), indices.reshape(*batch, rows, n)


def _best_of_all_ranks(
    problem: Problem, n: int, tile: tuple[int, int], noise: torch.Generator | None, mode: str, process_group: Any
) -> tuple[Tensor, Tensor]:
    ranks = Ranks.meet(process_group, problem)
    values = indices = None
    for start, part in union_parts(problem, ranks, mode):
        value, index = _best(part, n, tile, noise)
        index = torch.where(index < 0, -1, index + start)
        if values is not None:
            value, order = torch.topk(torch.cat([values, value], -1), n, dim=-1)
            index = torch.gather(torch.cat([indices, index], -1), -1, order)
        values, indices = value, index
    return values, indices


def _best(
    problem: Problem, n: int, tile: tuple[int, int], noise: torch.Generator | None
) -> tuple[Float[Tensor, "batch rows n"], Int[Tensor, "batch rows n"]]:
    count, _, rows, _, _ = problem.shape
    values = torch.full((count, rows, n), -torch.inf, dtype=problem.dtype, device=problem.q.device)
    indices = torch.full((count, rows, n), -1, dtype=torch.int64, device=problem.q.device)
    mirrored = noise is None and selfsim.applies(problem)
    for b in range(count):
        if mirrored:
            _triangle(problem, b, tile[1], values[b], indices[b])
            continue
        for i in range(0, rows, tile[0]):
            strip = slice(i, min(i + tile[0], rows))
            _strip(problem, b, strip, tile[1], noise, values[b, strip], indices[b, strip])
    values, order = values.sort(dim=-1, descending=True)
    return values, torch.gather(indices, -1, order)


def _triangle(
    problem: Problem, b: int, width: int, best: Float[Tensor, "rows n"], where: Int[Tensor, "rows n"]
) -> None:
    """The best columns of a self-similarity: every tile of the upper triangle serves its rows and its columns."""
    rows = problem.shape[2]
    with torch.autocast(problem.q.device.type, enabled=False):
        z = problem.q[b].to(problem.dtype)
        scaled = z * problem.scale[b, 0, :, None]
        for i0 in range(0, rows, width):
            own = slice(i0, min(i0 + width, rows))
            for j0 in range(i0, rows, width):
                other = slice(j0, min(j0 + width, rows))
                logits = scaled[own] @ z[other].mT
                drop = problem.dropped(b, own.start, own.stop, other.start, other.stop, None)
                if drop is not None:
                    logits.masked_fill_(drop, -torch.inf)
                _update(best[own], where[own], logits, j0)
                if j0 > i0:
                    _update(best[other], where[other], logits.mT, i0)


def _strip(
    problem: Problem, b: int, strip: slice, width: int, noise: torch.Generator | None, best: Tensor, where: Tensor
) -> None:
    i0, i1 = strip.start, strip.stop
    columns = problem.k.shape[1]
    with torch.autocast(problem.q.device.type, enabled=False):
        q = problem.q[b, strip].to(problem.dtype) * problem.scale[b, 0, strip, None]
        for j0 in range(0, columns, width):
            j1 = min(j0 + width, columns)
            logits = q @ problem.k[b, j0:j1].to(problem.dtype).mT
            if problem.col_bias is not None:
                logits += problem.col_bias[b, 0, j0:j1]
            if noise is not None:
                logits -= torch.empty_like(logits).exponential_(generator=noise).log_()
            drop = problem.dropped(b, i0, i1, j0, j1, None)
            if drop is not None:
                logits.masked_fill_(drop, -torch.inf)
            _update(best, where, logits, j0)


def _update(
    best: Float[Tensor, "rows n"], where: Int[Tensor, "rows n"], logits: Float[Tensor, "rows width"], start: int
) -> None:
    """Let the logits of columns start, start + 1, ... into the best so far, in place and in no order."""
    found = _above(logits, best.amin(1))
    if found is None:
        return
    n = best.shape[1]
    value, index = found if found[0].shape[1] <= n else _top(*found, n)
    index = torch.where(value.isneginf(), -1, index + start)
    value, index = _top(torch.cat([best, value], 1), torch.cat([where, index], 1), n)
    best.copy_(value)
    where.copy_(index)


def _top(value: Tensor, index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    value, order = torch.topk(value, n, dim=1, sorted=False)
    return value, torch.gather(index, 1, order)


def _above(
    logits: Float[Tensor, "rows width"], floor: Float[Tensor, "rows"]
) -> tuple[Float[Tensor, "rows some"], Int[Tensor, "rows some"]] | None:
    """The logits above each row's floor, pushed to the left, with their columns; None where there are none.

    Once the first tiles have set the floor few columns pass it, and selecting among those is much cheaper than
    selecting among all. Where many pass, all are returned. A transposed tile is read in its own order.
    """
    rows, width = logits.shape
    everything = torch.arange(width, device=logits.device).expand(rows, width)
    if bool(floor.isneginf().any()):
        return logits, everything
    if logits.is_contiguous():
        row, column = (logits > floor[:, None]).nonzero(as_tuple=True)
    else:
        column, row = (logits.mT > floor).nonzero(as_tuple=True)
        row, order = row.sort(stable=True)
        column = column[order]
    if len(row) == 0:
        return None
    count = torch.bincount(row, minlength=rows)
    most = int(count.max())
    if 4 * most > width:
        return logits, everything
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    value = logits.new_full((rows, most), -torch.inf)
    index = torch.full((rows, most), -1, dtype=torch.int64, device=logits.device)
    value[row, place], index[row, place] = logits[row, column], column
    return value, index
