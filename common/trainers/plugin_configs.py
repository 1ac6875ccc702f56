"""Options of the suite's plug-ins. Light on purpose: the command line reads them without torch."""

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
