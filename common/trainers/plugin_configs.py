"""Configuration of the suite's plug-ins. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass

from counterpoint.common.trainers.limits import require


@dataclass(frozen=True)
class HarmonizeConfig:
    """Cross-modality gradient harmonisation of several losses at the embeddings they share.

    >>> HarmonizeConfig(shared="video").gamma_start is None
    True
    """

    shared: str = ""
    """Embedding where the gradients meet; empty means each one that two losses or more reach."""
    gamma_start: float | None = None
    """Curriculum: samples whose gradients' cosine is below gamma are left out; null keeps all."""
    gamma_end: float = 0.0
    """Gamma grows linearly to this value."""


@dataclass(frozen=True)
class OldModelConfig:
    """Mod-X: another run's last weights as start and as teacher of the similarities that it had right.

    >>> OldModelConfig(run="runs/phase0").alpha
    20.0
    """

    run: str = ""
    """The run folder of the model before."""
    alpha: float = 20.0
    """Weight of the distillation, summed over rows: its weight per row grows with the batch, as released."""
    mean_kl: bool = False
    """Average over rows in place of the sum; then alpha times the batch size is the released weight."""
    pair: tuple[str, ...] = ()
    """The two embeddings whose similarities are kept; empty: the system's first two."""


@dataclass(frozen=True)
class BadPairsConfig:
    """Dynamic bad pair mining (DBPM): a pair whose remembered loss is far from the others' is weighted down.

    >>> BadPairsConfig(warmup=10).faulty
    3.0
    """

    warmup: int = 50
    """Epochs before pairs are weighted; their losses are recorded from the first one."""
    noisy: float = 2.0
    """A pair is noisy when its mean loss lies this many deviations below the mean of all."""
    faulty: float = 3.0
    """A pair is faulty when its mean loss lies this many deviations above it."""
    normalized: bool = True
    """Weights are divided by the density's peak (at most 1); off: the density itself, as in the official code."""
    remember_weighted: bool = False
    """Remember the weighted losses: a pair once weighted down then looks harmless in the next epoch and comes back.
    Off, as in the official code: remember the losses themselves."""

    def __post_init__(self) -> None:
        require(self, warmup="0 or more", noisy="0 or more", faulty="0 or more")


@dataclass(frozen=True)
class HardNegativesConfig:
    """Batches of near neighbours by the embeddings of the last refresh; before the first one they are random.

    >>> HardNegativesConfig(every=5).per_seed
    3
    """

    modality: str = ""
    """The embedding whose neighbours are looked up; empty means the system's first modality."""
    start: int = 1
    """Epochs before the first refresh."""
    every: int = 1
    """Epochs from one refresh to the next."""
    neighbours: int = 16
    """Neighbours kept of every sample."""
    per_seed: int = 3
    """Neighbours that join every sample drawn for a batch."""
    skip: int = 0
    """Nearest neighbours that are passed over: the likeliest false negatives."""


@dataclass(frozen=True)
class WithinClustersConfig:
    """Batches from one combination of all clusters so far (Multistage Contrastive Learning).

    >>> WithinClustersConfig(files=("../stage0/clusters.npy",)).fallback
    True
    """

    files: tuple[str, ...] = ()
    """One `.npy` per earlier stage with the cluster of every training sample; paths start at the run folder."""
    fallback: bool = True
    """What is left of a combination joins that of one stage less; off: it waits for another epoch."""


@dataclass(frozen=True)
class NeighbourBatchesConfig:
    """Batches of neighbours on the ground, and later by the similarity of the embeddings (Sample4Geo).

    >>> NeighbourBatchesConfig(similar_every=4).near
    32
    """

    by: tuple[str, ...] = ("lat", "lon")
    """Columns of latitude and longitude in degrees, whose distances order the neighbours; empty: batches are random
    until the first look-up by similarity."""
    near: int = 32
    """Nearest neighbours that join every anchor."""
    far: int = 32
    """Further ones, drawn from the ranks behind them."""
    ranks: int = 128
    """Neighbours kept of every sample; the far ones are drawn from ranks `near` to this one."""
    similar_every: int = 0
    """Epochs between two look-ups of the most similar samples of the other modality, which then replace the neighbours
    on the ground; 0: never."""
    similar_start: int = 1
    """Epochs before the first of these look-ups."""
    apart: str = ""
    """Column of which no value stands twice in a batch (`group`): such samples would be false negatives. Empty: none,
    as published."""

    def __post_init__(self) -> None:
        require(
            self, "train.plugins.neighbour_batches.", near="0 or more", far="0 or more", ranks="1 or more",
            similar_every="0 or more", similar_start="1 or more",
        )  # fmt: skip


@dataclass(frozen=True)
class GramAnchorConfig:
    """DINOv3's Gram anchoring: the similarities between a sample's places stay those of earlier weights.

    >>> GramAnchorConfig().weight
    2.0
    """

    modality: str = ""
    """Which of the system's dense features; empty means the first."""
    weight: float = 2.0
    """Weight of the term."""
    start: int = 1
    """Epochs before the first anchor is taken; until then there is no term."""
    every: int = 0
    """Epochs between two anchors; 0 keeps the first one."""

    def __post_init__(self) -> None:
        require(self, "train.plugins.gram_anchor.", weight="0 or more", start="0 or more", every="0 or more")
