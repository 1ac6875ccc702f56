"""The stages of a training, and where it stands in them."""

from __future__ import annotations

from dataclasses import dataclass

from counterpoint.common.trainers.configs import OptimConfig


@dataclass(frozen=True)
class Stage:
    """One stage of a training (unimodal pretraining, cross-modal alignment, ...). None means: as in the config.

    >>> Stage("audio", trains=("audio_encoder", "audio_head"), max_epochs=5).name
    'audio'
    """

    name: str = "train"
    trains: tuple[str, ...] = ()
    """Prefixes of the parameters trained in this stage; empty means all."""
    optim: OptimConfig | None = None
    max_epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    gradient_free: bool = False
    """Nothing is differentiated: `ContrastiveSystem.observe` sees every batch (k-means, a memory, statistics). Steps
    are counted, written and resumed as ever; there is no validation."""


@dataclass
class Progress:
    """Where a training stands: stage, epoch and batch within the stage, steps in the stage and in total."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    total_step: int = 0
