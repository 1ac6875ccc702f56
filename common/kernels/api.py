"""`contrast_stats`: the row and column statistics of a contrast, exact, in memory linear in rows plus columns."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from counterpoint.common.kernels import onetile
from counterpoint.common.kernels.dense import Outputs
from counterpoint.common.kernels.dispatch import evaluate_statistics
from counterpoint.common.kernels.flatten import flatten
from counterpoint.common.kernels.problem import Problem
from counterpoint.common.kernels.spec import Diagonal, Mask, Positive

__all__ = ["ContrastStats", "contrast_stats"]


@dataclass(eq=False)
class ContrastStats:
    """Statistics of each row's kept columns; with several scales all but `count` are [..., S, R] instead of [..., R].

    `lse - positive` is the cross-entropy of the row against its positive, in nats.
    """

    lse: Float[Tensor, "..."]
    positive: Float[Tensor, "..."] | None
    mean: Float[Tensor, "..."] | None
    count: Int[Tensor, "..."]
    columns: "ContrastStats | None" = None


def contrast_stats(
    q: Float[Tensor, "*batch_q rows dim"],
    k: Float[Tensor, "*batch_k columns dim"],
    *,
    scale: float | Float[Tensor, "..."] = 1.0,
    positive: Positive | None = None,
    row_bias: Float[Tensor, "..."] | None = None,
    col_bias: Float[Tensor, "..."] | None = None,
    col_scale: Float[Tensor, "..."] | None = None,
    exclude: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    only: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    columns: bool = False,
    mean: bool = False,
    valid_cols: Bool[Tensor, "..."] | None = None,
    score_floor: Float[Tensor, "..."] | None = None,
    row_offset: int = 0,
    distributed: str = "none",
    process_group: object | None = None,
    deterministic: bool = True,
    backend: str = "auto",
) -> ContrastStats:
    """Log-sum-exp, positive logit, softmax mean and count of every row (and column) of a contrast.

        logit_ij = scale_i col_scale_j (q_i . k_j) + row_bias_i + col_bias_j
        lse_i    = log sum_{j kept} exp(logit_ij)
        mean_i   = sum_{j kept} exp(logit_ij - lse_i) q_i . k_j          (the softmax expectation of the raw score)

    All statistics are differentiable in q, k, scale, col_scale and the biases; memory is linear in rows + columns.

    Args:
        q, k: features [..., R, D] and [..., C, D]; leading dimensions broadcast. The caller normalizes them.
            Passing the very same tensor twice (`contrast_stats(z, z, exclude=Self())`) halves the work.
        scale: inverse temperature: a number or 0-d tensor, [R] per row, [S, 1] several scales in one pass, or [S, R].
        positive: `Diagonal()` or `Index(idx)`, -1 for none (positive 0, no gradient). Its logit is reported as it
            enters lse, whether or not the pair is excluded.
        row_bias, col_bias: [R] or [S, R]; [C] or [S, C] (log-weights, potentials, -|k|^2 terms).
        col_scale: [C], multiplies every logit of a column.
        exclude, only: `Self`, `Diagonal`, `Index`, `SameLabel`, `Pairs`, or a list (their union).
        columns: also return the same statistics down the columns, from the same pass.
        mean: also return `mean`.
        valid_cols: [C] bool, false for padding and unfilled queue places.
        score_floor: [R]; columns with a raw score below it are left out.
        row_offset: position of row 0 among the columns, for `Self` on a shard of rows.
        distributed: "none", "gather", "ring" or "auto" (by size): rows are local, columns the union over the ranks of
            `process_group`.
            The gradients follow the convention of means over local rows, averaged over ranks.
        deterministic: on GPUs, the same bits at every run (slightly slower).
        backend: "auto", "dense", "tiled" or "triton".

    Returns:
        `ContrastStats` in float32 (float64 for float64 inputs). A row that keeps no column has lse -inf, mean 0,
        count 0, and no gradient.

    Raises:
        TypeError, ValueError: naming the argument and what was expected.

    >>> import torch
    >>> from counterpoint.common.kernels import Diagonal
    >>> q, k = torch.eye(3), torch.eye(3)
    >>> stats = contrast_stats(q, k, scale=10.0, positive=Diagonal(), columns=True)
    >>> (stats.lse - stats.positive).mean().item() < 1e-3
    True
    >>> stats.count
    tensor([3, 3, 3])
    """
    diagonal = isinstance(positive, Diagonal) and positive.offset == 0
    if backend == "auto" and distributed == "none" and (diagonal or positive is None) and not (mean or row_offset):
        given = (row_bias, col_bias, col_scale, exclude, only, valid_cols, score_floor)
        if all(argument is None for argument in given) and onetile.fits_one_tile(q, k, scale, diagonal):
            stats = _one_tile(q, k, scale, diagonal, columns)
            if stats is not None:
                return stats
    problem, batch, has_scales = flatten(
        q,
        k,
        scale=scale,
        col_scale=col_scale,
        positive=positive,
        row_bias=row_bias,
        col_bias=col_bias,
        exclude=exclude,
        only=only,
        columns=columns,
        mean=mean,
        valid_cols=valid_cols,
        score_floor=score_floor,
        row_offset=row_offset,
        sharded=distributed != "none",
    )
    outputs = evaluate_statistics(problem, backend, distributed, process_group, deterministic)
    return _shaped(outputs, problem, batch, has_scales, sharded=distributed != "none")


def _one_tile(q: Tensor, k: Tensor, scale: float | Tensor, diagonal: bool, columns: bool) -> ContrastStats | None:
    found = onetile.statistics(q, k, scale, diagonal, columns)
    if found is None:
        return None
    lse, positive, col_lse = found
    count, col_count = (torch.full((length,), other) for length, other in ((len(q), len(k)), (len(k), len(q))))
    down = ContrastStats(col_lse, positive, None, col_count) if columns else None
    return ContrastStats(lse, positive, None, count, down)


def _shaped(outputs: Outputs, problem: Problem, batch: torch.Size, has_scales: bool, sharded: bool) -> ContrastStats:
    def unflatten(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        if t.dim() == 2:
            return t.reshape(*batch, t.shape[-1])
        return t.reshape(*batch, *t.shape[1:]) if has_scales else t.reshape(*batch, t.shape[-1])

    columns = None
    if outputs.col_lse is not None:
        columns = ContrastStats(
            lse=unflatten(outputs.col_lse),
            positive=unflatten(_column_positive(problem, outputs.positive, sharded)),
            mean=unflatten(outputs.col_mean),
            count=unflatten(outputs.col_count),
        )
    return ContrastStats(
        unflatten(outputs.lse), unflatten(outputs.positive), unflatten(outputs.mean), unflatten(outputs.count), columns
    )


def _column_positive(problem: Problem, positive: Tensor | None, sharded: bool) -> Float[Tensor, "n s c"] | None:
    """The positive's logit seen from its column, where no two rows name the same column."""
    if positive is None:
        return None
    batch, scales, rows, width, _ = problem.shape
    if not rows:
        return positive.sum(-1, keepdim=True).expand(batch, scales, width)
    if problem.diagonal == 0 and rows == width:
        return positive
    if problem.diagonal is not None:
        row = torch.arange(width, device=positive.device) - problem.diagonal
        there = (row >= 0) & (row < rows)
        return positive[..., row.clamp(0, rows - 1)].masked_fill(~there, 0.0)
    if sharded or torch.compiler.is_compiling():
        return None
    index = problem.positive
    spare = torch.where(index < 0, width, index)  # rows without a positive write to one spare column
    hits = torch.zeros(batch, width + 1, dtype=torch.int64, device=index.device)
    hits.scatter_add_(1, spare, torch.ones_like(spare))
    if bool((hits[:, :width] > 1).any()):
        return None
    target = spare[:, None].expand(batch, scales, rows)
    return positive.new_zeros(batch, scales, width + 1).scatter(2, target, positive)[..., :width]
