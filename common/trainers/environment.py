"""environment.json: with which versions, settings and data a run was made, and what changed since when it resumes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.config_files import from_dict, to_dict

ENVIRONMENT, TRAINING = "environment.json", "training.json"
# Settings that say where and how fast a run is made; its figures do not depend on them.
_INDIFFERENT = ("out", "overwrite", "workers", "tensorboard", "accelerator", "checkpoint_every_steps")


def environment() -> dict[str, Any]:
    """Versions, machine and git commit: what one needs to repeat the run."""
    names = ("counterpoint", "torch", "lightning", "numpy", "scipy", "scikit-learn", "pandas", "safetensors")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions,
        "git": _git_commit(),
    }


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def read_environment(run_dir: Path) -> dict[str, Any]:
    """What was recorded; empty where there is no file."""
    return _read(run_dir / ENVIRONMENT)


def write_environment(run_dir: Path, known: Mapping[str, Any]) -> None:
    """Replace the file, whole or not at all."""
    _write(run_dir / ENVIRONMENT, json.dumps(known, indent=2))


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: damaged ({error}); remove it to go on without what it recorded") from error
    if not isinstance(known, dict):
        raise InputError(f"{file}: damaged (not a JSON object); remove it to go on without what it recorded")
    return known


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error})") from error


def compare_environment(run_dir: Path, config: Any) -> None:
    """Warn, in one sentence each, of versions and settings that are not those the run was started with."""
    known, now = read_environment(run_dir), environment()
    if not known:
        warnings.warn(
            f"{run_dir / ENVIRONMENT} is missing: whether data and versions changed is not known", stacklevel=2
        )
        write_environment(run_dir, {**now, "config": to_dict(config)})
        return
    before = {"python": known.get("python"), **known.get("versions", {})}
    after = {"python": now["python"], **now["versions"]}
    if changed := [f"{name} {before.get(name)} -> {after[name]}" for name in after if before.get(name) != after[name]]:
        warnings.warn(
            f"{run_dir}: resumed with other versions ({', '.join(changed)}); figures may differ from an "
            "uninterrupted run's",
            stacklevel=2,
        )
    if "config" not in known:
        return
    old, new = (dict(_flat(c)) for c in (_in_todays_form(known["config"], type(config)), to_dict(config)))
    differs = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    differs = [name for name in differs if name not in {f"train.{field}" for field in _INDIFFERENT}]
    if differs:
        listed = ", ".join(f"{name} {old.get(name)!r} -> {new.get(name)!r}" for name in differs[:5])
        warnings.warn(
            f"{run_dir}: its configuration changed since the run began ({listed}); it goes on with the new values",
            stacklevel=2,
        )


def _in_todays_form(known: Any, cls: type) -> Any:
    """A recorded configuration as this version would write it."""
    try:
        return to_dict(from_dict(cls, known))
    except InputError:  # settings that are no more: told as they stand
        return known


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def describe_data(datasets: Any) -> dict[str, Any]:
    """Sizes and content hashes of the splits."""
    record = {}
    for split in SPLITS:
        dataset = getattr(datasets, split)
        if dataset is not None:
            record[split] = {"samples": len(dataset), "hash": dataset.hash}
            record[split] |= {"synthetic": said} if (said := synthetic_part(dataset)) else {}
            record[split] |= {"written": dataset.written} if dataset.written else {}
    return record


def check_data(run_dir: Path, stage: str, datasets: Any) -> None:
    """Refuse to resume a stage whose training or validation data are not those it began with."""
    before = read_environment(run_dir).get("data", {}).get(stage, {})
    now = describe_data(datasets)
    for split in ("train", "val"):
        then, there = (dict(part) if (part := known.get(split)) else None for known in (before, now))
        times = [part.pop("written", "") if part else "" for part in (then, there)]
        if not before or then == there:
            if times[0] and times[1] != times[0]:
                warnings.warn(
                    f"{run_dir}: a file of the {split} data was written anew since the run began, and kept its size; "
                    "figures may differ from an uninterrupted run's",
                    stacklevel=2,
                )
            continue
        sizes = [0 if part is None else part.get("samples") for part in (then, there)]
        what = f"{sizes[0]} samples then, {sizes[1]} now" if sizes[0] != sizes[1] else "as many samples, other contents"
        raise InputError(
            f"{run_dir}: the {split} data of stage {stage!r} changed since the run began ({what}); put the data back, "
            "or start a new run with another train.out (where the schedule is infinite, continue_from starts it from "
            "this run's weights)"
        )


def record_data(run_dir: Path, stage: str, datasets: Any) -> None:
    """Add sizes and content hashes of a stage's data to environment.json."""
    known = read_environment(run_dir)
    known.setdefault("data", {})[stage] = describe_data(datasets)
    record_training(run_dir, stage, datasets.train)
    write_environment(run_dir, known)


def hashed(name: str) -> str:
    """A short hash of an id or a group: the run remembers whom it has seen, not their names."""
    return hashlib.sha256(str(name).encode()).hexdigest()[:16]


def record_training(run_dir: Path, stage: str, train: Any) -> None:
    """Keep hashes of a stage's training ids and groups in training.json, for evaluations on other data."""
    if train is None:
        return
    known = _read(run_dir / TRAINING)
    known[stage] = {kind: sorted({hashed(name) for name in names}) for kind, names in train.remembered().items()}
    _write(run_dir / TRAINING, json.dumps(known))
