"""Contrastive objectives over the contrast engine: one class per published objective."""

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard, ObjectiveEntry, objectives
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.ntxent import MultiViewNTXent, NTXent
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.scale import LogitScale

__all__ = [
    "FeatureQueue",
    "InfoNCE",
    "LogitScale",
    "MultiViewNTXent",
    "NTXent",
    "Objective",
    "ObjectiveCard",
    "ObjectiveEntry",
    "objectives",
]
