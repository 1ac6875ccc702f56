"""Raster files through rasterio: what one holds, and windows of it on a given grid. Nothing loads a whole raster.

Handles of GDAL survive no fork: every process opens its own (`handle`), and keeps the last `HANDLES` of them.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy.ndimage import minimum_filter1d

from counterpoint.common.errors import InputError
from counterpoint.geospatial.data.grid import ALIGNED, Grid, Window, grid_of

DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
"""GDAL's driver of each kind of file. No other is tried: those of VRT, WMS, ... may name files and servers."""
SUFFIXES = tuple(DRIVERS)
HANDLES = 256
CACHE_MB = 384
"""Megabytes of decoded blocks that GDAL keeps, unless the environment variable GDAL_CACHEMAX says otherwise: enough for
a row of tiles of a full Sentinel-2 product; GDAL's own measure, a twentieth of the memory, is gigabytes on a server."""
SCANNED = 1 << 26
"""Values of a raster up to which an import reads all of it; of larger ones it reads `SCAN_ROWS` strips."""
SCAN_ROWS = 16
ZERO_RUN = 16
"""Pixels beside one another in a row that are all exactly 0: an area that was filled, not one that was measured."""
WGS84 = "EPSG:4326"
MASK, NAN = "mask", "nan"


@dataclass(frozen=True)
class Facts:
    """What a raster holds.

    Attributes:
        grid: where its pixels lie.
        names: what the file calls its bands; empty where it does not.
        dtype: of its values.
        nodata: the value that means no data; None where there is none (or a mask says it).
        tags: its metadata.
        scale, offset: of all bands, where the file says so (1 and 0 else).
        box: (west, south, east, north) in degrees.
        valid: share of its pixels that hold data in every band; None where only strips were read.
        low, high: smallest and largest values read, of valid pixels.
        tiled: whether windows are read without the whole width.
        zeros: share of the pixels read, of those that the file calls data, where some band is exactly 0.
        zero_run: whether `ZERO_RUN` such pixels stand side by side.
        rounded: whether its values are whole numbers or hundredths.
    """

    grid: Grid
    names: tuple[str, ...]
    dtype: str
    nodata: float | None
    tags: Mapping[str, str]
    scale: float
    offset: float
    box: tuple[float, float, float, float]
    valid: float | None
    low: float
    high: float
    tiled: bool
    zeros: float = 0.0
    zero_run: bool = False
    rounded: bool = False


def inspect(file: Path) -> Facts:
    """What a raster holds, its pixels looked at as well. Meant for a worker process (`isolation`).

    Raises:
        InputError: damaged, without a coordinate reference system, rotated, not square, in degrees, without one valid
            pixel, or with numbers that are no measurement (complex).
    """
    with opened(file) as source:
        if source.crs is None:
            raise InputError("has no coordinate reference system; nothing tells where it lies (gdal_edit -a_srs)")
        if source.crs.is_geographic:
            raise InputError(
                f"its pixels are measured in degrees ({crs_text(source.crs)}); warp it to metres (gdalwarp)"
            )
        grid = grid_of(crs_text(source.crs), tuple(source.transform)[:6], source.height, source.width)
        kinds = set(source.dtypes)
        if len(kinds) > 1 or any(k.startswith("complex") for k in kinds):
            raise InputError(f"its bands are of type {', '.join(sorted(kinds))}; one real type for all is needed")
        nodata = set(source.nodatavals)
        scales, offsets = set(source.scales), set(source.offsets)
        if len(scales) > 1 or len(offsets) > 1:
            raise InputError("its bands have scales or offsets of their own; write them with one for all")
        seen = _scan(source)
        if not np.isfinite(seen.low):
            raise InputError("has not one valid pixel: all of it is nodata")
        names = tuple(text or "" for text in source.descriptions)
        return Facts(
            grid, names if all(names) and len(set(names)) == len(names) else (), kinds.pop(),
            next(iter(nodata)) if len(nodata) == 1 else None, dict(source.tags()), scales.pop(), offsets.pop(),
            box_of(grid), seen.share, seen.low, seen.high, source.block_shapes[0][1] < source.width,
            seen.zeros, seen.run, seen.rounded,
        )  # fmt: skip


