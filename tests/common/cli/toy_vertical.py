"""A vertical of the smallest kind, as a team would write it in a package of its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from counterpoint.common.cli import Importer, ImportReport, Modality, Outcome, Rejected, SystemEntry, Vertical
from counterpoint.common.errors import InputError
from counterpoint.common.formats import Format


@dataclass(frozen=True)
class Train:
    """Training.

    Attributes:
        max_epochs: passes over the data.
        precision: arithmetic.
    """

    max_epochs: int = 100
    precision: Literal["32", "bf16"] = "32"
    seed: int = 0

    def __post_init__(self):
        if self.max_epochs < 1:
            raise InputError(f"train.max_epochs is {self.max_epochs}; it must be at least 1")


@dataclass(frozen=True)
class Config:
    """The toy's settings."""

    presets: ClassVar[dict] = {"small": {"width": 8, "train": {"max_epochs": 2}}}
    train: Train = field(default_factory=Train)
    width: int = 512
    scales: tuple[float, ...] = (1.0, 2.0)
    note: str | None = None

    def __post_init__(self):
        if self.width < 1:
            raise InputError(f"width is {self.width}; it must be at least 1")


def demo(out: Path = Path("runs/demo"), count: int = 3) -> Outcome:
    """Count to a number.

    Args:
        out: folder for the report.
        count: how far.
    """
    if count < 0:
        raise InputError(f"count is {count}; it must not be negative")
    if count == 99:
        raise RuntimeError("a fault of ours")
    if count == 98:
        raise KeyboardInterrupt
    if count == 97:
        import a_library_nobody_has  # noqa: F401
    print("chatter of a library")  # noqa: T201
    return Outcome({"count": count, "nothing": float("nan")}, (f"counted to {count}",), {"report": out / "report.html"})


def read_folder(source: Path, out: Path, strict: bool = False) -> ImportReport:
    """Import a folder of text files.

    Args:
        source: the folder.
        out: receives manifest.parquet.
        strict: refuse instead of leaving out.
    """
    files = sorted(source.iterdir())
    bad = tuple(Rejected(f.name, "is empty") for f in files if not f.stat().st_size)
    if strict and bad:
        raise InputError(f"{bad[0].source} is empty")
    return ImportReport(out / "manifest.parquet", len(files) - len(bad), bad, note="text only")


def check_row(row: dict, root: Path) -> None:
    """A text file must exist and hold text."""
    if not (root / row["file"]).read_text():
        raise InputError(f"{row['file']} is empty")


vertical = Vertical(
    name="toy",
    package="toy_vertical",
    summary="text files, for tests",
    extra="toys",
    systems=(
        SystemEntry("toy-one", "ready", "A. Author, 2020", "Learns.", "-", "toy_vertical:Config", "toy_system:One"),
        SystemEntry(
            "toy-pair",
            "experimental",
            "B. Author, 2021",
            "Two noisy projections of one vector find each other.",
            "-",
            "toy_configs:PairConfig",
            "toy_system:Pair",
            protocols="toy_system:protocols",
        ),
    ),
    simulate="toy_configs:simulate",
    modalities=tuple(
        Modality(name, read="toy_system:query", parse="toy_system:query_text", picture="toy_system:gallery")
        for name in ("left", "right")
    ),
    importers=(Importer("folder", "a folder of text files", "toy_vertical:read_folder"),),
    data_check="toy_vertical:check_row",
    demo="toy_vertical:demo",
    export_formats=(Format("card", ".card", "the name of the class", "toy_system:write_card"),),
    embedding_formats=(Format("names", ".txt", "an id a line", "toy_system:write_names"),),
)
