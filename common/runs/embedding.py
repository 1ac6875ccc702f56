"""`embed RUN`: a checkpoint's embeddings of a split as Parquet shards; repeating finishes what was left."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.formats import embedding_formats
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Outcome, Vertical


def embed(
    run: Path,
    out: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    columns: tuple[str, ...] = (),
    shard: int = 4096,
    batch_size: int = 128,
    workers: int = 0,
    format: str = "parquet",
    *,
    vertical: Vertical | None = None,
) -> Outcome:
    """Write the embeddings of a split: as Parquet shards with id, group, row and one vector column per modality, unless
    another format is named.

    Any number of processes may work on one folder together; a repeated call finishes what an interrupted one left.

    Args:
        run: the run's folder.
        out: folder of the shards; RUN/embeddings-SPLIT unless given (embeddings-SPLIT-FORMAT of another format).
        checkpoint: which weights.
        split: train, val or test.
        manifest: embed this manifest instead of the run's own data.
        columns: sample fields or manifest columns to store beside the vectors, e.g. label,piece.
        shard: rows of a shard.
        batch_size: samples encoded at a time.
        workers: processes that read samples beside this one.
        format: one of the formats listed below.
        vertical: the vertical of the run's system; looked up among the installed ones unless given.
    """
    import torch

    from counterpoint.common.runs.encode import open_split, vertical_of_run

    if shard < 1:
        raise InputError(f"shard is {shard}; it must be at least 1")
    known = embedding_formats((vertical or vertical_of_run(run)).embedding_formats)
    if format not in known:
        raise no_such("format", format, known)
    system, dataset = open_split(run, checkpoint, split, manifest)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    other = "" if format == "parquet" else f"-{format}{known[format].suffix}"
    target = out or run / f"embeddings-{split}{other}"
    options = {"columns": columns, "shard": shard, "batch_size": batch_size, "workers": workers}
    return resolve(known[format].write)(system.to(device), dataset, target, **options)


def write_parquet(
    system: Any, dataset: Any, folder: Path, *, columns: tuple[str, ...], shard: int, batch_size: int, workers: int
) -> Outcome:
    """The format `parquet`: see `embed_to_parquet`."""
    from counterpoint.common.data.embeddings import embed_to_parquet

    options = {"batch_size": batch_size, "shard_size": shard, "workers": workers}
    store = embed_to_parquet(system, dataset, folder, metadata=columns, **options)
    figures = {**asdict(store.info), "missing": store.missing, "synthetic": dataset.synthetic}
    if store.missing:
        return Outcome(figures, (f"{folder}: {len(store.missing)} shards are still being written by others",))
    sizes = {name: store.vectors(name).shape[1] for name in store.modalities}
    figures |= {"modalities": sizes, "left_out": store.left_out}
    what = ", ".join(f"{name} ({dim})" for name, dim in sizes.items())
    left_out = [f"left out: {name}: {reason}" for name, reason in store.left_out]
    said = [f"SYNTHETIC data: {figures['synthetic']}"] if figures["synthetic"] else []
    compared = f"; compared by {store.info.metric}" if store.info.metric else ""
    lines = (f"{folder}: {len(store)} rows in {store.info.shards} shards: {what}{compared}", *said, *left_out)
    return Outcome(figures, lines, {"embeddings": folder})
