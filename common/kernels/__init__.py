"""The contrast engine: exact row and column statistics of a contrast in memory linear in rows plus columns."""

from counterpoint.common.kernels.api import ContrastStats, contrast_stats
from counterpoint.common.kernels.spec import (
    Affine,
    Diagonal,
    Gibbs,
    Index,
    Mix,
    Pairs,
    SameLabel,
    Self,
    Uniform,
    Weighted,
)

__all__ = [
    "Affine",
    "ContrastStats",
    "Diagonal",
    "Gibbs",
    "Index",
    "Mix",
    "Pairs",
    "SameLabel",
    "Self",
    "Uniform",
    "Weighted",
    "contrast_stats",
]
