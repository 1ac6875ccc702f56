"""Keeps a run: counts its progress, writes its checkpoints, restores it, and stops it when asked."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.errors import InputError
from counterpoint.common.rng import rng_state, set_rng_state
from counterpoint.common.trainers.checkpoints import write_checkpoint
from counterpoint.common.trainers.logger import MetricsCsv
from counterpoint.common.trainers.run_folder import BAD_SAMPLES, CONSTANT, checkpoint_dir
from counterpoint.common.trainers.sharding import load_optimizer


class RunKeeper(Callback):
    """The run's bookkeeping of one stage; stands last among the callbacks, so that their state is complete.

    `carried` is the optimisers' state of the run that this one goes on from, kept until the stage that they belong to.
    A checkpoint holds everything the next step depends on. At the end of an epoch it is written after the validation,
    so that a resumed run does not miss it.
    """

    def __init__(
        self,
        run_dir: Path,
        sampler: BatchSampler,
        total_steps: int,
        state: dict[str, Any] | None,
        metrics_csv: MetricsCsv,
        keep_best: bool,
        continued: bool = False,
        carried: Any = None,
        per_epoch: int = 0,
    ) -> None:
        self.run_dir, self.sampler, self.total_steps = run_dir, sampler, total_steps
        self.state, self.metrics_csv, self.keep_best = state, metrics_csv, keep_best
        self.continued, self.carried, self.per_epoch = continued, carried, per_epoch
        self.metrics: dict[str, float] = dict((state or {}).get("metrics", {}))
        self.best: float | None = (state or {}).get("best")
        self.stale: int = (state or {}).get("stale", 0)
        self.bad: dict[str, str] = dict((state or {}).get("bad", {}))
        self.due = False
        self.epoch_ended = self.stopping = False
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    # Start -----------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        system: Any = pl_module
        progress, loop = system.progress, trainer.fit_loop
        loop.epoch_loop._batches_that_stepped = progress.total_step  # the step that Lightning's own `log` writes
        loop.epoch_progress.current.processed = loop.epoch_progress.current.completed = progress.epoch
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.handlers[number] = signal.signal(number, self._asked_to_stop)
            except ValueError:  # not in the main thread: whoever owns the thread stops it
                break
        if self.carried is not None and self.carried["stage"] == progress.stage:
            for optimizer, saved in zip(trainer.optimizers, self.carried["optimizers"]):
                load_optimizer(optimizer, saved)
            self.carried = None
        if self.state is None:
            return
        for optimizer, saved in zip(trainer.optimizers, self.state["optimizers"]):
            load_optimizer(optimizer, saved)
        for name, saved in self.state["schedules"].items():
            if name in system.schedules:
                system.schedules[name].load_state_dict(saved)
        for callback in self._stateful(trainer):
            saved = self.state["callbacks"].get(type(callback).__qualname__)
            if saved is not None:
                callback.load_state_dict(saved)
        if self.state["scaler"]:
            trainer.precision_plugin.load_state_dict(self.state["scaler"])
        listed = self.run_dir / BAD_SAMPLES
        if trainer.is_global_zero and listed.is_file():  # lines after the checkpoint are written again
            os.truncate(listed, min(self.state.get("bad_bytes", _size(listed)), _size(listed)))
        ranks = self.state["rng"]
        if trainer.global_rank < len(ranks):
            set_rng_state(ranks[trainer.global_rank])
        self.state = None
        if progress.step >= self.total_steps:
            trainer.should_stop = True

    def _asked_to_stop(self, number: int, frame: Any) -> None:
        if self.signal is not None:  # asked twice: at once
            raise SystemExit(128 + number)
        self.signal = number

    # Steps -----------------------------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> int | None:
        system: Any = pl_module
        if system.progress.step >= self.total_steps:
            return -1
        schedule = system.schedules["lr"]
        trains = not system.stage.gradient_free
        if trains and schedule.kind == "infinite" and schedule.anneal_from == system.progress.step:
            self.save(trainer, system, CONSTANT)
        # Here and not at the end of the last batch, so that other callbacks' work on that batch is in the checkpoint.
        if self.due or self.stopping:
            self.save(trainer, system)
        if self.stopping:
            raise SystemExit(128 + int(self.signal or signal.SIGTERM))
        for index, name, reason in trainer.train_dataloader.marks().bad:
            self._count_bad(trainer, index, name, reason)
        return None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        system: Any = pl_module
        progress = system.progress
        progress.batch += 1
        progress.step += 1
        progress.total_step += 1
        self.epoch_ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        every = system.config.train.checkpoint_every_steps
        self.due = self.due or (every is not None and progress.step % every == 0)
        due = progress.total_step % system.config.train.log_every == 0
        self._write(trainer, system, system.take_records(due))
        if progress.step >= self.total_steps:
            trainer.should_stop = True
        self.stopping = self._stop_requested(trainer)

    def _write(self, trainer: Trainer, system: Any, numbers: dict[str, float]) -> None:
        if not numbers:
            return
        self.metrics.update(numbers)
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": system.progress.epoch, **numbers}, system.progress.total_step)

    def _stop_requested(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self.signal is not None
        asked = torch.tensor(float(self.signal is not None), device=trainer.strategy.root_device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        system: Any = pl_module
        if self.epoch_ended:
            system.progress.epoch += 1
            system.progress.batch = 0
            for part in (system, *system.plugins.values()):
                part.after_epoch()
        finished = system.progress.step >= self.total_steps or trainer.should_stop
        self.stopping = self._stop_requested(trainer)
        if self.due or finished or self.stopping or system.config.train.checkpoint_every_steps is None:
            self.save(trainer, system)
        if self.stopping and not finished:
            raise SystemExit(128 + int(self.signal or signal.SIGTERM))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    # Validation ------------------------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        system: Any = pl_module
        train = system.config.train
        self._write(trainer, system, system.take_records(False))
        value = self.metrics.get(train.monitor)
        if value is None:
            known = ", ".join(sorted(k for k in self.metrics if k.startswith("val/")))
            raise InputError(f"train.monitor {train.monitor!r} is not measured; there are: {known}")
        sign = -1.0 if train.monitor_mode == "max" else 1.0
        if math.isfinite(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.stale = value, 0
            if self.keep_best:
                self.save(trainer, system, "best")
        else:
            self.stale += 1
            if train.patience is not None and self.stale >= train.patience:
                trainer.should_stop = True

    # Saving ----------------------------------------------------------------------------------------------------------

    def save(self, trainer: Trainer, system: Any, name: str = "last") -> None:
        """Write checkpoint `name` (`best` holds weights and figures only). Every rank calls this."""
        self.due = self.due and name != "last"
        weights = trainer.strategy.lightning_module_state_dict()
        state: dict[str, Any] = {"progress": asdict(system.progress), "metrics": self.metrics, "best": self.best}
        if name != "best":
            state |= self._full_state(trainer, system)
        if trainer.is_global_zero:
            write_checkpoint(
                checkpoint_dir(self.run_dir, name), weights, state, system.assets.hash, system.frozen_weights()
            )
        trainer.strategy.barrier()

    def _full_state(self, trainer: Trainer, system: Any) -> dict[str, Any]:
        rng: list[Any] = [rng_state()]
        if trainer.world_size > 1:
            rng = [None] * trainer.world_size
            dist.all_gather_object(rng, rng_state())
        position = {"epoch": system.progress.epoch, "batch": system.progress.batch}
        return {
            "optimizers": [trainer.strategy.optimizer_state(o) for o in trainer.optimizers],
            "schedules": {k: v.state_dict() for k, v in system.schedules.items()},
            "callbacks": {type(c).__qualname__: c.state_dict() for c in self._stateful(trainer)},
            "scaler": trainer.precision_plugin.state_dict(),
            "plugins": {name: plugin.state_dict() for name, plugin in system.plugins.items()},
            "per_epoch": [self.sampler.batch_size, self.per_epoch],
            "sampler": {**self.sampler.state_dict(), **position},
            "rng": rng,
            "stale": self.stale,
            "bad": self.bad,
            "bad_bytes": _size(self.run_dir / BAD_SAMPLES),
            "total_steps": self.total_steps,
            "continued": self.continued,
            "carried": self.carried,
        }

    def _stateful(self, trainer: Trainer) -> list[Any]:
        return [c for c in trainer.callbacks if c is not self and c.state_dict()]

    # Bad samples -----------------------------------------------------------------------------------------------------

    def _count_bad(self, trainer: Trainer, index: int, name: str, reason: str) -> None:
        if name in self.bad:
            return
        self.bad[name] = reason
        with (self.run_dir / BAD_SAMPLES).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"index": index, "id": name, "reason": reason}, ensure_ascii=False) + "\n")
        total = len(trainer.train_dataloader.source)
        limit = trainer.lightning_module.config.train.max_bad
        if len(self.bad) > limit * total:
            raise InputError(
                f"{len(self.bad)} of {total} samples cannot be read, more than train.max_bad = {limit:.2%} allows; the "
                f"first is {name}: {reason}. All are listed in {self.run_dir / BAD_SAMPLES}; run the data check"
            )


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
