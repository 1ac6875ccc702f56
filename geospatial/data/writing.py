"""GeoTIFFs written whole or not at all: tiled, with names of bands, and where their pixels lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.geospatial.data.grid import Grid

TILE = 256


def profile(grid: Grid, bands: int, dtype: str, nodata: float | None) -> dict[str, Any]:
    """What rasterio is told of a new GeoTIFF: tiled where it is large enough, compressed."""
    from rasterio.transform import Affine

    tiled = {"tiled": True, "blockxsize": TILE, "blockysize": TILE} if min(grid.height, grid.width) >= TILE else {}
    return {
        "driver": "GTiff", "count": bands, "dtype": dtype, "height": grid.height, "width": grid.width, "crs": grid.crs,
        "transform": Affine(*grid.transform), "nodata": nodata, "compress": "deflate", "bigtiff": "if_safer", **tiled,
    }  # fmt: skip


def write_raster(
    path: Path, values: np.ndarray, grid: Grid, names: Sequence[str] = (), nodata: float | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write [bands, rows, columns] as a GeoTIFF; complete or not at all."""
    import rasterio

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(temporary, "w", **profile(grid, len(values), str(values.dtype), nodata)) as target:
            target.write(values)
            for i, name in enumerate(names, start=1):
                target.set_band_description(i, name)
            target.update_tags(**(tags or {}))
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
