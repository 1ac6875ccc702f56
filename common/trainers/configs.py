"""Configuration of training, shared by every system. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ScheduleConfig:
    """How a quantity (learning rate, weight decay, momentum, temperature) changes during training.

    Lengths (`warmup`, `decay`, `cooldown`) below 1 are fractions of the stage's steps; 1 and more are steps.

    >>> ScheduleConfig(kind="wsd", warmup=500, decay=0.1).kind
    'wsd'
    """

    kind: str = "cosine"
    """`constant`, `linear`, `cosine` (each after a linear warm-up), `wsd` (warm-up, stable, decay) or `infinite`."""
    warmup: float = 0.05
    """Length of the linear warm-up from 0 to the peak."""
    final: float = 0.0
    """Last value, as a fraction of the peak."""
    decay: float = 0.2
    """`wsd`: length of the last phase. `infinite`: length of the annealing before the stage's end; 0 never anneals."""
    cooldown: float = 0.1
    """`infinite`: length of the cosine descent from the peak to the constant value."""
    constant: float = 0.4
    """`infinite`: the constant value, as a fraction of the peak."""


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with their own learning rate or weight decay.

    >>> ParamGroup(prefix="text_encoder", lr_scale=0.1).lr_scale
    0.1
    """

    prefix: str
    """Start of the parameter names (`encoder.layers.0`)."""
    lr_scale: float = 1.0
    """Multiplies the learning rate; 0 freezes."""
    weight_decay: float | None = None
    """Replaces the common weight decay."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, learning rate and what belongs to them.

    >>> OptimConfig(lr=3e-4).name
    'adamw'
    """

    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Decoupled weight decay; biases, norms and scalars never decay."""
    name: str = "adamw"
    """`adamw`, `adam`, `sgd` (momentum = first beta), `lars`, or a class of torch or of a trusted package by its dotted
    name (`torch.optim.RAdam`), with its own defaults where `betas` and `eps` are as here."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimiser's class, as in `--optim.options.momentum_decay 0.01`."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moment decay rates."""
    eps: float = 1e-8
    """Added to the denominator of Adam."""
    clip: float | None = 1.0
    """Largest gradient norm; null never clips."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over time."""
    weight_decay_schedule: ScheduleConfig | None = None
    """Weight decay over time; null keeps it constant."""
    groups: tuple[ParamGroup, ...] = ()
    """Parameters with their own rates; the longest matching prefix wins."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    >>> TrainConfig(out="runs/first", max_epochs=3).seed
    0
    """

    out: str = ""
    """Run folder; empty means `runs/<system>`."""
    overwrite: bool = False
    """Replace a run that is already there."""
    max_epochs: int = 100
    """Passes over the training data (of each stage that does not name its own)."""
    max_steps: int | None = None
    """Optimiser steps; takes precedence over `max_epochs` (on the command line unless only the epochs are given)."""
    batch_size: int = 256
    """Global batch: all devices together."""
    micro_batch_size: int | None = None
    """Samples encoded at a time, contrasted all together (cached gradients); null encodes the batch at once."""
    plugins: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """What is put around the system's training, by name with options (`counterpoint plugins` lists them); on the
    command line `--train.plugins NAME --NAME.option value`."""
    precision: str = "32-true"
    """Lightning's name of the arithmetic: `32-true`, `bf16-mixed`, `16-mixed`."""
    seed: int = 0
    """Seed of the initial weights, the batches, the augmentations and the dropout."""
    deterministic: bool = True
    """Ask torch for deterministic kernels (warns where there is none)."""
    accelerator: str = "auto"
    """`auto`, `cpu`, `gpu`."""
    devices: int = 1
    """Devices per node."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """`auto`; for several devices `ddp` (or a variant such as `ddp_find_unused_parameters_true`), or `fsdp`, which also
    shares out weights, gradients and optimiser state."""
    negatives: Literal["all", "local"] = "all"
    """On several devices: `all` contrasts against the rows of all of them, as one process with the whole batch does;
    `local` against those of the same device, each an own batch."""
    sync_batch_norm: bool = True
    """On several devices: batch normalisation over the batch of all of them (with `micro_batch_size` it sees the
    micro-batches, as on one)."""
    workers: int = 0
    """Processes that load data, per device; the samples do not depend on their number."""
    on_error: str = "raise"
    """What to do with a sample that cannot be read: `raise`, or `skip` (counted, listed, replaced by another)."""
    max_bad: float = 0.01
    """Share of unreadable samples that stops the run."""
    log_every: int = 10
    """Steps between two rows of metrics.csv."""
    monitor_every: int = 100
    """Steps between two readings of the label-free monitors; 0 switches them off."""
    checkpoint_every_steps: int | None = None
    """Steps between two checkpoints; null writes one per epoch."""
    validate_every_epochs: int = 1
    """Epochs between two validations."""
    monitor: str = "val/loss"
    """Metric that chooses the best checkpoint."""
    monitor_mode: str = "min"
    """`min` or `max`."""
    patience: int | None = None
    """Stop after this many validations without improvement."""
    tensorboard: bool = True
    """Write TensorBoard curves into the run folder."""

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as earlier versions wrote them, and plug-ins named without options, in the form of today.

        >>> TrainConfig.upgraded({"seed": 1, "harmonize": {"shared": "video"}})
        {'seed': 1, 'plugins': {'harmonize': {'shared': 'video'}}}
        >>> TrainConfig.upgraded({"plugins": ["harmonize"]})
        {'plugins': {'harmonize': {}}}
        """
        values = dict(values)
        plugins, harmonize = values.get("plugins"), values.pop("harmonize", None)
        if isinstance(plugins, (list, tuple, str)):
            names = [plugins] if isinstance(plugins, str) else plugins
            plugins = values["plugins"] = {str(name): {} for name in names}
        if harmonize is not None:
            values["plugins"] = {**(plugins or {}), "harmonize": harmonize}
        return values
