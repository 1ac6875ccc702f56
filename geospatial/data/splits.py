"""Splits by place, and how far apart they are: pictures of neighbouring ground are no independent test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import Manifest, split_by, split_by_group
from counterpoint.common.data.moving import moved
from counterpoint.common.data.splits import split_hash
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.data.grid import distance_km

SPLITS = ("train", "val", "test")


def split_places(
    manifest: Path, out: Path | None, train: float, val: float, test: float | None, seed: int, block: float, gap: float
) -> Outcome:
    """`data split`: by place, or by squares of latitude and longitude; the smallest distances are told."""
    if not all(share >= 0 for share in (train, val, test or 0.0)) or not train + val <= 1 + 1e-9:
        raise InputError(f"--train {train:g} and --val {val:g} must be shares that add up to 1 or less")
    rest = round(max(1 - train - val, 0.0), 9) if test is None else test
    table = Manifest.load(manifest)
    shares = {"train": train, "val": val, "test": rest}
    try:
        done = assigned(table, {k: v for k, v in shares.items() if v}, seed, block)
        dropped = 0
        if gap:
            done, dropped = kept_apart(done, gap)
    except InputError as error:
        raise InputError(f"{manifest}: {error}") from None
    target = out or manifest.with_name(f"{manifest.stem}-split{manifest.suffix}")
    moved(done, target.parent).save(target)
    rows, groups = done.frame["split"].value_counts(), done.frame.groupby("split")["group"].nunique()
    figures: dict[str, Any] = {
        "splits": {name: {"rows": int(rows.get(name, 0)), "groups": int(groups.get(name, 0))} for name in SPLITS},
        "distance_km": distances(done), "dropped": dropped,
    }  # fmt: skip
    lines = [f"{name:5}  {n['rows']:>8} rows  {n['groups']:>8} places" for name, n in figures["splits"].items()]
    lines += [
        f"nearest {pair}: {km:.1f} km" + (" (they touch)" if km == 0 else "")
        for pair, km in figures["distance_km"].items()
    ]
    lines += [f"{dropped} rows lay nearer than {gap:g} km to a later split and are in none"] if gap else []
    return Outcome(figures, (*lines, f"wrote {target}"), {"manifest": target})


def assigned(table: Manifest, fractions: dict[str, float], seed: int, block: float) -> Manifest:
    """Rows with their splits, groups whole; with `block` whole squares too (then a group goes where its first row
    lies)."""
    if not block:
        return split_by_group(table, fractions, seed)
    firsts = table.frame.groupby("group", sort=False)[["lat", "lon"]].transform("first")
    placed = replace(table, frame=table.frame.assign(place_lat=firsts["lat"], place_lon=firsts["lon"]))
    return split_by(placed, "place", ("place_lat", "place_lon"), fractions, seed, block=block)


def boxes_of(table: Manifest) -> np.ndarray:
    """[rows, 4] west, south, east, north."""
    missing = [name for name in ("west", "south", "east", "north") if name not in table.frame]
    if missing:
        raise InputError(
            f"has no column {missing[0]}, which says where its rows lie; import it with `data import rasters`"
        )
    return table.frame[["west", "south", "east", "north"]].to_numpy(dtype=float)


def distances(table: Manifest) -> dict[str, float]:
    """The smallest distance in kilometres between the grounds of every two splits; 0 where they meet."""
    boxes, splits = boxes_of(table), table.frame["split"].to_numpy()
    found = {}
    for i, a in enumerate(SPLITS):
        for b in SPLITS[i + 1 :]:
            one, other = boxes[splits == a], boxes[splits == b]
            if len(one) and len(other):
                few, many = (one, other) if len(one) < len(other) else (other, one)
                found[f"{a} to {b}"] = float(min(distance_km(box, many).min() for box in few))
    return found


def kept_apart(table: Manifest, gap: float) -> tuple[Manifest, int]:
    """The table with an empty split for training and validation rows nearer than `gap` kilometres to a later split."""
    boxes, splits = boxes_of(table), table.frame["split"].to_numpy(dtype=object).copy()
    before = (splits == "").sum()
    for earlier, later in (("val", ("test",)), ("train", ("val", "test"))):
        held = boxes[np.isin(splits, later)]
        for i in np.flatnonzero(splits == earlier):
            if len(held) and distance_km(boxes[i], held).min() < gap:
                splits[i] = ""
    for name in ("train", "test"):
        if not (splits == name).any():
            raise InputError(f"no {name} row is left with a gap of {gap:g} km; choose a smaller --gap")
    result = replace(table, frame=table.frame.assign(split=splits))
    said = {**table.meta.get("split", {}), "gap": gap}
    return replace(result, meta={**table.meta, "split": said, "split_hash": split_hash(result)}), int(
        (splits == "").sum() - before
    )
