"""What can be set in the audio and sheet-music vertical; light on purpose, `--help` reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig


@dataclass(frozen=True)
class EngravingConfig:
    """How a score becomes one long strip of printed music."""

    height: int = 160
    """Of the strip in pixels; the paper's systems are 160 px high."""
    scale: int = 20
    """verovio's size in percent; at 20 a two-staff piano system fits into 160 px."""
    font: str = "Leipzig"
    """Music font: Leipzig, Bravura, Gootville, Leland or Petaluma."""


@dataclass(frozen=True)
class SpectrogramConfig:
    """The paper's front end: log-magnitude spectrogram on logarithmically spaced bands."""

    sample_rate: int = 22050
    """In hertz; other audio is resampled to it."""
    fft_size: int = 2048
    """Window and transform length in samples."""
    frame_rate: float = 20.0
    """Wanted frames per second. The hop is int(sample_rate / frame_rate) + 1 samples as in the official code, which
    makes 19.99 of 20; times are computed with the exact hop."""
    bands_per_octave: int = 16
    """Of the triangular filters."""
    fmin: float = 30.0
    """Lowest band in hertz."""
    fmax: float = 6000.0
    """Highest band in hertz."""

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_rate / self.frame_rate) + 1

    @property
    def frames_per_second(self) -> float:
        """The exact frame rate that the whole-sample hop gives."""
        return self.sample_rate / self.hop


@dataclass(frozen=True, order=True)
class Rendition:
    """One performance of a score: which timbre of `synth.TIMBRES`, and how fast (1 = the score's own tempo)."""

    timbre: str = "piano"
    tempo: float = 1.0

    def __str__(self) -> str:
        return f"{self.timbre}@{self.tempo:g}"

    @classmethod
    def parse(cls, text: str) -> Rendition:
        """Read `timbre@tempo`.

        >>> Rendition.parse("organ@0.9")
        Rendition(timbre='organ', tempo=0.9)
        """
        timbre, _, tempo = text.partition("@")
        try:
            return cls(timbre, float(tempo or 1.0))
        except ValueError:
            raise InputError(f"rendition {text!r}: write timbre@tempo, for example organ@0.9") from None


@dataclass(frozen=True)
class SheetDataConfig:
    """The pieces, how they sound, and how snippets are cut from them."""

    manifest: str = ""
    """Your own scores (made by `data import`); empty: the four-part chorales that come with the music21 package."""
    pieces: int = 0
    """How many of the chorales to use (a fixed choice, of which every smaller one is a part); 0 means all."""
    renditions: tuple[str, ...] = (
        *("piano@1.0", "organ@0.9", "strings@1.1", "flute@0.8"),
        *("piano@1.25", "organ@1.15", "strings@0.85", "flute@1.05"),
    )
    """timbre@tempo; every training piece gets `renditions_per_piece` of them, chosen by its name."""
    renditions_per_piece: int = 4
    """Performances of each training piece."""
    test_rendition: str = "piano@1.0"
    """How validation and test pieces sound."""
    unseen_rendition: str = "reed@0.7"
    """A timbre and tempo that training never has: the harder row of the evaluation."""
    sheet_width: int = 200
    """Of a sheet snippet in pixels, centred on the onset."""
    frames: int = 84
    """Of an audio snippet, centred on the onset; the paper has 42, 84 and 168 (2.1, 4.2 and 8.4 s)."""
    test_snippets: int = 500
    """Pairs in the evaluation pool, spread evenly over the test pieces."""
    val_snippets: int = 500
    """Pairs in the validation pool."""
    split_seed: int = 0
    """Of the split of the chorales by tune, and of `pairs_fraction`."""
    pairs_fraction: float = 1.0
    """Share of the training pairs that cross-modal training sees; the unimodal stages see every snippet."""
    workers: int = 2
    """Processes that engrave and synthesise."""
    cache: str = ""
    """Folder of engraved scores and spectrograms; empty: the suite's own."""
    engraving: EngravingConfig = field(default_factory=EngravingConfig)
    """How scores are printed."""
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    """How audio is analysed."""

    def __post_init__(self) -> None:
        if not 0.0 < self.pairs_fraction <= 1.0:
            raise InputError(f"data.pairs_fraction is {self.pairs_fraction}; give a share above 0 and at most 1")
        if not self.renditions or self.renditions_per_piece < 1:
            raise InputError("data.renditions and data.renditions_per_piece must give at least one timbre@tempo")
        if self.unseen_rendition in (*self.renditions, self.test_rendition):
            raise InputError(f"data.unseen_rendition {self.unseen_rendition} is one that training or test has")
        for text in (*self.renditions, self.test_rendition, self.unseen_rendition):
            Rendition.parse(text)


