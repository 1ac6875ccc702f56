"""What can be set of recordings and of systems over them; light, the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class MelConfig:
    """Log-mel spectrogram: Hann window, power, triangular filters on the HTK scale, as torchaudio makes them."""

    fft_size: int = 400
    """Window and transform length in samples."""
    hop: int = 160
    """Samples from one frame to the next."""
    bands: int = 64
    """Filters."""
    fmin: float = 50.0
    """Lower edge of the first filter in hertz."""
    fmax: float = 0.0
    """Upper edge of the last one in hertz; 0 is half the sample rate."""

    def __post_init__(self) -> None:
        require(self, "mel.", fft_size="2 or more", hop="1 or more", bands="1 or more", fmin="0 or more",
                fmax="0 or more")  # fmt: skip


@dataclass(frozen=True)
class SoundConfig:
    """Which recordings, and how they become windows."""

    manifest: str = ""
    """Manifest of recordings (`data import sounds`); empty uses the embedded generator, whose sounds are synthetic."""
    scenes: int = 600
    """Scenes that the generator makes."""
    seed: int = 0
    """Seed of the generator and of its split."""
    sample_rate: int = 16000
    """In hertz; other recordings are resampled to it."""
    seconds: float = 1.0
    """Of a window. Shorter recordings are filled up with silence; of longer ones training draws a window at random,
    and evaluation takes windows one after the other."""
    caption: str = ""
    """What is said of a recording without captions, with columns of the manifest in braces: `the digit {label}`."""

    def __post_init__(self) -> None:
        require(self, "data.", scenes="1 or more", sample_rate="1 or more", seconds="above 0")

    @property
    def samples(self) -> int:
        """Of a window."""
        return round(self.seconds * self.sample_rate)


@dataclass(frozen=True)
class TowerConfig:
    """The convolutional tower over a log-mel spectrogram."""

    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Of its blocks of two 3x3 convolutions (those of PANN's CNN10)."""
    dim: int = 512
    """Of its output."""


@dataclass(frozen=True)
class TextConfig:
    """The transformer over the words of a caption. Its vocabulary is that of the training captions."""

    width: int = 256
    """Of its layers."""
    layers: int = 4
    """How many."""
    heads: int = 4
    """Of attention."""
    words: int = 32
    """Longest caption; further words are left out, with a note."""
    dropout: float = 0.1
    """Of its layers."""


@dataclass(frozen=True)
class CLAPConfig:
    """Sounds and what is said of them in one space."""

    data: SoundConfig = field(default_factory=lambda: SoundConfig(seconds=10.0, sample_rate=48000))
    """Recordings with captions."""
    mel: MelConfig = field(default_factory=lambda: MelConfig(fft_size=1024, hop=480, fmax=14000.0))
    """The tower's picture of a sound."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=192, max_epochs=45))
    """The run."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-4, schedule=ScheduleConfig(kind="cosine", warmup=3200))
    )
    """Optimiser."""
    audio: TowerConfig = field(default_factory=TowerConfig)
    """The sound's tower."""
    text: TextConfig = field(default_factory=TextConfig)
    """The caption's tower."""
    dim: int = 512
    """Of the common space."""
    temperature: float = 0.07
    """Start of the learnt temperature."""
    same_caption: str = "leave_out"
    """Other recordings of which the same is said: `leave_out` of the denominator, or `negatives` as in the released
    code."""
    objective: str = ""
    """Another objective than InfoNCE, as in `SigLIP` or `HCL(beta=0.5)`; see `counterpoint losses`."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"sample_rate": 16000, "seconds": 2.0},
            "mel": {"fft_size": 400, "hop": 160, "bands": 48, "fmax": 8000.0},
            "audio": {"channels": [16, 32, 64, 64], "dim": 128},
            "text": {"width": 64, "layers": 1, "heads": 4, "dropout": 0.0},
            "dim": 64,
            "train": {"batch_size": 64, "max_epochs": 12, "log_every": 5},
            "optim": {"lr": 2e-3, "schedule": {"warmup": 20}},
        }
    }

    def __post_init__(self) -> None:
        require(self, "", same_caption=("leave_out", "negatives"), dim="1 or more", temperature="above 0")


@dataclass(frozen=True)
class CPCConfig:
    """Contrastive predictive coding of sound; sizes of facebookresearch/CPC_audio."""

    data: SoundConfig = field(default_factory=lambda: SoundConfig(seconds=1.28))
    """Recordings; a window of 20480 samples at 16 kHz."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=8, max_epochs=200))
    """The run."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=2e-4, weight_decay=0.0, name="adam", schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    """Optimiser."""
    width: int = 256
    """Of the latents z."""
    context: int = 256
    """Of the context c (an LSTM)."""
    steps: int = 12
    """How many latents ahead are predicted."""
    negatives: int = 0
    """Latents drawn from the batch for every prediction, as in the released code (128 there); 0: all latents of the
    batch, on all ranks, none of them drawn."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {"sample_rate": 8000, "seconds": 1.024},
            "width": 64,
            "context": 64,
            "steps": 6,
            "train": {"batch_size": 16, "max_epochs": 6, "log_every": 5},
            "optim": {"lr": 1e-3},
        }
    }

    def __post_init__(self) -> None:
        require(self, "", width="1 or more", context="1 or more", steps="1 or more", negatives="0 or more")
