"""Checkpoints without pickle: a tree of state becomes tensors (safetensors) and JSON, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import frozen

MODEL, STATE, STATE_TENSORS = "model.safetensors", "state.json", "state.safetensors"
HASHES, FORMAT = "checkpoint.json", 1  # the checkpoint's files with their SHA-256, written last


def pack_state(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a tree of dicts, lists, tuples, numbers, text, arrays and tensors into JSON and tensors.

    >>> plain, tensors = pack_state({"step": 3, 0: (torch.ones(2), None)})
    >>> unpack_state(plain, tensors)
    {'step': 3, 0: (tensor([1., 1.]), None)}
    """
    tensors: dict[str, Tensor] = {}

    def walk(node: Any, where: str) -> Any:
        if isinstance(node, Tensor):
            tensors[where] = node.detach().cpu().contiguous().clone()
            return {"__tensor__": where}
        if isinstance(node, np.ndarray):
            tensors[where] = torch.from_numpy(np.ascontiguousarray(node).copy())
            return {"__array__": where}
        if isinstance(node, (np.integer, np.floating)):
            return node.item()
        if isinstance(node, Mapping):
            if all(isinstance(k, str) and not k.startswith("__") for k in node):
                return {k: walk(v, f"{where}.{k}") for k, v in node.items()}
            return {
                "__items__": [
                    [walk(k, f"{where}.k{i}"), walk(v, f"{where}.{k}")] for i, (k, v) in enumerate(node.items())
                ]
            }
        if isinstance(node, tuple):
            return {"__tuple__": [walk(v, f"{where}.{i}") for i, v in enumerate(node)]}
        if isinstance(node, list):
            return [walk(v, f"{where}.{i}") for i, v in enumerate(node)]
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise TypeError(f"state{where} is a {type(node).__name__}; a checkpoint holds tensors, arrays and plain data")

    return walk(tree, ""), tensors


