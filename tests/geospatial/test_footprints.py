"""GeoParquet of chips: the footprint of a chip is the rectangle of its pixels, and the file says in which CRS."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.crs import CRS
from torch import nn

from counterpoint.common.data import Manifest
from counterpoint.geospatial.commands import import_rasters
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.footprints import write_geoparquet

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import form
from raster_files import LEFT, TOP, s2

BANDS = {"s2": ("B02", "B03", "B04", "B08")}


class Means(nn.Module):
    def encode(self, batch, modality=None):
        return {"s2": batch["s2"].mean((2, 3))}


def polygon(blob):
    order, kind, rings, count = struct.unpack_from("<BIII", blob)
    assert (order, kind, rings) == (1, 3, 1)
    return np.frombuffer(blob, "<f8", offset=13).reshape(count, 2)


@pytest.mark.parametrize("other", ["EPSG:32633", "EPSG:32634"])
def test_footprints_are_the_pixels_rectangles(tmp_path, other):
    s2(tmp_path / "in/s2/a.tif")
    s2(tmp_path / "in/s2/b.tif", left=LEFT + 5000, crs=other)
    table = Manifest.load(import_rasters(tmp_path / "in", tmp_path / "m", single=True).manifest)
    chips = Chips(table, ChipCut(BANDS, 32, 32), form(("s2",), "standard", BANDS))
    write_geoparquet(Means(), chips, tmp_path / "e", columns=("season",), shard=9, batch_size=3, workers=0)
    made = pq.read_table(tmp_path / "e/chips.parquet")
    assert made.num_rows == 8
    assert made.column_names == ["id", "group", "season", "s2", "geometry"]
    geo = json.loads(made.schema.metadata[b"geo"])
    said = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"], said["encoding"]) == ("1.1.0", "geometry", "WKB")
    points = [polygon(blob) for blob in made["geometry"].to_pylist()]
    assert np.allclose(said["bbox"], [*np.concatenate(points).min(0), *np.concatenate(points).max(0)])
    # Counter-clockwise and closed.
    assert all((p[0] == p[-1]).all() for p in points)
    assert all(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]) > 0 for p in points)
    if other == "EPSG:32633":
        assert CRS.from_user_input(json.dumps(said["crs"])) == CRS.from_epsg(32633)
        place = made["id"].to_pylist().index(next(i for i in made["id"].to_pylist() if "a:32_0" in i))
        left, bottom = points[place].min(0)
        assert (left, bottom) == (LEFT, TOP - 640)
        assert tuple(points[place].max(0)) == (LEFT + 320, TOP - 320)
    else:
        assert said["crs"]["id"] == {"authority": "OGC", "code": "CRS84"}
        assert all(14 < x < 22 and 44 < y < 46 for p in points for x, y in p)
    with rasterio.open(tmp_path / "in/s2/a.tif") as source:
        assert source.crs == CRS.from_epsg(32633)
