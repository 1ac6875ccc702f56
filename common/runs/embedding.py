"""`embed RUN`: a checkpoint's embeddings of a split as Parquet shards; repeating finishes what was left."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome


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
) -> Outcome:
    """Write the embeddings of a split as Parquet shards: id, group, row and one vector column per modality.

    Any number of processes may work on one folder together; a repeated call finishes what an interrupted one left.

    Args:
        run: the run's folder.
        out: folder of the shards; RUN/embeddings-SPLIT unless given.
        checkpoint: which weights.
        split: train, val or test.
        manifest: embed this manifest instead of the run's own data.
        columns: sample fields or manifest columns to store beside the vectors, e.g. label,piece.
        shard: rows of a shard.
        batch_size: samples encoded at a time.
        workers: processes that read samples beside this one.
    """
    import torch

    from counterpoint.common.data.embeddings import embed_to_parquet
    from counterpoint.common.runs.encode import open_split

    if shard < 1:
        raise InputError(f"shard is {shard}; it must be at least 1")
    system, dataset = open_split(run, checkpoint, split, manifest)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = out or run / f"embeddings-{split}"
    store = embed_to_parquet(
        system.to(device),
        dataset,
        folder,
        metadata=columns,
        batch_size=batch_size,
        shard_size=shard,
        workers=workers,
    )
    figures = {**asdict(store.info), "missing": store.missing, "synthetic": dataset.synthetic}
    if store.missing:
        return Outcome(figures, (f"{folder}: {len(store.missing)} shards are still being written by others",))
    sizes = {name: store.vectors(name).shape[1] for name in store.modalities}
    figures |= {"modalities": sizes, "left_out": store.left_out}
    what = ", ".join(f"{name} ({dim})" for name, dim in sizes.items())
    left_out = [f"left out: {name}: {reason}" for name, reason in store.left_out]
    said = [f"SYNTHETIC data: {figures['synthetic']}"] if figures["synthetic"] else []
    lines = (f"{folder}: {len(store)} rows in {store.info.shards} shards: {what}", *said, *left_out)
    return Outcome(figures, lines, {"embeddings": folder})
