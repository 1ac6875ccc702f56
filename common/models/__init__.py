"""Network parts that several verticals use."""

from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.models.projector import Projector

__all__ = ["EMATeacher", "Projector"]