@dataclass(frozen=True)
class SheetAugmentConfig:
    """Probabilities and ranges of the score augmentations; defaults are the official configuration's."""

    shift_x: float = 0.65
    """Probability of a horizontal shift."""
    shift_y: float = 0.65
    """Probability of a vertical shift."""
    overlap: float = 0.8
    """Least share of the window that a shift keeps."""
    scale: float = 0.45
    """Probability of a change of size."""
    scale_range: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest size."""
    rotate: float = 0.35
    """Probability of a rotation."""
    degrees: float = 3.0
    """Largest rotation (our reading)."""
    noise: float = 0.25
    """Probability of grain."""
    blur: float = 0.25
    """Probability of blur."""
    perlin: float = 0.2
    """Probability of stains (smooth noise)."""
    elastic_small: float = 0.2
    """Probability of a fine elastic distortion."""
    elastic_large: float = 0.2
    """Probability of a coarse elastic distortion."""


@dataclass(frozen=True)
class AudioAugmentConfig:
    """Probabilities and ranges of the audio augmentations; defaults are the official configuration's.

    The official code changes the waveform; here all act on the magnitude spectrogram, where polarity inversion is the
    identity and therefore absent.
    """

    shift: float = 0.5
    """Probability of a shift in time."""
    overlap: float = 0.7
    """Least share of the window that a shift keeps."""
    time_mask: float = 0.5
    """Probability that a run of frames is silenced."""
    freq_mask: float = 0.35
    """Probability that a run of bands is silenced."""
    mask_share: float = 0.2
    """Largest share of frames or bands under a mask."""
    stretch: float = 0.4
    """Probability of another tempo."""
    stretch_range: tuple[float, float] = (0.5, 1.8)
    """Slowest and fastest tempo."""
    noise: float = 0.4
    """Probability of hiss."""
    gain: float = 0.5
    """Probability of another loudness."""
    gain_db: float = 12.0
    """Largest change of loudness (our reading)."""
    eq: float = 0.3
    """Probability of a random equaliser curve."""
    eq_db: float = 10.0
    """Its typical height (our reading)."""


@dataclass(frozen=True)
class UnimodalStageConfig:
    """One self-supervised stage. With 0 epochs and 0 steps the stage is left out."""

    lr: float = 5e-4
    """Peak learning rate."""
    batch_size: int = 256
    """Snippets; each gives two views."""
    max_epochs: int = 0
    """Passes over the training snippets (short ones, where `steps_per_epoch` says so)."""
    max_steps: int = 0
    """Optimiser steps; takes precedence over `max_epochs`."""


@dataclass(frozen=True)
class AudioSheetConfig:
    """The audio-sheet system at the paper's scale; `--preset small` is for a laptop."""

    data: SheetDataConfig = field(default_factory=SheetDataConfig)
    """Pieces, performances, snippets."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            batch_size=128, max_epochs=1000, patience=30, monitor="val/loss", monitor_mode="min"
        )
    )
    """The run; epochs and steps are those of the cross-modal stage."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=4e-4, weight_decay=1e-5, name="adam", schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    """Of the cross-modal stage; the unimodal stages take their learning rate from below and the rest from here."""
    sheet_stage: UnimodalStageConfig = field(
        default_factory=lambda: UnimodalStageConfig(lr=5e-4, batch_size=256, max_epochs=180)
    )
    """Self-supervised pretraining of the sheet tower."""
    audio_stage: UnimodalStageConfig = field(
        default_factory=lambda: UnimodalStageConfig(lr=1e-3, batch_size=128, max_epochs=300)
    )
    """Self-supervised pretraining of the audio tower."""
    channels: tuple[int, ...] = (24, 48, 96, 96)
    """Of the towers' blocks."""
    dim: int = 32
    """Of the common space."""
    head_hidden: int = 512
    """Hidden width of the heads of the unimodal stages, which are dropped afterwards."""
    ssl_temperature: float = 0.5
    """NT-Xent temperature of the unimodal stages."""
    alignment: Literal["hinge", "info_nce"] = "hinge"
    """The cross-modal stage: the official triplet hinge behind the CCA of the batch, or InfoNCE."""
    margin: float = 0.6
    """Of the hinge."""
    temperature: float = 0.1
    """Start of InfoNCE's learnt temperature."""
    objective: str = ""
    """Another objective in the cross-modal stage, as in `HCL(beta=0.5)`; see `counterpoint losses`."""
    cca_pairs: int = 25_000
    """Training pairs on which the CCA projection is fitted before each validation; 0 leaves it out."""
    steps_per_epoch: int = 0
    """Batches between two validations; 0: one pass over the training snippets."""
    sheet_views: SheetAugmentConfig = field(default_factory=SheetAugmentConfig)
    """Augmentation of the unimodal sheet stage."""
    audio_views: AudioAugmentConfig = field(default_factory=AudioAugmentConfig)
    """Augmentation of the unimodal audio stage."""
    align_sheet: SheetAugmentConfig = field(
        default_factory=lambda: SheetAugmentConfig(overlap=0.95, degrees=1.0, noise=0.1, perlin=0.1)
    )
    """Augmentation of sheet snippets in the cross-modal stage, where a shift also moves the answer."""
    align_audio: AudioAugmentConfig = field(
        default_factory=lambda: AudioAugmentConfig(
            overlap=0.95, time_mask=0.25, freq_mask=0.25, stretch_range=(0.7, 1.4), noise=0.25
        )
    )
    """Augmentation of audio snippets in the cross-modal stage."""

    # `small` has few steps, so its views are milder: what it need not learn to ignore it can use at once.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "channels": [12, 24, 48, 48],
            "head_hidden": 128,
            "cca_pairs": 1000,
            "steps_per_epoch": 40,
            "data": {"renditions_per_piece": 2, "val_snippets": 200},
            "sheet_stage": {"lr": 1e-3, "batch_size": 64, "max_steps": 20},
            "audio_stage": {"lr": 1e-3, "batch_size": 64, "max_steps": 20},
            "train": {"batch_size": 64, "max_epochs": 4, "log_every": 5},
            "alignment": "info_nce",
            "optim": {"lr": 1e-3, "schedule": {"kind": "cosine", "warmup": 10, "final": 0.02}},
            "sheet_views": {"overlap": 0.95},
            "align_sheet": {
                **dict.fromkeys(("shift_y", "scale", "rotate", "noise", "perlin"), 0.0),
                **dict.fromkeys(("elastic_small", "elastic_large"), 0.0),
            },
            "align_audio": {
                **{"overlap": 0.97, "time_mask": 0.0, "freq_mask": 0.0, "stretch_range": [0.8, 1.25]},
                **{"noise": 0.2, "gain": 0.3, "gain_db": 6.0, "eq": 0.2, "eq_db": 5.0},
            },
        }
    }
