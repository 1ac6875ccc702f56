"""Strips of a raster under way, kept on disk until all are there: what was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from counterpoint.common.output import jsonable, write_json

MEANING = "strips.json"


class StripStore:
    """Strips of one raster in a folder beside it, one file each, complete or not at all.

    The folder is of one `meaning` (weights, place, sweep): strips of another are thrown away, never mixed in. It also
    holds the raster until that is complete, and goes with it (`clear`).

    Args:
        path: the raster that the strips are of.
        meaning: what they depend on; of JSON's types.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> store = StripStore(folder / "a.tif", {"cell": 4})
    >>> made = list(store.filled([0, 6], lambda top: np.full((1, 1, 2), top)))
    >>> [first for first, _ in made], len(StripStore(folder / "a.tif", {"cell": 4}))
    ([0, 6], 2)
    >>> len(StripStore(folder / "a.tif", {"cell": 8}))
    0
    """

    def __init__(self, path: Path, meaning: Mapping[str, Any]) -> None:
        self.folder = Path(path).with_name(f".{Path(path).name}.strips")
        self.meaning = json.loads(json.dumps(jsonable(meaning), default=str))
        if self.folder.is_dir() and self._told() != self.meaning:
            self.clear()

    def __len__(self) -> int:
        """Strips that are there."""
        return len(list(self.folder.glob("[0-9]*.npy")))

    def filled(self, firsts: Iterable[int], make: Callable[[int], np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, strip) of every first row: read where it is there, made and kept where it is not."""
        for first in firsts:
            file = self.folder / f"{first:08d}.npy"
            values = self._read(file)
            if values is None:
                values = make(first)
                self._write(file, values)
            yield first, values

    def clear(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _told(self) -> Any:
        if not (self.folder / MEANING).is_file() and not len(self):  # a raster was begun, no strip was made
            return self.meaning
        try:
            return json.loads((self.folder / MEANING).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _read(self, file: Path) -> np.ndarray | None:
        try:
            return np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def _write(self, file: Path, values: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / MEANING).is_file():
            write_json(self.meaning, self.folder / MEANING)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        with temporary.open("wb") as out:
            np.save(out, values)
        os.replace(temporary, file)


def weights_digest(system: nn.Module) -> str:
    """A short hash of a module's weights and buffers: equal for equal ones.

    >>> layer = nn.Linear(2, 2)
    >>> weights_digest(layer) == weights_digest(layer), len(weights_digest(layer))
    (True, 16)
    """
    found = hashlib.sha256()
    for name, value in sorted(system.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
