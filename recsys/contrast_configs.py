"""Configuration of the contrastive recommenders; light on purpose, `--help` reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from counterpoint.common.trainers.configs import OptimConfig, TrainConfig
from counterpoint.common.trainers.limits import require
from counterpoint.recsys.configs import InteractionsConfig, RankingConfig, flat, training


def fused(lr: float = 1e-3, **changes: Any) -> OptimConfig:
    """Adam in one pass over each table: most rows of a table take no gradient, and moments of all must move."""
    return replace(flat(lr), options={"fused": True}, **changes)


@dataclass(frozen=True)
class BM3Config:
    """BM3: users, items and modalities predict one another's dropped-out vectors. Defaults are those of the official
    code for Amazon Baby."""

    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    dim: int = 64
    """Width of all vectors."""
    layers: int = 1
    """Layers of propagation."""
    dropout: float = 0.5
    """Share of a target vector that is dropped."""
    reg: float = 0.1
    """Weight of the tables' norms."""
    contrast: float = 2.0
    """Weight of the modalities' terms."""
    train_features: bool = True
    """Train the raw feature tables, as published; off: they stay as they are read, and a step takes a third of the
    time."""
    objective: str = ""
    """Another objective of users and items in place of the published one, as in `InfoNCE(temperature=0.2)`;
    `counterpoint losses` lists them."""
    uniformity: float = 0.0
    """Weight of the uniformity of users and of items (with `--objective Alignment`: DirectAU)."""
    optim: OptimConfig = field(default_factory=fused)
    train: TrainConfig = field(default_factory=training)

    def __post_init__(self) -> None:
        require(
            self, dim="1 or more", layers="0 or more", dropout="from 0 to below 1", reg="0 or more",
            contrast="0 or more", uniformity="0 or more",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"dim": 32, "train_features": False, "train": {"batch_size": 1024, "max_epochs": 40}},
        # The settings that the official README names.
        "sports": {"reg": 0.01},
        "electronics": {"layers": 2, "dropout": 0.3},
    }


@dataclass(frozen=True)
class SASRecConfig:
    """SASRec: a causal transformer over a user's items tells the next one at every place."""

    data: InteractionsConfig = field(default_factory=lambda: InteractionsConfig(split="leave-last-out"))
    ranking: RankingConfig = field(default_factory=RankingConfig)
    length: int = 50
    """Items of a history that are read, the last ones."""
    dim: int = 64
    """Width of all vectors."""
    layers: int = 2
    """Blocks."""
    heads: int = 2
    """Attention heads."""
    hidden: int = 256
    """Width inside of a block's perceptron."""
    dropout: float = 0.5
    """Dropout of input, attention and both parts of a block."""
    loss: str = "softmax"
    """`softmax` over all items, or `binary` against one item that was drawn for each place, as the paper's code."""
    optim: OptimConfig = field(default_factory=fused)
    train: TrainConfig = field(default_factory=lambda: training(batch_size=256, max_epochs=200, patience=10))

    def __post_init__(self) -> None:
        require(
            self, length="1 or more", dim="1 or more", layers="1 or more", heads="1 or more", hidden="1 or more",
            dropout="from 0 to below 1", loss=("softmax", "binary"),
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"dim": 32, "hidden": 64, "length": 20, "dropout": 0.2, "train": {"max_epochs": 20}},
        # Kang and McAuley's code for Amazon's sets.
        "paper": {
            "dim": 50, "heads": 1, "hidden": 50, "loss": "binary", "optim": {"betas": [0.9, 0.98]},
            "train": {"batch_size": 128},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class MCLRecConfig:
    """MCLRec: altered prefixes and learnt views of them, contrasted beside the next item. Defaults are those of the
    official code for Amazon Beauty."""

    data: InteractionsConfig = field(default_factory=lambda: InteractionsConfig(split="leave-last-out"))
    ranking: RankingConfig = field(default_factory=RankingConfig)
    length: int = 50
    """Items of a prefix that are read, the last ones."""
    dim: int = 64
    """Width of all vectors."""
    layers: int = 2
    """Blocks of the encoder."""
    heads: int = 2
    """Attention heads."""
    hidden: int = 256
    """Width inside of a block's perceptron."""
    dropout: float = 0.5
    """Dropout of input, attention and both parts of a block."""
    crop: float = 0.5
    """Share of a prefix that crop keeps."""
    mask: float = 0.5
    """Share of a prefix that mask hides."""
    reorder: float = 0.8
    """Share of a prefix that reorder puts in random order."""
    temperature: float = 1.0
    """Of the contrast of the two altered prefixes."""
    views: float = 0.0
    """Weight of the contrast of the two altered prefixes (the paper's lambda)."""
    meta: float = 0.05
    """Weight of the learnt views' contrast and of the regulariser (the paper's beta); with `views` 0 and this 0 the
    system is SASRec on prefixes."""
    gamma: float = 0.1
    """Weight of the regulariser within it."""
    encoder_updates: int = 1
    """Steps of the encoder a batch: 1 as in the paper; 2 as the official code, one before and one after the
    augmenters' step."""
    optim: OptimConfig = field(default_factory=fused)
    train: TrainConfig = field(default_factory=lambda: training(batch_size=256, max_epochs=50, patience=10))

    def __post_init__(self) -> None:
        require(
            self, length="1 or more", dim="1 or more", layers="1 or more", heads="1 or more", hidden="1 or more",
            dropout="from 0 to below 1", crop="from 0 to 1", mask="from 0 to 1", reorder="from 0 to 1",
            temperature="above 0", views="0 or more", meta="0 or more", gamma="0 or more",
            encoder_updates="from 1 to 2",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"dim": 32, "hidden": 64, "length": 20, "dropout": 0.2, "train": {"max_epochs": 20}},
        "sports": {"views": 0.04, "meta": 0.4},
        "yelp": {"views": 0.03, "meta": 0.1},
    }


