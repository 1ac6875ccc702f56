"""Vectors of items from elsewhere: `.npy`, Parquet, or a folder that `embed` wrote; rows that are missing stay missing.

A table is kept beside the log as `features/NAME.npy` with a row an item and `features/NAME.mask.npy` that says which
rows are known. Nothing is imputed. What is read for training is standardised, column by column, by the items of the
training split: raw audio vectors of mean 128 wreck every linear projection.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.data.importing import require_file, unreadable
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.data.names import file_name
from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.inputs import from_columns, vector_columns
from counterpoint.common.suggest import no_such
from counterpoint.recsys.data.columns import as_text
from counterpoint.recsys.data.ids import IdMap

ROWS = 512  # rows that are in double precision at a time


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """One modality of the items.

    Attributes:
        values: [items, width], zero where nothing is known.
        known: [items] bool.
    """

    values: np.ndarray
    known: np.ndarray

    def take(self, rows: np.ndarray) -> ItemFeatures:
        """The rows of other items; -1 is one of which nothing is known."""
        there = rows >= 0
        values = np.where(there[:, None], self.values[np.maximum(rows, 0)], 0)
        return ItemFeatures(values, there & self.known[np.maximum(rows, 0)])

    def parts(self) -> Iterator[tuple[int, ItemFeatures]]:
        """(first row, some rows) of all; where a file is mapped into memory, never more than these are held."""
        for start in range(0, len(self.values), ROWS):
            part = slice(start, start + ROWS)
            yield start, ItemFeatures(self.values[part], self.known[part])
            if isinstance(self.values, np.memmap) and isinstance(self.values.base, mmap.mmap):
                self.values.base.madvise(mmap.MADV_DONTNEED)  # the pages of a file; they are read again where needed


def scale_of(features: ItemFeatures, items: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [width] over the items known (among `items`, a mask), in double precision: half precision
    overflows in sums of squares.

    >>> mean, deviation = scale_of(ItemFeatures(np.float16([[60000.0], [60000.0], [0.0]]), np.array([1, 1, 0], bool)))
    >>> mean.tolist(), deviation.tolist()
    ([60000.0], [1.0])
    """
    chosen = features.known if items is None else features.known & items
    if not chosen.any():
        chosen = features.known
    total, square = (np.zeros(features.values.shape[1]) for _ in range(2))
    count = max(int(chosen.sum()), 1)
    for start, some in features.parts():
        total += some.values[chosen[start : start + ROWS]].astype(np.float64).sum(0)
    mean = total / count
    for start, some in features.parts():
        square += ((some.values[chosen[start : start + ROWS]].astype(np.float64) - mean) ** 2).sum(0)
    deviation = np.sqrt(square / count)
    return mean, np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1), deviation, 1.0)


def standardized(features: ItemFeatures, mean: np.ndarray, deviation: np.ndarray) -> ItemFeatures:
    """Features at mean 0 and deviation 1 by what was learnt, single precision; missing rows stay zero."""
    values = np.empty(features.values.shape, dtype=np.float32)
    for start, some in features.parts():
        values[start : start + ROWS] = (some.values.astype(np.float64) - mean) / deviation
    values[~features.known] = 0.0
    return ItemFeatures(values, features.known)


def read_features(
    source: Path, items: IdMap, ids: list[str] | None = None, name: str = ""
) -> tuple[ItemFeatures, list[str]]:
    """Vectors of a file or folder in the rows of `items`, and sentences about what does not fit.

    A Parquet file and a folder of `embed` bring ids of their own; of several modalities in a folder the one called
    `name` is taken. Row i of a `.npy` is `ids[i]`, or, where none are given, the item whose id is the whole number i;
    then every item has to have a row, since a table in another order would give items the vectors of others.

    Raises:
        InputError: nothing readable, no vector of an item of the log, another number of rows than of ids, or an item
            without a row where rows are counted.
    """
    source = Path(source)
    if source.is_dir() and not (source / "embeddings.json").is_file():
        raise InputError(f"{source}: a folder of features is one that `embed` wrote; give a file, or such a folder")
    if not source.is_dir():
        require_file(source, (".npy", ".parquet"))
    with Isolated() as worker:
        try:
            values, names = worker.call(_vectors, str(source), name)
        except InputError as error:
            said = str(error)
            raise InputError(said if source.name in said else f"{source}: {said}") from None
    counted = names is None and ids is None
    if names is None:
        names = [str(i) for i in range(len(values))] if ids is None else ids
        if len(names) != len(values):
            raise InputError(f"{source}: {len(values)} rows and {len(names)} ids; row i is the vector of the i-th id")
    table = IdMap(names)
    rows = table.rows(items)
    if not (rows >= 0).any():
        npy = source.suffix == ".npy"
        whose = "; say whose rows they are (--feature_ids)" if npy else f"; the first is {names[0]!r}"
        raise InputError(f"{source}: none of its ids is an item of the log (such as {items[0]!r}){whose}")
    if counted and (rows < 0).any():
        raise InputError(
            f"{source}: row i is the item called i, and {int((rows < 0).sum())} of {len(items)} items have no row (the "
            f"first: {items[int((rows < 0).argmax())]!r}); say whose rows they are (--feature_ids)"
        )
    finite = np.isfinite(values).all(1)
    found = ItemFeatures(values, finite).take(rows)
    if not found.known.any():
        raise InputError(f"{source}: every vector of an item of the log holds NaN or infinity (in single precision)")
    notes = []
    if strange := int((items.rows(table) < 0).sum()):
        first = names[int((items.rows(table) < 0).argmax())]
        notes.append(f"{source.name}: {strange} of {len(values)} rows are of no item of the log (the first: {first!r})")
    if (bad := int((~finite).sum())) > 0:
        first = names[int((~finite).argmax())]
        notes.append(f"{source.name}: {bad} rows hold NaN or infinity (the first: {first!r}); they count as missing")
    if missing := int((~found.known).sum()):
        first = items[int((~found.known).argmax())]
        notes.append(f"{source.name}: {missing} of {len(items)} items have no vector (the first: {first!r})")
    return found, notes


