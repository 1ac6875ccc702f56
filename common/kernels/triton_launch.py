"""From a `Problem` to what the fused kernels take: contiguous tensors, mask tables, tile shapes.

Under TRITON_INTERPRET=1 the same kernels run on CPU tensors; that is how they are tested where there is no GPU.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from jaxtyping import Int
from torch import Tensor

from counterpoint.common.kernels.precision import products
from counterpoint.common.kernels.problem import Band, Columns, CsrPairs, Labels, Primitive, Problem
from counterpoint.common.kernels.triton_forward import stats_kernel
from counterpoint.common.kernels.triton_tiles import Keep, Match, Terms

__all__ = [
    "INTERPRET",
    "SIDE_MAX_DIM",
    "LaunchTile",
    "asked_precision",
    "at",
    "constant_shift",
    "keep_of",
    "one_exponential",
    "processors",
    "symmetric",
    "terms_of",
    "tile",
]

INTERPRET = not isinstance(stats_kernel, triton.JITFunction)
# Widest features whose gradient tile stays in an H200's registers. Exact float32 products do not use the tensor cores:
# there the library's are worth the detour earlier.
SIDE_MAX_DIM = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 64}
ONE_EXP_BOUND = 50.0  # |logit| below which exp(logit) neither overflows a float32 sum nor loses small terms


@dataclass(frozen=True)
class LaunchTile:
    """Shape of a kernel's tile and how the GPU runs it."""

    rows: int
    cols: int
    dims: int
    warps: int
    stages: int

    def meta(self, q: Tensor) -> dict[str, Any]:
        """The compile-time arguments all kernels share."""
        options = {"BM": self.rows, "BN": self.cols, "BD": self.dims, "UPCAST": INTERPRET, "PRECISION": precision(q)}
        return options if INTERPRET else {**options, "num_warps": self.warps, "num_stages": self.stages}


def tile(kind: str, dtype: torch.dtype, dim: int) -> LaunchTile:
    """The tile of a kernel for features of this width.

    "stats" and its square form "triangle", "side", "fused", "weights" and its symmetric form "mirrored": the largest
    that an H200's compiler keeps in registers (tests/common/kernels/triton_compile.py prints them). Larger tiles ask
    less of the L2 cache, which limits these kernels before the tensor cores do.
    """
    width = max(16, triton.next_power_of_2(dim))
    whole = kind in ("side", "fused")  # these keep the full feature width at hand
    if INTERPRET:
        edge = 64 if kind in ("weights", "mirrored") else 32
        return LaunchTile(edge, edge, width if whole else min(width, 128), 1, 1)
    if dtype == torch.float32:
        if whole:
            return LaunchTile(64 if kind == "side" else 32, 64, width, 8, 1)
        return LaunchTile(64, 64, 32, 8, 2)
    if whole:
        return LaunchTile(128, 64, width, 8, 2) if kind == "side" else LaunchTile(64, 64, width, 8, 2)
    return LaunchTile(128, {"stats": 256, "mirrored": 64}.get(kind, 128), min(width, 64), 8, 3)


@contextlib.contextmanager
def asked_precision(problem: Problem) -> Iterator[None]:
    """Products as the caller asked for them: no autocast, reduced precision only under `fast_matmul`."""
    with torch.autocast(problem.q.device.type, enabled=False), products(problem.fast):
        yield


def precision(q: Tensor) -> str:
    """float32 products: exact unless the user asked torch for faster ones (torch.set_float32_matmul_precision)."""
    fast = q.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if fast else "ieee"


