"""`data import rasters`: files that exist become rows of places; every raster is looked at in a worker process."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoint.common.data.importing import find_files, plain_reason, read_files, require_file, save_manifest
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.geospatial.bands import CLASSES, band_name, sensor_of
from counterpoint.geospatial.data.found import SceneFiles, sort_files
from counterpoint.geospatial.data.grid import ALIGNED, Grid
from counterpoint.geospatial.data.pairs import Pairing, pair_rows, places_of
from counterpoint.geospatial.data.product import OFFSET, Product, product_of
from counterpoint.geospatial.data.raster import SUFFIXES, Facts, inspect

UNITS = ("db", "linear")
CALIBRATIONS = ("sigma0", "gamma0", "unknown")


@dataclass(frozen=True)
class Told:
    """What the user says of the files, where they do not say it themselves."""

    s1_bands: tuple[str, ...] = ()
    s2_bands: tuple[str, ...] = ()
    s1_unit: str = ""
    s1_calibration: str = ""
    offset: int | None = None
    offsets: Mapping[str, int] = field(default_factory=dict)
    legend: Mapping[int, str] = field(default_factory=dict)
    synthetic: str = ""


@dataclass(frozen=True)
class Layer:
    """A product that was looked at: its files by role, where they lie, and what is known of it."""

    scene: SceneFiles
    grid: Grid
    box: tuple[float, float, float, float]
    bands: tuple[str, ...]
    product: Product
    facts: dict[str, Any]
    valid: float | None
    low: float
    labels: tuple[str, ...] = ()


def import_layers(
    source: Path,
    out: Path,
    patterns: Mapping[str, str],
    said: Told,
    pairing: Pairing,
    workers: int = 1,
    finish: Callable[[Any], Any] | None = None,
) -> ImportReport:
    """Every usable product below `source`, paired by place and time, as manifest rows; files stay where they are.
    `finish` may change the manifest before it is saved."""
    found = find_files(Path(source), SUFFIXES)
    scenes, rejected, left = sort_files(found.files, found.root, patterns)
    rejected = [*found.rejected, *rejected]
    files = [file for scene in scenes for file in scene.files]
    facts: dict[Path, tuple[Facts, Product]] = {}
    refused: list[Rejected] = []
    for file, seen in read_files(look, files, refused, description="reading rasters", workers=workers):
        facts[file] = seen
    reasons = {r.source: r.reason for r in refused}
    layers: list[Layer] = []
    for scene in scenes:
        bad = [file for file in scene.files if str(file) in reasons]
        rejected += [Rejected(str(file), reasons[str(file)]) for file in bad]
        if bad:
            if len(scene.files) > len(bad):
                rejected.append(Rejected(scene.name, f"left out, for {bad[0].name} of its files cannot be used"))
            continue
        try:
            layers.append(layer_of(scene, facts, said))
        except InputError as error:
            rejected.append(Rejected(str(scene.file or scene.files[0].parent / scene.name), plain_cell(error, scene)))
    places, dropped, notes = places_of(_alone(layers, scenes, pairing, rejected), pairing)
    rejected += dropped
    rows = pair_rows(places, Path(out), pairing)
    outside = folders_of(files, found.root) if files else ()
    meta: dict[str, Any] = {"synthetic": said.synthetic} if said.synthetic else {}
    if said.legend:
        meta["legend"] = {str(code): name for code, name in said.legend.items()}
    told = [*notes, *(offset_notes(layers)), *_radar_notes(layers)]
    told += [f"{left} further rasters match no pattern and were not asked for"] if left else []
    return save_manifest(out, rows, rejected, meta=meta, note="\n".join(told), finish=finish, outside=outside)


TINY = 10.0
"""Reflectance x 10000 of a picture reaches above this, 0.001."""


def _alone(
    layers: list[Layer], scenes: Sequence[SceneFiles], pairing: Pairing, rejected: list[Rejected]
) -> list[Layer]:
    """What is left where all pictures of one sensor were refused: nothing, unless single pictures are wanted."""
    wanted, left = {s.kind for s in scenes} & {"s1", "s2"}, {x.scene.kind for x in layers} & {"s1", "s2"}
    if pairing.single or len(wanted) < 2 or left == wanted:
        return layers
    why = "left out: every picture of the other sensor was refused, and it would stand alone (--single keeps it)"
    rejected += [Rejected(str(x.scene.file or x.scene.files[0].parent), why) for x in layers if x.scene.kind in left]
    return []


def look(file: Path) -> tuple[Facts, Product]:
    """What a file holds and says; runs in a worker."""
    facts = inspect(Path(file))
    return facts, product_of(Path(os.path.abspath(file)), facts.tags)


def plain_cell(error: InputError, scene: SceneFiles) -> str:
    """The reason without the file's name in front."""
    return plain_reason(str(error), scene.file or scene.files[0])


