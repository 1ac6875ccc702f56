"""The training step of every system: gradients, updates, schedules and the numbers of a step."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from counterpoint.common.data.batch import cut, entry, rows
from counterpoint.common.data.dataset import group_codes
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.errors import InputError, NonFiniteLossError
from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.progress import note
from counterpoint.common.trainers.configs import OptimConfig
from counterpoint.common.trainers.frozen import frozen_parts
from counterpoint.common.trainers.gradients import Losses, average_gradients, cached_gradients, scalar, total_loss
from counterpoint.common.trainers.optim import build_optimizer, parameter_groups, share_out
from counterpoint.common.trainers.plugins import Plugin, overrides
from counterpoint.common.trainers.schedules import Schedule
from counterpoint.common.trainers.sharding import clip_gradients, settle_gradients, sharded_modules
from counterpoint.common.trainers.stages import Progress, Stage
from counterpoint.common.trainers.validation import Validation

Found = tuple[dict[str, Tensor], dict[str, Tensor]]


class Training(Validation):
    """What `ContrastiveSystem` does with a batch. Systems with an order of steps of their own override `step`."""

    config: Any
    stage: Stage
    progress: Progress
    run_dir: Path | None
    sampler: BatchSampler | None
    plugins: dict[str, Plugin]
    schedules: dict[str, Schedule]
    scheduled: dict[str, float]
    total_steps: int
    epochs: int
    _frozen: set[str] | None
    _staged: list[Any]
    _weighed: set[str]
    _records: dict[str, Any]
    _readings: dict[str, float]

    # Stages ----------------------------------------------------------------------------------------------------------

    @property
    def optim_config(self) -> OptimConfig:
        """The stage's optimiser configuration."""
        return self.stage.optim or self.config.optim

    def begin_stage(self, stage: Stage, total_steps: int) -> None:
        """Freeze and unfreeze, build the schedules."""
        self.stage, self.total_steps = stage, total_steps
        self._frozen = self._untrained()
        named = dict(self.named_parameters())
        for prefix in stage.trains:
            if not any(name.startswith(prefix) for name in named):
                raise ValueError(f"stage {stage.name!r}: no parameter's name starts with {prefix!r}")
        for name, parameter in named.items():
            parameter.requires_grad_(name not in self._frozen and (not stage.trains or name.startswith(stage.trains)))
        config = self.optim_config
        self.schedules = {"lr": Schedule.from_config(config.schedule, config.lr, total_steps)}
        if config.weight_decay_schedule is not None:
            schedule = Schedule.from_config(config.weight_decay_schedule, config.weight_decay, total_steps)
            self.schedules["weight_decay"] = schedule
        self.schedules.update(self.named_schedules(total_steps))
        self._staged = [m for m in self.modules() if callable(getattr(m, "set_progress", None))]

    def _untrained(self) -> set[str]:
        """The parameters that no stage trains: those that were frozen when the system was made."""
        if self._frozen is not None:
            return self._frozen
        return {n for n, p in self.named_parameters() if not p.requires_grad}

    def frozen_weights(self) -> dict[str, tuple[str, ...]]:
        """Part of the system -> its weights that never change, which checkpoints name by their hash."""
        return frozen_parts(self, self._untrained(), self.teachers())

    def configure_optimizers(self) -> Any:
        if self.stage.gradient_free:
            return []
        groups = parameter_groups(self.named_parameters(), self.optim_config)
        if not groups:
            raise ValueError(f"stage {self.stage.name!r} trains no parameter")
        found = [build_optimizer(g, self.optim_config) for g in share_out(groups, self.optimizer_parts())]
        if len(found) > 1 and self.config.train.precision == "16-mixed":  # one loss scale, changed at every step
            raise InputError("train.precision 16-mixed does not go with several optimisers; give bf16-mixed")
        if len(found) > 1 and self.config.train.strategy == "fsdp":
            raise InputError("train.strategy fsdp does not go with several optimisers; give ddp")
        return found

    def apply_schedules(self) -> None:
        """Set every scheduled value for the coming step."""
        self.scheduled = {name: schedule(self.progress.step) for name, schedule in self.schedules.items()}
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self.scheduled["lr"] * group.get("lr_scale", 1.0)
                if "weight_decay" in self.scheduled:
                    group["weight_decay"] = self.scheduled["weight_decay"] * group.get("decay_scale", 1.0)
        for part in self._staged:
            part.set_progress(min(self.progress.step / max(self.total_steps, 1), 1.0))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        found: Any = self.optimizers(use_pl_optimizer=False)
        return list(found) if isinstance(found, list) else [found]

    # Losses ----------------------------------------------------------------------------------------------------------

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the loss terms; rows count with their mean."""
        return total_loss({name: scalar(term) for name, term in terms.items()}, self.loss_weights)

    def reduced(self, terms: Mapping[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Terms as scalars. Rows (a loss per sample) are weighed by the plug-ins and averaged over the batch of all
        ranks: this rank's sum, times the ranks, over all samples, so that the ranks' mean is the batch's."""
        return {name: self._reduced(name, term, batch) for name, term in terms.items()}

    def _reduced(self, name: str, term: Tensor, batch: Any) -> Tensor:
        if term.ndim == 0:
            return term
        if term.ndim != 1 or len(term) != rows(batch):
            raise ValueError(
                f"losses() returned {name!r} of shape {list(term.shape)} for {rows(batch)} samples: a term is a scalar "
                "or one value per sample"
            )
        self._weighed.add(self.stage.name)
        for plugin in self.plugins.values():
            term = plugin.weigh(name, term, batch)
        return scalar(term)

    def _check_weighed(self, terms: Mapping[str, Tensor]) -> None:
        """Say once a stage that a plug-in has nothing to weigh there."""
        weighing = [name for name, plugin in self.plugins.items() if overrides(plugin, "weigh")]
        if not weighing or self.stage.name in self._weighed:
            return
        self._weighed.add(self.stage.name)
        sentence = (
            f"train.plugins: {' and '.join(weighing)} weighs samples, and {type(self).__name__} has no loss per sample "
            f"in stage {self.stage.name!r} ({', '.join(terms)})"
        )
        if len(self.stages()) == 1:
            raise InputError(f"{sentence}; leave it out, or return rows from losses()")
        note(f"{sentence}: nothing is weighed there")

    def check_finite(self, terms: Mapping[str, Tensor], batch: Any) -> None:
        """Raise `NonFiniteLossError` on NaN or infinity, after saving the batch's ids into the run folder."""
        bad = {name: float(term.detach()) for name, term in terms.items() if not bool(torch.isfinite(term))}
        if not bad:
            return
        file = (self.run_dir or Path()) / f"non_finite_batch_rank{self.global_rank}.json"
        indices = entry(batch, "index", [])
        record = {
            "step": self.progress.total_step,
            "epoch": self.progress.epoch,
            "terms": {k: str(v) for k, v in bad.items()},
            "ids": [str(i) for i in entry(batch, "id", [])],
            "indices": indices.tolist() if isinstance(indices, Tensor) else list(indices),
        }
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        raise NonFiniteLossError(
            f"loss {', '.join(f'{k} = {v}' for k, v in bad.items())} at step {self.progress.total_step}; the batch's "
            f"samples are listed in {file}. Look at them, lower the learning rate, or train with precision=32-true"
        )

    # Steps -----------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.apply_schedules()
        if self.stage.gradient_free:
            return {"embeddings": self._observed(batch)}
        terms, embeddings = self.step(batch)
        self._check_weighed(terms)
        self.update_teachers()
        self.after_update()
        self._record_step(terms)
        return {"loss": self.total(terms).detach(), "embeddings": {k: v.detach() for k, v in embeddings.items()}}

    def step(self, batch: Any) -> Found:
        """One step on a batch, here gradients and an update; returns the loss terms and the embeddings for the records.

        Override for several optimisers (`optimizer_parts`), alternating or meta steps:

            generator, critic = self.optimizers()
            terms, _ = self.gradients(batch, self.critic_losses, only=[critic])
            self.update(critic)
            found = self.gradients(batch, only=[generator])
            self.update(generator)
            return found
        """
        found = self.gradients(batch)
        self.update()
        return found

    def gradients(self, batch: Any, losses: Losses | None = None, only: Sequence[Any] = ()) -> Found:
        """Add the gradient of the weighted losses to the parameters' `.grad`, through micro-batches and the plug-ins;
        returns the loss terms and the embeddings, detached.

        Args:
            losses: what is differentiated, in place of `self.losses`.
            only: the optimisers whose parameters take part; the others' stay untouched. Empty: all of them.
        """
        losses = self._with_terms if losses is None else losses
        changes = [plugin.gradients for plugin in self.plugins.values() if overrides(plugin, "gradients")]
        micro, model = self.config.train.micro_batch_size, self.trainer.model
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if micro is None and not changes and not only:
            embeddings = self.embed(batch)
            terms = self.reduced(losses(batch, embeddings), batch)
            self.check_finite(terms, batch)
            self.manual_backward(self.total(terms))
            return terms, embeddings
        parallel = isinstance(model, DistributedDataParallel)
        with _training_only(self, only), model.no_sync() if parallel else contextlib.nullcontext():
            result = cached_gradients(
                self,
                self.embed,
                lambda batch, leaves: self.reduced(losses(batch, leaves), batch),
                batch,
                micro,
                self.loss_weights,
                changes,
                scale=scaler.scale if scaler is not None else lambda loss: loss,
                check=lambda terms: self.check_finite(terms, batch),
            )
            if parallel:
                average_gradients(list(self.parameters()))
        return result

    def _with_terms(self, batch: Any, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """The system's losses and those of plug-ins."""
        terms = dict(self.losses(batch, embeddings))
        for name, plugin in self.plugins.items():
            if overrides(plugin, "terms"):
                more = plugin.terms(batch, embeddings)
                if taken := set(more) & set(terms):
                    term = taken.pop()
                    raise InputError(f"train.plugins: {name} adds the loss term {term!r}, which there is already")
                terms |= more
        return terms

    def update(self, *optimizers: Any) -> None:
        """Clip, step the optimisers (`self.optimizers()`; all unless some are given) and clear their gradients."""
        settle_gradients(self)
        found: Any = optimizers or self.optimizers()
        for optimizer in found if isinstance(found, (list, tuple)) else [found]:
            optimizer.step()
            optimizer.zero_grad()

    def _observed(self, batch: Any) -> dict[str, Tensor]:
        """The step of a gradient-free stage: embeddings as in evaluation, shown to `observe`."""
        with torch.no_grad():
            with _evaluating(self):
                size, n = self.config.train.micro_batch_size, rows(batch)
                chunks = [batch] if size is None else [cut(batch, i, min(i + size, n)) for i in range(0, n, size)]
                parts = [self.embed(chunk) for chunk in chunks]
            embeddings = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            figures = self.observe(batch, embeddings)
        for part in sharded_modules(self):
            part.reshard()
        self.record({f"train/{name}": value for name, value in figures.items()})
        return embeddings

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip: here, because float16's loss scale has been divided out by now."""
        limit = self.optim_config.clip
        if limit is not None:
            parameters = [p for g in optimizer.param_groups for p in g["params"]]
            self.record({"train/grad_norm": clip_gradients(parameters, limit)})

    def weights_state(self) -> tuple[Any, ...]:
        """Changes whenever the weights do. Steps are counted beside the tensors' own versions, which fused optimisers
        leave as they are."""
        tensors = [*self.parameters(), *self.buffers()]
        return self.progress.total_step, *((t.data_ptr(), t._version) for t in tensors)

    def teachers(self) -> list[EMATeacher]:
        """The momentum teachers, which follow their students."""
        return [part for part in self.modules() if isinstance(part, EMATeacher)]

    def update_teachers(self) -> None:
        """Move the momentum teachers towards their students."""
        for teacher in self.teachers():
            teacher.update(self.scheduled.get("ema_momentum"))

    # Records ---------------------------------------------------------------------------------------------------------

    def _record_step(self, terms: Mapping[str, Tensor]) -> None:
        total = self.total(terms).detach()
        self.record(
            {"train/loss": total, **{f"train/{k}": v for k, v in terms.items()}, "train/lr": self.scheduled["lr"]}
        )
        self.log("loss", total, prog_bar=True, logger=False)

    def record(self, values: Mapping[str, Any]) -> None:
        """Numbers of this step for metrics.csv and TensorBoard, written every `log_every` steps (mean of ranks)."""
        self._records.update({k: v.detach() if isinstance(v, Tensor) else v for k, v in values.items()})

    def record_reading(self, values: Mapping[str, float]) -> None:
        """Numbers that are the same on every rank and written at once, whatever the step."""
        self._readings.update(values)

    def take_records(self, due: bool) -> dict[str, float]:
        """This step's numbers, averaged over ranks when they are due; every rank calls this."""
        records, readings, self._records, self._readings = self._records, self._readings, {}, {}
        if not due or not records:
            return readings
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64).to(self.device) for v in records.values()])
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
            values = values / self.trainer.world_size
        return {**dict(zip(records, values.tolist())), **readings}

    def group_ids(self, batch: Any) -> Tensor:
        """The batch's groups as integers, the same for equal groups on every rank."""
        groups = entry(batch, "group")
        if groups is None:
            raise ValueError("the batch says no group of its samples: collate what `Samples` gives of each")
        return groups if isinstance(groups, Tensor) else group_codes(groups).to(self.device)


@contextlib.contextmanager
def _evaluating(system: Any) -> Iterator[None]:
    system.eval()
    try:
        yield
    finally:
        system.train()


@contextlib.contextmanager
def _training_only(system: Any, optimizers: Sequence[Any]) -> Iterator[None]:
    """Within, only the optimisers' parameters take gradients (all of them, where none is given)."""
    own = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    others = [p for p in system.parameters() if p.requires_grad and own and id(p) not in own]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
