"""Configuration of the systems that learn from a column of the manifest: SepCLR and SupReMix. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.medical.configs import SMALL_DATA, WINDOWS, CTDataConfig


@dataclass(frozen=True)
class VolumeViewsConfig:
    """How a view of a volume is drawn. None of it is a paper's, whose pictures are in colour; nothing is mirrored,
    since side counts."""

    shift: int = 2
    """Moved by up to so many voxels along each axis."""
    degrees: float = 5.0
    """Turned by up to so many degrees about each axis."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest factor of size."""
    noise: float = 20.0
    """Largest standard deviation of the noise, in HU."""

    def __post_init__(self) -> None:
        require(self, "views.", shift="0 or more", degrees="0 or more", scale="above 0", noise="0 or more")


@dataclass(frozen=True)
class CTSepCLRConfig:
    """SepCLR on CT volumes: weights, widths and optimiser of the official script for CheXpert subtypes."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_DATA,
            "channels": [16, 48, 128],
            "train": {"batch_size": 32, "max_epochs": 5},
            "optim": {"lr": 1e-3},
        }
    }
    data: CTDataConfig = field(default_factory=CTDataConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            batch_size=256, max_epochs=200, monitor="val/loss", validate_every_epochs=10
        )
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=3e-4, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    target: str = "pleural_effusion"
    """Column of the manifest: 1 for patients (target population), 0 for the healthy (background)."""
    shared: tuple[str, ...] = ("phase", "kernel")
    """Columns that `evaluate` asks both codes for and that both populations have; those that are missing are left
    out, in words."""
    within: tuple[str, ...] = ("pleural_effusion_side",)
    """Columns that only patients have (a subtype); asked for among patients."""
    windows: tuple[tuple[float, float], ...] = WINDOWS
    """Centre and half width (HU) of the windows that are the networks' input channels."""
    channels: tuple[int, int, int] = (32, 96, 256)
    """Of the three stages of either network."""
    common: int = 32
    """Width of the common code."""
    salient: int = 32
    """Width of the salient code."""
    views: VolumeViewsConfig = field(default_factory=VolumeViewsConfig)
    temperature: float = 0.5
    """T: width of the kernels."""
    salient_weight: float = 1.0
    """Weight of the salient term."""
    zero_weight: float = 10.0
    """Weight by which the background's salient code is drawn to zero."""
    joint_weight: float = 10.0
    """Weight of the joint entropy (k-JEM)."""

    def __post_init__(self) -> None:
        require(
            self, channels="1 or more", common="1 or more", salient="1 or more", temperature="above 0",
            salient_weight="0 or more", zero_weight="0 or more", joint_weight="0 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class CTSupReMixConfig:
    """SupReMix on CT volumes: ordered by a continuous label; temperature, width and optimiser as released for ages."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_DATA,
            "channels": [16, 48, 128],
            "train": {"batch_size": 16, "max_epochs": 5},
        }
    }
    data: CTDataConfig = field(default_factory=CTDataConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=64, max_epochs=100, monitor="val/loss", validate_every_epochs=10)
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-3, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    label: str = "habitus"
    """Column of the manifest with the number to order by; the generator's `habitus` is the girth of the body."""
    unit: float = 0.01
    """Labels are counted in so much of the column: 1 for ages in years, .01 for `habitus` (.95 to 1.25)."""
    window: float = 5.0
    """Mixtures of two neighbours are positives where both lie within so many units (strictly)."""
    beta: tuple[float, float] = (2.0, 8.0)
    """Of the distribution of the anchor's share in a negative mixture."""
    windows: tuple[tuple[float, float], ...] = WINDOWS
    """Centre and half width (HU) of the windows that are the network's input channels."""
    channels: tuple[int, int, int] = (32, 96, 256)
    """Of the network's three stages."""
    dim: int = 128
    """Width of the embedding."""
    views: VolumeViewsConfig = field(default_factory=VolumeViewsConfig)
    temperature: float = 0.3

    def __post_init__(self) -> None:
        require(
            self, unit="above 0", window="above 0", beta="above 0", channels="1 or more", dim="1 or more",
            temperature="above 0",
        )  # fmt: skip
