"""Embeddings on disk: Parquet shards that any number of processes fill together, resumable, none counted twice.

A folder holds `embeddings.json` (what was embedded with what), `part-00000.parquet`, ... Shard i is rows i*size to
(i+1)*size of the data set, whoever computes it. A process claims a shard by locking a file beside it; the lock goes
with the process, so a killed run leaves nothing to clean up. A finished shard appears under its name in one step.
A modality with rows of its own has such a folder of its own, under `pools`.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.names import file_name
from counterpoint.common.data.samples import Samples, checked
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track

INFO = "embeddings.json"


@dataclass(frozen=True)
class EmbeddingInfo:
    """What a folder of embeddings was made from; two runs may only fill one folder when these agree."""

    model_hash: str
    data_hash: str
    samples: int
    shard_size: int
    columns: tuple[str, ...]
    synthetic: str = field(default="", compare=False)
    pools: tuple[str, ...] = ()
    written: str = field(default="", compare=False)
    """When the files behind the samples were last written (`Samples.written`)."""
    metric: str = field(default="", compare=False)
    """The score by which the vectors answer one another (`System.metric`); empty where nobody said."""

    @property
    def shards(self) -> int:
        return -(-self.samples // self.shard_size)


def model_hash(module: torch.nn.Module) -> str:
    """sha256 over names, shapes, types and values of the weights, and over a system's assets: equal for equal models,
    whatever file they came from.

    >>> a = torch.nn.Linear(2, 2)
    >>> model_hash(a) == model_hash(a), model_hash(a) == model_hash(torch.nn.Linear(2, 2))
    (True, False)
    """
    seen = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            seen.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            seen.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    assets = getattr(module, "assets", None)
    if assets:
        seen.update(assets.hash.encode())
    return seen.hexdigest()


def embed_to_parquet(
    system: Any,
    dataset: Samples,
    out: str | os.PathLike[str],
    *,
    metadata: Sequence[str] = (),
    batch_size: int = 128,
    shard_size: int = 4096,
    workers: int = 0,
    device: str | torch.device | None = None,
) -> EmbeddingStore:
    """Encode a data set into `out`; run it in as many processes as there are cores, and again after a crash.

    Args:
        system: a module with `encode(batch) -> {modality: [batch, dim]}`.
        dataset: the samples; unreadable ones (`BadSample`) are left out and listed with their reasons in the shard. Its
            pools are embedded too, each into a folder of its own.
        metadata: further sample keys (labels) or columns of the data set, or of its pools, to store beside the vectors.
        workers: processes that read samples beside this one.
        device: where batches are encoded; the device of the system's parameters unless given.

    Raises:
        InputError: the folder holds embeddings of another model or of other data.
    """
    out = Path(out)
    checked(dataset, "what is to be embedded")
    options = {"batch_size": batch_size, "workers": workers, "device": device}
    elsewhere = {name for pool in dataset.pools.values() for name in pool.columns} - {*dataset.columns}
    mine = tuple(name for name in metadata if name not in elsewhere)
    _fill(system, dataset, out, "encode", mine, shard_size, options, tuple(dataset.pools))
    for modality, pool in dataset.pools.items():

        def alone(batch: Any, modality: str = modality) -> dict[str, Tensor]:
            return system.encode(batch, modality)

        known = tuple(name for name in metadata if name in pool.columns)
        _fill(system, pool, _pool(out, modality), alone, known, shard_size, options)
    return EmbeddingStore(out)


def _fill(
    system: Any,
    dataset: Samples,
    out: Path,
    what: Any,
    columns: tuple[str, ...],
    shard_size: int,
    options: dict[str, Any],
    pools: tuple[str, ...] = (),
) -> None:
    """Compute the shards of a folder that nobody has computed or claimed."""
    known = (model_hash(system), dataset.hash, len(dataset), shard_size, columns, dataset.synthetic, pools)
    info = EmbeddingInfo(*known, dataset.written, getattr(system, "metric", ""))
    if info.samples == 0:
        raise InputError(f"{out}: there is no sample to embed")
    _agree(out, info)
    todo = [i for i in range(info.shards) if not _part(out, i).exists()]
    # Processes start at different shards, so that they rarely meet.
    offset = os.getpid() % max(len(todo), 1)
    was_training = system.training
    system.eval()
    try:
        for i in track(todo[offset:] + todo[:offset], "embedding", len(todo)):
            with _claim(out, i) as mine:
                if mine and not _part(out, i).exists():
                    rows = range(i * shard_size, min((i + 1) * shard_size, info.samples))
                    _write(_table(system, dataset, rows, what, info, options), _part(out, i))
    finally:
        system.train(was_training)


def _table(
    system: Any, dataset: Samples, rows: range, what: Any, info: EmbeddingInfo, options: dict[str, Any]
) -> pa.Table:
    found = encode_rows(system, dataset, rows, what=what, facts=info.columns, **options)
    if found.ids and not found.vectors and not info.pools:
        raise InputError(f"{type(system).__name__} has no embeddings to write")
    extra = {name: found.facts.get(name, []) for name in info.columns}
    places = {"row": [dataset.row_of(p) for p in found.positions], "sample": found.positions}
    table = pa.table({"id": found.ids, "group": found.groups, **places, **extra})
    for name, z in found.vectors.items():
        if not torch.isfinite(z).all():
            row = int((~torch.isfinite(z).all(1)).nonzero()[0])
            raise InputError(
                f"sample {found.ids[row]!r}: its {name} embedding holds NaN or infinity; look at the sample, or at the "
                "run's loss, and try another --checkpoint"
            )
        flat = pa.array(z.numpy().reshape(-1), pa.float32())
        table = table.append_column(f"vector.{name}", pa.FixedSizeListArray.from_arrays(flat, z.shape[1]))
    never = [(bad.id, bad.reason) for bad in dataset.left_out] if rows.start == 0 else []
    left_out = json.dumps([*never, *found.left_out])
    facts = {"model_hash": info.model_hash, "data_hash": info.data_hash, "left_out": left_out}
    return table.replace_schema_metadata(facts)


class EmbeddingStore:
    """A folder of embeddings, read: rows in the order of the data set, whoever wrote them.

    Attributes:
        folder: where the shards lie.
        info: what they were made from.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)

    @property
    def missing(self) -> list[int]:
        """Shards nobody has finished yet, those of the pools after the folder's own."""
        return [*self._missing, *(i for pool in self.pools.values() for i in pool.missing)]

    @property
    def _missing(self) -> list[int]:
        return [i for i in range(self.info.shards) if not _part(self.folder, i).exists()]

    @cached_property
    def pools(self) -> dict[str, EmbeddingStore]:
        """The embeddings of every modality that has rows of its own."""
        return {name: EmbeddingStore(_pool(self.folder, name)) for name in self.info.pools}

    def part(self, modality: str) -> EmbeddingStore:
        """The embeddings whose rows a modality has."""
        if modality not in self.modalities:
            raise InputError(f"{self.folder}: no modality {modality!r}; there are: {', '.join(self.modalities)}")
        return self.pools.get(modality, self)

    def row(self, name: str) -> int:
        """Place of an id; a near miss is suggested."""
        return row_named(name, self._rows)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def _tables(self) -> list[pa.Table]:
        if missing := self._missing:
            raise InputError(
                f"{self.folder}: {len(missing)} of {self.info.shards} shards are not there yet; "
                "run the embedding again to finish them"
            )
        tables = [pq.read_table(_part(self.folder, i)) for i in range(self.info.shards)]
        for i, table in enumerate(tables):
            if table.schema.metadata.get(b"model_hash", b"").decode() != self.info.model_hash:
                raise InputError(
                    f"{_part(self.folder, i)}: this shard was made by another model; delete it and run again"
                )
        return [t for t in tables if len(t)]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """id, group, manifest row, place among the samples, and the metadata columns."""
        names = ["id", "group", "row", "sample", *self.info.columns]
        # A column without a value in a whole shard has no type there, and integers in one may be numbers in another.
        parts = [t.select(names) for t in self._tables]
        return pa.concat_tables(parts, promote_options="permissive").to_pandas()

    @property
    def modalities(self) -> list[str]:
        names = self._tables[0].column_names if self._tables else []
        return [*(n.removeprefix("vector.") for n in names if n.startswith("vector.")), *self.info.pools]

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """Samples that could not be read, with their reasons."""
        parts = [pq.read_schema(_part(self.folder, i)).metadata for i in range(self.info.shards)]
        return [tuple(x) for m in parts for x in json.loads(m[b"left_out"])]

    @property
    def ids(self) -> list[str]:
        return self.frame["id"].tolist()

    def vectors(self, modality: str | None = None) -> Float[Tensor, "n dim"]:
        """All vectors of a modality (the only one when there is one), float32."""
        names = self.modalities
        if modality is None and len(names) == 1:
            modality = names[0]
        if modality in self.info.pools:
            return self.pools[modality].vectors(modality)
        if modality not in names:
            raise InputError(f"{self.folder}: no modality {modality!r}; there are: {', '.join(names)}")
        parts = []
        for table in self._tables:
            column = table.column(f"vector.{modality}").combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            parts.append(np.asarray(flat, dtype=np.float32).reshape(len(table), -1))
        return torch.from_numpy(np.concatenate(parts))

    def __len__(self) -> int:
        return sum(len(t) for t in self._tables)


