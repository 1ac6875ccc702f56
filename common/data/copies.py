"""Leakage that names do not show: the files of one row standing, byte by byte, in another split under another id."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import LeakageError

# Columns that say which part of a file a row is: two parts of one file are two samples.
PLACES = ("shard", "member", "start", "stop", "end", "begin", "offset", "onset", "channel", "track", "index")


def check_copies(manifest: Manifest) -> None:
    """Raise `LeakageError` where rows of two splits name the same files, or files of the same content.

    Only files of equal sizes in several splits are read. Rows without files cannot be compared.
    """
    frame = manifest.frame[manifest.frame["split"] != ""]
    places = [name for name in PLACES if name in frame]
    by_size: dict[tuple, list[tuple[int, str, list[Path]]]] = defaultdict(list)
    for number, row in zip(frame.index.tolist(), frame.to_dict("records")):
        if files := _files(manifest, row):
            key = (*(f.stat().st_size for f in files), *(str(row[name]) for name in places))
            by_size[key].append((int(number) + 1, row["split"], files))
    for rows in by_size.values():
        if len({split for _, split, _ in rows}) < 2:
            continue
        seen: dict[tuple[str, ...], tuple[int, str, list[Path]]] = {}
        for number, split, files in rows:
            first = seen.setdefault(tuple(_sha256(f) for f in files), (number, split, files))
            if first[1] != split:
                what = "the same file" if first[2] == files else "files of the same content"
                a, b = (manifest.frame["id"][n - 1] for n in (first[0], number))
                raise LeakageError(
                    f"{manifest.path or 'manifest'}: rows {first[0]} ({a!r}, {first[1]}) and {number} ({b!r}, {split}) "
                    f"name {what} ({files[0].name}): one recording stands in two splits; give both one group and split "
                    "by group, or drop one"
                )


def _files(manifest: Manifest, row: dict) -> list[Path]:
    found = []
    for name, value in row.items():
        if name in ("id", "group", "split", "shard") or not isinstance(value, str) or not 0 < len(value) < 1000:
            continue
        try:
            path = manifest.file(value)
            if path.is_file() and path.stat().st_size:
                found.append(path)
        except (OSError, ValueError):  # a text that is no file name
            continue
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
