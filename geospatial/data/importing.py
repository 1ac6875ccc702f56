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
from counterpoint.geospatial.data.meaning import backscatter, offset_notes, radar_notes, reflectance
from counterpoint.geospatial.data.pairs import Pairing, pair_rows, places_of
from counterpoint.geospatial.data.product import OFFSET, Product, product_of
from counterpoint.geospatial.data.raster import SUFFIXES, Facts, inspect
from counterpoint.geospatial.data.stac import agreed, read_items


@dataclass(frozen=True)
class Told:
    """What the user says of the files, where they do not say it themselves."""

    s1_bands: tuple[str, ...] = ()
    s2_bands: tuple[str, ...] = ()
    s1_unit: str = ""
    s1_calibration: str = ""
    s1_zero: str = ""
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
    zeros: float = 0.0


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
    found = find_files(Path(source), (*SUFFIXES, ".json"))
    rasters = [file for file in found.files if file.suffix.lower() in SUFFIXES]
    items = [f for f in found.files if f.suffix.lower() == ".json" and not f.name.endswith("_labels_metadata.json")]
    scenes, rejected, told, stac = read_items(items)
    if not (rasters or scenes or rejected):
        raise InputError(f"{source}: no {' or '.join(SUFFIXES)} file in it, and no STAC item")
    if stac:  # the items say what is to be taken
        named = {os.path.realpath(file) for scene in scenes for file in scene.files}
        left = sum(os.path.realpath(file) not in named for file in rasters)
        told += [f"{left} further rasters are named by no STAC item and were left out"] if left else []
        if any(patterns.values()):
            raise InputError(f"{source} holds STAC items, which name their files: leave --s1, --s2, ... out")
    else:
        scenes, sorted_out, left = sort_files(rasters, found.root, patterns)
        rejected += sorted_out
        told += [f"{left} further rasters match no pattern and were not asked for"] if left else []
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
    told = [*notes, *(offset_notes(layers)), *radar_notes(layers), *told]
    return save_manifest(out, rows, rejected, meta=meta, note="\n".join(told), finish=finish, outside=outside)


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
    first, product = seen[at][0], [agreed(scene, *pair) for pair in zip(scene.files, seen)][at]
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
        extra = reflectance(scene, seen, product, said)
    elif scene.kind == "s1":
        extra = backscatter(seen, product, said, scene.said.unit if scene.said else "")
    elif scene.kind == "landcover" and (first.dtype[0] not in "iu" or scene.file is None):
        raise InputError(f"holds {first.dtype} values; a map of land cover holds whole numbers, one class each")
    shares = [f.valid for f, _ in seen]
    names = [*([""] if scene.file else []), *scene.parts]
    low = min((f.low for name, (f, _) in zip(names, seen) if name != CLASSES), default=first.low)
    valid = None if None in shares else min(shares)
    if (scene.kind == "s2" and low <= 0) or (scene.kind == "s1" and any(f.zeros for f, _ in seen)):
        valid = None  # zeros are no data, also where the file does not say so: to be counted
    labels = _labels(scene.files[at])
    return Layer(scene, first.grid, first.box, bands, product, extra, valid, low, labels, max(f.zeros for f, _ in seen))


def _bands(scene: SceneFiles, facts: Facts, said: Told) -> tuple[str, ...]:
    """The names of a product's bands: the user's, else the file's, else those that its files are named by."""
    for band, file in scene.parts.items():
        if (count := _count(file)) > 1:
            raise InputError(f"{file.name} is named as band {band}, and holds {count} bands")
    if scene.file is None:
        return tuple(scene.parts)
    told = scene.names or (said.s1_bands if scene.kind == "s1" else said.s2_bands)
    names = told or tuple(b for text in facts.names if (b := band_name(text)))
    count = _count(scene.file)
    if not names or (not told and len(names) != count):
        raise InputError(
            f"its {count} bands have no names that tell which they are; name them in their order there "
            f"(--{scene.kind}_bands, as in B02,B03,B04,B08 or L2A)"
        )
    own = [band_name(text) for text in facts.names]
    if scene.names and own and all(own) and tuple(own) != names:
        raise InputError(f"names its bands {', '.join(map(str, own))}, its STAC item {', '.join(names)}")
    if len(names) != count and scene.names:
        raise InputError(f"holds {count} bands, and its STAC item names {len(names)}")
    if len(names) != count:
        raise InputError(f"holds {count} bands, and --{scene.kind}_bands names {len(names)}")
    if sensor_of(names) != scene.kind:
        raise InputError(f"its bands {', '.join(names)} are not all of {scene.kind}")
    return names


def _count(file: Path) -> int:
    from counterpoint.geospatial.data.raster import opened

    with opened(file) as source:
        return source.count


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
