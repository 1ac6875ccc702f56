"""Configuration of the vertical's data, evaluation and systems. Light on purpose: the command line reads it without
torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class InteractionsConfig:
    """Which interactions, and how they are split."""

    manifest: str = ""
    """Manifest of a data set (`data import`); empty uses the embedded generator, whose interactions are synthetic."""
    users: int = 2000
    """Users that the generator makes."""
    items: int = 1000
    """Items that the generator makes."""
    seed: int = 0
    """Seed of the generator."""
    at_least: float | None = None
    """Rating from which an interaction counts; null counts all."""
    core: int = 0
    """k-core: users and items with fewer interactions are left out, until none is; 0 keeps all."""
    split: str = ""
    """`random` (of every user), `leave-last-out`, `time` (the latest rows of all test) or `items` (whole items are held
    out); empty takes the split that came with the data, else random."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, val and test."""
    split_seed: int = 0
    """Seed of a split that is drawn."""
    features: tuple[str, ...] = ()
    """Item features to use, by name; empty uses all that came with the data."""
    standardize: bool = True
    """Features at mean 0 and deviation 1 in every column, by the items of the training split."""

    def __post_init__(self) -> None:
        require(
            self, "data.", users="2 or more", items="2 or more", core="0 or more", fractions="from 0 to 1",
            split=("", "random", "leave-last-out", "time", "items"),
        )  # fmt: skip


@dataclass(frozen=True)
class RankingConfig:
    """The full ranking by which a recommender is evaluated."""

    convention: str = "counterpoint"
    """`counterpoint`; `mmrec` (only training items are masked, users without a training item are left out, figures have
    four decimals) or `recbole` (training and validation items are masked, four decimals), as these libraries count."""
    mask: str = ""
    """Items of a user that are not ranked in the test: `train`, or `train+valid`; empty is the convention's
    (counterpoint: train+valid). In the validation it is always the training items."""
    cuts: tuple[int, ...] = (5, 10, 20)
    """Cut-offs K."""
    rare: int = 5
    """Items with this many training interactions at most are the slice of rare items."""
    sampled: int = 0
    """Rank each held-out item also against this many drawn ones, as a result named SAMPLED: such figures do not agree
    with full rankings, and are never used to choose. 0: not at all."""

    def __post_init__(self) -> None:
        require(
            self, "ranking.", convention=("counterpoint", "mmrec", "recbole"), mask=("", "train", "train+valid"),
            cuts="1 or more", rare="0 or more", sampled="0 or more",
        )  # fmt: skip


def training(**changes: object) -> TrainConfig:
    """The training of a recommender: chosen by Recall@20 on validation, which the whole catalogue is ranked for."""
    known = {"monitor": "val/recall@20", "monitor_mode": "max", "batch_size": 2048, "patience": 20, "max_epochs": 1000}
    return TrainConfig(**{**known, **changes})  # type: ignore[arg-type]


def flat(lr: float = 1e-3) -> OptimConfig:
    """Adam at a constant rate without decay or clipping, as the field's libraries train; `infinite`, so that a run goes
    on with other data (`--continue_from`)."""
    schedule = ScheduleConfig(kind="infinite", warmup=0, cooldown=0, constant=1.0, decay=0)
    return OptimConfig(lr=lr, weight_decay=0.0, name="adam", clip=None, schedule=schedule)


@dataclass(frozen=True)
class PopularityConfig:
    """Popularity: the items that most users met."""

    presets: ClassVar[dict] = {"small": {}}
    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    train: TrainConfig = field(default_factory=lambda: training(max_epochs=1, patience=None, monitor_every=0))
    optim: OptimConfig = field(default_factory=flat)


@dataclass(frozen=True)
class ItemKNNConfig:
    """Item-kNN: items like those that a user met, by the cosine of their users."""

    presets: ClassVar[dict] = {"small": {}}
    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    train: TrainConfig = field(default_factory=lambda: training(max_epochs=1, patience=None, monitor_every=0))
    optim: OptimConfig = field(default_factory=flat)
    neighbours: int = 100
    """Most similar items that are kept of every item."""
    shrink: float = 0.0
    """Added to the denominator of the cosine: similarities that rest on few users shrink."""

    def __post_init__(self) -> None:
        require(self, neighbours="1 or more", shrink="0 or more")


@dataclass(frozen=True)
class LightGCNConfig:
    """LightGCN: embeddings passed along the graph of users and items, BPR."""

    presets: ClassVar[dict] = {"small": {"dim": 32, "layers": 2, "train": {"batch_size": 1024, "max_epochs": 20}}}
    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    train: TrainConfig = field(default_factory=training)
    optim: OptimConfig = field(default_factory=flat)
    dim: int = 64
    """Width of the embeddings."""
    layers: int = 3
    """Layers of propagation."""
    reg: float = 1e-4
    """Weight of the embeddings' squared length, a sample."""

    def __post_init__(self) -> None:
        require(self, dim="1 or more", layers="0 or more", reg="0 or more")


@dataclass(frozen=True)
class VBPRConfig:
    """VBPR: factors of ids beside factors of the items' features, BPR."""

    presets: ClassVar[dict] = {"small": {"dim": 32, "train": {"batch_size": 1024, "max_epochs": 20}}}
    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    train: TrainConfig = field(default_factory=training)
    optim: OptimConfig = field(default_factory=flat)
    dim: int = 64
    """Width of the id factors, and of the projected features."""
    reg: float = 1e-4
    """Weight of the factors' squared length, a sample."""

    def __post_init__(self) -> None:
        require(self, dim="1 or more", reg="0 or more")
