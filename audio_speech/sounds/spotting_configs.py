"""What can be set of keyword spotting; light, the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.audio_speech.sounds.configs import MelConfig, SoundConfig, TowerConfig
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class CABKWSConfig:
    """A bottleneck that neither speed nor volume changes, and that remembers the sound."""

    data: SoundConfig = field(default_factory=SoundConfig)
    """Recordings; a window of one second at 16 kHz."""
    mel: MelConfig = field(default_factory=lambda: MelConfig(bands=40, fmin=20.0))
    """The tower's picture of a sound."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, max_epochs=50))
    """The run."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-3, schedule=ScheduleConfig(kind="cosine", warmup=0.05))
    )
    """Optimiser."""
    tower: TowerConfig = field(default_factory=lambda: TowerConfig((64, 128, 256), 64))
    """The tower; its output is the bottleneck."""
    speed: tuple[float, float] = (0.9, 1.1)
    """Slowest and fastest second view, 1 is as recorded."""
    volume: tuple[float, float] = (-10.0, 10.0)
    """Quietest and loudest second view in decibels, 0 is as recorded."""
    similarity: float = 1.0
    """Weight of the distance of the two views' bottlenecks."""
    reconstruction: float = 1.0
    """Weight of each view's reconstruction; 0 leaves nothing that stops a collapse."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"sample_rate": 8000, "seconds": 0.8},
            "mel": {"fft_size": 256, "hop": 80, "bands": 32},
            "tower": {"channels": [16, 32, 64], "dim": 32},
            "train": {"batch_size": 64, "max_epochs": 10, "log_every": 5},
            "optim": {"lr": 2e-3},
        }
    }

    def __post_init__(self) -> None:
        require(self, "", speed="above 0", similarity="0 or more", reconstruction="0 or more")
        for name in ("speed", "volume"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"--{name} is {[low, high]}; give the smaller number first")
        if not self.similarity and not self.reconstruction:
            raise InputError("--similarity and --reconstruction are both 0, so there is nothing to learn")
