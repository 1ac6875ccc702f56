"""What is known of a manifest's files without reading them: their sizes, and when each was last written.

Sizes are part of a data set's hash: they are the same on every machine, and a file that was cut, converted or made
longer is other data. A change that keeps the size is seen by the times at which the files were last written, of which
a hash stands beside that of the data (`Samples.written`): whoever keeps something made from the files (stored
embeddings, a run to be resumed) keeps it too, and another one says that they may hold something else by now. Content
digests would cost a whole reading of the data; these two cost one look at each file's entry. `rsync -a` and `cp -p`
keep the times: data and what was made of them may move to another machine together.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.data.manifest import Manifest

LOOKED_AT = 64  # texts of a column that are tried before it is taken for one that names no files
_NOT_FILES = ("id", "group", "split")


@dataclass(frozen=True)
class Contents:
    """Of the files that a manifest names: how many there are, and hashes of their sizes and of the times at which they
    were last written."""

    files: int = 0
    sizes: str = ""
    written: str = ""


def contents_of(manifest: Manifest) -> Contents:
    """Look at the entry of every file that the rows name, each once; a file that is missing has no size."""
    sizes_seen, times_seen, total = hashlib.sha256(), hashlib.sha256(), 0
    for name in columns_of_files(manifest):
        texts = _texts(manifest.table.column(name))
        sizes, times = (np.full(len(texts), -1, dtype=np.int64) for _ in range(2))
        for i, text in enumerate(texts):
            if (state := _entry(manifest, text)) is None:
                continue
            sizes[i], times[i] = state.st_size, state.st_mtime_ns
        total += int((sizes >= 0).sum())
        for seen, values in ((sizes_seen, sizes), (times_seen, times)):
            seen.update(f"|{name}:".encode() + values.tobytes())
    return Contents(total, sizes_seen.hexdigest(), times_seen.hexdigest()) if total else Contents()


def columns_of_files(manifest: Manifest) -> list[str]:
    """The columns of which some of the first, middle and last texts are files in the manifest's folder."""
    found = []
    for name in manifest.table.column_names:
        kind = manifest.table.schema.field(name).type
        if name in _NOT_FILES or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            continue
        texts = _texts(manifest.table.column(name))
        tried = np.unique(np.linspace(0, len(texts) - 1, min(LOOKED_AT, len(texts))).astype(int)) if texts else []
        if any(_entry(manifest, texts[i]) is not None for i in tried):
            found.append(name)
    return found


def _texts(column: pa.ChunkedArray) -> Sequence[str]:
    """Each text once, in the order of the rows."""
    return [text for text in pc.unique(column).to_pylist() if text]


def _entry(manifest: Manifest, text: str) -> os.stat_result | None:
    """The entry of a file; None for a folder, a text that is no file's name, and what is not there."""
    if len(text) > 1000:
        return None
    try:
        state = os.stat(os.path.join(manifest.root, text))
    except (OSError, ValueError):
        return None
    return state if stat.S_ISREG(state.st_mode) else None
