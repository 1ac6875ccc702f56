"""STAC items as a source of rasters: their local assets by band name, and what the items say of them.

An item (JSON, STAC 1.0 or 1.1) names its files by `href`. Local ones are taken: a path, relative to the item's folder
or absolute, or a `file://` address. Nothing is fetched. Bands are named by `eo:bands` or `bands` (`name`, or for
Sentinel-2 `common_name`), else by the asset's key; pictures made for looking at (`visual`, thumbnails) are no bands.
What an item says and its file denies is refused: another CRS, transform or shape, another nodata value or baseline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from counterpoint.common.data.importing import unreadable
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected
from counterpoint.geospatial.bands import CLASSES, band_name, sensor_of
from counterpoint.geospatial.data.found import SceneFiles
from counterpoint.geospatial.data.product import FIRST_WITH_OFFSET, LARGEST, OFFSET, Product, moment
from counterpoint.geospatial.data.raster import SUFFIXES, Facts

COMMON = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge071": "B05", "rededge075": "B06",
    "rededge078": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10", "swir16": "B11",
    "swir22": "B12", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07",
}  # fmt: skip
"""STAC's common names that mean one band of Sentinel-2, and the numbered ones that catalogues give its red edges."""
FOR_LOOKING = {"visual", "overview", "thumbnail", "preview", "tci", "browse", "rendered_preview"}

APPLIED = "the item's boa_offset_applied"


@dataclass(frozen=True)
class ItemFacts:
    """What an item says of one product.

    Attributes:
        product: time, level, baseline, orbit; the offset where `raster:bands` or the baseline states one.
        unit: of radar: `db`, or empty.
        assets: file -> what the item says of it (`epsg`, `transform`, `shape`, `nodata`).
    """

    product: Product
    unit: str = ""
    assets: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def read_items(files: Sequence[Path]) -> tuple[list[SceneFiles], list[Rejected], list[str], bool]:
    """Products of all items among JSON files, what was left out, what is to be known, and whether there are items (also
    damaged ones). Other JSON is passed over."""
    scenes: list[SceneFiles] = []
    rejected: list[Rejected] = []
    notes: list[str] = []
    some = False
    for file in files:
        try:
            for item in _items(file):
                some = True
                scenes += _scenes(item, file, notes)
        except InputError as error:
            some = some or (not unreadable(file) and b"stac_version" in file.read_bytes()[:LARGEST])
            rejected.append(Rejected(str(file), str(error)))
    return scenes, rejected, notes, some


def _items(file: Path) -> list[Mapping[str, Any]]:
    """The items of a file: one, or those of a collection of features."""
    if reason := unreadable(file):
        raise InputError(reason)
    try:
        found = json.loads(file.read_bytes()[:LARGEST].decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"is no JSON ({' '.join(str(error).split())[:80]}); copy it anew") from None
    several = found.get("features") if isinstance(found, dict) and found.get("type") == "FeatureCollection" else [found]
    several = several if isinstance(several, list) else []
    return [x for x in several if isinstance(x, dict) and x.get("type") == "Feature" and "stac_version" in x]


def _scenes(item: Mapping[str, Any], file: Path, notes: list[str]) -> list[SceneFiles]:
    """The products of an item, one a sensor."""
    name, properties, assets = item.get("id"), item.get("properties"), item.get("assets")
    if not isinstance(name, str) or not name or not isinstance(properties, dict) or not isinstance(assets, dict):
        raise InputError("its item lacks id, properties or assets, which every STAC item has")
    said = properties.get("datetime") or properties.get("start_datetime")
    time = moment(said) if isinstance(said, str) else ""
    if not time:
        raise InputError(
            f"item {name} has no datetime (it says {said!r}); every STAC item has one, as in 2021-07-10T10:00:00Z"
        )
    told = (item.get("collection"), properties.get("platform"), properties.get("constellation"))
    mission = " ".join(str(text) for text in told if text)
    craft = " ".join(str(text) for text in told[1:] if text).lower()
    if craft and not re.search(r"sentinel-?[12]|\bs[12][a-d]?\b", craft):
        raise InputError(f"item {name} is of {mission}; Sentinel-1 and Sentinel-2 are taken")
    optical = bool(re.search(r"sentinel-?2|\bs2[a-d]?\b", mission.lower()))
    found: dict[str, SceneFiles] = {}
    facts: dict[str, dict[Path, Mapping[str, Any]]] = {}
    details: dict[str, list[Mapping[str, Any]]] = {}
    away: list[str] = []
    for key, asset in assets.items():
        names = _bands(key, asset, optical) if isinstance(asset, dict) else ()
        kind = sensor_of(names) if names else None
        if kind is None:
            continue
        path = _local(asset.get("href"), file, f"item {name}, asset {key}")
        if path is None:
            away.append(key)
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"item {name}, asset {key}: {path.name} is no GeoTIFF or JPEG 2000 file")
        if reason := unreadable(path):
            raise InputError(f"item {name}, asset {key}: {asset['href']} {reason}; copy it there or correct its href")
        scene = found.setdefault(kind, SceneFiles(name, kind))
        taken = {*scene.parts, *scene.names}
        if twice := sorted(taken & set(names)):
            raise InputError(f"item {name} has band {twice[0]} in two local assets (one is {key}); keep one of them")
        if len(names) == 1:
            scene.parts[names[0]] = path
        elif scene.file is not None:
            raise InputError(f"item {name} has two stacked assets of {kind} (one is {key}); keep one of them")
        else:
            scene.file, scene.names = path, names
        facts.setdefault(kind, {})[path] = _facts(asset, properties)
        if names != (CLASSES,):
            details.setdefault(kind, []).extend(_details(asset, len(names)))
    if not found:
        if away:
            raise InputError(
                f"item {name}: its assets ({', '.join(away[:6])}{', ...' if len(away) > 6 else ''}) are not local; "
                "download them and set their href (nothing is fetched)"
            )
        raise InputError(f"item {name} has no asset whose bands are named as Sentinel's (eo:bands, bands, its key)")
    if away:
        notes.append(f"item {name}: assets {', '.join(away)} are not local and were left out (nothing is fetched)")
    for kind, scene in found.items():
        if (not scene.parts and scene.file is None) or ([*scene.parts] == [CLASSES] and scene.file is None):
            raise InputError(f"item {name} has the local asset {CLASSES} alone, and no band beside it")
        scene.said = _said(kind, name, properties, details.get(kind, []), time, facts[kind])
    return list(found.values())


