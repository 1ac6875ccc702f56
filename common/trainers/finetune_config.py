"""Configuration of `finetune`. Light on purpose: the command line reads it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from counterpoint.common.trainers.configs import OptimConfig, TrainConfig

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
