"""Settings and data of the toy system; light, as a vertical's should be."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from counterpoint.common.cli import ImportReport
from counterpoint.common.plugins import PluginEntry
from counterpoint.common.trainers.configs import OptimConfig, TrainConfig


@dataclass(frozen=True)
class PairData:
    """Data.

    Attributes:
        manifest: the manifest file.
        noise: standard deviation of the noise in each view.
    """

    manifest: str = "toy/manifest.csv"
    noise: float = 0.1


@dataclass(frozen=True)
class PairConfig:
    """Two linear towers."""

    presets: ClassVar[dict] = {"small": {"dim": 8, "train": {"max_epochs": 3}}}
    data: PairData = field(default_factory=PairData)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=32, max_epochs=30, tensorboard=False, accelerator="cpu")
    )
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.02))
    dim: int = 16
    objective: str = ""


@dataclass(frozen=True)
class HalfConfig:
    """Weights of the samples."""

    other: float = 0.0
    """Weight of the second half."""


half = PluginEntry("first_half", "looks away from half of them", "-", "toy_system:Half", "toy_configs:HalfConfig")


def simulate(out: Path, rows: int = 120, seed: int = 0) -> ImportReport:
    """Write a synthetic data set.

    Args:
        out: receives manifest.csv.
        rows: number of samples, three to a group.
        seed: of the vectors.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = ["id,group,split,seed"]
    for i in range(rows):
        split = "test" if i // 3 % 4 == 0 else "val" if i // 3 % 4 == 1 else "train"
        lines.append(f"s{i},g{i // 3},{split},{seed + i}")
    (out / "manifest.csv").write_text("\n".join(lines) + "\n")
    (out / "manifest.csv.meta.json").write_text('{"synthetic": "vectors drawn at random"}')
    return ImportReport(out / "manifest.csv", rows, note="synthetic")