def opened(file: Path) -> Any:
    """The file, opened for reading by its kind's driver; `InputError` where it cannot be."""
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    driver = DRIVERS.get(Path(file).suffix.lower(), "GTiff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by `inspect`, in our words
        try:
            return rasterio.open(Path(os.path.abspath(file)), driver=driver)
        except gdal_errors() as error:
            reason = " ".join(str(error).replace(os.path.abspath(file), "it").split())[:160]
            raise InputError(f"cannot be opened as a GeoTIFF or JPEG 2000 raster ({reason})") from None


def gdal_errors() -> tuple[type[Exception], ...]:
    """What rasterio raises of a file: its own errors, and those that GDAL hands through it."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError


@dataclass
class _Scan:
    share: float | None = None
    low: float = np.inf
    high: float = -np.inf
    zeros: float = 0.0
    run: bool = False
    rounded: bool = True


def _scan(source: Any) -> _Scan:
    """What the values look like: all of them, or those of strips of a large raster (the share of valid ones is then
    None)."""
    whole = source.height * source.width * source.count <= SCANNED
    block = source.block_shapes[0][0]
    step = max(block, 1) if block < source.height else min(source.height, 512)
    starts = np.arange(0, source.height, step)
    if not whole:
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, SCAN_ROWS).astype(int))]
    good = total = zeros = 0
    found = _Scan()
    for start in starts:
        window = Window(int(start), 0, int(min(step, source.height - start)), source.width)
        values, valid = _values(source, range(1, source.count + 1), window)
        good, total = good + int(valid.all(0).sum()), total + valid[0].size
        if valid.any():
            seen = values[valid]
            found.low, found.high = min(found.low, float(seen.min())), max(found.high, float(seen.max()))
            zero = ((values == 0) & valid).any(0)
            if zero.any():
                zeros += int(zero.sum())
                found.run = found.run or bool(minimum_filter1d(zero, min(ZERO_RUN, zero.shape[1]), axis=1).any())
            found.rounded = found.rounded and _rounded(seen)
    found.share, found.zeros = (good / total if whole else None), zeros / total
    return found


def _rounded(values: np.ndarray) -> bool:
    """Whether values are whole numbers or hundredths."""
    if values.dtype.kind in "iu":
        return True
    hundredths = values[:: max(1, len(values) // 4096)].astype(np.float64) * 100
    return bool((np.abs(hundredths - np.rint(hundredths)) < 1e-3).all())


def _values(source: Any, indexes: Sequence[int], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Values in the file's own type, and which of them are data: [bands, rows, columns] each."""
    from rasterio.windows import Window as Rectangle

    indexes = list(indexes)
    place = Rectangle(window.col, window.row, window.width, window.height)
    try:
        values = source.read(indexes, window=place)
        told = _told_by(source)
        kinds = {told[index - 1] for index in indexes}
        if len(kinds) == 1 and MASK not in kinds:
            valid = _is_data(values, kinds.pop())
        else:
            valid = np.empty(values.shape, dtype=bool)
            for i, index in enumerate(indexes):
                kind = told[index - 1]
                masked = kind == MASK
                valid[i] = source.read_masks(index, window=place) > 0 if masked else _is_data(values[i], kind)
    except gdal_errors() as error:
        reason = " ".join(str(error).split())[:160]
        where = f"rows {window.row} to {window.row + window.height}"
        raise InputError(
            f"its pixels cannot be read ({where}: {reason}); it is damaged or cut short, copy it anew"
        ) from None
    if values.dtype.kind == "f":
        valid &= np.isfinite(values)
    return values, valid


_told: WeakKeyDictionary[Any, tuple[float | str | None, ...]] = WeakKeyDictionary()


def _told_by(source: Any) -> tuple[float | str | None, ...]:
    """What tells data of each band of an open file: the number that is none (`NAN` for NaN), `MASK`, or None where all
    is data. Asked once a file: the flags of a band take longer than reading a small window of it."""
    from rasterio.enums import MaskFlags

    if source not in _told:
        kinds: list[float | str | None] = []
        for flags, nodata, dtype in zip(source.mask_flag_enums, source.nodatavals, source.dtypes, strict=True):
            if MaskFlags.all_valid in flags:
                kinds.append(None)
            elif flags == [MaskFlags.nodata] and nodata is not None:
                whole = "int" in dtype and float(nodata).is_integer()  # else whole arrays would be compared as float64
                kinds.append(NAN if np.isnan(nodata) else int(nodata) if whole else nodata)
            else:
                kinds.append(MASK)
        _told[source] = tuple(kinds)
    return _told[source]


def _is_data(values: np.ndarray, kind: float | str | None) -> np.ndarray:
    if kind is None:
        return np.ones(values.shape, dtype=bool)
    return ~np.isnan(values) if kind == NAN else values != kind


_handles: OrderedDict[tuple, Any] = OrderedDict()


def handle(file: Path, grid: Grid | None = None) -> Any:
    """This process's open file, or, with a `grid` in another CRS, the file warped onto it (nearest pixel)."""
    from rasterio.crs import CRS
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    key = (os.getpid(), os.path.abspath(file), grid)
    if key in _handles:
        _handles.move_to_end(key)
        return _handles[key]
    if grid is None:
        found = opened(file)
    else:
        source = handle(file)
        found = WarpedVRT(
            source, crs=CRS.from_user_input(grid.crs), transform=Affine(*grid.transform), height=grid.height,
            width=grid.width, resampling=Resampling.nearest, add_alpha=source.nodata is None,
        )  # fmt: skip
    _handles[key] = found
    while len(_handles) > HANDLES:
        old, dropped = _handles.popitem(last=False)
        if old[0] == os.getpid():
            dropped.close()
    return found


def close_handles() -> None:
    """Close what this process has open."""
    while _handles:
        key, found = _handles.popitem()
        if key[0] == os.getpid():
            found.close()


def read_window(
    file: Path, indexes: Sequence[int], own: Grid, grid: Grid, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Bands of a file on the pixels of a window of another grid: values in the file's own type, and which are data.

    Every pixel takes the value of the file's pixel that its centre falls into: bands of 20 and 60 m repeat theirs,
    nothing is interpolated, so no value is mixed with nodata. Pixels outside of the file are no data. Where the two
    CRSs differ the file is warped (`WarpedVRT`), else read as it is.

    Args:
        indexes: of the bands in the file, counted from 1.
        own: the file's grid.
    """
    if own.crs != grid.crs:
        return _warped(file, indexes, grid, window)
    asked = grid.part(window)
    rows = _places(own.top - asked.top, asked.side, own.side, window.height)
    cols = _places(asked.left - own.left, asked.side, own.side, window.width)
    inside = (rows >= 0) & (rows < own.height), (cols >= 0) & (cols < own.width)
    if not (inside[0].any() and inside[1].any()):
        source = handle(file)
        shape = (len(list(indexes)), window.height, window.width)
        return np.zeros(shape, source.dtypes[0]), np.zeros(shape, bool)
    top, left = int(rows[inside[0]][0]), int(cols[inside[1]][0])
    box = Window(top, left, int(rows[inside[0]][-1]) - top + 1, int(cols[inside[1]][-1]) - left + 1)
    try:
        values, valid = _values(handle(file), indexes, box)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if own.side == asked.side and inside[0].all() and inside[1].all():
        return values, valid
    pick_r, pick_c = np.clip(rows - top, 0, box.height - 1), np.clip(cols - left, 0, box.width - 1)
    values, valid = values[:, pick_r][:, :, pick_c], valid[:, pick_r][:, :, pick_c]
    return values, valid & inside[0][:, None] & inside[1]


def _places(start: float, side: float, own: float, count: int) -> np.ndarray:
    """The file's row (column) that the centre of each of `count` pixels falls into."""
    return np.floor((start + (np.arange(count) + 0.5) * side) / own + ALIGNED / 10).astype(np.int64)


def _warped(file: Path, indexes: Sequence[int], grid: Grid, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The same of a file in another CRS. Outside of the grid there is no data: a warped file refuses to read there."""
    source = handle(file, grid)
    top, left = max(window.row, 0), max(window.col, 0)
    bottom, right = min(window.row + window.height, grid.height), min(window.col + window.width, grid.width)
    values = np.zeros((len(list(indexes)), window.height, window.width), source.dtypes[0])
    valid = np.zeros(values.shape, bool)
    if bottom > top and right > left:
        try:
            found = _values(source, indexes, Window(top, left, bottom - top, right - left))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        at = np.s_[:, top - window.row : bottom - window.row, left - window.col : right - window.col]
        values[at], valid[at] = found
    return values, valid


def crs_text(crs: Any) -> str:
    """A CRS in words that tell equal ones: its EPSG code where it has one, else its WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt()


@lru_cache(maxsize=4096)
def box_of(grid: Grid) -> tuple[float, float, float, float]:
    """(west, south, east, north) of a grid in degrees, its edges followed."""
    from rasterio.warp import transform_bounds

    try:
        box = transform_bounds(grid.crs, WGS84, *grid.bounds, densify_pts=21)
    except gdal_errors() as error:
        raise InputError(f"its CRS cannot be used ({' '.join(str(error).split())[:120]})") from None
    if not all(map(np.isfinite, box)):
        raise InputError("it lies outside of what its projection can show; check its CRS and its georeference")
    return tuple(float(v) for v in box)


def bounds_in(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    """The bounds of a grid in another CRS."""
    from rasterio.warp import transform_bounds

    return grid.bounds if grid.crs == crs else transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=21)
