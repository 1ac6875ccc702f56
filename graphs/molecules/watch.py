"""Which row of a file RDKit is reading, kept where it outlives the process: one that ends it costs one row."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.common.data.isolation import Isolated, isolated_map
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected

MOST = 20
"""Rows of one file that may end their process before the file is refused."""
SECONDS = 60.0
"""Processor time for a chunk of molecules."""


class Watch:
    """Called with the number of the row that comes (from 1); says why it is passed over: it ended a process before.

    >>> watch = Watch(fatal={2: "ends the program"})
    >>> watch(1), watch(2)
    ('', 'ends the program')
    """

    def __init__(self, file: Path | None = None, fatal: Mapping[int, str] | None = None) -> None:
        self.fatal, self._mark = dict(fatal or {}), None
        if file is not None:
            with file.open("r+b") as opened:
                self._mark = mmap.mmap(opened.fileno(), 8)

    def __call__(self, row: int) -> str:
        if row in self.fatal:
            return self.fatal[row]
        self._write(row)
        return ""

    def done(self) -> None:
        """No row is being read."""
        self._write(0)

    def _write(self, row: int) -> None:
        if self._mark is not None:
            self._mark[:] = row.to_bytes(8, "little")


def read_watched(read: Callable[[Watch], Any], timeout: float) -> Any:
    """`read(watch)` in a worker process; when a row ends the process, once more without that row.

    Raises:
        InputError: what `read` says; more than `MOST` rows end their process, or something that is no row does.
    """
    fatal: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder, Isolated(timeout=timeout) as worker:
        file = Path(folder) / "row"
        while True:
            file.write_bytes(bytes(8))
            try:
                return worker.call(partial(_watched, read, file, fatal))
            except InputError as error:
                row = int.from_bytes(file.read_bytes(), "little")
                if not row or row in fatal or len(fatal) == MOST:
                    raise
                fatal[row] = str(error).partition(";")[0]


def map_watched(
    read: Callable[[Sequence[str], Watch], Any], smiles: Sequence[str], workers: int = 1, chunk: int = 512
) -> Iterator[Any]:
    """`read(some, watch)` for each chunk of molecules, in order, in worker processes.

    `read` tells `watch` every place in its chunk (from 1) before RDKit sees that molecule; a chunk that ends its
    process is read once more with an eye on the row.

    Raises:
        InputError: more than `MOST` molecules of a chunk end their process.
    """
    parts = [smiles[i : i + chunk] for i in range(0, len(smiles), chunk)]
    alone = partial(_alone, read)
    for part, found in isolated_map(alone, parts, workers=max(workers, 1), timeout=SECONDS):
        yield read_watched(partial(read, part), SECONDS) if isinstance(found, Rejected) else found


def _alone(read: Callable[[Sequence[str], Watch], Any], part: Sequence[str]) -> Any:
    return read(part, Watch())


def _watched(read: Callable[[Watch], Any], file: Path, fatal: dict[int, str]) -> Any:
    watch = Watch(file, fatal)
    try:
        return read(watch)
    finally:
        watch.done()
