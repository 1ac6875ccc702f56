"""Configuration of training, shared by every system, and of finetuning; plug-ins have theirs in `plugin_configs.py`.
Light on purpose: the command line reads it without torch."""

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
    """`infinite`: length of the descent from the peak to the constant value."""
    constant: float = 0.4
    """`infinite`: the constant value, as a fraction of the peak."""
    descent: str = "cosine"
    """`infinite`: how the peak goes down to the constant value: `cosine`, `linear` or `inverse_sqrt`."""


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


TASKS = ("classification", "multilabel", "regression", "dense")
MODES = ("frozen", "full", "layerwise", "lora")
IMBALANCE = ("auto", "none", "weights", "balanced-softmax", "balanced-mse")
RARE = 0.1
"""Share of the training samples below which a class is rare."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Labels on top of a pretrained encoder.

    >>> FinetuneConfig(run="runs/audio-sheet", labels=("composer",)).mode
    'frozen'
    """

    run: str = ""
    """Run folder of the pretrained system."""
    checkpoint: str = "best"
    """Which of its checkpoints: `best` or `last`."""
    labels: tuple[str, ...] = ()
    """Label column of the manifest (or key of the sample); several columns of 0 and 1 for `multilabel`; for `dense` the
    key of an integer tensor, one class per time step, token, pixel or voxel, -1 where unknown."""
    task: str = "classification"
    """`classification`, `multilabel`, `regression`, `dense`, or `module:Class` of your own `Task`."""
    mode: str = "frozen"
    """What is trained below the head: nothing (`frozen`), `full`, `layerwise` (rates fall with depth) or `lora`."""
    modality: str = ""
    """Which representation of the system the head stands on; empty means its first modality."""
    layer_decay: float = 0.65
    """`layerwise`: factor of the learning rate from each layer to the one below."""
    lora_rank: int = 8
    """`lora`: rank of the adapters in the linear layers."""
    lora_alpha: float = 16.0
    """`lora`: the adapters' output is multiplied by alpha / rank."""
    hidden_dim: int = 0
    """Width of a hidden layer in the head; 0 means a linear head."""
    dropout: float = 0.0
    """Dropout before the head."""
    imbalance: str = "auto"
    """`auto` (balanced softmax, or weights for several labels, where a class has less than a tenth of the training
    samples; else none), `none`, `weights` (inverse frequency), `balanced-softmax` (classes), `balanced-mse`."""
    fraction: float = 1.0
    """Share of the labelled training groups that is used; smaller shares are subsets of larger ones."""
    groups: int = 0
    """Use so many labelled training groups (patients, scenes) instead of a share of them; 0: as `fraction` says."""
    calibrate: bool = True
    """Fit a temperature on the validation split afterwards (classification)."""
    data: dict[str, Any] = field(default_factory=dict)
    """Changes to the pretrained system's configuration, dotted (`data.manifest: labelled.csv`)."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_epochs=30, batch_size=64, monitor_every=0, patience=5)
    )
    optim: OptimConfig = field(default_factory=OptimConfig)
    base: dict[str, Any] = field(default_factory=dict)
    """The pretrained system and its configuration; filled in, so that the run stands on its own."""
    classes: tuple[str, ...] = ()
    """Class names; filled in from the training labels (`dense` reads every training sample unless they are given)."""
    width: int = 0
    """Width of the representation; filled in."""


@dataclass(frozen=True)
class FusionConfig:
    """The network of ALBEF, TCL and CoCa over pictures and words, at ALBEF's size.

    >>> FusionConfig().momentum
    0.995
    """

    width: int = 768
    """Of the layers."""
    heads: int = 12
    """Of every attention."""
    dim: int = 256
    """Of the common space."""
    picture_layers: int = 12
    """Over the features of the picture's places."""
    text_layers: int = 6
    """That see the words alone."""
    fusion_layers: int = 6
    """That see the picture too."""
    queue: int = 65_536
    """ALBEF, TCL: momentum features that serve as further negatives."""
    momentum: float = 0.995
    """ALBEF, TCL: of the momentum model."""
    alpha: float = 0.4
    """ALBEF, TCL: weight of the momentum model's targets, reached after the first epoch."""
    masked: float = 0.15
    """ALBEF, TCL: share of the words that are masked."""
    queries: int = 256
    """CoCa: of the attentional pooler, for captions."""
    caption_weight: float = 2.0
    """CoCa: of captioning, beside 1 for the contrast."""
