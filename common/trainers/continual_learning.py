"""Continual pretraining with the previous model as teacher (Mod-X): phase after phase, what was right is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.data.batch import cut, rows
from counterpoint.common.data.samples import Samples
from counterpoint.common.errors import InputError
from counterpoint.common.losses import ModX
from counterpoint.common.trainers.config_files import override
from counterpoint.common.trainers.fitting import fit
from counterpoint.common.trainers.plugin_configs import OldModelConfig
from counterpoint.common.trainers.plugins import Plugin
from counterpoint.common.trainers.run_folder import CONFIG, checkpoint_dir, load_run

__all__ = ["OldModel", "continual"]


def continual(
    create: Callable[[int, str], Any], out: str | Path, phases: int, *, alpha: float = 20.0, mean_kl: bool = False
) -> list[Path]:
    """Train on one phase's data after the other; from the second on, the model before is start and teacher.

    Args:
        create: `create(phase, folder)` builds a system over that phase's data with `train.out = folder`.
        out: `out/phase0`, `out/phase1`, ... are ordinary run folders; a call with the same `out` goes on where an
            earlier one stopped.
        alpha, mean_kl: of the plug-in `old_model`.

    Returns the run folders. Forgetting is what the last run loses on the first phases' data: `evaluate` them on each.

    Source: Ni et al. 2023, "Continual vision-language representation learning with off-diagonal information".
    """
    if phases < 1:
        raise ValueError(f"continual needs at least one phase, got {phases}")
    runs = [Path(out) / f"phase{phase}" for phase in range(phases)]
    for phase, run in enumerate(runs):
        if _finished(run):
            continue
        started = (run / CONFIG).is_file() and checkpoint_dir(run, "last").exists()
        system = load_run(run, "last") if started else create(phase, str(run))
        if phase and not started:
            options = {"run": str(runs[phase - 1]), "alpha": alpha, "mean_kl": mean_kl}
            plugins = {**system.config.train.plugins, "old_model": options}
            system.config = override(system.config, {"train.plugins": plugins})
        fit(system, resume=run if started else None)
        (run / "finished").touch()
    return runs


def _finished(run: Path) -> bool:
    return (run / "finished").is_file()


class OldModel(Plugin):
    """The plug-in `old_model`: start from another run's weights and keep its similarities where they were right.

    Adds the loss term `old_model`, Mod-X's distillation between the embeddings of two modalities (or views): alpha / 2
    sum over both directions and the rows on which the old model's best match was the true one of KL(old || new).
    """

    Config = OldModelConfig

    def __init__(self, config: OldModelConfig) -> None:
        super().__init__(config)
        if not config.run:
            raise InputError("old_model.run: name the run whose last checkpoint is start and teacher")
        self.loss = ModX(alpha=config.alpha, mean_kl=config.mean_kl)
        self.old: Any = None

    def start(self, system: Any, samples: Samples) -> None:
        super().start(system, samples)
        if self.old is None:
            old = load_run(self.config.run, "last")
            if type(old) is not type(system):
                held, wanted = type(old).__name__, type(system).__name__
                raise InputError(f"old_model.run: {self.config.run} holds a {held}, not {wanted}")
            if system.progress.total_step == 0:  # a resumed run has its own weights by now
                try:
                    system.load_state_dict(old.state_dict())
                except RuntimeError as error:
                    reason = " ".join(str(error).split())[:300]
                    message = f"old_model.run: the weights of {self.config.run} do not fit ({reason})"
                    raise InputError(message) from error
            self.old = old.requires_grad_(False).eval()

    def terms(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The distillation of this batch."""
        names = self.config.pair or tuple(embeddings)[:2]
        missing = [name for name in names if name not in embeddings]
        if missing or len(names) != 2:
            raise InputError(f"old_model.pair: give two of {', '.join(embeddings)}, not {', '.join(names)}")
        new = [embeddings[name] for name in names]
        self.old.to(new[0].device)
        size, n = self.system.config.train.micro_batch_size or rows(batch), rows(batch)
        with torch.no_grad():
            parts = [self.old.embed(cut(batch, i, min(i + size, n)) if size < n else batch) for i in range(0, n, size)]
        old = [torch.cat([part[name] for part in parts]) for name in names]
        value = self.loss.distil(*new, *old)
        self.system.record({"old_model/kept": self.loss.monitors["kept"]})
        return {"old_model": value}
