"""Configuration of radiographs and of the systems that read them. Light on purpose: the command line reads it without
torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
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