def row_named(name: str, rows: Mapping[str, int]) -> int:
    """Place of an id among embedded samples; a near miss is suggested."""
    if name not in rows:
        close = difflib.get_close_matches(name, rows, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"give an id of the manifest, such as {next(iter(rows))!r}"
        raise InputError(f"no sample {name!r} among the {len(rows)} embedded; {meant}")
    return rows[name]


def _agree(out: Path, info: EmbeddingInfo) -> None:
    """Write the description once; whoever comes later must have come for the same."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (out / INFO).exists():
            found = _read_info(out)
            check_unchanged(out, found, info.written)
            for name, said in (("model_hash", "another model"), ("data_hash", "other data"), ("samples", "other data")):
                if getattr(found, name) != getattr(info, name):
                    raise InputError(
                        f"{out}: holds embeddings of {said} ({name} differs); give another --out, or delete it"
                    )
            if found != info:
                columns = f"--columns {','.join(found.columns)}" if found.columns else "no --columns"
                raise InputError(
                    f"{out}: was begun with --shard {found.shard_size} and {columns}; give the same, or another --out"
                )
            return
        temporary = out / f".{INFO}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
        temporary.replace(out / INFO)


def check_unchanged(out: Path, info: EmbeddingInfo, written: str) -> None:
    """Raise `InputError` where a file was written anew since the embeddings were begun: they may be of what it held."""
    if info.written and written != info.written:
        raise InputError(
            f"{out}: a file of the data was written anew since these embeddings were begun, so they may be of what it "
            "held before; delete the folder, or give another --out"
        )


def _read_info(folder: Path) -> EmbeddingInfo:
    file = folder / INFO
    if not file.is_file():
        raise InputError(f"{folder}: no {INFO} there; this is not a folder of embeddings, give one that `embed` wrote")
    content = json.loads(file.read_text(encoding="utf-8"))
    return EmbeddingInfo(**{**content, **{name: tuple(content.get(name, ())) for name in ("columns", "pools")}})


def _part(folder: Path, shard: int) -> Path:
    return folder / f"part-{shard:05d}.parquet"


def _pool(folder: Path, modality: str) -> Path:
    return folder / "pools" / file_name(modality)


@contextmanager
def _claim(folder: Path, shard: int) -> Iterator[bool]:
    """Try to lock a shard; False when another process has it."""
    with (folder / f".claim-{shard:05d}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _write(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
