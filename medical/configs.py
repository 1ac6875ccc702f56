"""Configuration of the vertical's data and systems. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class RecipeConfig:
    """The form to which every volume is brought, in training and whenever one is encoded later. Axes always lead to the
    patient's right, front and head (RAS)."""

    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0)
    """Millimetres between voxels."""
    size: tuple[int, int, int] = (224, 224, 160)
    """Voxels, about the volume's centre: what lies outside is cut, what is missing is filled."""
    low: float = -1024.0
    """Lower values (HU of a CT) are clipped to it."""
    high: float = 3071.0
    """Higher values are clipped to it."""
    outside: float = -1024.0
    """Value beyond the volume's ends: air."""

    def __post_init__(self) -> None:
        require(self, "data.recipe.", spacing="above 0", size="2 or more")
        if not self.low < self.high or not self.low <= self.outside <= self.high:
            raise InputError(
                f"--data.recipe.low {self.low:g}, outside {self.outside:g} and high {self.high:g} must rise in this "
                "order"
            )


@dataclass(frozen=True)
class PhantomConfig:
    """The CT phantom (synthetic)."""

    size: int = 48
    """Voxels along each side."""
    spacing: float = 7.0
    """Millimetres between voxels; size x spacing must hold the trunk, 336 mm."""
    lesions: float = 2.0
    """Lesions are this many times as large as in a body, so that a small network can find them at this spacing."""
    noise: tuple[float, float] = (6.0, 18.0)
    """Least and largest standard deviation of the noise in HU; a sharp kernel has half as much again."""
    metastasis: float = 1.8
    """Contrast of metastases to the liver, in multiples of 28 to 45 HU."""
    distractors: bool = True
    """Ribs, and vessels in the lungs."""
    omissions: float = 0.05
    """Share of the findings that a report leaves out."""
    synonyms: float = 0.05
    """Share of the sentences with another word of the same meaning."""

    def __post_init__(self) -> None:
        require(
            self, "phantom.", size="16 or more", spacing="above 0", lesions="above 0", noise="0 or more",
            metastasis="above 0", omissions="from 0 to 1", synonyms="from 0 to 1",
        )  # fmt: skip


