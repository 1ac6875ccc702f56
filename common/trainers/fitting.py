"""`fit`: train a system through its stages with Lightning's Trainer underneath, resumable bit for bit."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from counterpoint.common.data.left_out import list_left_out
from counterpoint.common.data.manifest import forget_manifest
from counterpoint.common.data.samplers import BatchSampler, SequentialSampler
from counterpoint.common.data.samples import Samples
from counterpoint.common.errors import InputError, LostProcessError
from counterpoint.common.losses import engine_settings, unshared
from counterpoint.common.main_process import main_process
from counterpoint.common.models import shared_batch_norm
from counterpoint.common.progress import shown
from counterpoint.common.rng import preserved_rng, seed_all
from counterpoint.common.trainers.bookkeeping import RunKeeper
from counterpoint.common.trainers.checkpoints import copy_checkpoint, find_checkpoint, read_state
from counterpoint.common.trainers.environment import check_data, record_data
from counterpoint.common.trainers.leakage import hold_to_split, manifest_of
from counterpoint.common.trainers.loader import Batches, Datasets, Requests
from counterpoint.common.trainers.lock import locked_run
from counterpoint.common.trainers.logger import MetricsCsv
from counterpoint.common.trainers.monitors import CollapseMonitor
from counterpoint.common.trainers.plugins import create_plugins
from counterpoint.common.trainers.run_folder import (
    BAD_SAMPLES,
    CONFIG,
    METRICS,
    RunResult,
    check_importable,
    checkpoint_dir,
    constant_checkpoint,
    folder_of_run,
    open_run,
    system_class,
)
from counterpoint.common.trainers.sharding import ShardedStrategy
from counterpoint.common.trainers.stages import Progress, Stage
from counterpoint.common.trainers.system import ContrastiveSystem


def fit(
    system: ContrastiveSystem,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Train `system` as `system.config` says and leave a run folder.

    Args:
        system: what to train. With `resume`, a system of the same class (`load_run` or `empty_system` build one).
        resume: a run folder; training goes on after its last checkpoint and equals, on CPU bit for bit, the run that
            was never interrupted.
        callbacks: more Lightning callbacks; those with state travel in the checkpoints.

    A system made by `create_system(..., continue_from=RUN)` goes on at the constant rate, without warm-up, with the
    optimiser's state that RUN had before its annealing.

    With `train.strategy=fsdp` the system stays distributed over the processes afterwards; `load_run` gives a whole one.

    SIGTERM and Ctrl-C write a checkpoint after the running step and exit (143, 130). The global random generators are
    put back at the end.

    Raises:
        LeakageError: the manifest is not apart by the rule that it was split by.
        InputError: a class that the running script defines; unusable configuration, folder or data; data that changed
            since the run began; a folder where another process trains; a damaged checkpoint, or one that cannot be
            written.
        NonFiniteLossError: NaN or infinite loss.
    """
    if resume is not None and not (Path(resume) / CONFIG).is_file():
        raise InputError(f"{resume}: not a run folder (no {CONFIG} in it)")
    if resume is None:
        check_importable(system_class(system))
    hold_to_split(manifest_of(system))
    system.plugins = create_plugins(system.config.train.plugins)
    with locked_run(folder_of_run(system, None if resume is None else Path(resume))):
        return _fit(system, resume, callbacks)


def _fit(system: ContrastiveSystem, resume: str | Path | None, callbacks: Sequence[Callback]) -> RunResult:
    run_dir, state = open_run(system, None if resume is None else Path(resume))
    try:
        return _train(system, run_dir, state, callbacks)
    except InputError:
        if state is None and main_process() and not any((run_dir / "checkpoints").iterdir()):
            (run_dir / CONFIG).unlink()  # nothing was trained: the mended command may start in this folder
        raise


def _train(system: ContrastiveSystem, run_dir: Path, state: Any, callbacks: Sequence[Callback]) -> RunResult:
    carried = state.get("carried") if state else None
    if state is None and system.continued is not None:
        before = read_state(constant_checkpoint(system.continued))
        carried = {"stage": before["progress"]["stage"], "optimizers": before["optimizers"]}
    elif state is None:
        with preserved_rng():
            system.initialize()
    continued = carried is not None or bool(state and state["continued"])
    system.run_dir = run_dir
    system.progress = Progress(**state["progress"]) if state else Progress()
    for name, plugin in system.plugins.items():
        if state and name in state.get("plugins", {}):
            plugin.load_state_dict(state["plugins"][name])
    stages = list(system.stages())
    metrics: dict[str, float] = {}
    with preserved_rng(), _preserved_determinism():
        while system.progress.stage < len(stages):
            stage = stages[system.progress.stage]
            final = system.progress.stage + 1 == len(stages)
            keeper = _run_stage(system, stage, run_dir, state, list(callbacks), final, continued, carried)
            carried = keeper.carried
            metrics = keeper.metrics
            state = None
            progress = system.progress
            system.progress = Progress(stage=progress.stage + 1, total_step=progress.total_step)
    last, best = (checkpoint_dir(run_dir, name) for name in ("last", "best"))
    if main_process() and not best.exists():
        copy_checkpoint(find_checkpoint(last), best)
    if not metrics:
        metrics = dict(read_state(find_checkpoint(last)).get("metrics", {}))
    return RunResult(run_dir, best, last, metrics)