def processors(device: torch.device) -> int:
    """How many programs run at once."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def terms_of(problem: Problem, n: int) -> Terms:
    """Scales and biases of batch element n."""

    def part(t: Tensor | None) -> Tensor | None:
        return None if t is None else t[n].contiguous()

    return Terms(part(problem.scale), part(problem.col_scale), part(problem.row_bias), part(problem.col_bias))


def keep_of(problem: Problem, n: int) -> Keep:
    """Masks of batch element n."""
    return Keep(
        valid=None if problem.valid_cols is None else problem.valid_cols[n].to(torch.uint8).contiguous(),
        floor=None if problem.score_floor is None else problem.score_floor[n].contiguous(),
        exclude=_match(problem, problem.exclude, n),
        only=_match(problem, problem.only, n),
    )


def _match(problem: Problem, rules: tuple[Primitive, ...], n: int) -> Match | None:
    if not rules:
        return None
    _, _, rows, cols, _ = problem.shape
    offset, index, row_ids, col_ids = None, [], [], []
    for rule in rules:
        if isinstance(rule, Band) and offset is None:
            offset = rule.offset
        elif isinstance(rule, Band):
            index.append((torch.arange(rows, device=problem.q.device) + rule.offset)[:, None])
        elif isinstance(rule, Columns):
            index.append(_of(rule.idx, n))
        elif isinstance(rule, Labels):
            row_ids.append(_of(rule.row, n).long())
            col_ids.append(_of(rule.col, n).long())
        else:
            index.append(_padded(rule, rows))
    table = None
    if index:
        table = torch.cat(index, 1)
        table = torch.where((table >= 0) & (table < cols), table, -1).to(torch.int32).contiguous()
    return Match(
        offset=offset,
        index=table,
        width=None if table is None else table.shape[1],
        row_ids=torch.stack(row_ids) if row_ids else None,
        col_ids=torch.stack(col_ids) if col_ids else None,
        labels=len(row_ids) if row_ids else None,
    )


def at(record: Any, n: int) -> Any:
    """Batch element n of a named tuple of tensors."""
    return None if record is None else type(record)(*(None if t is None else t[n] for t in record))


def _of(t: Tensor, n: int) -> Tensor:
    return t[min(n, t.shape[0] - 1)]


def _padded(pairs: CsrPairs, rows: int) -> Int[Tensor, "rows longest"]:
    """Compressed rows as a table padded with -1."""
    length = pairs.ptr.diff()
    longest = max(1, int(length.max()))
    row = torch.repeat_interleave(torch.arange(rows, device=pairs.ptr.device), length)
    place = torch.arange(row.shape[0], device=row.device) - pairs.ptr[row] + pairs.ptr[0]
    listed = pairs.col[int(pairs.ptr[0]) : int(pairs.ptr[-1])] - pairs.start
    table = torch.full((rows, longest), -1, dtype=torch.int64, device=row.device)
    table[row, place] = listed
    return table


def symmetric(problem: Problem) -> bool:
    """Whether logit_ij == logit_ji and kept_ij == kept_ji: half the tiles then serve both rows and columns."""

    def mirrored(rule: Primitive) -> bool:
        if isinstance(rule, Band):
            return rule.offset == 0
        return isinstance(rule, Labels) and (rule.row.data_ptr(), rule.row.shape) == (
            rule.col.data_ptr(),
            rule.col.shape,
        )

    plain = (problem.col_scale, problem.row_bias, problem.col_bias, problem.valid_cols, problem.score_floor)
    rules = (*problem.exclude, *problem.only)
    return problem.same and problem.uniform and all(t is None for t in plain) and all(map(mirrored, rules))


def one_exponential(problem: Problem) -> bool:
    """Whether every logit is certainly within +-ONE_EXP_BOUND, by Cauchy and Schwarz (waits for the GPU once)."""
    if problem.q.is_cuda and torch.cuda.is_current_stream_capturing():
        return False

    def largest(t: Tensor | None, default: float) -> Tensor | float:
        return default if t is None else t.abs().amax()

    rows = torch.linalg.vector_norm(problem.q, dim=-1, dtype=torch.float32).amax()
    cols = torch.linalg.vector_norm(problem.k, dim=-1, dtype=torch.float32).amax()
    bound = rows * cols * largest(problem.scale, 1.0) * largest(problem.col_scale, 1.0)
    bound = bound + largest(problem.row_bias, 0.0) + largest(problem.col_bias, 0.0)
    return bool(bound <= ONE_EXP_BOUND)


def constant_shift(*shifts: Tensor) -> bool:
    """Whether all sums were taken at one shift, so that one exponential serves rows and columns (waits once)."""
    if shifts[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    low = torch.stack([t.amin() for t in shifts]).amin()
    high = torch.stack([t.amax() for t in shifts]).amax()
    return bool(low == high)
