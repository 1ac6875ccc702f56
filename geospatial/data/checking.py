"""`data check`: every raster of a row read from end to end, and held to what the row says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.geospatial.data.form import physical
from counterpoint.geospatial.data.grid import ALIGNED, Window
from counterpoint.geospatial.data.layers import (
    bands_of,
    own_grid,
    read_landcover,
    read_sensor,
    row_grid,
    sensors_of,
    sources,
)
from counterpoint.geospatial.data.raster import close_handles

STRIP = 1024
LIKELY = {"s1": (-60.0, 35.0), "s2": (-1500.0, 30000.0)}
"""dB and reflectance x 10000 between which all but a few pixels of a picture lie."""


def check_row(row: Mapping[str, Any], root: Path | Folder) -> list[str]:
    """Read a row's rasters; raise what is wrong with them, return what is to be known."""
    grid, notes = row_grid(row), []
    found = sensors_of(row)
    if not found:
        raise InputError("names no picture (s1, s2)")
    try:
        for sensor in found:
            names = bands_of(row, sensor)
            for source in {s.file: s for s in sources(row, root, sensor, names)}.values():
                own = own_grid(source.file)
                if own.crs == grid.crs and own.side == grid.side and own.beside(grid) > ALIGNED:
                    notes.append(f"{sensor}: pixels lie {own.beside(grid):.2f} of a pixel beside the row's grid")
            notes += _read(row, root, sensor, names, grid.height, grid.width)
        if row.get("landcover"):
            codes = read_landcover(row, root, Window(0, 0, grid.height, grid.width))
            if not (codes >= 0).any():
                raise InputError("its map of land cover holds no class here")
        elif "landcover" in row:  # others have one
            notes.append("has no map of land cover: its pixels are of no known class")
    finally:
        close_handles()
    return notes


def _read(row: Mapping[str, Any], root: Any, sensor: str, names: tuple[str, ...], height: int, width: int) -> list[str]:
    seen = far = 0
    low, high = LIKELY[sensor]
    for top in range(0, height, STRIP):
        window = Window(top, 0, min(STRIP, height - top), width)
        values, valid = physical(sensor, *read_sensor(row, root, sensor, names, window), row)
        seen += int(valid.sum())
        inside = values[:, valid]
        far += int(((inside < low) | (inside > high)).any(0).sum())
    if not seen:
        raise InputError(f"{sensor} has not one valid pixel here")
    notes = [] if seen == height * width else [f"{sensor}: {seen / (height * width):.1%} of the pixels are data"]
    if far > 0.001 * seen:
        unit = "dB" if sensor == "s1" else "reflectance x 10000"
        notes.append(
            f"{sensor}: {far / seen:.1%} of the pixels lie outside of {low:g} to {high:g} {unit}; is its scale right?"
        )
    if sensor == "s1" and str(row.get("s1_calibration") or "unknown") == "unknown":
        notes.append("s1: nothing says whether it is sigma0 or gamma0")
    return notes