def _run_stage(
    system: ContrastiveSystem,
    stage: Stage,
    run_dir: Path,
    state: Any,
    callbacks: list[Callback],
    last: bool,
    continued: bool,
    carried: Any,
) -> RunKeeper:
    train = system.config.train
    system.stage = stage
    system.on_stage_start(stage)
    datasets = system.datasets()
    forget_manifest()  # what a data set needs of it, it holds
    if stage.gradient_free:  # there is no loss to validate
        datasets = replace(datasets, val=None)
    if state is not None:
        check_data(run_dir, stage.name, datasets)
    elif main_process():
        list_left_out((datasets.train, datasets.val, datasets.test), run_dir / BAD_SAMPLES)
    batch_size = _batch_size(stage, train, datasets)
    sampler = _sampler(system, datasets.train, batch_size, state)
    per_epoch = _steps_per_epoch(sampler, state)
    if per_epoch == 0:
        raise InputError(f"stage {stage.name!r}: {len(datasets.train)} samples do not fill one batch of {batch_size}")
    max_steps = stage.max_steps or (None if stage.max_epochs else train.max_steps)
    max_epochs = stage.max_epochs or train.max_epochs
    total_steps = max_steps or max_epochs * per_epoch
    system.epochs = -(-total_steps // per_epoch)
    system.begin_stage(stage, total_steps)
    if continued:
        if system.schedules["lr"].kind != "infinite":
            raise InputError("continue_from needs optim.schedule.kind=infinite: other schedules warm up again")
        system.schedules["lr"] = system.schedules["lr"].continued(total_steps)
    begun = state is not None or (run_dir / METRICS).is_file()  # of an earlier stage, else
    metrics_csv = MetricsCsv(run_dir / METRICS, system.progress.total_step if begun else None)
    metrics_csv.stage = stage.name
    monitor = [CollapseMonitor(train.monitor_every)] if train.monitor_every else []
    keeper = RunKeeper(run_dir, sampler, total_steps, state, metrics_csv, last, continued, carried, per_epoch)
    with _quiet_lightning():
        trainer = _trainer(
            system, run_dir, [*callbacks, *monitor, keeper], metrics_csv, datasets.val is not None, state
        )
    rank, world = trainer.global_rank, trainer.world_size
    if state is None:  # dropout differs from rank to rank (unless all do the same work), from stage to stage
        place = rank if sampler.shared_out else 0
        seed_all(int(np.random.SeedSequence([train.seed, system.progress.stage, place]).generate_state(1)[0]))
    if sampler.shared_out and batch_size % world:
        raise InputError(_uneven(stage, batch_size, world))
    if trainer.is_global_zero:
        record_data(run_dir, stage.name, datasets)
    pin = trainer.strategy.root_device.type == "cuda"
    stage_number = system.progress.stage
    requests = Requests(sampler, train.seed, stage_number, rank, world)
    batches = Batches(
        datasets.train, requests, train.workers, pin, lambda: (system.progress.epoch, system.progress.batch)
    )
    val = None
    if datasets.val is not None:
        in_order = Requests(
            SequentialSampler(len(datasets.val), batch_size), train.seed, stage_number, rank, world, repeat=True
        )
        val = Batches(datasets.val, in_order, train.workers, pin, lambda: (0, 0))
    system.train()
    with _quiet_lightning(), _lost_process_named(run_dir, world), _sharing(system, sampler, world):
        trainer.fit(system, batches, val)
    return keeper


# How gloo, NCCL and their store speak of a peer that is gone.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "gloo", "NCCL")


@contextlib.contextmanager
def _lost_process_named(run_dir: Path, world: int) -> Iterator[None]:
    """Say in one sentence that another process of this training is gone."""
    try:
        yield
    except RuntimeError as error:  # torch.distributed's errors derive from it
        if world == 1 or not any(words in str(error) for words in _LOST):
            raise
        raise LostProcessError(
            f"{run_dir}: another of the {world} processes of this training died or hangs (its own messages say why, a "
            f"kill for memory says nothing); go on from the last checkpoint with --resume {run_dir}"
        ) from error


_HINTS = (
    "does not have many workers",  # train.workers is the user's choice, and the samples do not depend on it
    "in eval mode at the start",  # frozen teachers and encoders
    "`isinstance.treespec",
    "LeafSpec",
    "have no `val_dataloader`",  # no validation split: the run says so by having no val/ figures
    "sync_dist=True",  # figures are reduced over processes before they are logged
    "GPU available but not used",  # train.accelerator=cpu was asked for
)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning speaks of its own settings, which are ours to make; torch's and the data's warnings pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for text in _HINTS:
                warnings.filterwarnings("ignore", f".*{text}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def _preserved_determinism() -> Iterator[None]:
    """`train.deterministic` is a setting of the whole process: put it back."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


@contextlib.contextmanager
def _sharing(system: ContrastiveSystem, sampler: BatchSampler, world: int) -> Iterator[None]:
    """How the processes share a batch: its negatives and its batch normalisation are everybody's, as on one process."""
    train = system.config.train
    if world == 1 or not sampler.shared_out:
        with unshared():
            yield
        return
    # Micro-batches have statistics of their own, and ranks might see different numbers of them.
    synchronised = train.sync_batch_norm and train.micro_batch_size is None
    distributed = "auto" if train.negatives == "all" else "none"
    normalising = shared_batch_norm(system) if synchronised else contextlib.nullcontext()
    with engine_settings(distributed=distributed), normalising:
        yield


def _batch_size(stage: Stage, train: Any, datasets: Datasets) -> int:
    size, samples = stage.batch_size or train.batch_size, len(datasets.train)
    if samples < 1:
        raise InputError("no sample of the data can be trained on; `data check` says what was left out and why")
    if samples >= size:
        return size
    world = max(1, train.devices) * train.num_nodes
    if samples < world:
        raise InputError(f"{samples} training samples cannot be shared by {world} processes")
    fitting = samples - samples % world
    warnings.warn(f"only {samples} training samples: the batch shrinks from {size} to {fitting}", stacklevel=2)
    return fitting


def _uneven(stage: Stage, size: int, world: int) -> str:
    """What to say of a batch that the processes cannot share evenly; `size` is what the configuration says."""
    name = f"stage {stage.name!r}: batch size" if stage.batch_size else "train.batch_size"
    below, above = size - size % world, size + world - size % world
    advice = f"give {below} or {above}" if below else f"give {above}"
    return f"{name} {size} cannot be shared evenly by {world} processes; {advice}"


def _sampler(system: ContrastiveSystem, samples: Samples, batch_size: int, state: Any) -> BatchSampler:
    """The stage's batches, chosen by a plug-in or by the system; within reach as `system.sampler`."""
    seed, chosen = system.config.train.seed + system.progress.stage, {}
    for name, plugin in system.plugins.items():
        plugin.start(system, samples)
        if (found := plugin.batch_sampler(samples, batch_size, seed)) is not None:
            chosen[name] = found
    if len(chosen) > 1:
        raise InputError(f"train.plugins: {' and '.join(chosen)} both choose the batches; leave one of them out")
    sampler = next(iter(chosen.values())) if chosen else system.batch_sampler(samples, batch_size, seed)
    if state is not None:
        sampler.load_state_dict(state["sampler"])
    system.sampler = sampler
    return sampler


def _steps_per_epoch(sampler: BatchSampler, state: Any) -> int:
    """Batches in an epoch as the stage began: a sampler that changes may make more or fewer later on, and the schedules
    of a resumed run are those of the run that was never stopped."""
    known = (state or {}).get("per_epoch")
    return known[1] if known and known[0] == sampler.batch_size else len(sampler)


def _trainer(
    system: ContrastiveSystem, run_dir: Path, callbacks: list[Callback], log: MetricsCsv, validate: bool, state: Any
) -> Trainer:
    train = system.config.train
    if train.strategy == "fsdp" and train.precision == "16-mixed":
        raise InputError("train.precision 16-mixed does not go with train.strategy fsdp; give bf16-mixed")
    if train.strategy not in ("auto", "fsdp") and not train.strategy.startswith("ddp"):
        raise InputError(f"train.strategy {train.strategy!r} is not supported; give auto, ddp or fsdp")
    loggers: list[Any] = [log]
    if train.tensorboard:
        purge = None if state is None else system.progress.total_step + 1
        loggers.append(TensorBoardLogger(str(run_dir), name="", version="tensorboard", purge_step=purge))
    try:
        return Trainer(
            accelerator=train.accelerator,
            devices=train.devices,
            num_nodes=train.num_nodes,
            strategy=ShardedStrategy() if train.strategy == "fsdp" else train.strategy,
            precision=train.precision,  # type: ignore[arg-type]
            max_epochs=-1,
            max_steps=-1,
            logger=loggers,
            callbacks=callbacks,
            log_every_n_steps=train.log_every,
            check_val_every_n_epoch=train.validate_every_epochs,
            limit_val_batches=None if validate else 0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=shown(),
            enable_model_summary=False,
            deterministic="warn" if train.deterministic else False,
            inference_mode=False,
        )
    except (
        ValueError,
        TypeError,
        MisconfigurationException,
    ) as error:  # Lightning's words for an unknown precision, strategy or accelerator
        raise InputError(f"train: {' '.join(str(error).split())}") from error
