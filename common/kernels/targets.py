"""`target_scores`: the linear part of a contrast, sum_j t_ij (q_i . k_j), in linear time and memory.

Every target is brought to a target vector v_i = sum_j t_ij k_j, of rows x dim numbers, so that the score is q_i . v_i.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels.api import contrast_stats
from counterpoint.common.kernels.gibbs import gibbs_average
from counterpoint.common.kernels.ranks import Ranks, checked_mode
from counterpoint.common.kernels.spec import Affine, Diagonal, Gibbs, Index, Mix, SameLabel, Target, Uniform, Weighted
from counterpoint.common.kernels.union import blocks, meet

__all__ = ["target_scores"]


def target_scores(
    q: Float[Tensor, "rows dim"],
    k: Float[Tensor, "columns dim"],
    target: Target,
    *,
    row_offset: int = 0,
    distributed: str = "none",
    process_group: Any = None,
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
        distributed: "none", "gather", "ring" or "auto", as for `contrast_stats`: rows are local, columns the
            union over ranks. What a target says of columns (label ids, teacher features, biases) is this rank's and
            travels with the keys; column numbers (`Index`, `Weighted`) count over the union; `Diagonal` names the own
            rank's keys. "ring" holds two blocks of keys at a time, "gather" all of them.

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
        if distributed == "none":
            vector, mass = _vector(k, target, q.shape[0], row_offset)
        else:
            vector, mass = _union_vector(k, target, q.shape[0], row_offset, distributed, process_group)
        return (q * vector).sum(-1), mass


def _vector(k: Tensor, target: Target, rows: int, row_offset: int) -> tuple[Tensor, Tensor]:
    """v_i = sum_j t_ij k_j [R, D] and mass_i = sum_j t_ij [R]."""
    columns = k.shape[0]
    if isinstance(target, Diagonal):
        return _gathered(k, (torch.arange(rows, device=k.device) + target.offset)[:, None], None, rows)
    if isinstance(target, Index):
        idx = target.idx if target.idx.dim() == 2 else target.idx[:, None]
        return _gathered(k, idx.long(), None, rows)
    if isinstance(target, Weighted):
        return _gathered(k, target.idx.long(), target.w, rows)
    if isinstance(target, SameLabel):
        return _same_label(k, target, rows, row_offset)
    if isinstance(target, Uniform):
        some = min(columns, 1)
        return (k.sum(0) / max(columns, 1)).expand(rows, -1), k.new_full((rows,), some)
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
    if not k.shape[0]:
        return vector + k.sum(0), weight.sum(1)
    # One named column at a time: the rows x several x dim gather is never held.
    for column, share in zip(idx.unbind(1), weight.unbind(1)):
        vector = vector + share[:, None] * k[column]
    return vector, weight.sum(1)


def _same_label(k: Tensor, target: SameLabel, rows: int, row_offset: int) -> tuple[Tensor, Tensor]:
    """Sums of k over each label, found by sorting: shapes never depend on how many labels there are."""
    columns = k.shape[0]
    if not columns:
        return k.sum(0).expand(rows, -1), k.new_zeros(rows)
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


# ---- over ranks -----------------------------------------------------------------------------------------------------


@torch.compiler.disable
def _union_vector(
    k: Tensor, target: Target, rows: int, row_offset: int, mode: str, process_group: Any
) -> tuple[Tensor, Tensor]:
    """`_vector` over the keys of all ranks: target vectors and masses of blocks of columns add up."""
    ranks = meet(k, process_group)
    mode = ranks.way(checked_mode(mode), k.shape[-1] * k.element_size())
    target = _prepared(target, k, ranks, mode, process_group)
    vector = mass = None
    for start, block, luggage in blocks(ranks, k, _luggage(target), mode):
        part = _against(target, iter(luggage), rows, start, block, ranks)
        v, m = _vector(block, part, rows, row_offset + ranks.own_start - start)
        vector, mass = (v, m) if vector is None else (vector + v, mass + m)
    return vector, mass


def _prepared(target: Target, k: Tensor, ranks: Ranks, mode: str, process_group: Any) -> Target:
    """The target in terms that do not depend on how columns are cut into blocks."""
    if isinstance(target, Mix):
        return Mix([(w, _prepared(part, k, ranks, mode, process_group)) for w, part in target.parts])
    if isinstance(target, SameLabel):
        ids = target.row_ids if target.col_ids is None else target.col_ids
        _check_rows(ids.shape[0], len(k), "SameLabel(col_ids)")
        return replace(target, col_ids=ids)
    if isinstance(target, Affine):
        _check_rows(target.e_col.shape[0], len(k), "Affine(e_col)")
    if not isinstance(target, Gibbs):
        return target
    _check_rows(target.k_t.shape[0], len(k), "Gibbs(k_t)")
    if not target.normalized:
        return target
    with torch.no_grad():
        stats = contrast_stats(
            target.q_t.to(k.dtype),
            target.k_t.to(k.dtype),
            scale=target.scale,
            col_bias=target.col_bias,
            valid_cols=target.valid_cols,
            distributed=mode,
            process_group=process_group,
        )
    # An empty row keeps no column of any block: whatever its bias, its weights are zero.
    bias = -stats.lse.masked_fill(stats.count == 0, 0.0)
    return replace(target, row_bias=bias, normalized=False)


def _luggage(target: Target) -> list[Tensor]:
    """What the target says of this rank's columns."""
    if isinstance(target, SameLabel):
        return [target.col_ids]
    if isinstance(target, Affine):
        return [target.e_col]
    if isinstance(target, Gibbs):
        return [t for t in (target.k_t, target.col_bias, target.valid_cols) if t is not None]
    if isinstance(target, Mix):
        return [t for _, part in target.parts for t in _luggage(part)]
    return []


def _against(target: Target, luggage: Iterator[Tensor], rows: int, start: int, k: Tensor, ranks: Ranks) -> Target:
    """The target against the columns of the block k, which begins at `start` of the union."""
    if isinstance(target, Diagonal):
        own = torch.arange(rows, device=k.device) + target.offset
        here = (own >= 0) & (own < ranks.sizes[ranks.rank])
        return Index(torch.where(here, own + ranks.own_start - start, -1))
    if isinstance(target, Index):
        return Index(target.idx.long() - start)  # what lies outside the block, -1 included, names nothing
    if isinstance(target, Weighted):
        return Weighted(target.idx.long() - start, target.w)
    if isinstance(target, SameLabel):
        return replace(target, col_ids=next(luggage))
    if isinstance(target, Uniform):
        return Mix([(len(k) / max(ranks.total, 1), target)])
    if isinstance(target, Affine):
        return replace(target, e_col=next(luggage))
    if isinstance(target, Gibbs):
        names = [name for name in ("k_t", "col_bias", "valid_cols") if getattr(target, name) is not None]
        return replace(target, **{name: next(luggage) for name in names})
    return Mix([(w, _against(part, luggage, rows, start, k, ranks)) for w, part in target.parts])


def _check_rows(found: int, wanted: int, name: str) -> None:
    if found != wanted:
        raise ValueError(f"{name} must have {wanted} rows, got {found}")
