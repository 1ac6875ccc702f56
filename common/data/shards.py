"""Sets beyond memory: samples in tar shards (WebDataset's format), read by position, shuffled shard-wise.

A stream is a folder of `.tar` files and a manifest that says in which shard, at which byte each file of a sample
begins. So a streamed set keeps what training relies on: stable sample numbers, groups, the content hash, exact resume,
any number of processes. Shards may lie behind a URL (`https://`, `s3://`, ...; see `SCHEMES`): each is copied into the
cache when first needed (through webdataset, and the command-line tools it uses for the scheme). A manifest is data: no
shard that it names runs a command (`pipe:`) or lies outside of its folder, unless the program that reads it says so.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.cache import Cache
from counterpoint.common.data.importing import unreadable
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.names import file_name
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.errors import InputError

SCHEMES = ("http", "https", "s3", "gs", "hf")
"""Where shards may lie that a manifest names; `pipe` runs a command and `file` reads any file of this machine."""


def write_shards(
    samples: Iterable[tuple[Mapping[str, Any], Mapping[str, bytes]]], folder: str | Path, per_shard: int = 1000
) -> Manifest:
    """Write (row, files) pairs into `folder/000000.tar`, ... and `folder/manifest.parquet`; returns the manifest.

    `row` holds at least `id`; `files` maps extensions to bytes (`{"npy": ..., "json": ...}`). The result can be copied
    to object storage as it is; then give `index_shards` or `Manifest.load` the URL prefix.

    >>> import tempfile
    >>> table = write_shards([({"id": "a"}, {"txt": b"hello"})], tempfile.mkdtemp())
    >>> ShardReader(table).files(table.row(0))["txt"]
    b'hello'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    archive: tarfile.TarFile | None = None
    name = ""
    try:
        for number, (row, files) in enumerate(samples):
            if not files:
                raise InputError(f"id {row['id']!r}: a sample in a shard has at least one file")
            if number % per_shard == 0:
                if archive is not None:
                    archive.close()
                name = f"{number // per_shard:06d}.tar"
                archive = tarfile.open(folder / name, "w")  # noqa: SIM115
            assert archive is not None
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{_member(row['id'])}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            rows.append({**row, "shard": name})
    finally:
        if archive is not None:
            archive.close()
    if not rows:
        raise InputError(f"{folder}: there is no sample to write")
    places = {s: _members(folder / s) for s in sorted({r["shard"] for r in rows})}
    for row in rows:
        row["members"] = json.dumps(places[row["shard"]][_member(row["id"])])
    return Manifest.from_rows(rows, folder).save(folder / "manifest.parquet")


def index_shards(
    shards: Sequence[str], cache: Cache | None = None, schemes: Sequence[str] = SCHEMES
) -> Manifest:
    """The manifest of tar shards made elsewhere (WebDataset's convention: files of a sample share the name up to the
    first dot). Group and split come from a sample's `.json` when it has them. `schemes` as for `ShardReader`; local
    shards may lie anywhere, since the caller names them."""
    rows = []
    reader = ShardReader(None, cache, schemes)
    for shard in shards:
        path = reader.local(shard)
        for name, members in _members(path).items():
            facts = {}
            if "json" in members:
                facts = json.loads(reader.read(path, *members["json"]))
            given = {k: str(facts[k]) for k in ("group", "split") if k in facts}
            rows.append({"id": name, **given, "shard": shard, "members": json.dumps(members)})
    return Manifest.from_rows(rows)


