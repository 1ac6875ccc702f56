"""The run folder: configuration, environment, checkpoints; and how a system comes back out of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.fsdp import FSDPModule

from counterpoint.common.errors import InputError
from counterpoint.common.main_process import main_process
from counterpoint.common.rng import preserved_rng, seed_all
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.checkpoints import (
    find_checkpoint,
    known_assets,
    read_model,
    read_state,
    tidy_checkpoints,
)
from counterpoint.common.trainers.config_files import from_dict, load_yaml, save_yaml, to_dict
from counterpoint.common.trainers.environment import TRAINING, compare_environment, environment, write_environment
from counterpoint.common.trainers.frozen import FOLDER as FROZEN
from counterpoint.common.trainers.system import ContrastiveSystem
from counterpoint.common.trainers.trusted import trusted_class, trusted_system

CONFIG, METRICS, BAD_SAMPLES, ASSETS = "config.yaml", "metrics.csv", "bad_samples.jsonl", "assets"
# In config.yaml: the data were handed over in Python, and nothing in the configuration names them.
GIVEN = "given"
# The checkpoint before an infinite schedule anneals, from which continual pretraining goes on.
CONSTANT = "const"


@dataclass(frozen=True)
class RunResult:
    """What a training left: the run folder, the best and the last checkpoint, the last value of every metric."""

    run_dir: Path
    best: Path
    last: Path
    metrics: dict[str, float] = field(default_factory=dict)


def create_system(cls: Any, config: Any, data: Any = None, continue_from: str | Path | None = None) -> Any:
    """A new system: its assets learnt from the training data, the initial weights those of `config.train.seed`.

    Raises `InputError` for a class that the running script itself defines: its run could not be loaded again.

    Args:
        data: used in place of what `cls.read(config)` would read.
        continue_from: a finished run of the same class with the `infinite` schedule, for continual pretraining on the
            next data. The system starts from the run's assets, extended by the new data (new words, users, items), and
            from the weights that it had before the annealing (checkpoint `const`).
    """
    check_importable(cls)
    if continue_from is not None:
        return _continued_system(cls, config, data, Path(continue_from))
    if data is None and _overrides(cls, "learn"):
        data = cls.read(config)
    system = build_system(cls, config, cls.learn(config, data))
    return system if data is None else system.use(data)


def _continued_system(cls: Any, config: Any, data: Any, run: Path) -> Any:
    if not (run / CONFIG).is_file():
        raise InputError(f"{run}: not a run folder (no {CONFIG} in it)")
    known = load_yaml(run / CONFIG).get("system")
    if known != f"{cls.__module__}:{cls.__qualname__}":
        raise InputError(f"{run}: holds a run of {known}, and a {cls.__name__} cannot go on from it")
    if config.optim.schedule.kind != "infinite":
        raise InputError("continue_from needs optim.schedule.kind=infinite: other schedules warm up again")
    system = build_system(cls, config, assets_of(run, cls))
    load_weights(system, constant_checkpoint(run))
    # What is looked at for new facts has the data's own form; what is trained on is read again in the run's.
    new = cls.read(config) if data is None and _overrides(cls, "extend") else data
    assets = cls.extend(system.assets, config, new)
    if assets.hash != system.assets.hash:
        system.grow(assets)
        system.assets = assets
    system.continued = run
    return system if data is None else system.use(data)


def check_importable(cls: type) -> None:
    """Refuse a class of the running script or notebook: a run names its class, and no later process finds it there."""
    if cls.__module__ == "__main__":
        raise InputError(
            f"{cls.__name__} is defined in the script that runs, where no later process finds it; put the class into a "
            "module of its own (a file beside the script) and import it"
        )


def _overrides(cls: Any, name: str) -> bool:
    """Whether a system has its own form of one of the hooks about assets."""
    return getattr(cls, name).__func__ is not getattr(ContrastiveSystem, name).__func__


def build_system(cls: Any, config: Any, assets: Assets) -> Any:
    """A system over known assets with the initial weights of `config.train.seed`; reads no data, and leaves the global
    generators as they were."""
    with preserved_rng():
        seed_all(config.train.seed)
        return cls(config, assets)


def load_run(run_dir: str | Path, checkpoint: str = "best", allow: Sequence[str] = ()) -> Any:
    """The system of a run folder with the weights of its `best` or `last` checkpoint. Nothing is unpickled.

    Only classes derived from `ContrastiveSystem` are built, and no module is imported but those of installed verticals
    and of `allow`. Raises `InputError` when something is missing, damaged or does not fit.
    """
    run_dir = Path(run_dir)
    system = empty_system(run_dir, allow)
    folder = find_checkpoint(checkpoint_dir(run_dir, checkpoint))
    load_weights(system, folder)
    system.run_dir = run_dir
    system.progress = type(system.progress)(**read_state(folder)["progress"])
    return system.eval()


def empty_system(run_dir: Path, allow: Sequence[str] = ()) -> Any:
    """The system described by the run's config.yaml, with its initial weights."""
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir}: not a run folder (no {CONFIG} in it)")
    return system_of(load_yaml(run_dir / CONFIG), run_dir / CONFIG, allow)


