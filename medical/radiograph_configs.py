"""Configuration of radiographs and of the systems that read them. Light on purpose: the command line reads it without
torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ParamGroup, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.medical.configs import PhantomConfig, ReportTextConfig


@dataclass(frozen=True)
class PictureRecipeConfig:
    """The form to which every radiograph is brought, in training and whenever one is encoded later."""

    size: int = 224
    """Pixels along each side of the square."""
    fit: Literal["crop", "pad"] = "crop"
    """`crop`: the shorter side becomes `size`, the middle is kept; `pad`: the longer side does, the rest is black."""
    low: float = 0.0
    """Percentile of the picture's values that becomes black; 0 with `high` 100 leaves all values as they are shown."""
    high: float = 100.0
    """Percentile that becomes white."""

    def __post_init__(self) -> None:
        require(self, "data.recipe.", size="8 or more")
        if self.fit not in ("crop", "pad"):
            raise InputError(f"--data.recipe.fit is {self.fit!r}; crop and pad are known")
        if not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"--data.recipe.low {self.low:g} and high {self.high:g} must be percentiles, rising from 0 to 100"
            )


@dataclass(frozen=True)
class RadiographDataConfig:
    """Which radiographs and reports, and in what form the network sees them."""

    manifest: str = ""
    """Manifest of `data import radiographs`, split by `data split`; empty uses the embedded generator, whose data are
    synthetic."""
    recipe: PictureRecipeConfig = field(default_factory=PictureRecipeConfig)
    """The form of the pictures."""
    sections: tuple[str, ...] = ("findings", "impression")
    """Sections of a report that the text encoder reads; empty reads all of it."""
    tokens: int = 128
    """Word pieces of a report; more are cut."""
    sentences: int = 24
    """Sentences of a report that are kept one by one."""
    vocabulary: int = 4000
    """Word pieces that are learnt from the training split's reports, at most."""
    volumes: int = 2000
    """Training radiographs that the generator makes."""
    val_volumes: int = 200
    """Its validation radiographs."""
    test_volumes: int = 400
    """Its test radiographs."""
    seed: int = 0
    """Seed of the generator."""
    phantom: PhantomConfig = field(default_factory=lambda: PhantomConfig(size=64, spacing=5.25))
    """The generator's settings; a picture has as many pixels along each side as the volume has voxels."""
    prompts: str = ""
    """File of prompts for zero-shot findings: finding -> {present: [...], absent: [...]}; empty takes those of the
    generator's findings where the data have their columns."""
    workers: int = 2
    """Processes that read pictures."""
    cache: str = ""
    """Folder of prepared pictures; empty: the suite's own."""

    def __post_init__(self) -> None:
        require(
            self, "data.", tokens="3 or more", sentences="1 or more", vocabulary="100 or more", volumes="2 or more",
            val_volumes="2 or more", test_volumes="2 or more", workers="1 or more",
        )  # fmt: skip


SMALL_PICTURES = {"recipe": {"size": 64, "fit": "pad"}, "tokens": 96}


@dataclass(frozen=True)
class ClipXRConfig:
    """clip-xr: a 2D network and a text transformer, contrasted report by report."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_PICTURES,
            "channels": [16, 32, 64],
            "dim": 128,
            "text": {"width": 128, "layers": 1, "heads": 4},
            "train": {"batch_size": 32, "max_epochs": 10, "precision": "32-true"},
            "optim": {"lr": 1e-3},
        }
    }
    data: RadiographDataConfig = field(default_factory=RadiographDataConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=128, max_epochs=50, precision="bf16-mixed", monitor="val/loss")
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=5e-4, weight_decay=0.05, schedule=ScheduleConfig(warmup=0.05))
    )
    text: ReportTextConfig = field(default_factory=ReportTextConfig)
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Of the picture network's stages, each at half the resolution of the one before."""
    dim: int = 512
    """Width of the common space."""
    shift: int = 4
    """Training pictures are moved by up to so many pixels along each axis."""
    temperature: float = 0.07
    """Start of the learnt temperature."""
    objective: str = ""
    """Another objective than InfoNCE with soft targets, as in `DCL`; see `counterpoint losses`."""

    def __post_init__(self) -> None:
        require(self, channels="1 or more", dim="1 or more", shift="0 or more", temperature="above 0")


