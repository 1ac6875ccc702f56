"""Plug-ins: what is put around the training of any system without the system knowing of it (`train.plugins`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import Samples
from counterpoint.common.lazy import resolve
from counterpoint.common.plugins import find_plugins
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers.config_files import from_dict
from counterpoint.common.trainers.trusted import trusted_class

Rows = Tensor  # one loss per sample of this rank's batch
Gradients = dict[str, dict[str, Tensor]]  # embedding -> loss term -> gradient of the term at the embedding


@dataclass(frozen=True)
class NoOptions:
    """The options of a plug-in that has none."""


class Plugin:
    """Base of all plug-ins: override what it does, leave the rest.

    A run's configuration names it with its options, and a resumed run makes it again:

        train:
          plugins:
            bad_pairs: {warmup: 10}
            my_lab.plugins:Balance: {by: scanner}      # a class of one's own, see `trusted`

    Everything that the next step depends on is in `state_dict`: tensors, arrays and plain data, equal on every rank.
    It is put back before `start`. Numbers for metrics.csv go through `self.system.record`.
    """

    Config: ClassVar[type] = NoOptions
    system: Any = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def start(self, system: Any, samples: Samples) -> None:
        """A stage begins (`system.stage`, also on resume) with these training samples; its batches are chosen next."""
        self.system = system

    def batch_sampler(self, samples: Samples, batch_size: int, seed: int) -> BatchSampler | None:
        """How the stage's batches are drawn, in place of the system's choice; None leaves it to the system."""
        return None

    def weigh(self, name: str, rows: Rows, batch: Any) -> Rows:
        """The loss of every sample in the term `name`, weighted; called in training only, before the mean."""
        return rows

    def terms(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """More loss terms, of a training batch and its embeddings: scalars or rows, as the system's own."""
        return {}

    def gradients(self, found: Gradients) -> Gradients:
        """The gradients of the weighted terms at the embeddings, changed; the terms' sum goes on to the encoders."""
        return found

    def after_epoch(self) -> None:
        """An epoch has ended; called before its checkpoint is written."""

    def state_dict(self) -> dict[str, Any]:
        """What travels in the checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


def overrides(plugin: Plugin, hook: str) -> bool:
    """Whether a plug-in does something at a hook.

    >>> overrides(Plugin(NoOptions()), "weigh")
    False
    """
    return getattr(type(plugin), hook) is not getattr(Plugin, hook)


def plugin_class(name: str) -> type[Plugin]:
    """The class of a registered name, or of `module:Class` where the module is trusted (see `trusted_class`)."""
    known: Any = find_plugins()
    if name in known:
        found: Any = resolve(known[name].plugin)
        return found
    if ":" in name:
        return trusted_class(name, Plugin, "train.plugins")
    raise no_such("plug-in", name, known, "counterpoint plugins")


def create_plugins(named: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Plugin]:
    """The plug-ins of a configuration, in its order.

    Raises:
        InputError: an unknown name or option, a value of the wrong type, or a module that is not trusted.
    """
    found = {}
    for name, options in named.items():
        cls = plugin_class(name)
        found[name] = cls(from_dict(cls.Config, options or {}, f"train.plugins.{name}"))
    return found
