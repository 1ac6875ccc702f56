"""From a caller's arguments to a checked, flattened `Problem`."""

import torch
from torch import Tensor

from counterpoint.common.kernels import precision
from counterpoint.common.kernels.problem import Band, Columns, CsrPairs, Labels, Primitive, Problem
from counterpoint.common.kernels.spec import Diagonal, Index, Mask, Pairs, Positive, SameLabel, Self

__all__ = ["flatten"]


def flatten(
    q: Tensor,
    k: Tensor,
    *,
    scale: float | Tensor = 1.0,
    col_scale: Tensor | None = None,
    positive: Positive | None = None,
    row_bias: Tensor | None = None,
    col_bias: Tensor | None = None,
    exclude: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    only: Mask | list[Mask] | tuple[Mask, ...] | None = None,
    columns: bool = False,
    mean: bool = False,
    valid_cols: Tensor | None = None,
    score_floor: Tensor | None = None,
    row_offset: int = 0,
    sharded: bool = False,
) -> tuple[Problem, torch.Size, bool]:
    """The problem, its leading batch shape, and whether the caller's scale had a scales axis.

    `sharded`: columns are the union over ranks, so that column numbers may exceed k's length.
    """
    batch = _check_features(q, k)
    n, rows, width, dim = batch.numel(), q.shape[-2], k.shape[-2], q.shape[-1]
    dtype = torch.float64 if torch.float64 in (q.dtype, k.dtype) else torch.float32
    device = q.device
    flat_q = q.expand(*batch, rows, dim).reshape(n, rows, dim)
    flat_k = flat_q if k is q else k.expand(*batch, width, dim).reshape(n, width, dim)

    scales, uniform, has_scales = _scale(scale, batch, rows, dtype, device)
    s = scales.shape[1]
    index, diagonal = _positive(positive, batch, rows, width, device, sharded)
    excluded, allowed = _as_tuple(exclude, "exclude"), _as_tuple(only, "only")
    _check_contradiction(excluded, allowed)

    def primitives(masks: tuple[Mask, ...], argument: str) -> tuple[Primitive, ...]:
        return tuple(_primitive(m, argument, batch, rows, width, row_offset, device, sharded) for m in masks)

    problem = Problem(
        q=flat_q,
        k=flat_k,
        scale=scales,
        col_scale=_vector(col_scale, "col_scale", batch, None, width, "C", dtype, device),
        row_bias=_vector(row_bias, "row_bias", batch, s, rows, "R", dtype, device),
        col_bias=_vector(col_bias, "col_bias", batch, s, width, "C", dtype, device),
        positive=index,
        diagonal=diagonal,
        exclude=primitives(excluded, "exclude"),
        only=primitives(allowed, "only"),
        valid_cols=_vector(valid_cols, "valid_cols", batch, None, width, "C", torch.bool, device),
        score_floor=_vector(score_floor, "score_floor", batch, None, rows, "R", dtype, device, detach=True),
        columns=columns,
        mean=mean,
        same=k is q and not sharded,
        uniform=uniform,
        fast=precision.is_fast(),
    )
    return problem, batch, has_scales


def _check_features(q: Tensor, k: Tensor) -> torch.Size:
    for name, t in (("q", q), ("k", k)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
        if not t.dtype.is_floating_point:
            raise TypeError(f"{name} must be a floating-point tensor, got {t.dtype}")
        if t.dim() < 2:
            raise ValueError(f"{name} must be [..., rows, dim], got shape {tuple(t.shape)}")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k must have the same last dimension, got {q.shape[-1]} and {k.shape[-1]}")
    if q.device != k.device:
        raise ValueError(f"q and k must be on one device, got q on {q.device} and k on {k.device}")
    if q.dim() == k.dim() == 2:
        return torch.Size()
    try:
        return torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"the leading dimensions of q {tuple(q.shape)} and k {tuple(k.shape)} do not broadcast"
        ) from None


