"""Copies that names do not show: the files of one row standing, byte by byte, under another id."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import LeakageError

NO_FILES = ("id", "group", "split", "shard")
# Columns that say which part of a file a row is: two parts of one file are two samples.
PLACES = (
    "shard", "member", "start", "stop", "end", "begin", "offset", "onset", "channel", "track", "index", "left", "top",
)  # fmt: skip


def check_copies(manifest: Manifest) -> None:
    """Raise `LeakageError` where rows of two splits name the same files, or files of the same content.

    Only files of equal sizes in several splits are read. Rows without files cannot be compared.
    """
    for rows in _of_equal_size(manifest, manifest.frame["split"] != ""):
        if len({row.split for row in rows}) < 2:
            continue
        for first, *others in _of_equal_content(rows):
            for row in others:
                if row.split != first.split:
                    what = "the same file" if first.files == row.files else "files of the same content"
                    raise LeakageError(
                        f"{manifest.path or 'manifest'}: rows {first.number} ({first.id!r}, {first.split}) and "
                        f"{row.number} ({row.id!r}, {row.split}) name {what} ({row.files[0].name}): one recording "
                        "stands in two splits; give both one group and split by group, or drop one"
                    )


def copies_within(manifest: Manifest, split: str) -> list[list[str]]:
    """Ids of the rows of a split that name the same files, or files of the same content: copies together."""
    found = _of_equal_size(manifest, manifest.frame["split"] == split)
    same = (rows for sized in found if len(sized) > 1 for rows in _of_equal_content(sized))
    return [[row.id for row in rows] for rows in same if len(rows) > 1]


@dataclass(frozen=True)
class _Row:
    number: int
    id: str
    split: str
    files: list[Path]


def _of_equal_size(manifest: Manifest, which: Any) -> Iterable[list[_Row]]:
    """Rows with files that could be copies of one another, by what costs no reading."""
    frame = manifest.frame[which]
    frame = frame[_may_name_files(manifest, frame)]
    places = [name for name in PLACES if name in frame]
    by_size: dict[tuple, list[_Row]] = defaultdict(list)
    for number, row in zip(frame.index.tolist(), frame.to_dict("records")):
        if files := _files(manifest, row):
            key = (*(f.stat().st_size for f in files), *(str(row[name]) for name in places))
            by_size[key].append(_Row(int(number) + 1, row["id"], row["split"], files))
    return by_size.values()


def _of_equal_content(rows: list[_Row]) -> Iterable[list[_Row]]:
    seen: dict[tuple[str, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        seen[tuple(_sha256(f) for f in row.files)].append(row)
    return seen.values()


def _may_name_files(manifest: Manifest, frame: pd.DataFrame) -> np.ndarray:
    """[rows] bool: false where no text of a row can name a file, as its first part is no entry of the manifest's
    folder. To ask the disk for each of millions of SMILES or titles takes minutes."""
    here = {name.casefold() for name in os.listdir(manifest.root)} if manifest.root.is_dir() else set()
    found = np.zeros(len(frame), dtype=bool)
    for name in frame.columns:
        if name in NO_FILES or pd.api.types.is_numeric_dtype(frame[name]):
            continue
        for row, value in enumerate(frame[name].tolist()):
            if isinstance(value, str) and not found[row]:
                first = value.partition("/")[0]
                # Absolute, leading elsewhere, on a drive, or spelled in one of several ways: the disk has to be asked.
                asked = not first.strip(".") or ":" in first or "\\" in first or not first.isascii()
                found[row] = asked or first.casefold() in here
    return found


def _files(manifest: Manifest, row: dict) -> list[Path]:
    found = []
    for name, value in row.items():
        if name in NO_FILES or not isinstance(value, str) or not 0 < len(value) < 1000:
            continue
        try:
            path = manifest.file(value)
            if path.is_file() and path.stat().st_size:
                found.append(path)
        except (OSError, ValueError):  # a text that is no file name
            continue
    return found


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha256_of(path: Path, size: int, changed: int) -> str:
    """Each state of a file is read once, however many splits are opened."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