def unpack_state(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack_state`."""
    if isinstance(plain, list):
        return [unpack_state(v, tensors) for v in plain]
    if isinstance(plain, dict):
        if "__tensor__" in plain:
            return tensors[plain["__tensor__"]]
        if "__array__" in plain:
            return tensors[plain["__array__"]].numpy()
        if "__items__" in plain:
            return {unpack_state(k, tensors): unpack_state(v, tensors) for k, v in plain["__items__"]}
        if "__tuple__" in plain:
            return tuple(unpack_state(v, tensors) for v in plain["__tuple__"])
        return {k: unpack_state(v, tensors) for k, v in plain.items()}
    return plain


def write_model(folder: Path, weights: Mapping[str, Tensor], parts: Mapping[str, Collection[str]]) -> None:
    """`model.safetensors`; tensors that share memory are written once each. The frozen `parts` (`frozen.frozen_parts`)
    are named in it by their hash, and lie in `frozen/`."""
    rest, named = frozen.set_apart(weights, parts, frozen.folder_of(folder))
    values = {k: v.detach().cpu().contiguous().clone() for k, v in rest.items()}
    save_file(values, str(folder / MODEL), metadata=frozen.metadata(named))


def read_model(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint or of a saved model, with the frozen ones that it names."""
    named = frozen.named_in(folder / MODEL)
    return load_file(str(folder / MODEL)) | frozen.read_frozen(named, frozen.folder_of(folder))


def write_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    state: Any,
    assets: str | None = None,
    parts: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Write weights and state under a temporary name, then take the place of the older folder.

    `assets` is the hash of the run's assets: the weights mean nothing beside others. `parts` are the frozen ones, which
    the run holds once for all its checkpoints.

    A crash at any moment leaves either the old or the new checkpoint readable (see `find_checkpoint`). A full disk or
    a folder without write permission raises `InputError`; the older checkpoint then stays.
    """
    plain, tensors = pack_state(state)

    def fill(temporary: Path) -> None:
        write_model(temporary, weights, parts or {})
        if tensors:
            save_file(tensors, str(temporary / STATE_TENSORS))
        (temporary / STATE).write_text(json.dumps(plain) + "\n", encoding="utf-8")
        files = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        record = json.dumps({"format": FORMAT, "assets": assets, "files": files}, indent=2)
        (temporary / HASHES).write_text(record + "\n", encoding="utf-8")

    _place(folder, fill)
    frozen.tidy_frozen(frozen.folder_of(folder), [c / MODEL for c in _checkpoints(folder.parent)])


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy a checkpoint folder, whole or not at all."""

    def fill(temporary: Path) -> None:
        for file in source.iterdir():
            shutil.copyfile(file, temporary / file.name)

    _place(folder, fill)


def _place(folder: Path, fill: Callable[[Path], None]) -> None:
    temporary, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        _sync(temporary)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.exists() and old.exists():
            old.rename(folder)
        reason = getattr(error, "strerror", None) or str(error)
        kept = "the last checkpoint there is intact" if folder.exists() else "there is no checkpoint yet"
        raise InputError(f"{folder}: the checkpoint cannot be written ({reason}); {kept}") from error


def tidy_checkpoints(parent: Path) -> None:
    """Remove what a killed process left half written; a predecessor whose successor never came takes its place."""
    for rest in parent.glob(".*.new"):
        shutil.rmtree(rest, ignore_errors=True)
    for old in parent.glob(".*.old"):
        folder = old.with_name(old.name[1 : -len(".old")])
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def find_checkpoint(folder: Path) -> Path:
    """The folder, or its predecessor when a crash struck between two renames; every file has the hash it was given.

    Raises:
        InputError: no such checkpoint, or a damaged, incomplete or older one. The sentence names the newest good one.
    """
    found = folder if folder.is_dir() else folder.with_name(f".{folder.name}.old")
    others = [c for c in _checkpoints(folder.parent) if c != found]
    if not found.is_dir():
        if not others:
            run = folder.parent.parent
            raise InputError(f"{run}: the run stopped before its first checkpoint; start it over with train.overwrite")
        raise InputError(f"{folder}: no such checkpoint; there are: {', '.join(sorted(c.name for c in others))}")
    fault = _fault(found)
    if fault is None:
        return found
    good = sorted((c for c in others if _fault(c) is None), key=_step)
    if not good:
        raise InputError(f"{found / fault[0]}: {fault[1]}, and there is no other good checkpoint; start the run over")
    name = good[-1].name
    raise InputError(
        f"{found / fault[0]}: {fault[1]}; the last good checkpoint is '{name}' of step {_step(good[-1])}: "
        f"go on from its weights (checkpoint {name}), or start the run over"
    )


def _checkpoints(parent: Path) -> list[Path]:
    return [c for c in parent.iterdir() if c.is_dir() and not c.name.endswith(".new")] if parent.is_dir() else []


def _step(folder: Path) -> int:
    return int(json.loads((folder / STATE).read_text(encoding="utf-8"))["progress"]["total_step"])


def _fault(folder: Path) -> tuple[str, str] | None:
    """The first file of a checkpoint that is not as it was written, and what is wrong with it."""
    if not (folder / HASHES).is_file():
        return HASHES, "missing: the checkpoint is incomplete, or an older version of counterpoint wrote it"
    try:
        record = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        form, files = record["format"], dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return HASHES, "damaged"
    if form != FORMAT:
        return HASHES, f"of format {form!r}, and this version of counterpoint reads {FORMAT}"
    for name in sorted({MODEL, STATE, *files}):
        if not (folder / name).is_file():
            return name, "missing"
        try:
            if _sha256(folder / name) != files.get(name):
                return name, "damaged (it is not what was written there, by its hash)"
        except OSError as error:
            return name, f"cannot be read ({error.strerror or error})"
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def known_assets(folder: Path) -> str | None:
    """The hash of the assets that a checkpoint was written beside; None where it does not say."""
    file = folder / HASHES
    return json.loads(file.read_text(encoding="utf-8")).get("assets") if file.is_file() else None


def read_state(folder: Path) -> Any:
    """The state beside the weights."""
    try:
        plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = {}
        if (folder / STATE_TENSORS).is_file():
            with safe_open(str(folder / STATE_TENSORS), framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: the checkpoint cannot be read ({error})") from error
    return unpack_state(plain, tensors)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