def system_of(record: Any, file: Path, allow: Sequence[str] = ()) -> Any:
    """The system that a file's `system` and `config` and the assets beside it describe, once every class they name is
    found to be trusted."""
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{file}: describes no system (it needs `system` and `config`)")
    cls: Any = trusted_system(record.get("system"), str(file), allow)
    assets = assets_of(file.parent, cls)
    config = from_dict(cls.Config, record["config"])
    for target, base in getattr(cls, "named_classes", lambda _: ())(config):
        trusted_class(target, base, str(file), allow)
    system = build_system(cls, config, assets)
    system.given = bool(record.get(GIVEN))
    return system


def assets_of(folder: Path, cls: Any) -> Assets:
    """The assets kept in a run's or a saved model's folder."""
    if (folder / ASSETS).exists():
        return Assets.load(folder / ASSETS)
    if not _overrides(cls, "learn"):
        return Assets()
    raise InputError(
        f"{folder}: has no {ASSETS}/ with the facts that {cls.__name__} learnt from its data: it is incomplete, or an "
        "older version of counterpoint wrote it; copy the whole folder, or train again"
    )


def load_weights(system: Any, folder: Path) -> None:
    """Put a checkpoint's weights into a system; names and shapes must agree, and so must the assets."""
    known = known_assets(folder)
    if known is not None and known != system.assets.hash:
        raise InputError(f"{folder}: belongs to other {ASSETS}/ than those of its run; copy the whole run folder")
    try:
        system.load_state_dict(read_model(folder))
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{folder}: its weights do not fit this system ({' '.join(str(error).split())[:300]})"
        ) from error


def constant_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that another run may go on from: the one before an infinite schedule annealed, the last one where
    it never does."""
    before = checkpoint_dir(run_dir, CONSTANT)
    schedule = load_yaml(run_dir / CONFIG)["config"].get("optim", {}).get("schedule", {})
    never = schedule.get("kind") == "infinite" and not schedule.get("decay")
    return find_checkpoint(checkpoint_dir(run_dir, "last") if never and not before.exists() else before)


def checkpoint_dir(run_dir: Path, checkpoint: str) -> Path:
    """`checkpoints/<name>` of a run."""
    return run_dir / "checkpoints" / checkpoint


def system_name(system: Any) -> str:
    """`module:Class`, as recorded in config.yaml."""
    cls = system_class(system)
    return f"{cls.__module__}:{cls.__qualname__}"


def system_class(system: Any) -> type:
    """The class as written: a sharded system carries one of PyTorch's making in front of it."""
    return next(c for c in type(system).__mro__ if not issubclass(c, FSDPModule))


def folder_of_run(system: Any, resume: Path | None) -> Path:
    """Where the run lies or will lie."""
    return resume if resume is not None else Path(system.config.train.out or f"runs/{system_class(system).__name__}")


def open_run(system: Any, resume: Path | None) -> tuple[Path, dict[str, Any] | None]:
    """Create the run folder, or find the state to continue from."""
    train, run_dir = system.config.train, folder_of_run(system, resume)
    if resume is not None:
        if main_process():
            tidy_checkpoints(run_dir / "checkpoints")
        folder = find_checkpoint(checkpoint_dir(run_dir, "last"))
        if train.precision == "64-true":
            system.double()  # single precision would round the weights
        load_weights(system, folder)
        if main_process():
            compare_environment(run_dir, system.config)
        return run_dir, read_state(folder)
    if not main_process():
        return run_dir, None
    try:
        if (run_dir / CONFIG).exists() and not train.overwrite:
            if not any((run_dir / "checkpoints").glob("*")):
                raise InputError(
                    f"{run_dir}: holds a run that stopped before its first checkpoint; start it over with "
                    "train.overwrite, or choose another train.out"
                )
            raise InputError(
                f"{run_dir}: holds a run already; continue it with --resume {run_dir}, choose another train.out, "
                "or set train.overwrite"
            )
        for name in ("checkpoints", "tensorboard", FROZEN):
            shutil.rmtree(run_dir / name, ignore_errors=True)
        for name in (METRICS, BAD_SAMPLES, TRAINING):
            (run_dir / name).unlink(missing_ok=True)
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        system.assets.save(run_dir / ASSETS)
        record = {"system": system_name(system), "config": to_dict(system.config)}
        save_yaml(record | ({GIVEN: True} if system.given else {}), run_dir / CONFIG)
        write_environment(run_dir, {**environment(), "config": to_dict(system.config)})
    except OSError as error:
        raise InputError(f"{run_dir}: the run folder cannot be written ({error.strerror or error})") from error
    return run_dir, None
