"""What can be set of MERT; light, the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.audio_speech.sounds.configs import SoundConfig
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class CQTConfig:
    """Constant-Q transform that MERT's musical teacher reads."""

    bins: int = 336
    """Of all octaves together."""
    per_octave: int = 48
    """Of one octave."""
    fmin: float = 32.7
    """Frequency of the lowest in hertz (C1)."""

    def __post_init__(self) -> None:
        require(self, "cqt.", bins="1 or more", per_octave="1 or more", fmin="above 0")


@dataclass(frozen=True)
class FrameTransformerConfig:
    """Convolutions over samples and a transformer over their frames, those of HuBERT."""

    channels: int = 512
    """Of the seven convolutions, which give a frame every 320 samples."""
    width: int = 768
    """Of the transformer's layers."""
    layers: int = 12
    """How many."""
    heads: int = 12
    """Of attention."""
    hidden: int = 3072
    """Of the layers' perceptrons."""
    norm_first: bool = False
    """Normalise in front of each part of a layer (330M) or behind it (95M)."""
    dropout: float = 0.1
    """Of the frames, the layers' parts and the attention."""
    layer_drop: float = 0.05
    """Probability that training passes a layer by."""
    place_kernel: int = 128
    """Frames under the convolution that tells places."""
    place_groups: int = 16
    """Its groups."""
    stem_gradient: float = 0.1
    """Factor on the gradient that reaches the convolutions over samples."""

    def __post_init__(self) -> None:
        require(self, "encoder.", channels="1 or more", width="1 or more", layers="1 or more", heads="1 or more",
                hidden="1 or more", dropout="from 0 to below 1", layer_drop="from 0 to below 1",
                place_kernel="1 or more", place_groups="1 or more", stem_gradient="0 or more")  # fmt: skip


@dataclass(frozen=True)
class CodesConfig:
    """MERT's acoustic teacher: residual codes of log-mel frames, learnt from the training data before training."""

    books: int = 8
    """Codebooks, each of what the ones before it left over."""
    size: int = 1024
    """Codes of each."""
    dim: int = 64
    """Of the space in which a frame is compared with the codes of a book."""
    bands: int = 128
    """Mel bands of the frames."""
    fft_size: int = 1024
    """Window of the frames in samples."""
    frames: int = 100000
    """Training frames from which the books are learnt."""

    def __post_init__(self) -> None:
        require(self, "codes.", books="1 or more", size="2 or more", dim="1 or more", bands="1 or more",
                fft_size="2 or more", frames="1 or more")  # fmt: skip


@dataclass(frozen=True)
class MERTConfig:
    """Masked prediction of music from an acoustic and a musical teacher; sizes and rates of the 95M model."""

    data: SoundConfig = field(default_factory=lambda: SoundConfig(seconds=5.0, sample_rate=24000))
    """Recordings; frames of 75 per second at 24 kHz."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=1024, max_steps=400000))
    """The run."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=5e-4, weight_decay=0.01, name="adam", betas=(0.9, 0.98), eps=1e-6, clip=10.0,
            schedule=ScheduleConfig(kind="linear", warmup=32000),
        )
    )  # fmt: skip
    """Optimiser."""
    encoder: FrameTransformerConfig = field(default_factory=FrameTransformerConfig)
    """The network."""
    codes: CodesConfig = field(default_factory=CodesConfig)
    """The acoustic teacher."""
    cqt: CQTConfig = field(default_factory=CQTConfig)
    """The musical teacher."""
    cqt_weight: float = 1.0
    """Of its term; 0 leaves it out."""
    penalty: float = 10.0
    """Weight of the mean square of the convolutions' frames."""
    temperature: float = 0.1
    """Divides the cosines of frames and codes."""
    mask_probability: float = 0.8
    """Share of the frames that spans would cover if none of them met."""
    mask_length: int = 5
    """Frames of a span."""
    mixture: float = 0.5
    """Probability that a window hears parts of other windows of its batch over its own sound."""
    noises: tuple[int, int] = (1, 3)
    """Fewest and most of these parts."""
    noise_seconds: tuple[float, float] = (0.5, 1.0)
    """Shortest and longest of them."""
    weights: str = ""
    """Start from published weights: `model.safetensors` or `pytorch_model.bin` of m-a-p/MERT-v1-95M or -330M."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "330m": {
            "data": {"seconds": 5.12},
            "encoder": {"width": 1024, "layers": 24, "heads": 16, "hidden": 4096, "norm_first": True, "dropout": 0.0,
                        "layer_drop": 0.0, "stem_gradient": 1.0},
            "codes": {"dim": 128},
            "noise_seconds": [0.5, 1.5],
            "optim": {"lr": 1.5e-3, "clip": 1.0},
        },
        "small": {
            "data": {"sample_rate": 16000, "seconds": 2.0},
            "encoder": {"channels": 32, "width": 64, "layers": 3, "heads": 4, "hidden": 128, "norm_first": True,
                        "dropout": 0.0, "layer_drop": 0.0, "stem_gradient": 1.0, "place_kernel": 16,
                        "place_groups": 4},
            "codes": {"books": 4, "size": 64, "dim": 16, "bands": 40, "frames": 10000},
            "cqt": {"bins": 84, "per_octave": 12},
            "train": {"batch_size": 32, "max_epochs": 12, "max_steps": None, "log_every": 5},
            "optim": {"lr": 2e-3, "clip": 1.0, "schedule": {"warmup": 20}},
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        require(self, "", cqt_weight="0 or more", penalty="0 or more", temperature="above 0",
                mask_probability="above 0 and at most 1", mask_length="1 or more", mixture="from 0 to 1",
                noises="0 or more", noise_seconds="above 0")  # fmt: skip
        for name in ("noises", "noise_seconds"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"--{name} is {[low, high]}; give the smaller number first")
        if self.encoder.width % self.encoder.heads or self.encoder.width % self.encoder.place_groups:
            raise InputError(
                f"--encoder.width is {self.encoder.width}; it must be divisible by heads ({self.encoder.heads}) and "
                f"place_groups ({self.encoder.place_groups})"
            )
