"""Configuration of the vertical's data and systems. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.common.trainers.plugin_configs import BadPairsConfig


@dataclass(frozen=True)
class SignalConfig:
    """Which signals, and how they become windows."""

    manifest: str = ""
    """Manifest of recordings (`data import`); empty uses the embedded generator, whose signals are synthetic."""
    generator: str = "ecg"
    """Embedded generator: `ecg`, `eeg` or `har`."""
    patients: int = 40
    """Patients (subjects) that the generator makes."""
    seed: int = 0
    """Seed of the generator and of its patient split."""
    fs: float | None = None
    """Sampling rate in hertz after resampling; null keeps the fastest channel's."""
    leads: tuple[str, ...] = ()
    """Leads to use, in this order; empty takes those of the first recording. A run keeps leads, units, rate and
    training scale in its assets, so that loading needs no data and other recordings are brought to the same form."""
    units: tuple[str, ...] = ()
    """Units of the leads; others are converted where they can be. Empty takes those of the first recording."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of leads: wanted name to the recording's name (`II: MLII`)."""
    length: int = 256
    """Window length in samples; 0 takes each recording whole (they must be equally long, or are padded)."""
    step: int = 0
    """Samples between window starts; 0 is half a window. Windows never cross recordings or splits."""
    beats: bool = False
    """Cut windows around R peaks (annotated beats where there are any) instead of regularly."""
    beat_before: float = 0.25
    """Seconds before the R peak."""
    beat_after: float = 0.45
    """Seconds after the R peak."""
    events: tuple[str, ...] = ()
    """Annotations that label time steps: the first is class 1, and so on; 0 is everything else. Samples then carry
    `steps`, for `finetune --task dense --labels steps` and for the event figures of `evaluate`."""
    event_width: float = 0.0
    """Seconds around an annotation without a duration (a beat) that count as it."""
    window_class: str = "recording"
    """Where the class of a window is from: the manifest's `recording` (beats: the annotated beat), or `events`: the
    one of them that covers more than half of the window, as sleep stages do; windows that none covers so have none."""
    windows_per_trial: int = 0
    """Neighbouring windows (beats) of a recording that make one trial (COMET's pseudo-trials of ten beats); 0 keeps
    the manifest's trials, or the whole recording."""
    low: float | None = None
    """High-pass edge in hertz (zero-phase Butterworth)."""
    high: float | None = None
    """Low-pass edge in hertz."""
    notch: float | None = None
    """Mains frequency to remove, in hertz."""
    normalize: str = "trial"
    """Level of standard scaling: `none`, `window`, `trial`, `record`, `patient`, `train` (fitted on train only)."""
    cache: bool = False
    """Keep conditioned signals as memory-mapped files in $COUNTERPOINT_CACHE, for sets larger than memory."""

    def __post_init__(self) -> None:
        require(
            self, "data.", generator=("ecg", "eeg", "har"), patients="1 or more", fs="above 0", length="0 or more",
            step="0 or more", beat_before="0 or more", beat_after="0 or more", event_width="0 or more",
            windows_per_trial="0 or more", window_class=("recording", "events"), low="above 0", high="above 0",
            notch="above 0",
            normalize=("none", "window", "trial", "record", "patient", "train"),
        )  # fmt: skip


OF_STEPS = ("ts2vec", "InceptionTime", "XceptionTime", "FCN", "ResNet", "TST")
OF_WINDOWS = ("PatchTST", "RNN_FCN", "LSTM_FCN", "GRU_FCN")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder: TS2Vec's dilated convolutions, or an architecture of tsai by its name."""

    name: str = "ts2vec"
    """`ts2vec`, or tsai's `InceptionTime`, `XceptionTime`, `FCN`, `ResNet`, `TST` (a feature a time step), `PatchTST`,
    `RNN_FCN`, `LSTM_FCN`, `GRU_FCN` (a vector a window); `--encoder NAME` says the same."""
    dim: int = 320
    """Width of the representation."""
    hidden: int = 64
    """Width of the residual blocks; of tsai's, the channels that enter those with a feature a time step."""
    depth: int = 10
    """ts2vec: blocks before the widening one; block i has dilation 2^i."""
    dropout: float = 0.1
    """Dropout on the representation (not of those with a vector a window)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of a tsai architecture, as in `{nf: 16}` for InceptionTime."""

    def __post_init__(self) -> None:
        require(
            self, "encoder.", name=(*OF_STEPS, *OF_WINDOWS), dim="1 or more", hidden="1 or more", depth="0 or more",
            dropout="from 0 to below 1",
        )  # fmt: skip


def _flat(lr: float) -> OptimConfig:
    """AdamW at a constant rate without clipping, as the official TS2Vec and COMET loops use it."""
    return OptimConfig(lr=lr, weight_decay=1e-2, clip=None, schedule=ScheduleConfig(kind="constant", warmup=0))


