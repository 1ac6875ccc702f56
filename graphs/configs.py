"""Configurations of the graph systems; light on purpose, `--help` reads them without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig, TrainConfig
from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class MoleculeDataConfig:
    """Molecules to learn from."""

    manifest: str = ""
    """Manifest with a `smiles` column (`counterpoint graphs data import molecules`)."""
    workers: int = 0
    """Processes that turn SMILES into graphs before training; always at least one, which a molecule may end."""

    def __post_init__(self) -> None:
        require(self, "data.", workers="0 or more")


_ATOMS = ("element", "full")


@dataclass(frozen=True)
class KCLConfig:
    """KCL: the molecule against its element-knowledge-augmented twin. Defaults are the published code's."""

    data: MoleculeDataConfig = field(default_factory=MoleculeDataConfig)
    knowledge: str = ""
    """Triples file of the element graph; empty means the built-in one from RDKit's periodic table."""
    node_dim: int = 128
    """Of the node table (elements and attributes)."""
    hidden: int = 64
    """Of the GCN's and the KMPNN's layers."""
    gcn_layers: int = 2
    """Graph convolutions of the plain view."""
    kmpnn_steps: int = 6
    """Message passing steps of the knowledge view."""
    atom_features: str = "element"
    """`element` (atomic number alone, as published) or `full` (all atom features) for the plain view."""
    projector_hidden: int = 64
    """Hidden width of the shared projector."""
    temperature: float = 0.05
    """The released code's logits are multiplied by 20 whatever its temperature argument (0.1) says."""
    objective: str = ""
    """Another objective in place of the published one, as in `HCL(beta=0.5)`; `counterpoint losses` lists them."""
    freeze_readouts: bool = False
    """Leave both readouts untrained, as the released code does."""
    rotate_epochs: int = 200
    """RotatE epochs that initialise the element and attribute vectors; 0 starts from random ones."""
    similar_batches: bool = True
    """Batches of similar molecules: Butina clusters of Morgan fingerprints, read from large to small."""
    butina_threshold: float = 0.85
    """Tanimoto distance within a cluster."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-4, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0.0)
        )
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=64, max_steps=78_000))

    def __post_init__(self) -> None:
        require(
            self, node_dim="2 or more", hidden="1 or more", gcn_layers="1 or more", kmpnn_steps="0 or more",
            atom_features=_ATOMS, projector_hidden="1 or more", temperature="above 0", rotate_epochs="0 or more",
            butina_threshold="from 0 to 1",
        )  # fmt: skip
        if self.node_dim % 2 and self.rotate_epochs:
            raise InputError(f"--node_dim is {self.node_dim}; RotatE's complex vectors need an even number")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "hidden": 32, "node_dim": 64, "kmpnn_steps": 3, "rotate_epochs": 50,
            "optim": {"lr": 1e-3}, "train": {"max_epochs": 5, "max_steps": None},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class GraphCLConfig:
    """GraphCL on molecules, with the same encoder as KCL's plain view: the baseline of the same harness."""

    data: MoleculeDataConfig = field(default_factory=MoleculeDataConfig)
    views: tuple[str, str] = ("subgraph", "mask")
    """Two of `drop` (nodes), `perturb` (edges), `mask` (attributes), `subgraph` (random walk)."""
    ratio: float = 0.2
    """Share of nodes or edges that a view changes."""
    node_dim: int = 128
    hidden: int = 64
    layers: int = 2
    atom_features: str = "element"
    projector_hidden: int = 64
    temperature: float = 0.1
    objective: str = ""
    """Another objective in place of the published one, as in `HCL(beta=0.5)`; `counterpoint losses` lists them."""
    positive_in_denominator: bool = False
    """The released denominator is our reading: the negatives alone; true gives NT-Xent."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-3, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0.0)
        )
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=64, max_epochs=20))

    def __post_init__(self) -> None:
        require(
            self, views=("drop", "perturb", "mask", "subgraph"), ratio="from 0 to below 1", node_dim="1 or more",
            hidden="1 or more", layers="1 or more", atom_features=_ATOMS, projector_hidden="1 or more",
            temperature="above 0",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"hidden": 32, "node_dim": 64, "train": {"max_epochs": 5}},
    }


@dataclass(frozen=True)
class CircuitDataConfig:
    """Circuits to learn from."""

    manifest: str = ""
    """Manifest with columns `netlist`, `parasitics`, `top` (`counterpoint graphs data import circuits`)."""
    power: str = ""
    """Regular expression of power nets; empty means the usual names."""


@dataclass(frozen=True)
class CircuitGCLConfig:
    """CircuitGCL's pretraining: representation scattering with an EMA target. Defaults are the published code's."""

    data: CircuitDataConfig = field(default_factory=CircuitDataConfig)
    dim: int = 256
    """Of the node type embedding and of every layer."""
    layers: int = 4
    """ClusterGCN convolutions."""
    dropout: float = 0.3
    fanout: tuple[int, ...] = (64, 64, 64, 64)
    """Sampled neighbours per hop."""
    momentum: float = 0.99
    """The target follows the online encoder, once per epoch as in the released code."""
    topology_hops: int = 0
    """SGRL adds A_hat^hops h to the online representation; CircuitGCL's released code does not (0)."""
    target_lr_scale: float = 0.2
    """Learning rate of the target encoder over the online one's (2e-7 / 1e-6)."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-6, weight_decay=0.0, name="adam", clip=None, schedule=ScheduleConfig(kind="constant", warmup=0.0)
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=1024, max_epochs=800, monitor="val/loss", patience=20)
    )

    def __post_init__(self) -> None:
        require(
            self, dim="1 or more", layers="1 or more", dropout="from 0 to below 1", momentum="from 0 to 1",
            topology_hops="0 or more", target_lr_scale="0 or more",
        )  # fmt: skip
        if not self.fanout or any(n == 0 or n < -1 for n in self.fanout):
            raise InputError(f"--fanout is {self.fanout}; give neighbours per hop, each 1 or more (or -1 for all)")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "dim": 64, "fanout": (8, 8, 8, 8), "optim": {"lr": 1e-3}, "train": {"max_epochs": 10, "patience": None},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class NodeDataConfig:
    """One attributed graph."""

    path: str = ""
    """A `.npz` file, a `.pt` file (PyTorch Geometric `Data`), or `folder/ind.NAME` of a Planetoid set."""


def _full_batch(lr: float, epochs: int, weight_decay: float = 1e-5) -> dict[str, Any]:
    schedule = ScheduleConfig(kind="constant", warmup=0.0)
    return {
        "optim": OptimConfig(lr=lr, weight_decay=weight_decay, name="adam", clip=None, schedule=schedule),
        "train": TrainConfig(batch_size=1, max_epochs=epochs, monitor_every=0, tensorboard=False),
    }


@dataclass(frozen=True)
class GCoolConfig:
    """gCooL. Defaults are the published ones for WikiCS."""

    data: NodeDataConfig = field(default_factory=NodeDataConfig)
    hidden: int = 1368
    dim: int = 384
    activation: str = "prelu"
    projector: int = 384
    communities: int = 10
    temperature: float = 0.4
    similarity: str = "cosine"
    """How nodes and communities are compared: `cosine`, or `rbf` with communities re-weighted by their distance."""
    gamma: float = 8e-5
    """`rbf`: how fast a community's weight falls with its squared distance from one's own."""
    lam: float = 1.0
    """Weight of the edges between communities in the community loss."""
    edge_drop: tuple[float, float] = (0.2, 0.2)
    feature_mask: tuple[float, float] = (0.1, 0.1)
    centrality: str = "degree"
    stride: int = 500
    """The community terms fade with exp(-epoch / stride) and end after stride / 5 epochs."""
    optim: OptimConfig = field(default_factory=lambda: _full_batch(0.01, 1)["optim"])
    train: TrainConfig = field(default_factory=lambda: _full_batch(0.01, 1000)["train"])

    def __post_init__(self) -> None:
        require(
            self, hidden="1 or more", dim="1 or more", projector="1 or more", communities="1 or more",
            temperature="above 0", lam="0 or more", edge_drop="from 0 to below 1", feature_mask="from 0 to below 1",
            activation=("relu", "prelu"), similarity=("cosine", "rbf"), gamma="0 or more",
            centrality=("degree", "pagerank"), stride="1 or more",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"hidden": 128, "dim": 64, "projector": 64, "optim": {"lr": 5e-3}, "train": {"max_epochs": 200}},
    }


@dataclass(frozen=True)
class GRACEConfig:
    """GRACE: every other node of both views is a negative. Defaults are the published ones for Cora."""

    data: NodeDataConfig = field(default_factory=NodeDataConfig)
    hidden: int = 256
    dim: int = 128
    activation: str = "relu"
    projector: int = 128
    temperature: float = 0.4
    objective: str = ""
    """Another objective in place of the published one, as in `HCL(beta=0.5)`; `counterpoint losses` lists them."""
    edge_drop: tuple[float, float] = (0.2, 0.4)
    feature_mask: tuple[float, float] = (0.3, 0.4)
    optim: OptimConfig = field(default_factory=lambda: _full_batch(5e-4, 1)["optim"])
    train: TrainConfig = field(default_factory=lambda: _full_batch(5e-4, 200)["train"])

    def __post_init__(self) -> None:
        require(
            self, hidden="1 or more", dim="1 or more", projector="1 or more", temperature="above 0",
            edge_drop="from 0 to below 1", feature_mask="from 0 to below 1",
            activation=("relu", "prelu"),
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"hidden": 128, "dim": 64, "projector": 64, "optim": {"lr": 5e-3}, "train": {"max_epochs": 200}},
    }


@dataclass(frozen=True)
class BGRLConfig:
    """BGRL: an online encoder predicts a momentum target's view, no negatives."""

    data: NodeDataConfig = field(default_factory=NodeDataConfig)
    hidden: int = 512
    dim: int = 256
    activation: str = "prelu"
    predictor: int = 512
    momentum: float = 0.99
    edge_drop: tuple[float, float] = (0.2, 0.3)
    feature_mask: tuple[float, float] = (0.3, 0.2)
    optim: OptimConfig = field(default_factory=lambda: _full_batch(5e-4, 1)["optim"])
    train: TrainConfig = field(default_factory=lambda: _full_batch(5e-4, 1000)["train"])

    def __post_init__(self) -> None:
        require(
            self, hidden="1 or more", dim="1 or more", predictor="1 or more", momentum="from 0 to 1",
            edge_drop="from 0 to below 1", feature_mask="from 0 to below 1",
            activation=("relu", "prelu"),
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"hidden": 128, "dim": 64, "predictor": 128, "optim": {"lr": 2e-3}, "train": {"max_epochs": 200}},
    }


