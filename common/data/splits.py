"""Splits that keep every group (patient, piece, scene, molecule) on one side, and the check that they did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.data.manifest import SPLITS, Manifest
from counterpoint.common.data.split_rules import leak_of, refuse_leak
from counterpoint.common.errors import InputError, LeakageError

PART = 2**17  # rows whose text is in memory at a time


@dataclass(frozen=True)
class SplitSummary:
    """Rows and groups of each split, and the hash of who is where."""

    rows: dict[str, int]
    groups: dict[str, int]
    hash: str
    unchanged: bool | None
    """Whether the hash is the one recorded when the split was made; None if none was recorded."""


def split_by_group(
    manifest: Manifest, fractions: Mapping[str, float] | None = None, seed: int = 0, stratify: str | None = None
) -> Manifest:
    """Assign whole groups to splits so that the rows come close to `fractions`.

    Without `stratify`, groups in random order fill the splits one after the other (each group is equally likely to
    land anywhere). With it, groups go one by one, largest first, to the split that lacks most of their labels.
    The result does not depend on the order of the rows. `meta` records fractions, seed and hash.

    >>> table = Manifest.from_rows([{"id": str(i), "group": str(i // 2)} for i in range(20)])
    >>> split_by_group(table, {"train": 0.8, "test": 0.2}).frame.split.value_counts().to_dict()
    {'train': 16, 'test': 4}
    """
    fractions = checked_fractions(fractions)
    frame = manifest.frame
    groups, codes = np.unique(frame["group"].to_numpy(dtype=str), return_inverse=True)
    if len(groups) < len(fractions):
        raise InputError(
            f"{len(groups)} group(s) cannot fill {len(fractions)} splits without standing in two of them; give more "
            "groups (column group), or the share 0 to a split you do without"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    if stratify is None:
        choice = _fill(np.bincount(codes, minlength=len(groups)), order, list(fractions.values()))
    else:
        if stratify not in frame:
            raise InputError(f"no column {stratify!r} to stratify by; its columns are: {', '.join(frame.columns)}")
        labels = pd.factorize(frame[stratify], sort=True, use_na_sentinel=False)[0]
        table = np.zeros((len(groups), labels.max() + 1))
        np.add.at(table, (codes, labels), 1)
        choice = _fill_stratified(table, order, np.array(list(fractions.values())))
    names = np.array(list(fractions))[choice]
    result = replace(manifest, frame=frame.assign(split=names[codes]))
    meta = {"kind": "group", "fractions": fractions, "seed": seed, "stratify": stratify}
    return replace(result, meta={**manifest.meta, "split": meta, "split_hash": split_hash(result)})


def checked_fractions(fractions: Mapping[str, float] | None = None) -> dict[str, float]:
    """The share of every split that is to have rows; 80, 10 and 10 % unless given."""
    fractions = dict(fractions or {"train": 0.8, "val": 0.1, "test": 0.1})
    unknown = sorted(set(fractions) - set(SPLITS))
    if unknown or any(f < 0 for f in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        said = ", ".join(f"{name} {share:g}" for name, share in fractions.items())
        raise InputError(f"shares of {said}: give train, val and test, none negative, that add up to 1")
    return {k: v for k, v in fractions.items() if v > 0}


def _fill(sizes: np.ndarray, order: np.ndarray, fractions: list[float]) -> np.ndarray:
    """Random order, cut where the running number of rows (middle of the group) passes each fraction."""
    choice = np.empty(len(sizes), dtype=int)
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    cuts = np.cumsum(fractions)[:-1] * sizes.sum()
    starts = np.searchsorted(middle, cuts)  # where each split but the first begins
    # Every split asked for gets at least one group: room is made from the left, then from the right.
    for split in range(len(starts)):
        starts[split] = max(starts[split], 1 + (starts[split - 1] if split else 0))
    for split in reversed(range(len(starts))):
        starts[split] = min(starts[split], (starts[split + 1] if split + 1 < len(starts) else len(order)) - 1)
    choice[order] = np.searchsorted(starts, np.arange(len(order)), side="right")
    return choice


def _fill_stratified(table: np.ndarray, order: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Greedy: largest groups first, each to the split with the largest remaining need of its labels."""
    need = fractions[:, None] * table.sum(0)
    rarity = 1 / np.maximum(table.sum(0), 1)
    choice = np.empty(len(table), dtype=int)
    by_size = order[np.argsort(-table[order].sum(1), kind="stable")]
    empty = set(range(len(fractions)))
    for done, group in enumerate(by_size):
        gain = ((need / fractions[:, None]) * (table[group] * rarity)).sum(1)
        if empty and len(by_size) - done <= len(empty):
            gain = np.where(np.isin(np.arange(len(fractions)), list(empty)), gain, -np.inf)
        split = int(gain.argmax())
        empty.discard(split)
        choice[group] = split
        need[split] -= table[group]
    return choice


def _distinct_pairs(frame: pd.DataFrame) -> pa.Table:
    """Every pair of a group and a split once."""
    table = pa.table({name: pa.array(frame[name].astype(str), pa.large_string()) for name in ("group", "split")})
    return table.group_by(["group", "split"]).aggregate([])


def split_hash(manifest: Manifest) -> str:
    """SHA-256 over the sorted pairs of id and split.

    >>> table = Manifest.from_rows([{"id": "a", "split": "train"}, {"id": "b", "split": "test"}])
    >>> split_hash(table) == split_hash(Manifest(table.frame[::-1]))
    True
    """
    ids, splits = (pa.array(manifest.frame[name].astype(str), pa.large_string()) for name in ("id", "split"))
    lines = pc.binary_join_element_wise(ids, splits, pa.scalar("\t", pa.large_string()))
    order = pc.sort_indices(ids)  # by bytes, which is the order of Python's texts too
    seen = hashlib.sha256()
    for start in range(0, len(order), PART):
        part = "\n".join(lines.take(order[start : start + PART]).to_pylist())
        seen.update((("\n" if start else "") + part).encode())
    return seen.hexdigest()


def check_leakage(manifest: Manifest) -> SplitSummary:
    """Raise `LeakageError` when a group stands in two splits; else say what is where.

    A manifest that was split by another rule (`meta["split"]["kind"]`: time, leave-last-out, place) is held to it.

    >>> check_leakage(Manifest.from_rows([
    ...     {"id": "a", "group": "piece 7", "split": "train"}, {"id": "b", "group": "piece 7", "split": "test"}]))
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.LeakageError: group 'piece 7' stands in test and train (rows 2 and 1); split by group
    """
    frame = manifest.frame[manifest.frame["split"] != ""]
    pairs = _distinct_pairs(frame)
    sides = pc.value_counts(pairs["group"].combine_chunks())
    both = sides.field("values").filter(pc.greater(sides.field("counts"), 1))
    leak = leak_of(manifest)
    if leak is not None:
        refuse_leak(leak, manifest.meta["split"]["kind"])
    elif len(both):
        group = pc.min(both).as_py()
        rows = frame[frame["group"] == group].groupby("split").head(1).sort_values("split")[:2]
        numbers = [int(i) + 1 for i in rows.index]
        more = f" and {len(both) - 1} more groups do the same" if len(both) > 1 else ""
        raise LeakageError(
            f"group {group!r} stands in {rows['split'].iloc[0]} and {rows['split'].iloc[1]} "
            f"(rows {numbers[0]} and {numbers[1]}){more}; split by group"
        )
    digest, recorded = split_hash(manifest), manifest.meta.get("split_hash")
    return SplitSummary(
        rows=frame["split"].value_counts().to_dict(),
        groups=pairs.to_pandas()["split"].value_counts().to_dict(),
        hash=digest,
        unchanged=None if recorded is None else recorded == digest,
    )
