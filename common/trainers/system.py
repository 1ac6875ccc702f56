"""`ContrastiveSystem`: what every published system shares. A system says how it embeds and what it loses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from counterpoint.common.data.dataset import group_codes
from counterpoint.common.data.samplers import BatchSampler, ShuffleSampler
from counterpoint.common.errors import InputError, NonFiniteLossError
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.models.ema import EMATeacher
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.config import to_dict
from counterpoint.common.trainers.configs import OptimConfig, ScheduleConfig
from counterpoint.common.trainers.harmonize import Harmonizer
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.optim import build_optimizer, parameter_groups
from counterpoint.common.trainers.schedules import Schedule
from counterpoint.common.trainers.sharding import clip_gradients, list_entries, settle_gradients
from counterpoint.common.trainers.steps import average_gradients, cached_gradients, total_loss
from counterpoint.common.trainers.validation import Validation


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


@dataclass
class Progress:
    """Where a training stands: stage, epoch and batch within the stage, steps in the stage and in total."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    total_step: int = 0


class ContrastiveSystem(Validation):
    """Base of all systems. A subclass defines `Config`, `modalities`, `datasets`, `embed` and `losses`:

    - `embed(batch)` returns one tensor per modality or view, row i belonging to sample i;
    - `losses(batch, embeddings)` returns scalar terms, weighted by `loss_weights` and summed.

    `metric` names the score by which embeddings answer one another in evaluation and search (see `metrics.SCORES`).

    The base gives optimisers with parameter groups, schedules, EMA teachers, cached gradients
    (`train.micro_batch_size`), gradient harmonisation, clipping, non-finite checks, validation and logging.
    Systems with alternating or meta steps override `training_step` and use `total`, `check_finite` and `update`.

    The step order: schedules set values for step n, gradients, clipping, optimiser, EMA teachers, `after_update`.
    """

    Config: ClassVar[type]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    modalities: ClassVar[tuple[str, ...]] = ()
    loss_weights: ClassVar[dict[str, float]] = {}
    metric: ClassVar[str] = "cosine"

    def __init__(self, config: Any, assets: Assets | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.assets = Assets() if assets is None else assets
        self.continued: Path | None = None
        self._data: Any = None
        self.given = False  # trained on data that the configuration does not name
        self.progress = Progress()
        self.stage = Stage()
        self.total_steps = 1
        self.schedules: dict[str, Schedule] = {}
        self.scheduled: dict[str, float] = {}
        self.run_dir: Path | None = None
        self._frozen: set[str] | None = None
        self._validation: dict[str, Any] = {}
        self._records: dict[str, Any] = {}
        self._readings: dict[str, float] = {}

    # What a system defines -------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """Train, validation and test data of the current stage."""
        raise TypeError(f"{type(self).__name__} does not define datasets()")

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embeddings that the losses contrast."""
        raise TypeError(f"{type(self).__name__} does not define embed()")

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalar loss terms."""
        raise TypeError(f"{type(self).__name__} does not define losses()")

    # What a system may define ----------------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> Any:
        """What the configuration names, all splits of it, in the form that `datasets` starts from (`self.data`).

        Without assets the form is the data's own, and `learn` looks at it; with them it is the form they describe.
        """
        return None

    @classmethod
    def learn(cls, config: Any, data: Any) -> Assets:
        """The facts of the training split that the network's shape or its inputs depend on; `data` is `read`'s.

        Called once, for a new run. `__init__(config, assets)` reads no data.
        """
        return Assets()

    @classmethod
    def extend(cls, assets: Assets, config: Any, data: Any) -> Assets:
        """The facts of a run that goes on with other data (`continue_from`); here they stay as they are.

        Systems whose tables grow (new words, users, items) return assets in which the old names keep their places.
        """
        return assets

    def grow(self, assets: Assets) -> None:
        """Take extended assets: tables grow, old rows keep their bits. Called where `extend` changed them."""
        raise TypeError(f"{type(self).__name__} extends its assets and does not define grow()")

    def initialize(self) -> None:
        """Called once before the first step of a new run: initial weights that are read or computed, not drawn."""

    @property
    def data(self) -> Any:
        """What `read` gives, read at the first use."""
        if self._data is None:
            if self.given and not getattr(getattr(self.config, "data", None), "manifest", ""):
                raise InputError(
                    f"{self.run_dir or type(self).__name__}: was trained on data given in Python, which a run does not "
                    "keep; name data to use (--manifest)"
                )
            self._data = type(self).read(self.config, self.assets)
        return self._data

    def use(self, data: Any) -> Any:
        """Take data from elsewhere instead of reading what the configuration names."""
        self._data = data
        return self

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Embeddings for evaluation, search and export; here the contrast embeddings, at unit length where `metric`
        says that their length does not count."""
        unit = score_named(self.metric).unit
        found = {k: normalize(v, dim=-1) if unit else v for k, v in self.embed(batch).items()}
        return found if modality is None else {modality: found[modality]}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Representations for heads and probes, one row per sample; here the contrast embeddings.

        Override to return what stands before the projector: it often discards what a task needs (see `Projector`).
        """
        return self.embed(batch)

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Representations of every place of a sample, [batch, *places, width], for dense tasks (see `Dense`)."""
        raise InputError(f"{type(self).__name__} has no features per place: task=dense needs dense_features()")

    def before_finetune(self) -> None:
        """Called before a head is put on: a system that evaluates averaged weights makes them the ones that train."""

    def preprocessing(self) -> dict[str, Any]:
        """How raw data become this system's inputs, as plain data; travels with `save_pretrained`."""
        recipe = to_dict(getattr(self.config, "data", {}))
        return {**recipe, "assets": self.assets.recipe()} if self.assets else recipe

    def stages(self) -> Sequence[Stage]:
        """The training's stages, in order; `self.stage` is the current one."""
        return (Stage(),)

    def on_stage_start(self, stage: Stage) -> None:
        """Called before a stage's data and optimiser are built (also on resume)."""

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        """How the training batches are drawn."""
        return ShuffleSampler(len(dataset), batch_size, seed)

    def schedule_configs(self) -> dict[str, tuple[ScheduleConfig, float]]:
        """More scheduled quantities, name -> (schedule, peak); read in `losses` as `self.scheduled[name]`.

        `ema_momentum` is used for the EMA teachers.
        """
        return {}

    def named_schedules(self, total: int) -> dict[str, Schedule]:
        """Schedules with values of their own (`momentum` from 0.996 to 1); here built from `schedule_configs`."""
        return {k: Schedule.from_config(c, base, total) for k, (c, base) in self.schedule_configs().items()}

    def after_update(self) -> None:
        """Called after each optimiser step: queues, clamps, per-sample state."""

    def sharded_parts(self) -> Sequence[nn.Module]:
        """Parts whose weights `train.strategy=fsdp` gathers one at a time; here the entries of every `nn.ModuleList`.

        Such a part is used by calling it alone, never by reaching for its weights. The rest of the system is gathered
        for the whole of `embed` and `losses`, so anything goes there.
        """
        return list_entries(self)

    # Training --------------------------------------------------------------------------------------------------------

    @property
    def optim_config(self) -> OptimConfig:
        """The stage's optimiser configuration."""
        return self.stage.optim or self.config.optim

    def begin_stage(self, stage: Stage, total_steps: int) -> None:
        """Freeze and unfreeze, build the schedules."""
        self.stage, self.total_steps = stage, total_steps
        if self._frozen is None:
            self._frozen = {n for n, p in self.named_parameters() if not p.requires_grad}
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

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.named_parameters(), self.optim_config)
        if not groups:
            raise ValueError(f"stage {self.stage.name!r} trains no parameter")
        return build_optimizer(groups, self.optim_config)

    def apply_schedules(self) -> None:
        """Set every scheduled value for the coming step."""
        self.scheduled = {name: schedule(self.progress.step) for name, schedule in self.schedules.items()}
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self.scheduled["lr"] * group.get("lr_scale", 1.0)
                if "weight_decay" in self.scheduled:
                    group["weight_decay"] = self.scheduled["weight_decay"] * group.get("decay_scale", 1.0)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        found: Any = self.optimizers(use_pl_optimizer=False)
        return list(found) if isinstance(found, list) else [found]

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the loss terms."""
        return total_loss(terms, self.loss_weights)

    def check_finite(self, terms: Mapping[str, Tensor], batch: Mapping[str, Any]) -> None:
        """Raise `NonFiniteLossError` on NaN or infinity, after saving the batch's ids into the run folder."""
        bad = {name: float(term.detach()) for name, term in terms.items() if not bool(torch.isfinite(term))}
        if not bad:
            return
        file = (self.run_dir or Path()) / f"non_finite_batch_rank{self.global_rank}.json"
        indices = batch.get("index", [])
        record = {
            "step": self.progress.total_step,
            "epoch": self.progress.epoch,
            "terms": {k: str(v) for k, v in bad.items()},
            "ids": [str(i) for i in batch.get("id", [])],
            "indices": indices.tolist() if isinstance(indices, Tensor) else list(indices),
        }
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        raise NonFiniteLossError(
            f"loss {', '.join(f'{k} = {v}' for k, v in bad.items())} at step {self.progress.total_step}; the batch's "
            f"samples are listed in {file}. Look at them, lower the learning rate, or train with precision=32-true"
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        self.apply_schedules()
        train = self.config.train
        if train.micro_batch_size is None and train.harmonize is None:
            embeddings = self.embed(batch)
            terms = self.losses(batch, embeddings)
            self.check_finite(terms, batch)
            self.manual_backward(self.total(terms))
        else:
            terms, embeddings = self._gradients_through_embeddings(batch)
        self.update()
        self._record_step(terms)
        return {"loss": self.total(terms).detach(), "embeddings": {k: v.detach() for k, v in embeddings.items()}}

    def _gradients_through_embeddings(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        train, harmonizer = self.config.train, None
        if train.harmonize is not None:
            gamma = train.harmonize.gamma_start
            if gamma is not None:
                done = self.progress.step / max(1, self.total_steps)
                gamma += (train.harmonize.gamma_end - gamma) * min(1.0, done)
            harmonizer = Harmonizer(train.harmonize.shared, gamma)
        model, scaler = self.trainer.model, getattr(self.trainer.precision_plugin, "scaler", None)
        parallel = isinstance(model, DistributedDataParallel)
        with model.no_sync() if parallel else contextlib.nullcontext():
            result = cached_gradients(
                self,
                self.embed,
                self.losses,
                batch,
                train.micro_batch_size,
                self.loss_weights,
                harmonizer,
                scale=scaler.scale if scaler is not None else lambda loss: loss,
                check=lambda terms: self.check_finite(terms, batch),
            )
        if parallel:
            average_gradients(list(self.parameters()))
        if harmonizer is not None and harmonizer.cosine is not None:
            self.record({"train/gradient_cosine": harmonizer.cosine.mean(), "train/gradient_kept": harmonizer.kept})
        return result

    def update(self) -> None:
        """Clip, step the optimisers, clear gradients, move the EMA teachers."""
        settle_gradients(self)
        found: Any = self.optimizers()
        for optimizer in found if isinstance(found, list) else [found]:
            optimizer.step()
            optimizer.zero_grad()
        self.update_teachers()
        self.after_update()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip: here, because float16's loss scale has been divided out by now."""
        limit = self.optim_config.clip
        if limit is not None:
            parameters = [p for g in optimizer.param_groups for p in g["params"]]
            self.record({"train/grad_norm": clip_gradients(parameters, limit)})

    def update_teachers(self) -> None:
        """Move the EMA teachers towards their students."""
        for part in self.modules():
            if isinstance(part, EMATeacher):
                part.update(self.scheduled.get("ema_momentum"))

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

    def group_ids(self, batch: Mapping[str, Any]) -> Tensor:
        """The batch's groups as integers, the same for equal groups on every rank."""
        groups = batch["group"]
        return groups if isinstance(groups, Tensor) else group_codes(groups).to(self.device)
