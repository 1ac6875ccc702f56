"""Configuration of the vertical's data and systems. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class RasterConfig:
    """Which places, and how they become chips."""

    manifest: str = ""
    """Manifest of places (`data import rasters`); empty uses the simulator, whose scenes are synthetic."""
    scenes: int = 160
    """Places that the simulator makes."""
    scene_size: int = 128
    """Pixels of a simulated scene's side."""
    seasons: int = 1
    """Times at which the simulator sees each place."""
    cloudy: float = 0.0
    """Share of the simulated scenes that have clouds."""
    seed: int = 0
    """Seed of the simulator."""
    sensors: tuple[str, ...] = ("s1", "s2")
    """Sensors to read: `s1`, `s2` or both."""
    s1_bands: tuple[str, ...] = ("VV", "VH")
    """Radar bands by name. A run keeps bands, pixel size, calibration and band statistics in its assets, and other
    scenes are brought to the same form."""
    s2_bands: tuple[str, ...] = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    """Optical bands by name."""
    size: int = 120
    """Pixels of a chip's side."""
    step: int = 0
    """Pixels between chips; 0 is the chip's side."""
    sampler: str = "grid"
    """Where training chips lie in a place: on a `grid`, or at `random`, anew in every epoch. Other splits: the grid."""
    min_valid: float = 0.5
    """Chips of which less than this share is valid in every sensor are left out, and counted."""
    clouds: bool = True
    """Treat clouds and their shadows as no data where a mask says where they are."""
    scaling: str = "clip"
    """`clip`: mean - 2 deviations to mean + 2 deviations become 0 to 1, what lies beyond is cut off (SeCo, SatMAE,
    CROMA); `standard`: (value - mean) / deviation. Statistics are those of the training split, fixed."""
    statistics: int = 512
    """Training chips, evenly chosen, from which the band statistics are taken."""

    def __post_init__(self) -> None:
        require(
            self, "data.", scenes="3 or more", scene_size="16 or more", seasons="1 or more", cloudy="from 0 to 1",
            size="1 or more", step="0 or more", sampler=("grid", "random"), min_valid="from 0 to 1",
            scaling=("clip", "standard"), statistics="1 or more",
        )  # fmt: skip


def _mae() -> OptimConfig:
    """AdamW with warm-up and cosine, as masked autoencoders are trained."""
    return OptimConfig(lr=4e-4, weight_decay=0.05, betas=(0.9, 0.95), clip=1.0,
                       schedule=ScheduleConfig(kind="cosine", warmup=0.05))  # fmt: skip


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of the vision transformers (CROMA-B)."""

    dim: int = 768
    """Width."""
    depth: int = 12
    """Blocks of the optical encoder; the radar and the joint encoder have half as many."""
    heads: int = 16
    """Attention heads."""
    patch_size: int = 8
    """Pixels of a patch's side."""

    def __post_init__(self) -> None:
        require(self, "encoder.", dim="1 or more", depth="2 or more", heads="1 or more", patch_size="1 or more")


@dataclass(frozen=True)
class DecoderConfig:
    """The light decoder that reconstructs pixels."""

    dim: int = 512
    """Width."""
    depth: int = 1
    """Blocks."""
    heads: int = 8
    """Attention heads."""

    def __post_init__(self) -> None:
        require(self, "decoder.", dim="4 or more", depth="1 or more", heads="1 or more")


