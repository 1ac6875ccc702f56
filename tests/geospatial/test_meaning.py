"""What files and items leave open is refused or taken from what does say it; none of it becomes a number by silence."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from counterpoint.common.errors import InputError
from counterpoint.geospatial.bands import band_name
from counterpoint.geospatial.commands import import_rasters
from counterpoint.geospatial.data.product import moment

sys.path.insert(0, str(Path(__file__).parent))
from raster_files import s1, s2, values, write
from test_stac import item, put, singles


def scaled(path, scale, offset):
    with rasterio.open(path, "r+") as made:
        made.scales, made.offsets = [scale] * made.count, [offset] * made.count
    return path


def offset_of(tmp_path, **told):
    report = import_rasters(tmp_path / "in", tmp_path / "out", single=True, **told)
    if report.rejected:
        raise InputError(report.rejected[0].reason)
    return pd.read_parquet(report.manifest)[["s2_offset", "s2_offset_source"]].iloc[0].tolist()


def test_a_scale_without_an_offset_says_nothing_of_the_baseline(tmp_path):
    scaled(s2(tmp_path / "in/s2/a.tif", baseline="05.10"), 1e-4, 0.0)
    assert offset_of(tmp_path) == [-1000, "processing baseline 05.10"]
    scaled(s2(tmp_path / "in/s2/a.tif", baseline=""), 1e-4, 0.0)
    with pytest.raises(InputError, match="nothing says its processing baseline"):
        offset_of(tmp_path)
    scaled(s2(tmp_path / "in/s2/a.tif", baseline=""), 1e-4, -0.1)
    assert offset_of(tmp_path) == [-1000, "the file's own offset"]
    scaled(s2(tmp_path / "in/s2/a.tif", baseline="03.01"), 1e-4, -0.1)
    with pytest.raises(InputError, match="say an offset of -1000, processing baseline 03.01 says 0"):
        offset_of(tmp_path)


def test_bands_that_state_different_offsets_are_refused(tmp_path):
    name = "S2A_MSIL2A_20210710T101031_N0500_R022_T33UUP_20210710T121608"
    for band, offset in (("B02", -0.1), ("B03", 0.0)):
        data = values(1, 32, 32).astype(np.uint16)
        scaled(write(tmp_path / f"in/{name}/{name}_{band}.tif", data), 1e-4, offset)
    with pytest.raises(InputError, match="state different offsets"):
        offset_of(tmp_path)


def test_the_scene_classification_hides_no_reflectance_of_0_to_1(tmp_path):
    name = "S2A_MSIL2A_20210710T101031_N0500_R022_T33UUP_20210710T121608"
    write(tmp_path / f"in/{name}/{name}_B02.tif", values(1, 32, 32).astype(np.float32) / 10000)
    write(tmp_path / f"in/{name}/{name}_SCL.tif", np.full((1, 32, 32), 11, np.uint8))
    with pytest.raises(InputError, match="look like reflectance"):
        offset_of(tmp_path)


def test_scaled_radar_is_refused(tmp_path):
    scaled(s1(tmp_path / "in/s1/a.tif"), 0.5, -30.0)
    with pytest.raises(InputError, match="scale of 0.5 and an offset of -30"):
        offset_of(tmp_path)


def test_bare_numbers_are_no_bands(tmp_path):
    assert [band_name(t) for t in ("1", "08", "B8", "8a")] == [None, None, "B08", "B8A"]
    s2(tmp_path / "in/s2/a.tif", bands=("1", "2", "3"))
    with pytest.raises(InputError, match="have no names that tell which they are"):
        offset_of(tmp_path)


def test_an_offset_without_a_scale_has_no_unit(tmp_path):
    folder = tmp_path / "in"
    put(folder, item(assets=singles(folder, **{"raster:bands": [{"offset": -1000}]})))
    with pytest.raises(InputError, match="an offset without a scale"):
        offset_of(tmp_path)


def test_a_file_that_states_the_offset_denies_that_it_was_applied(tmp_path):
    folder = tmp_path / "in"
    put(folder, item(assets=singles(folder), earthsearch__boa_offset_applied=True))
    assert offset_of(tmp_path)[0] == 0
    for name in ("B04", "B08"):
        scaled(folder / f"{name}.tif", 1e-4, -0.1)
    with pytest.raises(InputError, match="states an offset of -1000, its STAC item"):
        offset_of(tmp_path)


def test_the_red_edge_by_its_number_is_no_dropped_band(tmp_path):
    folder = tmp_path / "in"
    assets = singles(folder)
    write(folder / "edge.tif", values(1, 64, 64).astype(np.uint16))
    assets["rededge1"] = {"href": "edge.tif", "eo:bands": [{"name": "rededge1", "common_name": "rededge"}]}
    put(folder, item(assets=assets))
    report = import_rasters(folder, tmp_path / "out", single=True)
    assert pd.read_parquet(report.manifest)["s2_B05"].iloc[0].endswith("edge.tif")


def test_times_are_utc():
    assert moment("2021-07-10T12:00:00+02:00") == "2021-07-10T10:00:00"
    assert moment("2021-07-10T12:00:00Z") == "2021-07-10T12:00:00"
