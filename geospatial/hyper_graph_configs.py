"""Configuration of PHG-MAE; without torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.geospatial.configs import RasterConfig

MODALITIES = {
    "visible": ("B02", "B03", "B04"),
    "red_edge": ("B05", "B06", "B07"),
    "infrared": ("B08", "B8A"),
    "shortwave": ("B11", "B12"),
    "air": ("B01", "B09", "B10"),
    "radar": ("VV", "VH", "HH", "HV"),
}
"""Bands that are shown or hidden together."""


@dataclass(frozen=True)
class PHGMAEConfig:
    """PHG-MAE: whole modalities are hidden, one network predicts all of them and the land cover."""

    data: RasterConfig = field(default_factory=lambda: RasterConfig(scaling="standard"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=32, max_epochs=100))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01, schedule=ScheduleConfig(kind="cosine"))
    )
    filters: int = 32
    """Width of the network's first layers; 32 has 4.5 million weights, as the largest released one."""
    always: tuple[str, ...] = ("visible",)
    """Modalities that are always shown; `none` hides any but keeps one."""
    shown: float = 0.5
    """Probability with which each of the other modalities is shown; a half draws all subsets alike."""
    reconstruction: float = 1.0
    """Weight of the modalities' errors."""
    task: float = 1.0
    """Weight of the cross-entropy of the land cover; 0, or no map of land cover, leaves the modalities alone."""
    masks: int = 16
    """Masks whose predictions are averaged in use."""
    flips: bool = True
    """Flip and turn chips at random, all modalities alike."""

    def __post_init__(self) -> None:
        require(
            self, filters="1 or more", always=("none", *MODALITIES), shown="from 0 to 1", reconstruction="0 or more",
            task="0 or more", masks="1 or more",
        )  # fmt: skip
        if not (self.reconstruction or self.task):
            raise InputError("--reconstruction and --task are both 0: nothing is left to learn from")
