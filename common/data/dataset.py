"""Samples read from the rows of a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from counterpoint.common.data.contents import Contents, contents_of
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samples import BadSample, Samples, options_hash, plain
from counterpoint.common.data.shards import ShardReader
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such


class ManifestDataset(Samples):
    """Samples of a manifest: `load(row)` returns a dictionary of tensors; `index`, `id` and `group` are added.

    Args:
        manifest: the rows (usually `manifest.select(split="train")`); `index` is their stable number.
        load: reads one row (a dictionary; missing values are None).
        on_error: `raise` an `InputError` naming the row, or `skip`: return a `BadSample`, which the training loader
            counts, lists in the run folder and replaces by another sample.
        max_bad: share of bad samples that stops a run.
        stream: True when the manifest is of tar shards (`write_shards`, `index_shards`); then `load` finds the sample's
            files, extension -> bytes, in `row["files"]`. Draw batches with `ShardShuffleSampler`.
        reading: every option of `load` that changes what a sample holds (crop, rate, tokenizer); part of `hash`, as are
            the sizes of the files that the rows name (`contents`).

    >>> table = Manifest.from_rows([{"id": "a", "value": 1.0}, {"id": "b", "value": 2.0}])
    >>> dataset = ManifestDataset(table, lambda row: {"x": torch.tensor(row["value"])})
    >>> dataset[1]["x"], dataset[1]["index"], dataset[1]["id"]
    (tensor(2.), 1, 'b')
    """

    def __init__(
        self,
        manifest: Manifest,
        load: Callable[[dict], Mapping[str, Any]],
        on_error: str = "raise",
        max_bad: float = 0.01,
        stream: bool = False,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.manifest, self.load, self.on_error, self.max_bad = manifest, load, on_error, max_bad
        self.synthetic = synthetic_part(manifest)
        self.reading = {"load": getattr(load, "__qualname__", type(load).__qualname__), **(reading or {})}
        self.table = manifest.table
        self.indices = manifest.frame.index.to_numpy(dtype=np.int64)
        self.columns = tuple(self.table.column_names)
        self.reader = ShardReader(manifest) if stream else None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ids(self) -> Sequence[str]:
        return TextColumn(self.table.column("id"))

    @property
    def groups(self) -> Sequence[str]:
        return TextColumn(self.table.column("group"))

    @property
    def hash(self) -> str:
        files = {"file sizes": self.contents.sizes} if self.contents.files else {}
        return options_hash(self.manifest.hash, **self.reading, **files)

    @cached_property
    def contents(self) -> Contents:
        """What is known of the rows' files without reading them."""
        return contents_of(self.manifest)

    @property
    def written(self) -> str:
        return self.contents.written

    def column(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise no_such("column", name, self.columns)
        return [plain(value) for value in self.table.column(name).to_pylist()]

    def row_of(self, position: int) -> int:
        """The stable number of the sample's row, whatever split it stands in."""
        return int(self.indices[position])

    def row(self, position: int) -> dict[str, Any]:
        """The manifest's row behind a sample."""
        (values,) = self.table.slice(position, 1).to_pylist()
        return {name: None if value != value else value for name, value in values.items()}

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        index = int(self.indices[position])
        row = self.row(position)
        name, group = str(row["id"]), str(row["group"])
        try:
            if self.reader is not None:
                row["files"] = self.reader.files(row)
            sample = dict(self.load(row))
        except Exception as error:  # whatever the reader met, the user needs the row
            reason = " ".join(str(error).split()) or type(error).__name__
            if self.on_error == "skip":
                return BadSample(index, name, reason)
            where = f"{self.manifest.path or 'manifest'}, row {index + 1} (id {name})"
            raise InputError(f"{where}: {reason}; repair the row, or train with --train.on_error skip") from error
        return {**sample, "index": index, "id": name, "group": group}


class TextColumn(Sequence):
    """An Arrow column of text as a sequence: one value is looked up when it is asked for, none is kept.

    >>> names = TextColumn(pa.chunked_array([["a", "b"]]))
    >>> names[1], len(names), list(names)
    ('b', 2, ['a', 'b'])
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.values = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [str(v) for v in self.values.to_pylist()[position]]
        return str(self.values[int(position)].as_py())

    def __iter__(self):
        return iter(self.values.to_pylist())

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values.to_pylist(), dtype=dtype or object)


def synthetic_part(data: Samples | Manifest) -> str:
    """What a generator made of a data set (or of a manifest's), in words; empty where all of it was measured.

    A manifest says so in `meta["synthetic"]`: True, or the words. Whatever shows figures or samples repeats it.

    >>> made = Manifest.from_rows([{"id": "a"}], meta={"synthetic": "sound rendered from real scores"})
    >>> synthetic_part(ManifestDataset(made, lambda row: {}))
    'sound rendered from real scores'
    """
    said = data.meta.get("synthetic") if isinstance(data, Manifest) else data.synthetic
    return said if isinstance(said, str) else "made by a generator, not measured" if said else ""


def group_codes(groups: Sequence[str]) -> torch.Tensor:
    """Stable 63-bit integers of group names, the same in every process: what losses compare.

    >>> group_codes(["p1", "p2", "p1"])[0] == group_codes(["p1"])[0]
    tensor(True)
    """
    codes = [int.from_bytes(hashlib.blake2b(str(g).encode(), digest_size=8).digest(), "big") >> 1 for g in groups]
    return torch.tensor(codes, dtype=torch.int64)
