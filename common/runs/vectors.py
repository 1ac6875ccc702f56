"""Vectors of any encoder, read from `.parquet`, `.npy`, `.npz` or what `embed` wrote, with what is known of them.

Nothing is ever unpickled, and whatever cannot be a vector a sample ends in one sentence with the file and the row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.archives import packed
from counterpoint.common.data.embeddings import INFO, EmbeddingStore
from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.metrics.inputs import as_list, from_columns, vector_columns
from counterpoint.common.suggest import nearest, no_such

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPLITS["test"] = "test"
_VECTORS = (".parquet", ".npy", ".npz")
_TABLES = (".parquet", ".csv", ".jsonl", ".npy")


@dataclass(frozen=True)
class VectorTable:
    """Vectors and what is known of them; row i of everything is one sample.

    Attributes:
        vectors: modality -> [n, dim].
        ids: one text a row, each once.
        labels, groups, splits: one value a row (None where a label is missing), or None.
        notes: what a reader of the figures must know.
        more: further columns, by what they were asked for as.
    """

    vectors: dict[str, Tensor]
    ids: list[str]
    labels: list | None = None
    groups: list[str] | None = None
    splits: list[str] | None = None
    notes: tuple[str, ...] = field(default=())
    more: dict[str, list] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> list[int]:
        """Which rows belong to a split; all of them where no splits are known."""
        return list(range(len(self))) if self.splits is None else [i for i, s in enumerate(self.splits) if s == split]

    def part(self, rows: Sequence[int]) -> VectorTable:
        """Some of the rows."""

        def cut(values: list | None) -> list | None:
            return None if values is None else [values[i] for i in rows]

        vectors = {name: z[torch.as_tensor(rows, dtype=torch.long)] for name, z in self.vectors.items()}
        more = {name: [values[i] for i in rows] for name, values in self.more.items()}
        parts = cut(self.labels), cut(self.groups), cut(self.splits)
        return VectorTable(vectors, [self.ids[i] for i in rows], *parts, self.notes, more)


def read_vectors(
    embeddings: Sequence[str],
    ids: str | None = None,
    labels: str | None = None,
    groups: str | None = None,
    splits: str | None = None,
    more: Mapping[str, str] | None = None,
) -> VectorTable:
    """Read vectors (one file for each modality, or one with several) and the columns that describe them.

    A column is named by itself (of the vectors' own table, or of the table given as `ids`), or as FILE or FILE:COLUMN;
    a file with a column `id` is joined by it, any other row by row. `id`, `group` and `split` are found by their names.
    `more` names further columns by the option that asks for each.
    """
    if not embeddings:
        raise InputError("give the files of the vectors: --embeddings FILE.parquet")
    vectors: dict[str, np.ndarray] = {}
    table: dict[str, list] = {}
    made: list[str] = []
    for source in embeddings:
        name, _, rest = source.partition("=")
        path = Path(rest or source)
        found, columns = _read(path)
        made += [said for said in (_generated(path),) if said]
        for key, matrix in found.items():
            title = (name if len(found) == 1 else f"{name}.{key}") if rest else key
            title = title if title not in vectors else f"{path.stem}.{key}"
            if title in vectors:
                raise InputError(f"{path}: two modalities are called {title!r}; name them: --embeddings a={path},b=...")
            vectors[title] = _checked(path, key, matrix, columns.get("id"))
        table = _together(table, columns, vectors, found, path)
    sizes = {name: len(z) for name, z in vectors.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in sizes.items())
        raise InputError(f"the modalities differ in length ({said}): row i of each must be the same sample")
    n = next(iter(sizes.values()))
    place = ids or embeddings[0]
    if ids is not None and ids not in table and Path(ids.partition(":")[0]).is_file() and ":" not in ids:
        facts = _table(Path(ids))
        if (rows := len(next(iter(facts.values()), ()))) != n:
            raise InputError(f"{ids}: {rows} rows for {n} vectors; there must be one for each")
        table = {**facts, **table}
        ids = None if "id" in table else next(iter(table))
    names = _column(ids, "id", table, n, None, "ids")
    if names is not None and (empty := [i for i, v in enumerate(names) if v is None]):
        raise InputError(f"{place}: row {empty[0] + 1} has no id ({len(empty)} have none); give every row its own")
    names = [str(i) for i in range(n)] if names is None else [str(v) for v in names]
    if twice := [i for i, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"{place}: id {twice[0]!r} stands in {Counter(names)[twice[0]]} rows ({len(twice)} such ids)"
        )
    unit = _column(groups, "group", table, n, names, "groups")
    if unit is not None and (empty := [i for i, g in enumerate(unit) if g is None or g == "" or g != g]):
        raise InputError(f"sample {names[empty[0]]!r} has no group ({len(empty)} have none): give every row one")
    label = _column(labels, "label", table, n, names, "labels")
    side = _column(splits, "split", table, n, names, "splits")
    notes = [f"SYNTHETIC data: {said}" for said in dict.fromkeys(made)]
    notes += [] if unit is not None else ["no groups are given: every row counts as independent (--groups)"]
    if side is None:
        notes.append("no splits are given: nothing is trained, neighbours are other samples of the same set (--splits)")
    else:
        side = _named_splits(side, names, notes)
    tensors = {name: torch.from_numpy(z) for name, z in vectors.items()}
    found_more = {what: _column(place, what, table, n, names, what) or [] for what, place in (more or {}).items()}
    return VectorTable(tensors, names, label, unit and [str(g) for g in unit], side, tuple(notes), found_more)


def check_vectors(table: VectorTable, split: str) -> list[str]:
    """Refuse a group in two splits; say in words which vectors of the split stand in another row too."""
    sides: dict[str, str] = {}
    for name, group, side in zip(table.ids, table.groups or (), table.splits or ()):
        if side and sides.setdefault(group, side) != side:
            raise LeakageError(f"group {group!r} stands in {sides[group]} and {side} (sample {name!r}); split by group")
    rows = table.rows(split)
    where = "" if table.splits is None else f", split {split},"
    said = []
    for modality, z in table.vectors.items():
        keys = [row.tobytes() for row in z.numpy()]
        elsewhere = {keys[i]: i for i, side in enumerate(table.splits or ()) if side not in ("", split)}
        if twins := [(i, elsewhere[keys[i]]) for i in rows if keys[i] in elsewhere]:
            a, b = (table.ids[i] for i in twins[0])
            said.append(
                f"{len(twins)} of {len(rows)} vectors of {modality}{where} stand in another split too (first: {a!r} and"
                f" {b!r}): duplicates of samples flatter every figure"
            )
        first: dict[bytes, int] = {}
        copies = [(i, first[keys[i]]) for i in rows if first.setdefault(keys[i], i) != i]
        if copies and len(first) > 1:  # where all are one vector, the figures say that they collapsed
            a, b = (table.ids[i] for i in copies[0])
            said.append(
                f"{len(copies)} of {len(rows)} vectors of {modality}{where} are exact copies of others of them (first: "
                f"{a!r} of {b!r}): each is its twin's nearest neighbour, and both count; drop the copies"
            )
    return said


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """(vectors by name, other columns) of one file or folder."""
    if not path.exists():
        near = nearest(path.name, sorted(p.name for p in path.parent.glob("*") if p.suffix in _VECTORS))
        raise InputError(f"{path}: no such file" + (f"; did you mean {path.with_name(near)}?" if near else ""))
    if path.is_dir() or path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if (path / INFO).is_file() and (missing := EmbeddingStore(path).missing):
            raise InputError(f"{path}: {len(missing)} shards are not there yet; run the embedding again")
        if not files:
            raise InputError(f"{path}: holds no .parquet file")
        try:
            content = pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")
            where = vector_columns(content.schema)
            found = {name: from_columns(content, columns) for name, columns in where.items()}
        except (ValueError, OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
        if not found:
            raise InputError(
                f"{path}: no column of vectors (lists, or e0, e1, ...) among {', '.join(content.column_names)}"
            )
        taken = {c for columns in where.values() for c in columns}
        return found, {c: as_list(content.column(c)) for c in content.column_names if c not in taken}
    if unpack := packed(path):
        raise InputError(f"{path}: {unpack}")
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: vectors are read from .parquet, .npy and .npz files, or a folder of .parquet")
    if path.suffix == ".npy":
        return {path.stem: _load(path)}, {}
    arrays = _load(path)
    found = {name: a for name, a in arrays.items() if a.ndim == 2}
    if not found:
        raise InputError(f"{path}: no matrix [samples, dim]; it holds {', '.join(arrays) or 'nothing'}")
    return found, {name: as_list(a) for name, a in arrays.items() if a.ndim == 1}


def _generated(path: Path) -> str:
    """What of the data a generator made, where `embed` wrote the vectors and says so."""
    if not (path / INFO).is_file():
        return ""
    return EmbeddingStore(path).info.synthetic


def _load(path: Path) -> Any:
    try:
        check_npy(path)
        with np.load(path, allow_pickle=False) if path.suffix == ".npz" else open(path, "rb") as file:
            return dict(file.items()) if path.suffix == ".npz" else np.load(file, allow_pickle=False)
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable_numpy(path, error) from None


def _checked(path: Path, name: str, z: np.ndarray, ids: list | None) -> np.ndarray:
    """A matrix of finite numbers, in single precision at least, that norms and variances can be taken of."""
    if z.ndim != 2 or not len(z) or not z.shape[1]:
        raise InputError(f"{path}: {name} must be a non-empty matrix [samples, dim], got shape {z.shape}")
    if z.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} must hold real numbers, got {z.dtype}")
    z = np.ascontiguousarray(z, dtype=np.float64 if z.dtype == np.float64 else np.float32)
    if (bad := np.flatnonzero(~np.isfinite(z).all(1))).size:
        what = f", id {ids[bad[0]]!r}" if ids and len(ids) == len(z) else ""
        raise InputError(
            f"{path}: {name} holds NaN or infinity in {bad.size} of {len(z)} rows (first: row {bad[0]}{what}); "
            "mend the encoder or leave these rows out"
        )
    largest = float(np.sqrt(np.finfo(z.dtype).max / z.size))  # up to here the sum of all squares is a number
    if (bad := np.flatnonzero((np.abs(z) > largest).any(1))).size:
        raise InputError(
            f"{path}: {name} holds numbers too large to be squared, such as {float(np.abs(z[bad[0]]).max()):g} in row "
            f"{bad[0]}; write the file again if it is damaged, or divide all vectors by one number"
        )
    return z


def _together(table: dict, columns: dict, vectors: dict, found: dict, path: Path) -> dict:
    """Bring the rows of a further file into the order of the first one where both have ids."""
    if not table or "id" not in table or "id" not in columns:
        return {**columns, **table}
    if table["id"] != columns["id"]:
        place = {name: i for i, name in enumerate(columns["id"])}
        if lost := [name for name in table["id"] if name not in place] or len(place) != len(columns["id"]):
            first = f"id {lost[0]!r} is not in it" if isinstance(lost, list) else "an id stands in it twice"
            raise InputError(f"{path}: its rows cannot be matched with the other modality's ({first})")
        order = [place[name] for name in table["id"]]
        for name in list(vectors)[-len(found) :]:
            vectors[name] = vectors[name][order]
        columns = {name: [values[i] for i in order] for name, values in columns.items()}
    return {**columns, **table}


def _table(path: Path) -> dict[str, list]:
    """The columns of a table file; an array or a file of one column is the ids themselves."""
    if path.suffix not in _TABLES:
        raise InputError(f"{path}: a table is one of {', '.join(_TABLES)}")
    if path.suffix == ".npy":
        return {"": as_list(_load(path))}
    import pandas as pd

    text = {"id": str, "group": str, "split": str}
    readers = {".csv": lambda p: pd.read_csv(p, dtype=text), ".parquet": pd.read_parquet}
    readers[".jsonl"] = lambda p: pd.read_json(p, lines=True, dtype=text)
    try:
        frame = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:150]})") from None
    return {str(name): as_list(frame.iloc[:, i]) for i, name in enumerate(frame)}


def _column(given: str | None, usual: str, table: dict, n: int, ids: list[str] | None, what: str) -> list | None:
    """The values of a column that is named, or lies in a file, for every row."""
    values = table.get(given or usual)
    if values is None and given is None:
        return None
    if values is None:
        assert given is not None
        file, _, name = given.partition(":")
        if not Path(file).is_file():
            raise InputError(f"--{what}: {no_such('column or file', given, [c for c in table if c])}")
        columns = _table(Path(file))
        rest = [c for c in columns if c != "id"]
        name = name or (usual if usual in columns else rest[0] if len(rest) == 1 else "")
        if name not in columns:
            raise InputError(f"--{what} {given}: name one of its columns, as in {file}:{rest[0] if rest else 'label'}")
        values = columns[name]
        if "id" in columns and ids is not None and usual != "id":
            known = dict(zip(map(str, columns["id"]), values))
            if len(known) < len(values):
                raise InputError(f"{file}: an id stands in several rows; every sample has one of the {what}")
            if not set(ids) & set(known):
                raise InputError(f"{file}: none of its ids is an id of the vectors; give these with --ids")
            values = [known.get(i) for i in ids]
    if len(values) != n:
        raise InputError(
            f"--{what} {given or usual}: {len(values)} values for {n} vectors; there must be one for each row"
        )
    return [None if v is None or v != v or v == "" else v for v in values]


def _named_splits(values: list, ids: list[str], notes: list[str]) -> list[str]:
    side = []
    for name, value in zip(ids, values):
        text = "" if value is None else str(value).strip().lower()
        if text and text not in _SPLITS:
            raise InputError(f"sample {name!r} is of the split {value!r}; there are train, val and test")
        side.append(_SPLITS.get(text, ""))
    if empty := side.count(""):
        notes.append(f"{empty} of {len(side)} samples are of no split and left out")
    return side