@dataclass(frozen=True)
class TS2VecConfig:
    """TS2Vec: hierarchical instance and temporal contrast of two overlapping crops."""

    data: SignalConfig = field(default_factory=lambda: SignalConfig(normalize="train"))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=8, max_steps=200))
    optim: OptimConfig = field(default_factory=lambda: _flat(1e-3))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    alpha: float = 0.5
    """Weight of the instance term; the temporal term has 1 - alpha."""
    temporal_unit: int = 0
    """First scale with a temporal term; raise it for very long series."""
    mask: str = "binomial"
    """Mask on the latent timestamps of both views: `binomial`, `continuous` or `all_true`."""
    max_length: int = 3000
    """Longer windows are cropped to this many samples in training."""
    anomaly_context: int = 200
    """Anomaly protocol of `evaluate`: past time steps that each step is judged by."""
    anomaly_delay: int = 7
    """Steps after the beginning of a true stretch within which a flag still counts."""
    anomaly_steps: int = 20000
    """Steps of a split that are scored at most, an equal share from the beginning of each recording; 0: none."""

    def __post_init__(self) -> None:
        require(
            self, alpha="from 0 to 1", temporal_unit="0 or more", max_length="1 or more",
            mask=("binomial", "continuous", "all_true", "mask_last"), anomaly_context="1 or more",
            anomaly_delay="0 or more", anomaly_steps="0 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class CometConfig:
    """COMET: contrast at the levels of patient, trial, sample and observation."""

    data: SignalConfig = field(default_factory=SignalConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=256, max_epochs=100))
    optim: OptimConfig = field(default_factory=lambda: _flat(1e-4))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    patient: float = 0.25
    """Weight of the patient level; 0 switches it off (and saves its passes)."""
    trial: float = 0.25
    """Weight of the trial level."""
    sample: float = 0.25
    """Weight of the sample level."""
    observation: float = 0.25
    """Weight of the observation level."""
    temperature: float = 0.1
    """Temperature of the patient and trial levels."""
    views: str = "separate"
    """`separate`: two encoder passes per level, as in the official code. `shared`: patient and trial use one pair of
    views, sample and observation another: half the passes, the same expected gradient."""
    sampler: str = "trial"
    """`trial` keeps windows of one trial in one batch; `window` shuffles windows (few same-trial positives)."""

    def __post_init__(self) -> None:
        require(
            self, patient="0 or more", trial="0 or more", sample="0 or more", observation="0 or more",
            temperature="above 0", views=("separate", "shared"), sampler=("trial", "window"),
        )  # fmt: skip


@dataclass(frozen=True)
class FrameProjectionsConfig:
    """Learning without augmenting: views are projections on frames (time, Fourier, Gabor)."""

    data: SignalConfig = field(default_factory=SignalConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=512, max_epochs=256))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            name="adam", lr=1e-3, weight_decay=1e-6, clip=None, schedule=ScheduleConfig(kind="cosine", warmup=0)
        )
    )
    temperature: float = 0.15
    """Temperature of the three NT-Xent terms."""
    objective: str = ""
    """Another objective in place of the published one, as in `HCL(beta=0.5)`; `counterpoint losses` lists them."""
    dim: int = 128
    """Width of the three projections."""
    width: int = 64
    """Width of the encoders."""
    encoder: EncoderConfig | None = None
    """Another encoder of the time view, by `--encoder NAME`; its `dim` is twice `width`. Null: a residual network."""
    frequencies: int = 32
    """Gabor atoms' centre frequencies."""
    cycles: float = 6.0
    """Length of a Gabor atom in periods of its frequency (standard deviation times 2 pi)."""
    consistency: float = 1.0
    """Weight of the L1 terms between predicted and actual spectral projections, means divided by the batch's rows."""
    mapper_epochs: int = 256
    """Epochs of the second stage, in which two mappers learn the frozen spectral encoders' outputs at a constant
    learning rate."""
    mapper_channels: int = 1
    """Hidden channels of a mapper. The official code has one, whose ReLU may fall silent: then the mapper gives a
    constant, and more channels help."""

    def __post_init__(self) -> None:
        require(
            self, temperature="above 0", dim="1 or more", width="1 or more", frequencies="2 or more", cycles="above 0",
            consistency="0 or more", mapper_epochs="0 or more", mapper_channels="1 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class DBPMSystemConfig:
    """Instance contrast of a weak and a strong augmentation with dynamic bad pair mining."""

    data: SignalConfig = field(default_factory=SignalConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=512, max_epochs=80))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            name="adam", lr=3e-4, weight_decay=0, clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    mining: BadPairsConfig | None = field(default_factory=BadPairsConfig)
    """Bad pair mining; null trains the plain learner."""
    pairs: int = 0
    """Training pairs that the memory holds; 0 counts the windows."""
    temperature: float = 0.2
    """Temperature of NT-Xent."""
    projection: int = 128
    """Width of the projections."""
    scaling: float = 1.1
    """Weak view: deviation of the random factors around 1."""
    scaling_per: str = "step"
    """Weak view: one factor per time `step`, as in the official code, or one per `channel`."""
    segments: int = 8
    """Strong view: most pieces of the permutation."""
    jitter: float = 0.8
    """Strong view: deviation of the noise."""

    def __post_init__(self) -> None:
        require(
            self, pairs="0 or more", temperature="above 0", projection="1 or more", scaling="0 or more",
            scaling_per=("step", "channel"), segments="1 or more", jitter="0 or more",
        )  # fmt: skip
