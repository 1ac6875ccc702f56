"""Weights that a training never changes (a frozen teacher, the encoder under a probe): written once, named by hash.

The one rule for what checkpoints hold: a parameter that no stage trains and no momentum teacher moves lies in
`frozen/<hash>.safetensors`, one file for each part of the system, and the checkpoints (or a saved model) name that hash
in place of the weights. A part that did change after all (a momentum encoder of somebody's own) gets a new hash and a
new file, so that a checkpoint always holds what was there when it was written; files that none names any more go.
Scalars and buffers stay in the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from counterpoint.common.errors import InputError

FOLDER, KEY = "frozen", "frozen"  # beside the checkpoints; in the metadata of the weights' file
_OURS = re.compile(r"(\.[0-9a-f]{64}\.safetensors\.new|[0-9a-f]{64}\.safetensors)")


def frozen_parts(
    system: nn.Module, untrained: Collection[str], moved: Iterable[nn.Module] = ()
) -> dict[str, tuple[str, ...]]:
    """Part of the system -> names of its parameters that never change.

    Args:
        untrained: names of the parameters that no stage trains.
        moved: modules that are moved without a gradient.

    >>> net = nn.ModuleDict({"student": nn.Linear(1, 1), "teacher": nn.Linear(1, 1)})
    >>> frozen_parts(net, {"teacher.weight", "teacher.bias"})
    {'teacher': ('teacher.weight', 'teacher.bias')}
    """
    moving = {id(p) for module in moved for p in module.parameters()}
    parts: dict[str, tuple[str, ...]] = {}
    for name, parameter in system.named_parameters():
        if name in untrained and parameter.ndim and id(parameter) not in moving:
            part = name.partition(".")[0]
            parts[part] = (*parts.get(part, ()), name)
    return parts


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values.

    >>> digest({"w": torch.zeros(2)}) == digest({"w": torch.zeros(2, dtype=torch.int32)})
    False
    """
    seen = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        seen.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        seen.update(value.reshape(-1).view(torch.uint8).numpy())
    return seen.hexdigest()


def folder_of(weights: Path) -> Path:
    """Where the frozen weights lie that a checkpoint, or a saved model, names."""
    return (weights.parent.parent if weights.parent.name == "checkpoints" else weights) / FOLDER


def set_apart(
    weights: Mapping[str, Tensor], parts: Mapping[str, Collection[str]], folder: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Write the frozen parts that are not in `folder` yet; returns the other weights, and part -> hash."""
    rest, named = dict(weights), {}
    for part, names in parts.items():
        values = {n: rest.pop(n).detach().cpu().contiguous() for n in names if n in rest}
        if not values:
            continue
        named[part] = digest(values)
        file = _file(folder, named[part])
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.new")
            save_file({n: v.clone() for n, v in values.items()}, str(temporary))
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.rename(file)
    return rest, named


def named_in(file: Path) -> dict[str, str]:
    """Part -> hash of the frozen weights that a file of weights names; empty where it holds everything itself."""
    with safe_open(str(file), framework="pt") as handle:
        return json.loads((handle.metadata() or {}).get(KEY, "{}"))


def metadata(named: Mapping[str, str]) -> dict[str, str] | None:
    """What the file of the other weights carries."""
    return {KEY: json.dumps(dict(named), sort_keys=True)} if named else None


def read_frozen(named: Mapping[str, str], folder: Path) -> dict[str, Tensor]:
    """The frozen weights of those hashes. Raises `InputError` for a missing or damaged file."""
    found: dict[str, Tensor] = {}
    for part, known in named.items():
        file = _file(folder, known)
        if not file.is_file():
            raise InputError(f"{file}: missing: it holds the frozen weights of '{part}'; copy the whole folder anew")
        try:
            values = load_file(str(file))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{file}: the frozen weights of '{part}' cannot be read ({error}); copy the whole folder anew"
            ) from error
        if digest(values) != known:
            raise InputError(
                f"{file}: damaged: the frozen weights of '{part}' are not those of its name, by their hash; copy the "
                "whole folder anew"
            )
        found |= values
    return found


def tidy_frozen(folder: Path, kept: Iterable[Path]) -> None:
    """Remove what none of the files of weights in `kept` names; nothing where one of them cannot be read."""
    if not folder.is_dir():
        return
    try:
        wanted = {_file(folder, known).name for file in kept for known in named_in(file).values()}
    except (OSError, ValueError, SafetensorError):
        return
    for file in folder.iterdir():  # nobody else's files
        if file.name not in wanted and _OURS.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _file(folder: Path, known: str) -> Path:
    return folder / f"{Path(str(known)).name}.safetensors"
