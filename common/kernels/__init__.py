"""The contrast engine: exact row and column statistics of a contrast in memory linear in rows plus columns."""

from counterpoint.common.kernels.api import ContrastStats, contrast_stats
from counterpoint.common.kernels.budget import kept_bytes
from counterpoint.common.kernels.explain import explain
from counterpoint.common.kernels.merge import merge
from counterpoint.common.kernels.oneway import one_way_loss
from counterpoint.common.kernels.pairs import pair_sum
from counterpoint.common.kernels.precision import fast_matmul
from counterpoint.common.kernels.sinkhorn import sinkhorn
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
from counterpoint.common.kernels.targets import target_scores
from counterpoint.common.kernels.topk import topk_scores
from counterpoint.common.kernels.twins import twin_loss
from counterpoint.common.kernels.union import gather_rows, own_rows
from counterpoint.common.kernels.unit import unit

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
    "explain",
    "fast_matmul",
    "gather_rows",
    "kept_bytes",
    "merge",
    "one_way_loss",
    "own_rows",
    "pair_sum",
    "sinkhorn",
    "target_scores",
    "topk_scores",
    "twin_loss",
    "unit",
]