@dataclass(frozen=True)
class CromaConfig:
    """CROMA-B: contrast of masked radar and optical encodings, and reconstruction of both from the joint encoding."""

    data: RasterConfig = field(default_factory=RasterConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=7200, max_epochs=300))
    optim: OptimConfig = field(default_factory=_mae)
    encoder: ViTConfig = field(default_factory=ViTConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask_ratio: float = 0.75
    """Share of the patches of each sensor that its encoder does not see; drawn for each sensor by itself."""
    temperature: float = 0.07
    """Start of the learnt temperature of the contrast; its scale is not bounded, as released."""
    contrast: float = 1.0
    """Weight of the contrast; 0 leaves the reconstruction alone."""
    reconstruction: float = 1.0
    """Weight of the reconstruction; 0 leaves the contrast alone."""
    target: str = "joint"
    """Normalisation of the pixels to reconstruct: mean and variance of a patch over `joint`, all bands of both sensors,
    as in the official code, or over those of each `sensor`."""
    released_bias: bool = False
    """As in the released pretraining code, give the joint encoder's self-attention among masked radar tokens the
    distances from radar to optical patches; off: those among the radar patches. Without masks both are the same."""
    fusion: str = "attention"
    """How the joint features are made: by CROMA's joint encoder (`attention`), or by a gate that weighs both sensors'
    features place by place (`ssma`)."""
    objective: str = ""
    """Another objective in place of the contrast, as in `SigLIP()`; `counterpoint losses` lists them."""
    flips: bool = True
    """Flip and turn chips at random, both sensors alike."""
    weights: str = ""
    """Start from the published weights: CROMA_base.pt or CROMA_large.pt of the authors (12 optical bands, 8-pixel
    patches)."""

    def __post_init__(self) -> None:
        require(
            self, mask_ratio="from 0 to below 1", temperature="above 0", contrast="0 or more",
            reconstruction="0 or more", target=("joint", "sensor"), fusion=("attention", "ssma"),
        )  # fmt: skip


@dataclass(frozen=True)
class OpticalMAEConfig:
    """The baseline with one sensor: CROMA's optical encoder and decoder, reconstruction alone."""

    data: RasterConfig = field(default_factory=lambda: RasterConfig(sensors=("s2",)))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=7200, max_epochs=300))
    optim: OptimConfig = field(default_factory=_mae)
    encoder: ViTConfig = field(default_factory=ViTConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask_ratio: float = 0.75
    """Share of the patches that the encoder does not see."""
    flips: bool = True
    """Flip and turn chips at random."""

    def __post_init__(self) -> None:
        require(self, mask_ratio="from 0 to below 1")


@dataclass(frozen=True)
class SensorTowersConfig:
    """The baseline without reconstruction: CROMA's two encoders, contrasted as CLIP does."""

    data: RasterConfig = field(default_factory=RasterConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=1024, max_epochs=100))
    optim: OptimConfig = field(default_factory=_mae)
    encoder: ViTConfig = field(default_factory=ViTConfig)
    temperature: float = 0.07
    """Start of the learnt temperature."""
    objective: str = ""
    """Another objective in place of the contrast, as in `SigLIP()`; `counterpoint losses` lists them."""
    flips: bool = True
    """Flip and turn chips at random, both sensors alike."""

    def __post_init__(self) -> None:
        require(self, temperature="above 0")


@dataclass(frozen=True)
class MDiCoConfig:
    """MDiCo: several sensors with labels in training, one sensor alone in use."""

    data: RasterConfig = field(default_factory=lambda: RasterConfig(size=32))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, max_epochs=100, patience=5))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            name="adam", lr=1e-3, weight_decay=0.0, clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    dim: int = 128
    """Width of the encoders; shared and specific parts have half of it each."""
    width: int = 64
    """Channels of the first of the encoders' four stages."""
    dropout: float = 0.2
    """Dropout in the encoders."""
    temperature: float = 0.1
    """Temperature of the contrast between the sensors' shared parts."""
    main: float = 1.0
    """Weight of the task on shared and specific parts together."""
    auxiliary: float = 1.0
    """Weight of the task on each of both parts alone."""
    contrast: float = 1.0
    """Weight of the contrast of the shared parts."""
    discriminative: float = 1.0
    """Weight of telling the sensor from its specific (and its third, unused) part."""
    released_heads: bool = False
    """As in the released code, let the second sensor classifier read the *shared* part, which then learns to tell the
    sensor and leaves the third part untrained; off: it reads the third part."""
    flips: bool = True
    """Flip and turn chips at random, both sensors alike."""

    def __post_init__(self) -> None:
        require(
            self, dim="2 or more", width="1 or more", dropout="from 0 to below 1", temperature="above 0",
            main="0 or more", auxiliary="0 or more", contrast="0 or more", discriminative="0 or more",
        )  # fmt: skip