def layer_of(scene: SceneFiles, facts: Mapping[Path, tuple[Facts, Product]], said: Told) -> Layer:
    """A product's facts put together.

    Raises:
        InputError: bands that nothing names, bands of one product that lie on different grids, an offset that nothing
            says, a unit that nothing says.
    """
    seen = [facts[file] for file in scene.files]
    # The grid is that of the finest pixels; the others must fill the same bounds.
    at = min(range(len(seen)), key=lambda i: seen[i][0].grid.side)
    first, product = seen[at]
    for file, (other, _) in zip(scene.files, seen):
        if other.grid.crs != first.grid.crs:
            raise InputError(f"{file.name} lies in {other.grid.crs}, the other bands in {first.grid.crs}")
        away = [abs(a - b) / first.grid.side for a, b in zip(other.grid.bounds, first.grid.bounds)]
        if max(away) > max(1.0, other.grid.side / first.grid.side) + ALIGNED or other.grid.beside(first.grid) > ALIGNED:
            raise InputError(
                f"{file.name} does not cover the same ground as its other bands (off by {max(away):.2f} pixels)"
            )
    bands = _bands(scene, first, said) if scene.kind in ("s1", "s2") else ()
    extra: dict[str, Any] = {}
    if scene.kind == "s2":
        extra = _reflectance(scene, seen, product, said)
    elif scene.kind == "s1":
        extra = _backscatter(seen, product, said)
    elif scene.kind == "landcover" and (first.dtype[0] not in "iu" or scene.file is None):
        raise InputError(f"holds {first.dtype} values; a map of land cover holds whole numbers, one class each")
    shares = [f.valid for f, _ in seen]
    low = min((f.low for name, (f, _) in zip(scene.parts or [""], seen) if name != CLASSES), default=first.low)
    valid = None if None in shares else min(shares)
    if (
        scene.kind == "s2" and low <= 0
    ):  # digital number 0 is no data, also where the file does not say so: to be counted
        valid = None
    labels = _labels(scene.files[at])
    return Layer(scene, first.grid, first.box, bands, product, extra, valid, low, labels)


def _bands(scene: SceneFiles, facts: Facts, said: Told) -> tuple[str, ...]:
    """The names of a product's bands: the user's, else the file's, else those that its files are named by."""
    if scene.file is None:
        for band, file in scene.parts.items():
            if (count := _count(file)) > 1:
                raise InputError(f"{file.name} is named as band {band}, and holds {count} bands")
        return tuple(scene.parts)
    told = said.s1_bands if scene.kind == "s1" else said.s2_bands
    names = told or tuple(b for text in facts.names if (b := band_name(text)))
    count = _count(scene.file)
    if not names or (not told and len(names) != count):
        raise InputError(
            f"its {count} bands have no names that tell which they are; name them in their order there "
            f"(--{scene.kind}_bands, as in B02,B03,B04,B08 or L2A)"
        )
    if len(names) != count:
        raise InputError(f"holds {count} bands, and --{scene.kind}_bands names {len(names)}")
    if sensor_of(names) != scene.kind:
        raise InputError(f"its bands {', '.join(names)} are not all of {scene.kind}")
    return names


def _count(file: Path) -> int:
    from counterpoint.geospatial.data.raster import opened

    with opened(file) as source:
        return source.count


def _reflectance(
    scene: SceneFiles, seen: Sequence[tuple[Facts, Product]], product: Product, said: Told
) -> dict[str, Any]:
    """Scale and offset of Sentinel-2 numbers: reflectance x 10000 = (value + offset)."""
    facts = [f for f, _ in seen]
    names = {scene.name, *(file.stem for file in scene.files), *(file.name for file in scene.files)}
    listed = {said.offsets[name] for name in names if name in said.offsets}
    scaled = {(f.scale, f.offset) for f in facts} - {(1.0, 0.0)}
    if listed:
        offset, source = listed.pop(), "--s2_offset"
    elif said.offset is not None:
        offset, source = said.offset, "--s2_offset"
        own = {round(shift / scale) for scale, shift in scaled if scale} or ({product.offset} - {None})
        if own and own != {offset}:
            where = "its own scale and offset say" if scaled else f"{product.source} says"
            raise InputError(
                f"{where} an offset of {own.pop()}, --s2_offset says {offset}; leave the option out, or overrule this "
                "product by its name in a CSV (name,offset)"
            )
    elif scaled:
        scale, shift = scaled.pop()
        if abs(scale - 1e-4) > 1e-9:
            raise InputError(
                f"its scale is {scale:g}; Sentinel-2 numbers have 0.0001 (give --s2_offset to overrule it)"
            )
        offset, source = round(shift / scale), "the file's own offset"
    elif product.offset is not None:
        offset, source = product.offset, product.source
    elif facts[0].dtype[0] == "f":
        raise InputError(
            f"holds {facts[0].dtype} values and nothing says whether they are digital numbers; give --s2_offset (0, if "
            "they are reflectance x 10000)"
        )
    else:
        raise InputError(
            "nothing says its processing baseline (neither its name, its folders' names, its metadata nor its tags), "
            f"so it is unknown whether its values carry the offset of baseline 04.00; give --s2_offset {OFFSET} or 0, "
            "or a CSV with the columns name,offset"
        )
    if facts[0].dtype[0] == "f" and max(f.high for f in facts) <= TINY:
        raise InputError(
            f"holds values up to {max(f.high for f in facts):.4g}: they look like reflectance, and reflectance x 10000 "
            "is taken; multiply them by 10000"
        )
    return {"offset": offset, "offset_source": source, "level": product.level, "baseline": product.baseline}