@dataclass(frozen=True)
class CTDataConfig:
    """Which volumes and reports, and in what form the network sees them."""

    manifest: str = ""
    """Manifest of `data import`, split by `data split`; empty uses the embedded generator, whose data are synthetic."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    """The form of the volumes."""
    sections: tuple[str, ...] = ("findings", "impression")
    """Sections of a report that the text encoder reads; empty reads all of it."""
    tokens: int = 256
    """Word pieces of a report; more are cut."""
    sentences: int = 24
    """Sentences of a report that are contrasted one by one."""
    sentence_tokens: int = 40
    """Word pieces of a sentence."""
    vocabulary: int = 4000
    """Word pieces that are learnt from the training split's reports, at most."""
    volumes: int = 2000
    """Training volumes that the generator makes."""
    val_volumes: int = 200
    """Its validation volumes."""
    test_volumes: int = 400
    """Its test volumes."""
    seed: int = 0
    """Seed of the generator."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    """The generator's settings."""
    prompts: str = ""
    """File of prompts for zero-shot findings: finding -> {present: [...], absent: [...]}; empty takes those of the
    generator's findings where the data have their columns."""
    workers: int = 2
    """Processes that read volumes."""
    cache: str = ""
    """Folder of prepared volumes; empty: the suite's own."""

    def __post_init__(self) -> None:
        require(
            self, "data.", tokens="3 or more", sentences="1 or more", sentence_tokens="3 or more",
            vocabulary="100 or more", volumes="2 or more", val_volumes="2 or more", test_volumes="2 or more",
            workers="1 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class ReportTextConfig:
    """The transformer that reads reports."""

    width: int = 512
    """Of its states."""
    layers: int = 6
    """Blocks."""
    heads: int = 8
    """Attention heads; a divisor of the width."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        require(self, "text.", width="1 or more", layers="0 or more", heads="1 or more", dropout="from 0 to below 1")
        if self.width % self.heads:
            raise InputError(f"--text.width {self.width} is no multiple of --text.heads {self.heads}")


WINDOWS = ((-600.0, 400.0), (30.0, 45.0), (110.0, 60.0), (500.0, 500.0))
"""Lung, two narrow windows of soft tissue (without and with contrast), bone: centre and half width in HU."""
SMALL_DATA = {"recipe": {"spacing": [7.0, 7.0, 7.0], "size": [48, 48, 48]}, "tokens": 160}


@dataclass(frozen=True)
class ClipCTConfig:
    """clip-ct: a 3D network and a text transformer, contrasted report by report and sentence by sentence."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_DATA,
            "channels": [16, 48, 128],
            "dim": 128,
            "text": {"width": 128, "layers": 1, "heads": 4},
            "train": {"batch_size": 16, "max_epochs": 5},
            "optim": {"lr": 2e-3},
        }
    }
    data: CTDataConfig = field(default_factory=CTDataConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=32, max_epochs=50, precision="bf16-mixed", monitor="val/loss")
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=5e-4, weight_decay=0.05, schedule=ScheduleConfig(warmup=0.05))
    )
    text: ReportTextConfig = field(default_factory=ReportTextConfig)
    windows: tuple[tuple[float, float], ...] = WINDOWS
    """Centre and half width (HU) of the windows that are the network's input channels."""
    channels: tuple[int, int, int] = (32, 96, 256)
    """Of the image network's three stages, each at half the resolution of the one before."""
    dim: int = 512
    """Width of the common space."""
    shift: int = 2
    """Training volumes are moved by up to so many voxels along each axis."""
    temperature: float = 0.07
    """Start of the learnt temperature."""
    sentence_weight: float = 1.0
    """Weight of the sentence-wise sigmoid term; 0 leaves it out."""
    objective: str = ""
    """Another objective than InfoNCE with soft targets, as in `DCL`; see `counterpoint losses`."""

    def __post_init__(self) -> None:
        require(
            self, channels="1 or more", dim="1 or more", shift="0 or more", temperature="above 0",
            sentence_weight="0 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class TriBERTConfig:
    """TriBERT: one body of blocks in three stages."""

    width: int = 768
    """Of its states."""
    heads: int = 12
    """Attention heads; a divisor of the width."""
    layers: tuple[int, int, int] = (4, 4, 4)
    """Blocks of the stages of words, sentences and report."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        require(self, "text.", width="1 or more", heads="1 or more", layers="0 or more", dropout="from 0 to below 1")
        if self.width % self.heads:
            raise InputError(f"--text.width {self.width} is no multiple of --text.heads {self.heads}")


@dataclass(frozen=True)
class VelvetWeights:
    """Of the terms; 0 leaves one out. Our reading: the paper's are not public."""

    report: float = 1.0
    """Volume against report."""
    sentence: float = 0.5
    """Regions against sentences."""
    word: float = 0.25
    """Patches against words."""
    mim: float = 1.0
    """Masked volumes."""
    mlm: float = 1.0
    """Masked words."""

    def __post_init__(self) -> None:
        names = ("report", "sentence", "word", "mim", "mlm")
        require(self, "weights.", **dict.fromkeys(names, "0 or more"))
        if not any(getattr(self, name) for name in names):
            raise InputError("--weights: all are 0, so there is nothing to learn; leave one term in")


@dataclass(frozen=True)
class VelvetMedConfig:
    """VELVET-Med in our reading; `--preset small` is for the phantom on a laptop."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_DATA,
            "encoder": "conv",
            "channels": [16, 48, 128],
            "dim": 128,
            "mask_block": 6,
            "text": {"width": 128, "heads": 4, "layers": [1, 1, 1]},
            "train": {"batch_size": 16, "max_epochs": 5},
            "optim": {"lr": 2e-3},
        }
    }
    data: CTDataConfig = field(
        default_factory=lambda: CTDataConfig(recipe=RecipeConfig(spacing=(1.5, 1.5, 1.5), size=(192, 192, 192)))
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=32, max_epochs=50, precision="bf16-mixed", monitor="val/loss")
    )
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4, weight_decay=0.05))
    text: TriBERTConfig = field(default_factory=TriBERTConfig)
    weights: VelvetWeights = field(default_factory=VelvetWeights)
    encoder: str = "swin"
    """`swin` (MONAI's Swin transformer) or `conv` (the small network of clip-ct)."""
    swin_width: int = 48
    """Of the Swin transformer's first stage; a multiple of 12."""
    windows: tuple[tuple[float, float], ...] = WINDOWS
    """Centre and half width (HU) of the windows that are the network's input channels."""
    channels: tuple[int, int, int] = (32, 96, 256)
    """Of the small network's three stages."""
    queries: int = 8
    """Regions: learnt queries that look at a volume."""
    dim: int = 512
    """Width of the common spaces."""
    shift: int = 2
    """Training volumes are moved by up to so many voxels along each axis."""
    mask_ratio: float = 0.6
    """Share of a volume's blocks that is covered."""
    mask_block: int = 16
    """Voxels along each side of a block."""
    word_ratio: float = 0.15
    """Share of a report's words that is to be predicted."""
    temperature: float = 0.07
    """Start of the learnt temperatures."""
    local_temperature: float = 0.25
    """T_l: how sharply a part of the text looks at one place."""
    part_temperature: float = 0.2
    """T_a: how much the best part of a report counts."""
    objective: str = ""
    """Another objective than InfoNCE with soft targets at the level of reports; see `counterpoint losses`."""

    def __post_init__(self) -> None:
        require(
            self, encoder=("swin", "conv"), channels="1 or more", queries="1 or more", dim="1 or more",
            shift="0 or more", mask_ratio="above 0 and at most 1", mask_block="1 or more", word_ratio="from 0 to 1",
            temperature="above 0", local_temperature="above 0", part_temperature="above 0",
        )  # fmt: skip
        if self.swin_width % 12:
            raise InputError(f"--swin_width is {self.swin_width}; it must be a multiple of 12")


@dataclass(frozen=True)
class GeminiConfig:
    """GEMINI at the size of its official 3D code; `--preset small` is for crops on a laptop."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": {
                "recipe": {"spacing": [1.0, 1.0, 1.0], "size": [32, 48, 32], "low": 0.0, "high": 1e5, "outside": 0.0}
            },
            "channels": [16, 24, 32],
            "deformer": [16, 24, 24],
            "train": {"batch_size": 4, "max_steps": 400},
            "optim": {"lr": 1e-3},
        }
    }
    data: CTDataConfig = field(
        default_factory=lambda: CTDataConfig(
            recipe=RecipeConfig(spacing=(1.0, 1.0, 1.0), size=(128, 128, 128), low=0.0, high=1e5, outside=0.0)
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            batch_size=2, max_steps=200_000, monitor="val/loss", validate_every_epochs=10
        )
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-4, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0)
        )
    )
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Of the UNet's levels; the first is the width of a voxel's features."""
    deformer: tuple[int, ...] = (32, 64, 64)
    """Of the shallow UNet that finds the flow."""
    window: int = 9
    """Voxels along each side of the window of the local correlation."""
    gss: float = 0.8
    """Weight of the geometric semantic similarity."""
    smo: float = 0.4
    """Weight of the flow's smoothness."""
    restore: float = 100.0
    """Weight of the restoration of a distorted volume; 0 leaves it out."""
    degrees: float = 20.0
    """Both volumes of a pair are turned by up to so many degrees about each axis."""
    scale: tuple[float, float] = (0.75, 1.25)
    """Smallest and largest factor by which they are scaled."""
    integration: int = 0
    """Squarings by which the flow is integrated (diffeomorphic), 7 is usual; 0: the network's output is the flow."""

    def __post_init__(self) -> None:
        require(
            self, channels="1 or more", deformer="1 or more", window="1 or more", gss="0 or more", smo="0 or more",
            restore="0 or more", degrees="0 or more", scale="above 0", integration="0 or more",
        )  # fmt: skip
        if self.window % 2 == 0:
            raise InputError(f"--window is {self.window}; it must be odd")
