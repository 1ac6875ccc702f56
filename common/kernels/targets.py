"""`target_scores`: the linear part of a contrast, sum_j t_ij (q_i . k_j), in linear time and memory.

Every target is brought to a target vector v_i = sum_j t_ij k_j, of rows x dim numbers, so that the score is q_i . v_i.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels.gibbs import gibbs_average
from counterpoint.common.kernels.spec import Affine, Diagonal, Gibbs, Index, Mix, SameLabel, Target, Uniform, Weighted

__all__ = ["target_scores"]


def target_scores(
    q: Float[Tensor, "rows dim"], k: Float[Tensor, "columns dim"], target: Target, *, row_offset: int = 0
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Target-weighted score and total weight of every row, in time and memory linear in rows + columns.

        score_i = sum_j t_ij (q_i . k_j),     mass_i = sum_j t_ij

    Differentiable in q and k (and in explicit weights); a soft-target cross-entropy at inverse temperature s is then
    `(mass * lse - s * score).mean()` with lse from `contrast_stats`.

    Args:
        q, k: features [R, D] and [C, D].
        target: `Diagonal` or `Index` (a column, or several with weight 1 each), `Weighted`, `SameLabel` (weight 1 on
            each column of the row's label), `Uniform` (1 / C), `Affine`, `Gibbs` (a teacher's softmax: two streamed
            matrix products, never rows x columns in memory), `Mix`.
        row_offset: position of row 0 among the columns, for `SameLabel(..., exclude_self=True)`.

    Returns:
        score [R] and mass [R] in float32 (float64 for float64 inputs).

    >>> import torch
    >>> from counterpoint.common.kernels import SameLabel
    >>> score, mass = target_scores(torch.eye(3), torch.ones(3, 3), SameLabel(torch.tensor([0, 0, 1])))
    >>> score.tolist(), mass.tolist()
    ([2.0, 2.0, 1.0], [2.0, 2.0, 1.0])
    """
    if q.dim() != 2 or k.dim() != 2 or q.shape[1] != k.shape[1]:
        raise ValueError(f"q and k must be [R, D] and [C, D], got {tuple(q.shape)} and {tuple(k.shape)}")
    dtype = torch.float64 if torch.float64 in (q.dtype, k.dtype) else torch.float32
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.to(dtype), k.to(dtype)
        vector, mass = _vector(k, target, q.shape[0], row_offset)
        return (q * vector).sum(-1), mass


def _vector(k: Tensor, target: Target, rows: int, row_offset: int) -> tuple[Tensor, Tensor]:
    """v_i = sum_j t_ij k_j [R, D] and mass_i = sum_j t_ij [R]."""
    columns = k.shape[0]
    if isinstance(target, Diagonal):
        index = torch.arange(rows, device=k.device) + target.offset
        return _gathered(k, torch.where(index < columns, index, -1)[:, None], None, rows)
    if isinstance(target, Index):
        return _gathered(k, target.idx.reshape(target.idx.shape[0], -1).long(), None, rows)
    if isinstance(target, Weighted):
        return _gathered(k, target.idx.long(), target.w, rows)
    if isinstance(target, SameLabel):
        return _same_label(k, target, rows, row_offset)
    if isinstance(target, Uniform):
        return k.mean(0).expand(rows, -1), k.new_ones(rows)
    if isinstance(target, Affine):
        e_row, e_col = target.e_row.to(k.dtype), target.e_col.to(k.dtype)
        _check_rows(e_row.shape[0], rows, "Affine(e_row)")
        _check_rows(e_col.shape[0], columns, "Affine(e_col)")
        vector = target.a * k.sum(0) + target.b * (e_row @ (e_col.mT @ k))
        return vector, target.a * columns + target.b * (e_row @ e_col.sum(0))
    if isinstance(target, Gibbs):
        _check_rows(target.q_t.shape[0], rows, "Gibbs(q_t)")
        _check_rows(target.k_t.shape[0], columns, "Gibbs(k_t)")
        return gibbs_average(k, target)
    if isinstance(target, Mix):
        vector, mass = k.new_zeros(rows, k.shape[1]), k.new_zeros(rows)
        for weight, part in target.parts:
            v, m = _vector(k, part, rows, row_offset)
            w = torch.as_tensor(weight, dtype=k.dtype, device=k.device)
            vector, mass = vector + w.reshape(-1, 1) * v, mass + w * m
        return vector, mass
    raise TypeError(f"target must be one of the target types, got {type(target).__name__}")


def _gathered(k: Tensor, idx: Int[Tensor, "rows several"], w: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
    _check_rows(idx.shape[0], rows, "target idx")
    there = (idx >= 0) & (idx < k.shape[0])
    weight = there.to(k.dtype) if w is None else w.to(k.dtype) * there
    idx = torch.where(there, idx, 0)
    vector = k.new_zeros(rows, k.shape[1])
    # One named column at a time: the rows x several x dim gather is never held.
    for column, share in zip(idx.unbind(1), weight.unbind(1)):
        vector = vector + share[:, None] * k[column]
    return vector, weight.sum(1)


def _same_label(k: Tensor, target: SameLabel, rows: int, row_offset: int) -> tuple[Tensor, Tensor]:
    """Sums of k over each label, found by sorting: shapes never depend on how many labels there are."""
    columns = k.shape[0]
    row_ids = target.row_ids
    col_ids = row_ids if target.col_ids is None else target.col_ids
    _check_rows(row_ids.shape[0], rows, "SameLabel(row_ids)")
    _check_rows(col_ids.shape[0], columns, "SameLabel(col_ids)")
    ordered, order = torch.sort(col_ids.long())
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    segment = first.cumsum(0) - 1
    sums = torch.zeros_like(k).index_add(0, segment, k[order])
    sizes = k.new_zeros(columns).index_add(0, segment, k.new_ones(columns))
    place = torch.searchsorted(ordered, row_ids.long()).clamp(max=columns - 1)
    known = ordered[place] == row_ids
    of_row = segment[place]
    vector = torch.where(known[:, None], sums[of_row], 0.0)
    mass = torch.where(known, sizes[of_row], 0.0)
    if target.exclude_self:
        own = torch.arange(rows, device=k.device) + row_offset
        there = (own >= 0) & (own < columns)
        own = own.clamp(0, columns - 1)
        there = there & (col_ids[own] == row_ids)
        vector = vector - torch.where(there[:, None], k[own], 0.0)
        mass = mass - there.to(k.dtype)
    return vector, mass


def _check_rows(found: int, wanted: int, name: str) -> None:
    if found != wanted:
        raise ValueError(f"{name} must have {wanted} rows, got {found}")
