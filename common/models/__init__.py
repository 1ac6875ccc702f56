"""Network parts that several verticals use."""

from counterpoint.common.models.batch_norm import SharedBatchNorm, shared_batch_norm
from counterpoint.common.models.concat import ConcatEncoder
from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.models.fusion import (
    AttentionalPooler,
    CaptionDecoder,
    FusionEncoder,
    PlaceEncoder,
    TextEncoder,
    TransformerBlock,
)
from counterpoint.common.models.missing import MissingIndicator
from counterpoint.common.models.multi_crop import MultiCrop, encode_crops, random_resized_crop
from counterpoint.common.models.projector import MultiHead, Projector
from counterpoint.common.models.token_merging import TokenMerging

__all__ = [
    "AttentionalPooler",
    "CaptionDecoder",
    "ConcatEncoder",
    "EMATeacher",
    "FusionEncoder",
    "MissingIndicator",
    "MultiCrop",
    "MultiHead",
    "PlaceEncoder",
    "Projector",
    "SharedBatchNorm",
    "TextEncoder",
    "TokenMerging",
    "TransformerBlock",
    "encode_crops",
    "random_resized_crop",
    "shared_batch_norm",
]