def _bands(key: str, asset: Mapping[str, Any], optical: bool) -> tuple[str, ...]:
    """The bands of an asset in their order there; empty where it holds none, or one that no name tells."""
    roles = asset.get("roles") if isinstance(asset.get("roles"), list) else []
    if {key.lower(), *(str(r).lower() for r in roles)} & FOR_LOOKING:
        return ()
    listed = next((v for k in ("eo:bands", "bands") if isinstance(v := asset.get(k), list) and v), None)
    if listed is None:
        listed = [{"name": key}]

    def named(band: Any) -> str | None:
        if not isinstance(band, dict):
            return None
        common = str(band.get("common_name") or band.get("eo:common_name") or band.get("name") or "")
        name = str(band.get("name") or "")
        return band_name(name) or ((COMMON.get(common) or COMMON.get(name)) if optical else None)

    names = [named(band) for band in listed]
    if names == [None] and band_name(key):
        names = [band_name(key)]
    return tuple(n for n in names if n) if all(names) else ()


def _local(href: Any, file: Path, where: str) -> Path | None:
    """The path of a local asset; None of one that is elsewhere."""
    if not isinstance(href, str) or not href.strip() or "\0" in href:
        raise InputError(f"{where} has no href")
    address = urlsplit(href)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        return Path(unquote(address.path))
    if len(address.scheme) > 1 or href.startswith("/vsi"):
        return None
    return file.parent / href