@dataclass(frozen=True)
class PamCConfig:
    """PamC: an autoencoder, then meta-node contrast with DEC's clustering. Defaults are the published CiteSeer ones."""

    data: NodeDataConfig = field(default_factory=NodeDataConfig)
    widths: tuple[int, ...] = (500, 500, 2000, 10)
    """Encoder layers; the decoder mirrors them."""
    clusters: int = 0
    """0 takes the number of classes of the labelled graph."""
    alpha: float = 2.0
    """Weight of the contrast."""
    beta: float = 2.5
    """Weight of KL(P || Q)."""
    order: int = 3
    """Hops of the positives."""
    sum_orders: bool = True
    """A + ... + A^order (`--influence`), or A^order alone."""
    tau: float = 0.5
    """Multiplies the cosine."""
    full: bool = False
    """Every node a negative (the loss that meta-nodes approximate), for comparison."""
    pretrain_epochs: int = 30
    """Autoencoder epochs before the contrast, as in SDCN, whose published weights the released code loads."""
    pretrain_batch: int = 256
    """Rows in a batch of the autoencoder."""
    optim: OptimConfig = field(default_factory=lambda: _full_batch(1e-3, 1, 0.0)["optim"])
    train: TrainConfig = field(default_factory=lambda: _full_batch(1e-3, 200)["train"])

    def __post_init__(self) -> None:
        require(
            self, widths="1 or more", clusters="0 or more", alpha="0 or more", beta="0 or more", order="1 or more",
            tau="above 0", pretrain_epochs="0 or more", pretrain_batch="1 or more",
        )  # fmt: skip

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {"widths": (128, 16), "train": {"max_epochs": 60}},
    }
