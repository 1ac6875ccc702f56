"""STAC items as a source of rasters: what they say is taken, what their files deny is refused, nothing is fetched."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.errors import InputError
from counterpoint.geospatial.commands import import_rasters

sys.path.insert(0, str(Path(__file__).parent))
from raster_files import LEFT, TOP, values, write


def file_of(path, bands=1, seed=0, **more):
    return write(path, values(bands, 64, 64, seed).astype(np.uint16), **more)


def item(name="one", assets=None, stac="1.0.0", **properties):
    said = {"datetime": "2021-07-10T10:00:31.024000Z", "platform": "sentinel-2a", "proj:epsg": 32633}
    said |= {"s2:processing_baseline": "05.00"} | {k.replace("__", ":"): v for k, v in properties.items()}
    return {"type": "Feature", "stac_version": stac, "id": name, "properties": said, "assets": assets or {},
            "collection": "sentinel-2-l2a", "bbox": [15, 45, 15.1, 45.1]}  # fmt: skip


def singles(folder, **more):
    """Assets of one band each, as catalogues of COGs write them, beside what is made for looking at."""
    file_of(folder / "B04.tif", seed=1)
    file_of(folder / "B08.tif", seed=2)
    red = {"href": "./B04.tif", "eo:bands": [{"name": "red", "common_name": "red"}], "proj:shape": [64, 64]}
    red["proj:transform"] = [10.0, 0.0, LEFT, 0.0, -10.0, TOP, 0, 0, 1]
    nir = {"href": str(folder / "B08.tif"), "eo:bands": [{"name": "nir", "common_name": "nir"}]}
    looking = {"href": "https://x.org/v.tif", "roles": ["visual"], "eo:bands": [{"name": "B04"}]}
    return {"red": red | more, "nir": nir | more, "visual": looking}


def put(folder, found, file="item.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(found if isinstance(found, str) else json.dumps(found))
    return folder / file


def one(report):
    return pd.read_parquet(report.manifest).set_index("id").loc["one"]


def test_an_item_becomes_a_row_by_what_it_says(tmp_path):
    folder = tmp_path / "in"
    path = put(folder, item(assets=singles(folder)))
    for n, source in enumerate((folder, path)):
        report = import_rasters(source, tmp_path / f"out{n}")
        assert report.rejected == ()
        row = one(report)
        assert (row.s2_time, row.s2_baseline, row.s2_offset) == ("2021-07-10T10:00:31", "0500", -1000)
        assert row.s2_offset_source == "the item's processing baseline 05.00"
        assert (Path(row.s2_B04).name, Path(row.s2_B08).name) == ("B04.tif", "B08.tif")
    file_of(folder / "spare.tif")
    assert "1 further rasters are named by no STAC item" in import_rasters(folder, tmp_path / "o3").note


@pytest.mark.parametrize("words", ["raster:bands", "bands"])
def test_a_stacked_asset_of_either_version_keeps_the_items_order(tmp_path, words):
    file_of(tmp_path / "in/a.tif", 2)
    names, numbers = [{"name": "B8A"}, {"name": "B02"}], {"scale": 1e-4, "offset": -0.1}
    if words == "bands":
        asset = {"bands": [n | {f"raster:{k}": v for k, v in numbers.items()} for n in names]}
    else:
        asset = {"eo:bands": names, "raster:bands": [numbers] * 2}
    properties = item(assets={"data": {"href": "a.tif", **asset}}, stac="1.1.0")
    del properties["properties"]["s2:processing_baseline"]
    put(tmp_path / "in", properties)
    row = one(import_rasters(tmp_path / "in", tmp_path / "out"))
    assert (row.s2_bands, row.s2_offset, row.s2_offset_source) == ("B8A B02", -1000, "the item's raster:bands")


def test_an_offset_that_was_applied_already_is_not_applied_again(tmp_path):
    put(tmp_path / "in", item(assets=singles(tmp_path / "in"), earthsearch__boa_offset_applied=True))
    assert one(import_rasters(tmp_path / "in", tmp_path / "out")).s2_offset == 0


def test_radar_and_optical_items_make_a_pair(tmp_path):
    folder = tmp_path / "in"
    put(folder, item(assets=singles(folder)))
    radar = (-12 + np.random.default_rng(0).standard_normal((1, 64, 64))).astype(np.float32)
    write(folder / "vv.tif", radar)
    write(folder / "vh.tif", radar - 6)
    assets = {"vv": {"href": "vv.tif"}, "vh": {"href": "file://" + str(folder / "vh.tif")}}
    said = item("radar", assets, platform="sentinel-1a", sat__orbit_state="descending")
    put(folder, {"type": "FeatureCollection", "features": [said]}, "more.json")
    row = one(import_rasters(folder, tmp_path / "out"))
    assert (row.s1_orbit, row.s1_unit, row.days) == ("descending", "db", 0)


def wrong(**more):
    return lambda folder: item(assets=singles(folder), **more)


DAMAGED = {
    "no JSON": (lambda f: '{"stac_version": "1.0.0", ', "is no JSON"),
    "no datetime": (wrong(datetime=None), "has no datetime"),
    "a datetime that is none": (wrong(datetime="soon"), "has no datetime"),
    "another mission": (wrong(platform="landsat-8"), "landsat-8; Sentinel-1 and Sentinel-2 are taken"),
    "no assets": (lambda f: {**item(), "assets": None}, "lacks id, properties or assets"),
    "a missing file": (
        lambda f: item(assets={"B04": {"href": "gone.tif"}}), "asset B04: gone.tif no such file; copy it there"
    ),
    "all remote": (lambda f: item(assets={"B04": {"href": "https://x.org/B04.tif"}}), r"\(B04\) are not local"),
    "no bands": (lambda f: item(assets={"data": {"href": "a.tif"}}), "no asset whose bands are named"),
    "another CRS": (wrong(proj__epsg=32634), "lies in EPSG:32633, its STAC item says EPSG:32634"),
    "another shape": (lambda f: item(assets=singles(f, **{"proj:shape": [5, 5]})), "64 x 64 pixels"),
    "another place": (
        lambda f: item(assets=singles(f, **{"proj:transform": [10, 0, LEFT + 90, 0, -10, TOP]})), "lies elsewhere"
    ),
    "two offsets": (
        lambda f: item(assets=singles(f, **{"raster:bands": [{"scale": 1e-4, "offset": 0}]})),
        "raster:bands state an offset of 0, the item's processing baseline 05.00 one of -1000",
    ),
    "another scale": (lambda f: item(assets=singles(f, **{"raster:bands": [{"scale": 2e-4}]})), "scale is 0.0002"),
    "a band twice": (
        lambda f: item(assets={**singles(f), "red-2": {"href": "B04.tif", "eo:bands": [{"name": "B04"}]}}),
        "band B04 in two local assets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_item_costs_itself_and_one_sentence(tmp_path, kind):
    make, words = DAMAGED[kind]
    folder = tmp_path / "in"
    good = item(assets=singles(folder / "good"))
    put(folder / "good", good)
    put(folder / "bad", make(folder / "bad"))
    report = import_rasters(folder, tmp_path / "out")
    assert report.rows == 1
    (said,) = [r.reason for r in report.rejected]
    assert pd.Series([said]).str.contains(words).all(), said
    assert "\n" not in said


def test_the_rasters_of_a_refused_item_are_not_taken_by_their_names(tmp_path):
    folder = tmp_path / "in"
    put(folder, item(assets=singles(folder), datetime=None))
    report = import_rasters(folder, tmp_path / "out", s2_offset="0")
    assert report.rows == 0
    with pytest.raises(InputError, match="leave --s1"):
        import_rasters(folder, tmp_path / "out", s2="*.tif")


def test_assets_elsewhere_are_named_and_nothing_is_fetched(tmp_path):
    assets = singles(tmp_path / "in") | {"blue": {"href": "s3://b/B02.tif", "eo:bands": [{"name": "B02"}]}}
    put(tmp_path / "in", item(assets=assets))
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    assert report.rows == 1
    assert "assets blue are not local" in report.note
