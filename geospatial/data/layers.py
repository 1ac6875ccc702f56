"""What belongs to a place: for each sensor its bands, in one file or in one file a band, and where they lie.

A manifest row is a place at a time. Its columns:

    s1, s2, landcover     a file with several bands (or one)
    s1_bands, s2_bands    the bands in it, in their order there, with spaces between
    s2_B02, s1_VV, ...    a file of one band; s2_SCL: ESA's scene classification; s2_cloud: a cloud mask, not 0 is cloud
    crs, left, top, side, height, width         the grid of the row, in its CRS
    west, south, east, north, lat, lon          its bounds and its middle in degrees
    s1_time, s2_time, days, season
    s2_level, s2_baseline, s2_offset, s2_offset_source; s1_unit (db, linear), s1_calibration, s1_orbit,
    s1_zero (what an exact 0 is in decibel: nodata, value)
    s1_valid, s2_valid    share of valid pixels; missing where it was not counted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.geospatial.bands import BANDS, CLASSES, CLOUDS, SENSORS
from counterpoint.geospatial.data.grid import Grid, Window, grid_of
from counterpoint.geospatial.data.raster import crs_text, handle, read_window

CLOUD = "cloud"


class KeptPaths:
    """A manifest's folder whose answers are kept: `paths / name` follows the links of a file once, not once a chip."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.known: dict[Any, Path] = {}

    def __truediv__(self, name: Any) -> Path:
        if name not in self.known:
            self.known[name] = self.folder / name
        return self.known[name]


@dataclass(frozen=True)
class Source:
    """One band: the file that holds it, and its number there from 1."""

    file: Path
    index: int


def row_grid(row: Mapping[str, Any]) -> Grid:
    """The grid of a manifest row."""
    try:
        numbers = [float(row[name]) for name in ("left", "top", "side")]
        sizes = [int(row[name]) for name in ("height", "width")]
        return Grid(str(row["crs"]), *numbers, *sizes)
    except (KeyError, TypeError, ValueError):
        raise InputError("crs, left, top, side, height and width do not say where it lies; import it again") from None


def bands_of(row: Mapping[str, Any], sensor: str) -> tuple[str, ...]:
    """The bands that a row has of a sensor, its cloud layers left out."""
    stacked = str(row.get(f"{sensor}_bands") or "").split() if row.get(sensor) else []
    single = [name for name, band in BANDS.items() if band.sensor == sensor and row.get(f"{sensor}_{name}")]
    return tuple(name for name in (*stacked, *single) if name in BANDS)


def sensors_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The sensors that a row has."""
    return tuple(sensor for sensor in SENSORS if bands_of(row, sensor))


def sources(row: Mapping[str, Any], root: Any, sensor: str, bands: Sequence[str]) -> list[Source]:
    """Where each band stands; `InputError` names one that is missing."""
    stacked = str(row.get(f"{sensor}_bands") or "").split() if row.get(sensor) else []
    found = []
    for name in bands:
        if file := row.get(f"{sensor}_{name}"):
            found.append(Source(root / file, 1))
        elif name in stacked:
            found.append(Source(root / row[sensor], stacked.index(name) + 1))
        else:
            have = ", ".join(bands_of(row, sensor)) or "none"
            raise InputError(f"has no band {name} of {sensor} (it has {have})")
    return found


@lru_cache(maxsize=4096)
def own_grid(file: Path) -> Grid:
    """The grid of a file."""
    source = handle(file)
    if source.crs is None:
        raise InputError(f"{file}: has lost its coordinate reference system; import it again")
    return grid_of(crs_text(source.crs), tuple(source.transform)[:6], source.height, source.width)


def read_bands(found: Sequence[Source], grid: Grid, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Bands on a window of a grid: values [bands, rows, columns] in the files' own type, and which are data. Bands that
    stand in one file are read together."""
    files: dict[Path, list[int]] = {}
    for place, source in enumerate(found):
        files.setdefault(source.file, []).append(place)
    if len(files) == 1:
        return read_window(found[0].file, [s.index for s in found], own_grid(found[0].file), grid, window)
    parts: list[Any] = [None] * len(found)
    masks: list[Any] = [None] * len(found)
    for file, places in files.items():
        values, valid = read_window(file, [found[p].index for p in places], own_grid(file), grid, window)
        for i, place in enumerate(places):
            parts[place], masks[place] = values[i], valid[i]
    kinds = {part.dtype for part in parts}
    if len(kinds) > 1:
        common = np.result_type(*kinds)
        parts = [part.astype(common) for part in parts]
    return np.stack(parts), np.stack(masks)


def read_sensor(
    row: Mapping[str, Any], root: Any, sensor: str, bands: Sequence[str], window: Window, clouds: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A sensor's bands on a window of the row's grid: values in the files' own type, and the pixels [rows, columns]
    where every band holds data and, with `clouds`, no cloud or its shadow is said to be."""
    grid = row_grid(row)
    values, valid = read_bands(sources(row, root, sensor, bands), grid, window)
    seen = valid.all(0)
    if clouds and sensor == "s2":
        stacked = str(row.get("s2_bands") or "").split() if row.get("s2") else []
        if row.get(f"s2_{CLASSES}") or CLASSES in stacked:
            classes, known = read_bands(sources(row, root, "s2", [CLASSES]), grid, window)
            seen &= known[0] & ~np.isin(classes[0], CLOUDS)
        if row.get(f"s2_{CLOUD}"):
            cover, known = read_bands([Source(root / row[f"s2_{CLOUD}"], 1)], grid, window)
            seen &= known[0] & (cover[0] == 0)
    return values, seen


def read_landcover(row: Mapping[str, Any], root: Any, window: Window) -> np.ndarray:
    """The land-cover codes on a window of the row's grid, -1 where there is none: where a row has no map, all over."""
    if not row.get("landcover"):
        return np.full((window.height, window.width), -1, np.int64)
    values, valid = read_bands([Source(root / row["landcover"], 1)], row_grid(row), window)
    return np.where(valid[0], values[0].astype(np.int64), -1)