@dataclass(frozen=True)
class M3AEWeights:
    """Of the terms; 0 leaves one out."""

    mlm: float = 1.0
    """Masked words."""
    mim: float = 1.0
    """Masked patches."""
    itm: float = 1.0
    """Whether picture and report belong together."""

    def __post_init__(self) -> None:
        require(self, "weights.", mlm="0 or more", mim="0 or more", itm="0 or more")
        if not self.mlm and not self.mim and not self.itm:
            raise InputError("--weights: all are 0, so there is nothing to learn; leave one term in")


@dataclass(frozen=True)
class M3AEConfig:
    """M3AE with the settings of its released pre-training script (ViT-B/16 at 288 pixels, a text tower of BERT's size).
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "data": SMALL_PICTURES,
            "patch": 8,
            "picture_width": 128,
            "picture_layers": 3,
            "picture_heads": 4,
            "text": {"width": 128, "layers": 2, "heads": 4},
            "width": 128,
            "heads": 4,
            "fusion_layers": 4,
            "mim_layer": 2,
            "decoder_width": 64,
            "decoder_layers": 2,
            "decoder_heads": 4,
            "train": {"batch_size": 32, "max_steps": 1500, "precision": "32-true"},
            "optim": {"lr": 2e-4},
        }
    }
    data: RadiographDataConfig = field(
        default_factory=lambda: RadiographDataConfig(recipe=PictureRecipeConfig(size=288), tokens=64)
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=256, max_steps=100_000, precision="16-mixed", monitor="val/loss")
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-5, weight_decay=0.01, betas=(0.9, 0.98), clip=None,
            schedule=ScheduleConfig(kind="linear", warmup=0.1),
            groups=tuple(ParamGroup(prefix=name, lr_scale=5.0) for name in ("fusion", "predict", "restore", "match")),
        )
    )  # fmt: skip
    text: ReportTextConfig = field(default_factory=lambda: ReportTextConfig(width=768, layers=12, heads=12))
    weights: M3AEWeights = field(default_factory=M3AEWeights)
    patch: int = 16
    """Pixels along each side of a patch; a divisor of `data.recipe.size`."""
    picture_width: int = 768
    """Of the picture tower."""
    picture_layers: int = 11
    """Its blocks; the released code builds 11 of CLIP's 12."""
    picture_heads: int = 12
    """Its attention heads."""
    width: int = 768
    """Of the fusion."""
    heads: int = 12
    """Attention heads of the fusion."""
    fusion_layers: int = 6
    """Co-attention blocks of each stream."""
    dropout: float = 0.1
    """In the fusion."""
    mim_layer: int = 3
    """Patches are restored from the states before this block of the fusion (from 0); -1: from the last states."""
    mim_ratio: float = 0.75
    """Share of the patches that is taken away."""
    mlm_ratio: float = 0.15
    """Share of a report's pieces that is to be predicted, by whole words."""
    decoder_width: int = 384
    """Of the head that restores patches."""
    decoder_layers: int = 4
    """Its blocks."""
    decoder_heads: int = 6
    """Its attention heads."""
    normalize_patches: bool = True
    """Patches are restored at mean 0 and variance 1 each."""

    def __post_init__(self) -> None:
        require(
            self, patch="1 or more", picture_layers="1 or more", fusion_layers="1 or more",
            mim_ratio="above 0 and at most 1", mlm_ratio="above 0 and at most 1", decoder_width="4 or more",
            decoder_layers="1 or more", dropout="from 0 to below 1",
        )  # fmt: skip
        if self.data.recipe.size % self.patch:
            raise InputError(f"--data.recipe.size {self.data.recipe.size} is no multiple of --patch {self.patch}")
        for width, heads, what in (
            (self.picture_width, self.picture_heads, "picture_"), (self.width, self.heads, ""),
            (self.decoder_width, self.decoder_heads, "decoder_"),
        ):  # fmt: skip
            if heads < 1 or width % heads:
                raise InputError(f"--{what}width {width} is no multiple of --{what}heads {heads}")
        if self.decoder_width % 4:
            raise InputError(f"--decoder_width is {self.decoder_width}; its sine places need a multiple of 4")
        if not -1 <= self.mim_layer < self.fusion_layers:
            last = self.fusion_layers - 1
            raise InputError(f"--mim_layer is {self.mim_layer}; -1 to {last} are blocks of the fusion")
