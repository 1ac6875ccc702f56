"""Radar and optical pictures of one place: paired by footprint and time; what finds no partner is listed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterpoint.common.vertical import Rejected
from counterpoint.geospatial.bands import CLASSES
from counterpoint.geospatial.data.grid import ALIGNED, Grid, Window
from counterpoint.geospatial.data.product import season
from counterpoint.geospatial.data.raster import bounds_in, box_of

if TYPE_CHECKING:
    from counterpoint.geospatial.data.importing import Layer


@dataclass(frozen=True)
class Pairing:
    """How pictures are paired.

    Attributes:
        days: most days between radar and optical; None pairs by footprint alone.
        overlap: least share of the smaller footprint that both cover.
        single: keep pictures of one sensor that find no partner.
        align: `check` refuses grids of one CRS that lie beside one another by a part of a pixel, `nearest` takes the
            nearest pixel.
        block: metres; larger rasters are cut into rows of squares of this side. 0 keeps each whole.
    """

    days: float | None = 14.0
    overlap: float = 0.5
    single: bool = False
    align: str = "check"
    block: float = 0.0


@dataclass
class PairPlace:
    """One row: an optical picture, the radar picture and the maps that belong to it, on the grid of the first."""

    grid: Grid
    layers: dict[str, Layer] = field(default_factory=dict)
    days: float | None = None
    group: str = ""

    @property
    def name(self) -> str:
        return next(layer.scene.name for layer in self.layers.values())


def places_of(layers: Sequence[Layer], pairing: Pairing) -> tuple[list[PairPlace], list[Rejected], list[str]]:
    """Places, what was left out of them with its reason, and what is to be known.

    Optical pictures choose the radar picture that is nearest in time among those that overlap; each radar picture may
    serve several. Without optical pictures, radar pictures are places of their own.
    """
    kinds = {kind: [x for x in layers if x.scene.kind == kind] for kind in ("s2", "s1", "landcover", "cloud")}
    both = bool(kinds["s1"] and kinds["s2"])
    anchors = kinds["s2"] or kinds["s1"]
    dropped: list[Rejected] = []
    places: list[PairPlace] = []
    used: set[int] = set()
    for anchor in anchors:
        place = PairPlace(anchor.grid, {anchor.scene.kind: anchor})
        if both:
            partner, days, reason = _partner(anchor, kinds["s1"], pairing)
            if partner is None and not pairing.single:
                dropped.append(Rejected(_file(anchor), reason))
                continue
            if partner is not None:
                used.add(id(partner))
                place.layers["s1"], place.days = partner, days
        for kind in ("landcover", "cloud"):
            found = [x for x in kinds[kind] if _share(anchor, x) > 1 - ALIGNED and not _misaligned(anchor, x, pairing)]
            if found:
                place.layers[kind] = max(found, key=lambda x: _alike(anchor, x))
        places.append(place)
    if both:
        alone = [x for x in kinds["s1"] if id(x) not in used]
        if pairing.single:
            places += [PairPlace(x.grid, {"s1": x}) for x in alone]
        else:
            reason = "no optical picture of its place within the time asked for chose it"
            dropped += [Rejected(_file(x), reason) for x in alone]
    for kind in ("landcover", "cloud"):
        taken = {id(p.layers[kind]) for p in places if kind in p.layers}
        dropped += [
            Rejected(_file(x), "covers no place as a whole on its grid") for x in kinds[kind] if id(x) not in taken
        ]
    _group(places)
    notes = []
    if both:
        gaps = [p.days for p in places if p.days is not None]
        unknown = sum(p.days is None for p in places if len({"s1", "s2"} & set(p.layers)) == 2)
        notes.append(
            f"{sum({'s1', 's2'} <= set(p.layers) for p in places)} pairs; {len(dropped)} products found no partner"
            + (
                f"; days between radar and optical: at most {max(gaps):.1f}, median {float(np.median(gaps)):.1f}"
                if gaps
                else ""
            )
            + (f"; of {unknown} pairs the time between is unknown" if unknown else "")
        )
    return places, dropped, notes


def _file(layer: Layer) -> str:
    return str(layer.scene.file or layer.scene.files[0].parent)


def _partner(anchor: Layer, radar: Sequence[Layer], pairing: Pairing) -> tuple[Layer | None, float | None, str]:
    near = [x for x in radar if _share(anchor, x) >= pairing.overlap]
    if not near:
        return None, None, f"no radar picture covers {pairing.overlap:.0%} of its place"
    beside = [(x, r) for x in near if (r := _misaligned(anchor, x, pairing))]
    near = [x for x in near if x not in [b for b, _ in beside]]
    if not near:
        return None, None, beside[0][1]
    gaps = [(_days(anchor, x), i) for i, x in enumerate(near)]
    known = [(gap, i) for gap, i in gaps if gap is not None]
    if pairing.days is None:
        chosen = min(known)[1] if known else max(range(len(near)), key=lambda i: _alike(anchor, near[i]))
        return near[chosen], {i: g for g, i in gaps}[chosen], ""
    if not known:
        which = "its own time" if not anchor.product.time else "the time of the radar picture"
        return (
            None,
            None,
            f"{which} is nowhere said (in tags, metadata, or a name as ESA writes it), so the {pairing.days:g} days "
            "asked for cannot be checked (--days null)",
        )
    gap, i = min(known)
    if gap > pairing.days:
        return (
            None,
            None,
            f"the nearest radar picture of its place was taken {gap:.1f} days apart (--days {pairing.days:g})",
        )
    return near[i], gap, ""


def _misaligned(a: Layer, b: Layer, pairing: Pairing) -> str:
    """Why two pictures of one CRS do not lie on one grid; empty where they do, or are not asked to."""
    if pairing.align == "nearest" or a.grid.crs != b.grid.crs:
        return ""
    away = a.grid.beside(b.grid)
    if away <= ALIGNED:
        return ""
    return (
        f"its pixels and those of {b.scene.name} lie {away:.2f} of a pixel beside one another; register them, or take "
        "the nearest pixels (--align nearest)"
    )


def _share(a: Layer, b: Layer) -> float:
    """Of the smaller footprint, the share that both cover."""
    if a.grid.crs == b.grid.crs:
        one, other = a.grid.bounds, b.grid.bounds
    else:
        one, other = a.box, b.box
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (one, other)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)


def _days(a: Layer, b: Layer) -> float | None:
    if not (a.product.time and b.product.time):
        return None
    gap = datetime.fromisoformat(a.product.time) - datetime.fromisoformat(b.product.time)
    return abs(gap.total_seconds()) / 86400


def _alike(a: Layer, b: Layer) -> tuple[float, int, str]:
    """For pictures that neither footprint nor time tells apart: the longest common end of their names."""
    gap, ends = _days(a, b), zip(reversed(a.scene.name), reversed(b.scene.name))
    same = len([*takewhile(lambda pair: pair[0] == pair[1], ends)])
    return (-gap if gap is not None else 0.0, same, b.scene.name)


def _group(places: list[PairPlace]) -> None:
    """Pictures whose grounds overlap are of one place, whatever their time: they share a group."""
    boxes = np.array([box_of(p.grid) for p in places]).reshape(-1, 4)
    parent = list(range(len(places)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    order = np.argsort(boxes[:, 0]) if len(places) else []
    for n, i in enumerate(order):
        for j in order[n + 1 :]:
            if boxes[j, 0] >= boxes[i, 2]:
                break
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            width = min(boxes[i, 2], boxes[j, 2]) - boxes[j, 0]
            least = 0.01 * min(boxes[i, 3] - boxes[i, 1], boxes[j, 3] - boxes[j, 1])
            if height > least and width > 0.01 * min(boxes[i, 2] - boxes[i, 0], boxes[j, 2] - boxes[j, 0]):
                parent[find(int(i))] = find(int(j))
    first: dict[int, str] = {}
    for i, place in enumerate(places):
        place.group = first.setdefault(find(i), place.name)


def pair_rows(places: Sequence[PairPlace], out: Path, pairing: Pairing) -> list[dict[str, Any]]:
    """Manifest rows; file names relative to `out`."""
    names: dict[str, int] = {}
    rows = []
    labels = sorted({label for p in places for x in p.layers.values() for label in x.labels})
    for place in places:
        names[place.name] = names.get(place.name, 0) + 1
        name = place.name if names[place.name] == 1 else f"{place.name}-{names[place.name]}"
        columns = _columns(place, out)
        if labels:
            said = {label for x in place.layers.values() for label in x.labels}
            columns |= {f"label_{_slug(label)}": float(label in said) if said else None for label in labels}
        for grid, suffix in _blocks(place, pairing):
            box = box_of(grid)
            lat = (box[1] + box[3]) / 2
            time = columns["s2_time"] or columns["s1_time"]
            rows.append(
                {"id": name + suffix, "group": place.group + suffix, **columns, "crs": grid.crs, "left": grid.left,
                 "top": grid.top, "side": grid.side, "height": grid.height, "width": grid.width, "west": box[0],
                 "south": box[1], "east": box[2], "north": box[3], "lat": lat, "lon": (box[0] + box[2]) / 2,
                 "season": season(time, lat)}
            )  # fmt: skip
    return rows


def _slug(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _blocks(place: PairPlace, pairing: Pairing) -> list[tuple[Grid, str]]:
    """The row's grids: the ground that all of its sensors cover, whole or in squares that start at multiples of their
    side in the CRS, so that pictures of other times are cut alike."""
    whole = place.grid
    bounds = whole.bounds
    for layer in place.layers.values():
        if layer.scene.kind in ("s1", "s2"):
            other = bounds_in(layer.grid, whole.crs)
            bounds = (
                *(max(a, b) for a, b in zip(bounds[:2], other[:2])),
                *(min(a, b) for a, b in zip(bounds[2:], other[2:])),
            )
    window = whole.window_of(bounds)
    grid = whole.part(window)
    side = round(pairing.block / grid.side)
    if not side or (grid.height <= side and grid.width <= side):
        return [(grid, "")]
    found = []
    down, right = -round(grid.top / grid.side) % side, round(grid.left / grid.side) % side
    for row in range(-down if down else 0, grid.height, side):
        for col in range(-right if right else 0, grid.width, side):
            top, left = max(row, 0), max(col, 0)
            height, width = min(row + side, grid.height) - top, min(col + side, grid.width) - left
            part = grid.part(Window(top, left, height, width))
            x, y = _square(part, side)
            found.append((part, f"@{x}_{y}"))
    return found


def _square(grid: Grid, side: int) -> tuple[int, int]:
    """The number of a square in the CRS, counted in its own side."""
    middle_x = grid.left + grid.width * grid.side / 2
    middle_y = grid.top - grid.height * grid.side / 2
    return int(np.floor(middle_x / (side * grid.side))), int(np.floor(middle_y / (side * grid.side)))


def _columns(place: PairPlace, out: Path) -> dict[str, Any]:
    """The row's files and what is known of them."""
    row: dict[str, Any] = {
        "s1": "",
        "s2": "",
        "landcover": "",
        "s1_bands": "",
        "s2_bands": "",
        "s1_time": "",
        "s2_time": "",
    }
    for kind, layer in place.layers.items():
        scene = layer.scene
        if kind == "cloud":
            row["s2_cloud"] = os.path.relpath(scene.file or scene.files[0], out)
            continue
        if scene.file is not None:
            row[kind] = os.path.relpath(scene.file, out)
            if layer.bands:
                row[f"{kind}_bands"] = " ".join(layer.bands)
        for band, file in scene.parts.items():
            row[f"{kind}_{band}"] = os.path.relpath(file, out)
        if kind == "landcover":
            continue
        row[f"{kind}_time"] = layer.product.time
        row[f"{kind}_valid"] = layer.valid
        row |= {f"{kind}_{name}": value for name, value in layer.facts.items()}
    row["clouds"] = bool(row.get("s2_cloud") or row.get(f"s2_{CLASSES}") or CLASSES in row["s2_bands"].split())
    return row | {"days": place.days}
