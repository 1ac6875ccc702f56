"""What can be set in the systems of printed or played music and its words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from counterpoint.audio_speech.configs import AudioAugmentConfig, SheetAugmentConfig, SheetDataConfig
from counterpoint.common.trainers.configs import FusionConfig, OptimConfig, ScheduleConfig, TrainConfig

_SMALL: dict[str, Any] = {
    "channels": [12, 24, 48, 48],
    "net": {"width": 64, "heads": 4, "dim": 32, "picture_layers": 1, "text_layers": 2, "fusion_layers": 2,
            "queue": 512, "queries": 16},
    "data": {"renditions_per_piece": 1, "val_snippets": 200},
    "steps_per_epoch": 100,
    "train": {"batch_size": 32, "max_epochs": 4, "log_every": 5},
    "optim": {"lr": 1e-3, "schedule": {"warmup": 20}},
}  # fmt: skip


@dataclass(frozen=True)
class ScoreTextConfig:
    """Music (print or spectrogram) and the words of its notes; ALBEF's sizes, `--preset small` for laptops."""

    data: SheetDataConfig = field(default_factory=SheetDataConfig)
    """Pieces, performances, snippets."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=512, max_epochs=30, monitor="val/loss", monitor_mode="min")
    )
    """The run."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-4, weight_decay=0.02, schedule=ScheduleConfig(warmup=1000, final=0.1))
    )
    """Optimiser and learning rate."""
    picture: Literal["sheet", "audio"] = "sheet"
    """What the words are said of: printed snippets or spectrograms."""
    net: FusionConfig = field(default_factory=FusionConfig)
    """Encoders, fusion layers and their training."""
    channels: tuple[int, ...] = (24, 48, 96, 96)
    """Of the convolutions in front of the picture's layers."""
    steps_per_epoch: int = 0
    """Batches between two validations; 0: one pass over the training snippets."""
    sheet_view: SheetAugmentConfig = field(
        default_factory=lambda: SheetAugmentConfig(overlap=0.97, scale=0.0, rotate=0.35, degrees=1.0, noise=0.1)
    )
    """Views of printed snippets; shifts stay small, since the words are those of the whole window."""
    audio_view: AudioAugmentConfig = field(
        default_factory=lambda: AudioAugmentConfig(overlap=0.97, time_mask=0.0, freq_mask=0.0, stretch=0.0)
    )
    """Views of spectrograms."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": _SMALL}


@dataclass(frozen=True)
class ScoreCaptionConfig(ScoreTextConfig):
    """The same at the size of CoCa's base model."""

    net: FusionConfig = field(default_factory=lambda: FusionConfig(text_layers=12, fusion_layers=12))
    """Encoder, pooler and decoder."""