@dataclass(frozen=True)
class TwoTowerConfig:
    """Two towers over fields of users and items, self-supervision on uniformly drawn items."""

    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    dim: int = 128
    """Width of the vectors."""
    widths: tuple[int, ...] = (1024,)
    """Hidden layers of both towers."""
    field_dim: int = 64
    """Width of every field."""
    dropout: float = 0.1
    """Behind hidden layers."""
    temperature: float = 0.07
    """Of both losses."""
    alpha: float = 0.1
    """Weight of self-supervision; 0 leaves it out."""
    masking: str = "correlated"
    """How the fields are shared out over the two views: `correlated` (a seed with those that it tells most of), or
    `random`."""
    value_dropout: float = 0.1
    """Share of the values that a view loses."""
    corrected: bool = True
    """Correct the softmax by how often items come by."""
    drop_same: bool = False
    """Leave the batch's other copies of a row's item out of its negatives."""
    buckets: int = 2**20
    """Places of each hash of the frequency estimator."""
    hashes: int = 2
    """Hashes of the estimator."""
    rate: float = 0.05
    """Rate of its moving average."""
    optim: OptimConfig = field(default_factory=fused)
    train: TrainConfig = field(default_factory=training)

    def __post_init__(self) -> None:
        require(
            self, dim="1 or more", widths="1 or more", field_dim="1 or more", dropout="from 0 to below 1",
            temperature="above 0", alpha="0 or more", masking=("correlated", "random"),
            value_dropout="from 0 to below 1", buckets="1 or more", hashes="1 or more", rate="above 0 and at most 1",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "dim": 32, "widths": [128], "field_dim": 16, "buckets": 2**16,
            "train": {"batch_size": 1024, "max_epochs": 30},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class REARMConfig:
    """REARM: graphs among users and items, attention between two modalities. Defaults are those of the official code
    for Amazon Baby."""

    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    dim: int = 64
    """Width of ids and of each modality."""
    layers: int = 4
    """Layers of propagation between users and items."""
    item_layers: int = 1
    """Propagations among items."""
    user_layers: int = 1
    """Propagations among users."""
    item_neighbours: int = 10
    """Neighbours of an item, in each of its graphs."""
    user_neighbours: int = 40
    """Neighbours of a user, in each of his graphs."""
    item_first: float = 0.0
    """Weight of the first modality (by the order of --data.features) among the items' nearest neighbours."""
    user_first: float = 0.2
    """The same among the users'."""
    item_shared: float = 0.2
    """Weight of co-occurrence in the items' graph."""
    user_shared: float = 0.4
    """Weight of co-occurrence in the users' graph."""
    rank: int = 3
    """Inner width of the low-rank matrices."""
    self_dropout: float = 0.4
    """Of attention within a modality."""
    cross_dropout: float = 0.6
    """Of attention between modalities."""
    temperature: float = 0.6
    """Of the contrast of the modalities."""
    contrast: float = 5e-6
    """Weight of that contrast."""
    orthogonality: float = 5e-5
    """Weight of the modalities' inner products."""
    train_features: bool = True
    """Train raw features and interests, as published; off: they stay as they are read."""
    optim: OptimConfig = field(default_factory=lambda: replace(fused(5e-5), name="adamw", weight_decay=5e-4))
    train: TrainConfig = field(default_factory=lambda: training(max_epochs=2000))

    def __post_init__(self) -> None:
        require(
            self, dim="1 or more", layers="0 or more", item_layers="0 or more", user_layers="0 or more",
            item_neighbours="1 or more", user_neighbours="1 or more", item_first="from 0 to 1",
            user_first="from 0 to 1", item_shared="from 0 to 1", user_shared="from 0 to 1", rank="1 or more",
            self_dropout="from 0 to 1", cross_dropout="from 0 to 1", temperature="above 0", contrast="0 or more",
            orthogonality="0 or more",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "dim": 16, "layers": 2, "user_neighbours": 10, "train_features": False, "optim": {"lr": 1e-3},
            "train": {"batch_size": 1024, "max_epochs": 30},
        },
        "sports": {
            "layers": 5, "rank": 7, "self_dropout": 1.0, "cross_dropout": 0.2, "user_first": 0.0, "item_first": 0.2,
            "user_shared": 0.9, "item_shared": 0.2, "user_neighbours": 25, "item_neighbours": 5, "item_layers": 2,
            "user_layers": 2, "temperature": 1.5, "contrast": 1e-3, "orthogonality": 5e-4,
            "optim": {"weight_decay": 0.05},
        },
        "clothing": {
            "self_dropout": 0.4, "cross_dropout": 0.1, "user_first": 0.1, "item_first": 0.1, "user_shared": 0.7,
            "item_shared": 0.1, "user_neighbours": 45, "item_neighbours": 10, "temperature": 0.03, "contrast": 1e-6,
            "orthogonality": 1e-5, "optim": {"weight_decay": 1e-5},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class CEAAConfig:
    """Semantic item graphs enhanced by co-occurrence, noise views, behaviour as the anchor: our formulation of the
    paper's abstract."""

    data: InteractionsConfig = field(default_factory=InteractionsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    dim: int = 64
    """Width of the embeddings."""
    layers: int = 2
    """Layers of propagation between users and items."""
    neighbours: int = 10
    """Nearest items, by features and by co-occurrence."""
    shared: float = 0.3
    """Weight of co-occurrence in the semantic graphs (a)."""
    noise: float = 0.1
    """Size of the perturbation of a vector of mean length."""
    temperature: float = 0.2
    """Of all contrastive terms."""
    views: float = 0.01
    """Weight of the perturbed views' contrast."""
    anchored: float = 0.01
    """Weight of the modalities' contrast against behaviour."""
    aligned: float = 0.01
    """Weight of behaviour against fused semantics."""
    reg: float = 1e-4
    """Weight of the embeddings' squared length, a sample."""
    optim: OptimConfig = field(default_factory=fused)
    train: TrainConfig = field(default_factory=training)

    def __post_init__(self) -> None:
        require(
            self, dim="1 or more", layers="0 or more", neighbours="1 or more", shared="from 0 to 1", noise="0 or more",
            temperature="above 0", views="0 or more", anchored="0 or more", aligned="0 or more", reg="0 or more",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"dim": 32, "train": {"batch_size": 1024, "max_epochs": 20}},
    }
