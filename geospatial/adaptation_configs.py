"""Configuration of SUMMIT; without torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.geospatial.configs import RasterConfig


@dataclass(frozen=True)
class SummitConfig:
    """SUMMIT: two segmenters of one sensor each, adapted together to a new region without labels."""

    data: RasterConfig = field(default_factory=lambda: RasterConfig(scaling="standard"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=8, max_epochs=100))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            name="adam", lr=1e-3, weight_decay=0.0, clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    source: str = ""
    """Run of `summit` on labelled places, whose segmenters are adapted to the places of `data.manifest`; empty trains
    such segmenters. The labels of the new places, and the old places, are not used. The authors adapt with a learning
    rate of 1e-5."""
    checkpoint: str = "best"
    """Which checkpoint of `source`: `best` or `last`."""
    filters: int = 16
    """Width of the segmenters' first layers; those of `source` must have the same."""
    fusion: str = "agreement"
    """Which pixels get a pseudo-label: those on which both segmenters agree and each is sure (`agreement`), or those of
    which their mean, weighted by how sure each is, is sure (`entropy`)."""
    test: bool = True
    """Give pixels on which they disagree the label of the one that a likelihood-ratio test leaves alone."""
    ratio: float = 0.5
    """The test's k: a guess is rejected where it is less than k times as likely as the other."""
    pseudo: float = 1.0
    """Weight of the cross-entropy to the pseudo-labels."""
    cross: float = 0.1
    """Weight of the divergence of each sensor's second head from the other's first one."""
    flips: bool = True
    """Flip and turn chips at random, both sensors alike."""

    def __post_init__(self) -> None:
        require(
            self, checkpoint=("best", "last"), filters="1 or more", fusion=("agreement", "entropy"), ratio="above 0",
            pseudo="0 or more", cross="0 or more",
        )  # fmt: skip
