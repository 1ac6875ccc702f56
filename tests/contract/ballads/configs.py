"""Settings; nothing of torch."""

from dataclasses import dataclass, field
from typing import ClassVar

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig


@dataclass(frozen=True)
class BalladData:
    """Data.

    Attributes:
        manifest: songs with `file`, `says1` and `says2` (what people say of either verse, separated by `|`).
        transpose: semitones added to every pitch.
    """

    manifest: str = "songs/manifest.parquet"
    transpose: int = 0


@dataclass(frozen=True)
class BalladConfig:
    """Common Words: a table of words under frequency weights against a network over notes."""

    presets: ClassVar[dict] = {"small": {"dim": 6, "train": {"batch_size": 8, "max_steps": 8}}}
    data: BalladData = field(default_factory=BalladData)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=64, max_epochs=20, monitor_every=4, log_every=1)
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=0.05, schedule=ScheduleConfig(kind="infinite", warmup=1, cooldown=1, constant=0.5, decay=2)
        )
    )
    dim: int = 64
    temperature: float = 1.0
    common: float = 0.01
    """Frequency at which a word counts half."""
    objective: str = ""
    """Another contrastive term, as in `DCL` or `HCL(beta=0.5)`; empty: the paper's."""


@dataclass(frozen=True)
class ShortCaptionsConfig:
    """Weights of verses by the length of their captions."""

    power: float = 1.0
    """Captions of n words weigh n to the minus this."""
