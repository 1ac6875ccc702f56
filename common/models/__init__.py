"""Network parts that several verticals use."""

from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.models.projector import Projector
from counterpoint.common.models.queue import EmbeddingQueue

__all__ = ["EMATeacher", "EmbeddingQueue", "Projector"]