class ShardReader:
    """Reads the files of one sample from its shard, without reading the rest.

    Args:
        manifest: names the shards; where local ones may lie is the manifest's matter (`places.Folder`).
        cache: where shards behind a URL are copied.
        schemes: what such a URL may begin with. `("pipe",)` trusts the manifest with a shell.
    """

    def __init__(
        self, manifest: Manifest | None, cache: Cache | None = None, schemes: Sequence[str] = SCHEMES
    ) -> None:
        self.folder, self.schemes = None if manifest is None else manifest.folder, tuple(schemes)
        self.cache = cache or Cache()

    def files(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Extension -> content."""
        path = self.local(str(row["shard"]))
        return {extension: self.read(path, *place) for extension, place in json.loads(row["members"]).items()}

    def local(self, shard: str) -> Path:
        """The shard on this machine, copied once if it lies behind a URL."""
        scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", shard)
        if scheme is None:
            path = Path(shard) if self.folder is None else self.folder / shard
            if unreadable(path):
                raise InputError(f"{path}: no such shard")
            return path
        if scheme.group(1).lower() not in self.schemes:
            raise InputError(
                f"{shard!r}: a manifest names shards by {', '.join(f'{s}://' for s in self.schemes)} or a path in "
                f"its own folder, not by {scheme.group(1)}:; copy the shard there, or allow it with "
                f"ShardReader(..., schemes=...)"
            )
        return self.cache.get_or_make({"shard": shard}, ".tar", lambda target: _copy(shard, target))

    @staticmethod
    def read(path: Path, offset: int, size: int) -> bytes:
        """Bytes of one file inside the archive."""
        with path.open("rb") as handle:
            handle.seek(offset)
            content = handle.read(size)
        if len(content) != size:
            raise InputError(f"{path}: cut short at byte {offset + len(content)}; copy the shard again")
        return content


class ShardShuffleSampler(BatchSampler):
    """Random batches that touch few shards at a time: shards in random order, shuffled together `window` by `window`.

    Every sample once an epoch (up to the last partial batch). With `window` = number of shards it is a full shuffle.

    >>> sampler = ShardShuffleSampler(["x"] * 4 + ["y"] * 4, batch_size=2, window=1)
    >>> [len({"xxxxyyyy"[i] for i in batch}) for batch in sampler]
    [1, 1, 1, 1]
    """

    def __init__(self, shards: Sequence[Any] | np.ndarray, batch_size: int, window: int = 4, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        if window < 1:
            raise ValueError(f"window is a number of shards, at least 1, got {window}")
        self.codes = np.unique(np.asarray(shards, dtype=str), return_inverse=True)[1]
        self.window = window

    def __len__(self) -> int:
        return len(self.codes) // self.batch_size

    def batches(self, epoch: int) -> Sequence[Any]:
        rng = self._rng(epoch)
        order = rng.permutation(int(self.codes.max()) + 1)
        by_shard = np.argsort(self.codes, kind="stable")
        cuts = np.searchsorted(self.codes[by_shard], np.arange(len(order) + 1))
        parts = []
        for start in range(0, len(order), self.window):
            members = [by_shard[cuts[s] : cuts[s + 1]] for s in order[start : start + self.window]]
            parts.append(rng.permutation(np.concatenate(members)))
        line = np.concatenate(parts)
        return list(line[: len(self) * self.batch_size].reshape(len(self), self.batch_size))


def _member(name: object) -> str:
    """A sample's name in a shard: a dot would end it, as WebDataset reads names."""
    return file_name(name).replace(".", "%2E")


def _members(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Sample -> extension -> (first byte, size) of an uncompressed tar."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    sample, _, extension = name.partition(".")
                    key = f"{folder}/{sample}" if folder else sample
                    found.setdefault(key, {})[extension] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise InputError(f"{path}: not a readable uncompressed tar shard ({error})") from error
    return found


def _copy(url: str, target: Path) -> None:
    try:
        from webdataset.gopen import gopen
    except ImportError as error:
        raise InputError(
            "shards behind a URL need the package webdataset: pip install 'counterpoint[stream]'"
        ) from error
    try:
        with gopen(url, "rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    except (OSError, ValueError) as error:  # gopen raises OSError when the scheme's tool fails
        raise InputError(f"{url}: the shard cannot be read ({' '.join(str(error).split())[:200]})") from error