def _scale(
    scale: float | Tensor, batch: torch.Size, rows: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, bool, bool]:
    """scale as [N, S, R], whether it is the same for all rows, and whether it came with a scales axis."""
    n = batch.numel()
    if not isinstance(scale, Tensor):
        return torch.full((1, 1, 1), float(scale), dtype=dtype, device=device).expand(n, 1, rows), True, False
    if not scale.dtype.is_floating_point:
        raise TypeError(f"scale must be a float or a floating-point tensor, got {scale.dtype}")
    _check_device(scale, "scale", device)
    scale = scale.to(dtype)
    if scale.dim() == 0:
        return scale.expand(n, 1, rows), True, False
    if scale.dim() == 1:
        if scale.shape[0] != rows:
            raise ValueError(
                f"a 1-d scale is per row and must have length {rows}, got {scale.shape[0]}; several scales are [S, 1]"
            )
        return scale.expand(n, 1, rows), False, False
    lead, (s, r) = scale.shape[:-2], scale.shape[-2:]
    if r not in (1, rows) or lead not in (torch.Size(), batch):
        raise ValueError(
            f"scale must be a number, [R], [S, 1], [S, R] or [*batch, S, R] with R = {rows} and batch {tuple(batch)}, "
            f"got {tuple(scale.shape)}"
        )
    return scale.expand(*batch, s, rows).reshape(n, s, rows), r == 1, True


def _vector(
    value: Tensor | None,
    name: str,
    batch: torch.Size,
    scales: int | None,
    length: int,
    letter: str,
    dtype: torch.dtype,
    device: torch.device,
    detach: bool = False,
) -> Tensor | None:
    """value as [N, length], or [N, S, length] when `scales` is given."""
    if value is None:
        return None
    boolean = dtype == torch.bool
    if not isinstance(value, Tensor) or (value.dtype != torch.bool if boolean else not value.dtype.is_floating_point):
        wanted = "a bool" if boolean else "a floating-point"
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be {wanted} tensor, got {found}")
    _check_device(value, name, device)
    value = value.to(dtype)
    if detach:
        value = value.detach()
    n, shape = batch.numel(), value.shape
    if scales is None:
        if shape in (torch.Size([length]), batch + (length,)):
            return value.expand(*batch, length).reshape(n, length)
        raise ValueError(
            f"{name} must be [{letter}] with {letter} = {length} or {[*batch, length]}, got {tuple(shape)}"
        )
    if shape in (torch.Size([length]), batch + (length,)):
        return value.expand(*batch, length).reshape(n, 1, length).expand(n, scales, length)
    if shape in (torch.Size([scales, length]), batch + (scales, length)):
        return value.expand(*batch, scales, length).reshape(n, scales, length)
    raise ValueError(
        f"{name} must be [{letter}] or [S, {letter}] with {letter} = {length} and S = {scales}, optionally after the "
        f"leading dimensions {tuple(batch)}, got {tuple(shape)}"
    )


def _check_device(value: Tensor, name: str, device: torch.device) -> None:
    if value.device != device and value.dim() > 0:
        raise ValueError(f"{name} must be on q's device {device}, got {value.device}")


def _positive(
    positive: Positive | None, batch: torch.Size, rows: int, width: int, device: torch.device, sharded: bool
) -> tuple[Tensor | None, int | None]:
    if positive is None:
        return None, None
    n = batch.numel()
    if isinstance(positive, Diagonal):
        index = torch.arange(positive.offset, positive.offset + rows, device=device)
        if positive.offset < 0 or positive.offset + rows > width:
            index = torch.where((index >= 0) & (index < width), index, -1)
        return index.expand(n, rows), positive.offset
    if isinstance(positive, Index):
        idx = positive.idx
        if idx.dim() == len(batch) + 2 and idx.shape[-1] == 1:
            idx = idx[..., 0]
        if idx.shape not in (torch.Size([rows]), batch + (rows,)):
            raise ValueError(
                f"positive=Index(idx) takes one column a row: idx must be [R] with R = {rows}, got {tuple(idx.shape)}"
            )
        _check_device(idx, "positive", device)
        _check_range(idx, width, "positive", sharded)
        return idx.long().expand(*batch, rows).reshape(n, rows), None
    raise TypeError(f"positive must be Diagonal or Index, got {type(positive).__name__}")