def _vectors(source: str, name: str) -> tuple[np.ndarray, list[str] | None]:
    """(vectors, ids) of a file; called in a worker process."""
    path = Path(source)
    if path.is_dir():
        store = EmbeddingStore(path)
        names = store.modalities
        if len(names) != 1 and name not in names:
            raise InputError(f"{path.name}: holds {' and '.join(names)}; name the one to use: {names[-1]}={path.name}")
        chosen = names[0] if len(names) == 1 else name
        return store.vectors(chosen).numpy(), list(store.part(chosen).ids)
    if path.suffix == ".npy":
        return _real(path, load_npy(path)), None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)
        columns = vector_columns(table.schema)
        if len(columns) != 1 or "id" not in table.column_names:
            raise InputError(f"{path.name}: needs a column id and one column of vectors; it has {table.column_names}")
        values = from_columns(table, next(iter(columns.values())))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name}: cannot be read ({' '.join(str(error).split())[:150]})") from error
    names = as_text(table.column("id"))
    if names.null_count:
        row = int(np.flatnonzero(names.is_null().to_numpy(zero_copy_only=False))[0]) + 1
        raise InputError(f"{path.name}: row {row} has no id; give every vector one")
    return _real(path, values), names.to_pylist()


def _real(path: Path, values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path.name}: features are a matrix of numbers [items, width], not {values.dtype} {list(values.shape)}"
        )
    return values if values.dtype in (np.float16, np.float32) else _single(values)


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is told as such
        return values.astype(np.float32)


def load_npy(path: Path, mapped: bool = False) -> np.ndarray:
    """An array of numbers, read, or mapped and read where it is looked at; raises `InputError` for a damaged file."""
    try:
        check_npy(path)
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable_numpy(path, error) from None


def save_features(folder: Path, features: Mapping[str, ItemFeatures]) -> dict[str, str]:
    """Write every modality; name -> file relative to `folder`."""
    files = {}
    for name, found in features.items():
        stem = f"features/{file_name(name)}"
        (folder / "features").mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{stem}.npy", found.values, allow_pickle=False)
        np.save(folder / f"{stem}.mask.npy", found.known, allow_pickle=False)
        files[name] = f"{stem}.npy"
    return files


def load_features(folder: Any, files: Mapping[str, str], chosen: tuple[str, ...], n_items: int) -> dict[str, Any]:
    """The modalities named (all of them where none is), as `save_features` wrote them; read when they are used."""
    for name in chosen:
        if name not in files:
            raise no_such("item feature", name, files)
    return {name: partial(_loaded, folder / file, n_items) for name, file in files.items() if name in (chosen or files)}


def _loaded(path: Path, n_items: int) -> ItemFeatures:
    mask = path.with_name(f"{path.name.removesuffix('.npy')}.mask.npy")
    for file in (path, mask):
        if reason := unreadable(file):
            raise InputError(f"{file}: {reason}; import the data again")
    values, known = _real(path, load_npy(path, mapped=True)), load_npy(mask)
    if len(values) != n_items or known.shape != (n_items,) or known.dtype != bool:
        raise InputError(
            f"{path}: {len(values)} rows and a mask of {known.dtype} {list(known.shape)} for {n_items} items; import "
            "the data again"
        )
    found = ItemFeatures(values, known)
    if not all(np.isfinite(some.values[some.known].astype(np.float32)).all() for _, some in found.parts()):
        raise InputError(f"{path}: holds NaN or infinity in a row that is known; import the data again")
    return found
