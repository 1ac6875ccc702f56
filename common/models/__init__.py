"""Network parts that several verticals use."""

from counterpoint.common.models.batch_norm import SharedBatchNorm, shared_batch_norm
from counterpoint.common.models.concat import ConcatEncoder
from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.models.projector import MultiHead, Projector
from counterpoint.common.models.token_merging import TokenMerging

__all__ = [
    "ConcatEncoder",
    "EMATeacher",
    "MultiHead",
    "Projector",
    "SharedBatchNorm",
    "TokenMerging",
    "shared_batch_norm",
]
