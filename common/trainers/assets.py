"""Assets: facts learnt from the training split before the weights exist, kept as plain files beside the weights.

A tokenizer, band statistics, a codebook, the names of users and items, a training scale, the width of a graph's
features: whatever a network's shape or the form of its inputs depends on. They are learnt once, stored with the run,
with every checkpoint's hash and with `save_pretrained`, and applied to whatever is encoded later.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such

INDEX, FORMAT = "assets.json", 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
# Larger arrays are left out of recipes that people and other programs read as text.
_SHOWN_VALUES = 10_000


class Assets(Mapping[str, Any]):
    """Named facts: plain data (text, numbers, lists, dictionaries), numpy arrays, and `bytes` for files of other
    libraries (`tokenizer.json`). What is loaded equals what was saved.

    >>> facts = Assets(leads=("I", "II"), mean=np.zeros(2))
    >>> facts["leads"], facts["mean"].shape, len(facts.hash)
    (['I', 'II'], (2,), 64)
    """

    def __init__(self, **values: Any) -> None:
        self._values = {name: _stored(name, value) for name, value in values.items()}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise no_such("asset", name, self._values)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Assets({', '.join(self._values)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Assets) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def replace(self, **values: Any) -> Assets:
        """A copy with some values added or replaced."""
        return Assets(**{**self._values, **values})

    def part(self, prefix: str) -> Assets:
        """Those of a system that stands inside of another one, stored there as `prefix.name`.

        >>> Assets(**{"base.width": 3, "classes": ["a"]}).part("base")["width"]
        3
        """
        start = f"{prefix}."
        return Assets(**{name[len(start) :]: v for name, v in self._values.items() if name.startswith(start)})

    def within(self, prefix: str) -> dict[str, Any]:
        """The inverse of `part`: the values under `prefix.name`."""
        return {f"{prefix}.{name}": value for name, value in self._values.items()}

    @cached_property
    def hash(self) -> str:
        """sha256 over names and values."""
        seen = hashlib.sha256()
        for name in sorted(self._values):
            seen.update(f"{name}\n{_digest(self._values[name])}\n".encode())
        return seen.hexdigest()

    def recipe(self) -> dict[str, Any]:
        """Plain data and small arrays, for a recipe that other programs read; files and large arrays are named only."""
        out = {}
        for name, value in self._values.items():
            if isinstance(value, bytes):
                out[name] = f"file of {len(value)} bytes"
            elif isinstance(value, np.ndarray):
                small = value.size <= _SHOWN_VALUES
                out[name] = value.tolist() if small else f"array {value.dtype} {list(value.shape)}"
            else:
                out[name] = value
        return out

    def save(self, folder: str | Path) -> Path:
        """Write `assets.json`, one `.npy` a array and the files into `folder`, whole or not at all."""
        folder = Path(folder)
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        plain, files = {}, {}
        for name, value in self._values.items():
            if isinstance(value, np.ndarray):
                files[name] = {"file": f"{name}.npy", "hash": _digest(value)}
                np.save(temporary / f"{name}.npy", value, allow_pickle=False)
            elif isinstance(value, bytes):
                files[name] = {"file": name if "." in name else f"{name}.bin", "hash": _digest(value)}
                (temporary / files[name]["file"]).write_bytes(value)
            else:
                plain[name] = value
        record = {"format": FORMAT, "hash": self.hash, "plain": plain, "files": files}
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (temporary / INDEX).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Assets:
        """Read what `save` wrote. Raises `InputError` for a missing, damaged or changed file; nothing is unpickled."""
        folder = Path(folder)
        index = folder / INDEX
        try:
            record = json.loads(index.read_text(encoding="utf-8"))
            form, values, files = record["format"], dict(record["plain"]), dict(record["files"])
            if form != FORMAT:
                raise InputError(f"{index}: of format {form!r}, and this version of counterpoint reads {FORMAT}")
            for name, entry in files.items():
                values[name] = _read(folder / Path(entry["file"]).name, entry["hash"])
            found = cls(**values)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: missing; copy the whole run folder, or train again") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{index}: damaged ({reason}); copy the run folder anew, or train again") from error
        if found.hash != record.get("hash"):
            raise InputError(f"{index}: damaged (it is not what was written there, by its hash); copy the run anew")
        return found


def _stored(name: str, value: Any) -> Any:
    """The value in the form in which it is kept."""
    if not _NAME.fullmatch(name) or name == INDEX:
        raise ValueError(f"an asset's name is letters, digits, '_', '-' and '.', not {name!r}")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"asset {name!r} is an array of Python objects; give numbers or fixed-width text")
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    try:
        return json.loads(json.dumps(value, default=_number, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"asset {name!r} is neither plain data, an array nor bytes ({error})") from error


def _number(value: Any) -> Any:
    if isinstance(value, np.generic) and not (isinstance(value, np.floating) and not math.isfinite(value)):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain data")


def _digest(value: Any) -> str:
    if isinstance(value, np.ndarray):
        head = f"{value.dtype.str}{value.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(file: Path, expected: str) -> Any:
    value = np.load(file, allow_pickle=False) if file.suffix == ".npy" else file.read_bytes()
    if _digest(value) != expected:
        raise InputError(f"{file}: damaged (it is not what was written there, by its hash); copy the run folder anew")
    return value