def _primitive(
    mask: Mask,
    argument: str,
    batch: torch.Size,
    rows: int,
    width: int,
    row_offset: int,
    device: torch.device,
    sharded: bool,
) -> Primitive:
    if isinstance(mask, Self):
        return Band(row_offset, "global")
    if isinstance(mask, Diagonal):
        return Band(mask.offset, "rank")
    if isinstance(mask, Index):
        idx = mask.idx
        _check_device(idx, argument, device)
        if idx.shape == batch + (rows,) or idx.shape == (rows,):
            idx = idx[..., None]
        if idx.shape[:-1] not in (torch.Size([rows]), batch + (rows,)):
            raise ValueError(
                f"{argument}=Index(idx) must be [R] or [R, P] with R = {rows}, optionally after the leading dimensions "
                f"{tuple(batch)}, got {tuple(mask.idx.shape)}"
            )
        _check_range(idx, width, argument, sharded)
        return Columns(idx.long().reshape(1 if idx.dim() == 2 else batch.numel(), rows, idx.shape[-1]))
    if isinstance(mask, SameLabel):
        if mask.col_ids is None and width != rows:
            raise ValueError(
                f"{argument}=SameLabel(row_ids) without col_ids needs as many columns as rows, got {width} and {rows}"
            )
        columns = mask.row_ids if mask.col_ids is None else mask.col_ids
        row = _ids(mask.row_ids, f"{argument}=SameLabel(row_ids)", batch, rows, device)
        return Labels(row, _ids(columns, f"{argument}=SameLabel(col_ids)", batch, width, device))
    _check_device(mask.ptr, argument, device)
    if mask.ptr.shape[0] != rows + 1:
        raise ValueError(f"{argument}=Pairs(ptr) must have length R + 1 = {rows + 1}, got {mask.ptr.shape[0]}")
    _check_range(mask.col, width, argument, sharded)
    return CsrPairs(mask.ptr.long(), mask.col.long())


def _ids(ids: Tensor, name: str, batch: torch.Size, length: int, device: torch.device) -> Tensor:
    if ids.shape not in (torch.Size([length]), batch + (length,)):
        raise ValueError(f"{name} must have length {length}, got shape {tuple(ids.shape)}")
    _check_device(ids, name, device)
    return ids.reshape(1 if ids.dim() == 1 else batch.numel(), length)


def _as_tuple(masks: object, argument: str) -> tuple[Mask, ...]:
    if masks is None:
        return ()
    result = tuple(masks) if isinstance(masks, list | tuple) else (masks,)
    for mask in result:
        if not isinstance(mask, Self | Diagonal | Index | SameLabel | Pairs):
            found = type(mask).__name__
            raise TypeError(
                f"{argument} must be Self, Diagonal, Index, SameLabel, Pairs or a list of them, got {found}"
            )
    return result


def _check_contradiction(exclude: tuple[Mask, ...], only: tuple[Mask, ...]) -> None:
    for mask in only:
        if len(only) == 1 and any(mask is other or mask == other for other in exclude):
            raise ValueError(f"exclude and only both name {type(mask).__name__}: no pair would be left")


def _check_range(idx: Tensor, width: int, argument: str, sharded: bool) -> None:
    # Looking at values would stop a GPU's queue or a compiler's trace: there, out-of-range columns name nothing.
    if sharded or idx.device.type != "cpu" or torch.compiler.is_compiling() or idx.numel() == 0:
        return
    low, high = int(idx.min()), int(idx.max())
    if low < -1 or high >= width:
        raise ValueError(
            f"{argument} names column {high if high >= width else low}; columns are 0..{width - 1} (-1: none)"
        )
