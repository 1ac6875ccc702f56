"""What a caller says about the pairs of a contrast: which are positive, which are left out, which targets they carry.

Everything here names pairs by O(rows + columns) or O(pairs listed) numbers; nothing is ever rows x columns.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Affine",
    "Diagonal",
    "Gibbs",
    "Index",
    "Mask",
    "Mix",
    "Pairs",
    "Positive",
    "SameLabel",
    "Self",
    "Target",
    "Uniform",
    "Weighted",
]


def _integers(value: object, argument: str) -> None:
    if not isinstance(value, Tensor) or value.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{argument} must be an integer tensor, got {found}")


@dataclass(frozen=True)
class Self:
    """The pair of a row with itself: column == row + row_offset (across ranks: the same global position)."""


@dataclass(frozen=True)
class Diagonal:
    """Column == row + offset: paired batches (across ranks: the same position on the same rank)."""

    offset: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.offset, int):
            raise TypeError(f"Diagonal(offset=...) must be an int, got {type(self.offset).__name__}")


@dataclass(frozen=True, eq=False)
class Index:
    """Columns named row by row: idx [R] (one each) or [R, P] (several each); -1 means none.

    With leading batch dimensions idx may also be [*batch, R] or [*batch, R, P].
    """

    idx: Int[Tensor, "..."]

    def __post_init__(self) -> None:
        _integers(self.idx, "Index(idx=...)")


@dataclass(frozen=True, eq=False)
class SameLabel:
    """Pairs whose row and column carry the same integer id (class, patient, scene, track, molecule, user).

    `col_ids=None` means that the columns are the rows' own samples. `exclude_self=True` (as a target) leaves out the
    pair column == row + row_offset.
    """

    row_ids: Int[Tensor, "..."]
    col_ids: Int[Tensor, "..."] | None = None
    exclude_self: bool = False

    def __post_init__(self) -> None:
        _integers(self.row_ids, "SameLabel(row_ids=...)")
        if self.col_ids is not None:
            _integers(self.col_ids, "SameLabel(col_ids=...)")


@dataclass(frozen=True, eq=False)
class Pairs:
    """An explicit list of pairs in compressed rows: row i holds the columns col[ptr[i]:ptr[i + 1]]."""

    ptr: Int[Tensor, "rows_plus_one"]
    col: Int[Tensor, "pairs"]

    def __post_init__(self) -> None:
        _integers(self.ptr, "Pairs(ptr=...)")
        _integers(self.col, "Pairs(col=...)")
        if self.ptr.dim() != 1 or self.ptr.numel() < 1 or self.col.dim() != 1:
            raise ValueError(
                f"Pairs needs ptr [R + 1] and col [pairs], got {tuple(self.ptr.shape)} and {tuple(self.col.shape)}"
            )

    @classmethod
    def from_rows(cls, row: Int[Tensor, "pairs"], col: Int[Tensor, "pairs"], rows: int) -> "Pairs":
        """Pairs from two parallel lists (row i, column j) in any order.

        >>> import torch
        >>> Pairs.from_rows(torch.tensor([2, 0]), torch.tensor([5, 1]), rows=3).ptr.tolist()
        [0, 1, 1, 2]
        """
        order = torch.argsort(row.long(), stable=True)
        ptr = torch.zeros(rows + 1, dtype=torch.int64, device=row.device)
        ptr[1:] = torch.bincount(row.long(), minlength=rows).cumsum(0)
        return cls(ptr, col[order].long())


# ---- targets of `target_scores` ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weighted:
    """Several named columns with weights: `t_ij = sum_p w[i, p] [j == idx[i, p]]`; idx and w are [R, P], -1 pads."""

    idx: Int[Tensor, "rows several"]
    w: Float[Tensor, "rows several"]

    def __post_init__(self) -> None:
        _integers(self.idx, "Weighted(idx=...)")
        if self.idx.shape != self.w.shape:
            shapes = f"{tuple(self.idx.shape)} and {tuple(self.w.shape)}"
            raise ValueError(f"Weighted(idx, w) must have one shape, got {shapes}")


@dataclass(frozen=True)
class Uniform:
    """Every column equally: t_ij = 1 / C (label smoothing)."""


@dataclass(frozen=True, eq=False)
class Affine:
    """t_ij = a + b e_i . e_j for label or teacher features (CWCL: a = b = 1/2 with unit features)."""

    e_row: Float[Tensor, "rows features"]
    e_col: Float[Tensor, "columns features"]
    a: float | Tensor = 0.5
    b: float | Tensor = 0.5


@dataclass(frozen=True, eq=False)
class Gibbs:
    """A teacher's softmax: t_ij = softmax_j(scale q'_i . k'_j + row_bias_i + col_bias_j); no gradient to the teacher.

    Biases turn it into Sinkhorn's plan: with `normalized=False` t_ij = exp(scale q'_i.k'_j + row_bias_i + col_bias_j).
    """

    q_t: Float[Tensor, "rows features"]
    k_t: Float[Tensor, "columns features"]
    scale: float | Tensor = 1.0
    row_bias: Float[Tensor, "rows"] | None = None
    col_bias: Float[Tensor, "columns"] | None = None
    valid_cols: Bool[Tensor, "columns"] | None = None
    normalized: bool = True


@dataclass(frozen=True, eq=False)
class Mix:
    """A weighted sum of targets: parts = [(weight, target), ...]; a weight is a number or [R]."""

    parts: list[tuple[float | Tensor, "Target"]]

    def __post_init__(self) -> None:
        if not self.parts or any(len(part) != 2 for part in self.parts):
            raise ValueError("Mix needs a non-empty list of (weight, target) pairs")


Mask = Self | Diagonal | Index | SameLabel | Pairs
Positive = Diagonal | Index
Target = Index | Weighted | SameLabel | Uniform | Affine | Gibbs | Mix | Diagonal
