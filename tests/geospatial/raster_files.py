"""Small real GeoTIFFs for the tests."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

LEFT, TOP = 500_000.0, 5_000_000.0


def values(bands, height, width, seed=0, low=200, high=4000):
    return np.random.default_rng(seed).integers(low, high, (bands, height, width))


def write(
    path,
    data,
    left=LEFT,
    top=TOP,
    side=10.0,
    crs="EPSG:32633",
    names=(),
    nodata=None,
    tags=None,
    transform=None,
    **more,
):
    """Write [bands, rows, columns]."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = transform or Affine(side, 0, left, 0, -side, top)
    options = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2], **more}
    with rasterio.open(path, "w", dtype=data.dtype, crs=crs, transform=place, nodata=nodata, **options) as target:
        target.write(data)
        for i, name in enumerate(names, start=1):
            target.set_band_description(i, name)
        target.update_tags(**(tags or {}))
    return path


def s1(path, side=64, seed=0, when="2021-07-10T05:00:00", **more):
    data = (-12 + 4 * np.random.default_rng(seed).standard_normal((2, side, side))).astype(np.float32)
    return write(path, data, names=("VV", "VH"), tags={"datetime": when, "CALIBRATION": "sigma0"}, **more)


def s2(path, side=64, seed=0, when="2021-07-10T10:00:00", bands=("B02", "B03", "B04", "B08"), baseline="03.01", **more):
    tags = {"datetime": when} | ({"PROCESSING_BASELINE": baseline} if baseline else {})
    return write(path, values(len(bands), side, side, seed).astype(np.uint16), names=bands, tags=tags, **more)