def _backscatter(seen: Sequence[tuple[Facts, Product]], product: Product, said: Told) -> dict[str, Any]:
    """Unit and calibration of radar backscatter."""
    low, high = min(f.low for f, _ in seen), max(f.high for f, _ in seen)
    unit = said.s1_unit
    if unit == "linear" and low < 0:
        raise InputError(f"holds values down to {low:.4g}, and power is never below 0: it is in decibel (--s1_unit db)")
    if not unit:
        if low >= 0:
            raise InputError(
                f"holds values from {low:.4g} to {high:.4g}, and nothing says whether they are power or decibel; give "
                "--s1_unit linear or db"
            )
        unit = "db"  # power has no values below 0
    if unit == "db" and low >= 0:
        raise InputError(
            f"holds values from {low:.4g} to {high:.4g}, none below 0, and decibels of backscatter mostly are: it "
            "holds power (--s1_unit linear)"
        )
    if unit == "db" and (low < -100 or high > 60):
        raise InputError(
            f"holds values from {low:.4g} to {high:.4g}, which are no decibels of backscatter; scale them first"
        )
    return {
        "unit": unit,
        "calibration": said.s1_calibration or product.calibration or "unknown",
        "orbit": product.orbit,
    }


def _labels(file: Path) -> tuple[str, ...]:
    """Classes that the metadata beside a file name (BigEarthNet)."""
    from counterpoint.geospatial.data.product import _beside

    found = _beside(file).get("labels", ())
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def read_offsets(text: str) -> tuple[int | None, dict[str, int]]:
    """`--s2_offset`: a number for all, or a CSV file with the columns name,offset."""
    if not text:
        return None, {}
    try:
        number = int(text)
    except ValueError:
        pass
    else:
        return _offset(number, "--s2_offset"), {}
    path = require_file(text, (".csv",))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines)
        if not {"name", "offset"} <= set(table.fieldnames or ()):
            raise InputError(f"{path}: needs the columns name,offset; it has {', '.join(table.fieldnames or ['none'])}")
        found = {}
        for number, row in enumerate(table, start=2):
            try:
                found[row["name"]] = _offset(int(row["offset"]), f"{path}, line {number}")
            except (TypeError, ValueError):
                raise InputError(f"{path}, line {number}: offset is {row['offset']!r}; give -1000 or 0") from None
    return None, found


def _offset(value: int, where: str) -> int:
    if value > 0 or value < -10000:
        raise InputError(
            f"{where}: the offset is added to the numbers: {OFFSET} from baseline 04.00 on, 0 before; not {value}"
        )
    return value


def offset_notes(layers: Sequence[Layer]) -> list[str]:
    """Which Sentinel-2 products carry the offset, and those whose values look otherwise than is said of them."""
    optical = [layer for layer in layers if layer.scene.kind == "s2"]
    carry = [layer for layer in optical if layer.facts["offset"]]
    if not optical:
        return []
    sources = sorted({str(layer.facts["offset_source"]) for layer in optical})
    named = ", ".join(layer.scene.name for layer in carry[:8]) + (
        f" and {len(carry) - 8} more" if len(carry) > 8 else ""
    )
    notes = [
        f"{len(carry)} of {len(optical)} Sentinel-2 products carry an offset (by {', '.join(sources)})"
        + (f": {named}" if carry else "")
    ]
    for layer in optical:
        offset = layer.facts["offset"]
        if offset == 0 and layer.low >= -OFFSET:
            what = f"no value below {-OFFSET} (the lowest: {layer.low:g}), as with the offset; said to have none"
            notes.append(f"{layer.scene.name}: {what}")
        elif offset and 0 < layer.low < -offset / 2:
            what = f"values down to {layer.low:g}, below the offset of {-offset} that it is said to carry"
            notes.append(f"{layer.scene.name}: {what}")
    return notes


def _radar_notes(layers: Sequence[Layer]) -> list[str]:
    radar = [layer for layer in layers if layer.scene.kind == "s1"]
    kinds = sorted({f"{layer.facts['calibration']} in {layer.facts['unit']}" for layer in radar})
    if not radar:
        return []
    unknown = [layer for layer in radar if layer.facts["calibration"] == "unknown"]
    notes = [f"Sentinel-1 is {' and '.join(kinds)}"]
    if unknown:
        notes.append(
            f"of {len(unknown)} radar products nothing says whether they are sigma0 or gamma0; give --s1_calibration"
        )
    return notes
