"""Configuration of the systems on heterogeneous graphs; light on purpose, `--help` reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class HeteroDataConfig:
    """One heterogeneous graph."""

    manifest: str = ""
    """Manifest of the target's nodes, beside its graph.npz (`counterpoint graphs data import hetero`)."""


@dataclass(frozen=True)
class MeowConfig:
    """MEOW. Defaults are the released ones for ACM, whose meta-paths are PAP and PSP."""

    data: HeteroDataConfig = field(default_factory=HeteroDataConfig)
    hidden: int = 64
    """Of the features of every type."""
    dim: int = 64
    """Of the vectors of nodes."""
    dropout: float = 0.2
    neighbours: tuple[int, ...] = (110, 700)
    """Nearest by PathSim that stay, for each meta-path or one number for all; 0 keeps all."""
    edge_mask: tuple[float, ...] = (0.3, 0.2)
    """Share of the walks that the masked copy lacks, for each meta-path or one number for all."""
    feature_mask: float = 0.3
    """Share of the target's feature entries that the masked copy lacks."""
    clusters: tuple[int, ...] = (100, 300)
    """Clusters of each run of k-means; nodes that more runs part weigh more as negatives."""
    temperature: float = 0.4
    prototype_weight: float = 1.0
    patience: int = 30
    """Epochs without a lower training loss after which training ends; 0 trains for all of `train.max_epochs`."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=7e-4, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0.0)
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=1, max_epochs=10_000, monitor_every=0, tensorboard=False)
    )

    def __post_init__(self) -> None:
        require(
            self, hidden="1 or more", dim="1 or more", dropout="from 0 to below 1", neighbours="0 or more",
            edge_mask="from 0 to below 1", feature_mask="from 0 to below 1", clusters="2 or more",
            temperature="above 0", prototype_weight="0 or more", patience="0 or more",
        )  # fmt: skip
        for name in ("neighbours", "edge_mask", "clusters"):
            if not getattr(self, name):
                raise InputError(f"--{name} is empty; give at least one number")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "hidden": 32, "dim": 32, "neighbours": (20,), "edge_mask": (0.2,), "clusters": (8, 24),
            "optim": {"lr": 3e-3}, "train": {"max_epochs": 60},
        },
    }  # fmt: skip