def _facts(asset: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of one file. Shape and transform count where the asset itself has them: an item's are those of its
    finest files."""
    code = next((v for d in (asset, properties) for k in ("proj:code", "proj:epsg") if (v := d.get(k))), None)
    found: dict[str, Any] = {"epsg": None if code is None else str(code).upper().removeprefix("EPSG:")}
    found["transform"], found["shape"] = asset.get("proj:transform"), asset.get("proj:shape")
    values = {str(d["nodata"]) for d in _details(asset, 1) if d.get("nodata") is not None}
    found["nodata"] = values.pop() if len(values) == 1 else None
    return found


def _details(asset: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """scale, offset, nodata and unit of every band of an asset, in STAC 1.0's words or 1.1's."""
    rows = next((v for k in ("raster:bands", "bands") if isinstance(v := asset.get(k), list) and v), [{}] * count)
    found = []
    for row in rows:
        both = {**asset, **(row if isinstance(row, dict) else {})}
        found.append({key: both.get(f"raster:{key}", both.get(key)) for key in ("scale", "offset", "nodata", "unit")})
    return found


def _said(
    kind: str, name: str, properties: Mapping[str, Any], details: Sequence[Mapping[str, Any]], time: str,
    assets: Mapping[Path, Mapping[str, Any]],
) -> ItemFacts:  # fmt: skip
    units = {str(d["unit"]).lower() for d in details if d.get("unit")}
    orbit = str(properties.get("sat:orbit_state") or "").lower()
    if kind == "s1":
        if any(d.get("scale") not in (None, 1) or d.get("offset") not in (None, 0) for d in details):
            raise InputError(f"item {name}: its radar has a scale or an offset; scale the file first")
        return ItemFacts(Product(time, orbit=orbit), "db" if units == {"db"} else "", assets)
    keys = ("s2:processing_baseline", "processing:baseline", "sentinel:processing_baseline", "processing:version")
    text = next((str(v) for key in keys if (v := properties.get(key))), "")
    digits = re.fullmatch(r"N?(\d{2})\.?(\d{2})", text.strip())
    baseline = digits[1] + digits[2] if digits else ""
    offset, source = None, ""
    if baseline:
        offset = OFFSET if int(baseline) >= FIRST_WITH_OFFSET else 0
        source = f"the item's processing baseline {baseline[:2]}.{baseline[2:]}"
    applied = any(properties.get(f"{k}:boa_offset_applied") is True for k in ("earthsearch", "sentinel"))
    if applied:
        offset, source = 0, APPLIED
    own = _stated(name, details)
    if own is not None and offset is not None and own != offset:
        raise InputError(
            f"item {name}: its raster:bands state an offset of {own}, {source} one of {offset}; look at the values and "
            "correct the item, or import its rasters without it"
        )
    if own is not None:
        offset, source = own, "the item's raster:bands"
    level = str(properties.get("processing:level") or properties.get("s2:product_type") or "")
    level = "L2A" if re.search(r"L2|2A", level) else "L1C" if re.search(r"L1|1C", level) else ""
    return ItemFacts(Product(time, level, baseline, offset, source, orbit), "", assets)


def _stated(name: str, details: Sequence[Mapping[str, Any]]) -> int | None:
    """The offset in digital numbers that all bands state; None where they state none."""
    shifts = [d.get("offset") for d in details]
    scales = {d["scale"] for d in details if d.get("scale") is not None}
    try:
        wrong = [s for s in scales if abs(float(s) - 1e-4) > 1e-9]
        offsets = {round(float(shift) / 1e-4) for shift in shifts if shift is not None}
    except (TypeError, ValueError):
        raise InputError(f"item {name}: scale or offset of its bands is no number") from None
    if wrong:
        raise InputError(f"item {name}: its scale is {wrong[0]}; Sentinel-2 numbers have 0.0001")
    if any(offsets) and not scales:
        raise InputError(f"item {name}: its bands state an offset without a scale; it is unknown what it is added to")
    if len(offsets) > 1 or (any(offsets) and None in shifts):
        raise InputError(f"item {name}: its bands state several offsets ({sorted(offsets)}), or some of them none")
    return offsets.pop() if offsets else None


def agreed(scene: SceneFiles, file: Path, seen: tuple[Facts, Product]) -> Product:
    """What item and file say together.

    Raises:
        InputError: they contradict each other.
    """
    facts, own = seen
    if scene.said is None:
        return own
    said, item = scene.said.assets.get(file, {}), scene.said.product
    grid = facts.grid
    if said.get("epsg") and grid.crs.startswith("EPSG:") and grid.crs != f"EPSG:{said['epsg']}":
        raise InputError(f"{file.name} lies in {grid.crs}, its STAC item says EPSG:{said['epsg']}")
    if (shape := said.get("shape")) and list(shape) != [grid.height, grid.width]:
        raise InputError(f"{file.name} has {grid.height} x {grid.width} pixels, its STAC item says {shape}")
    try:
        away = [abs(float(a) - b) for a, b in zip(said.get("transform") or (), grid.transform)]
        nodata = None if said.get("nodata") is None else float(said["nodata"])
    except (TypeError, ValueError):
        raise InputError(f"proj:transform or nodata that its STAC item gives {file.name} is no number") from None
    if away and max(away) > 0.01 * grid.side:
        raise InputError(f"{file.name} lies elsewhere than its STAC item's proj:transform says")
    # 0 is no data in both sensors, whether the file says so or not.
    if nodata and facts.nodata != nodata and facts.low <= nodata <= facts.high:
        raise InputError(
            f"{file.name} holds {nodata:g}, which its STAC item calls nodata and the file does not "
            f"(gdal_edit -a_nodata {nodata:g})"
        )
    if own.baseline and item.baseline and own.baseline != item.baseline:
        raise InputError(
            f"{file.name} is of baseline {own.baseline}, its STAC item says {item.baseline}; correct one of them"
        )
    # An offset of 0 beside a scale is what GDAL reports where none was written (see `stated_offset`).
    stated = round(facts.offset / facts.scale) or None
    own_offset = own.offset if stated is None else stated
    by_baseline = item.source == APPLIED and stated is None  # a baseline does not know that the offset was applied
    if None not in (own_offset, item.offset) and own_offset != item.offset and not by_baseline:
        raise InputError(
            f"{file.name} states an offset of {own_offset}, its STAC item ({item.source}) one of {item.offset}; "
            "correct one of them"
        )
    known = {k: v for k, v in vars(item).items() if v not in ("", None)}
    return replace(own, **known)
