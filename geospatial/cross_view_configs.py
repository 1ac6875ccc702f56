"""Configuration of the systems that pair views of a place; without torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.geospatial.configs import RasterConfig


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Sizes of the convolutional encoder (ConvNeXt-B)."""

    depths: tuple[int, ...] = (3, 3, 27, 3)
    """Blocks of every stage."""
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    """Channels of every stage; from one to the next the side is halved."""
    patch_size: int = 4
    """Pixels of the side of a patch of the stem."""

    def __post_init__(self) -> None:
        require(self, "encoder.", depths="1 or more", widths="1 or more", patch_size="1 or more")
        if not self.depths or len(self.depths) != len(self.widths):
            raise InputError(
                f"--encoder.depths names {len(self.depths)} stages and --encoder.widths {len(self.widths)}; "
                "they name the same ones"
            )


@dataclass(frozen=True)
class Sample4GeoConfig:
    """Sample4Geo: two views of a place contrasted in batches of neighbours, as trained on CVUSA."""

    data: RasterConfig = field(default_factory=lambda: RasterConfig(size=384))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            batch_size=128, max_epochs=40, plugins={"neighbour_batches": {"similar_every": 4, "similar_start": 4}}
        )
    )
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-3, weight_decay=0.01, clip=None, schedule=ScheduleConfig(kind="cosine", warmup=1 / 40)
        )
    )
    encoder: ConvNeXtConfig = field(default_factory=ConvNeXtConfig)
    views: str = "sensors"
    """What is paired: `sensors`, radar and optical chips of a place, or `times`, one sensor's chips of it at two times
    (`--data.sensors s2`)."""
    shared: bool = True
    """One encoder for both sensors, but for their stems; off: an encoder each."""
    temperature: float = 0.07
    """Start of the learnt temperature; its scale is not bounded, as released."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over the batch."""
    objective: str = ""
    """Another objective in place of the contrast, as in `SigLIP()`; `counterpoint losses` lists them."""
    flips: bool = True
    """Flip and turn chips at random, both views alike."""

    def __post_init__(self) -> None:
        require(self, views=("sensors", "times"), temperature="above 0", label_smoothing="from 0 to below 1")
