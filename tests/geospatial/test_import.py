"""`data import rasters`: what is taken, what is refused in one sentence, and what is never guessed."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rasterio.transform import Affine

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.geospatial.bands import BANDS, S2_12, S2_13
from counterpoint.geospatial.commands import import_rasters
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.form import physical
from counterpoint.geospatial.data.grid import Window
from counterpoint.geospatial.data.layers import read_sensor
from counterpoint.geospatial.data.product import product_of

sys.path.insert(0, str(Path(__file__).parent))
from raster_files import LEFT, TOP, s1, s2, values, write


def table(report):
    return pd.read_parquet(report.manifest).set_index("id")


def reasons(report):
    return {Path(r.source).name: r.reason for r in reversed(report.rejected)}


def pair(folder, name="a", **more):
    s1(folder / "s1" / f"{name}.tif", **more)
    s2(folder / "s2" / f"{name}.tif", **more)


def test_bands_have_the_missions_wavelengths_and_orders():
    assert len(S2_12) == 12
    assert [*S2_13] == sorted(S2_13, key=lambda n: BANDS[n].wavelength)
    assert [n for n in S2_12 if BANDS[n].metres == 10] == ["B02", "B03", "B04", "B08"]
    assert [n for n in S2_13 if BANDS[n].metres == 60] == ["B01", "B09", "B10"]


def test_a_pair_becomes_a_row(tmp_path):
    pair(tmp_path / "in")
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    row = table(report).iloc[0]
    assert report.rejected == ()
    assert (row.s1_bands, row.s2_bands) == ("VV VH", "B02 B03 B04 B08")
    assert (row.s1_unit, row.s1_calibration, row.s2_offset, row.s2_baseline) == ("db", "sigma0", 0, "0301")
    assert (row.crs, row.left, row.top, row.side, row.height) == ("EPSG:32633", LEFT, TOP, 10.0, 64)
    assert row.days == pytest.approx(5 / 24)
    assert row.season == "summer"
    assert row.west < row.lon < row.east


DAMAGED = {
    "cut short": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 3]), "cannot be|damaged or cut short"),
    "no raster": (lambda p: p.write_bytes(b"not a tiff at all"), "cannot be opened as a GeoTIFF"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be opened as a GeoTIFF"),
    "no CRS": (lambda p: write(p, values(4, 64, 64).astype(np.uint16), crs=None), "no coordinate reference system"),
    "rotated": (
        lambda p: write(p, values(4, 64, 64).astype(np.uint16), transform=Affine(10, 1, LEFT, 1, -10, TOP)),
        "rotated or sheared",
    ),
    "not square": (
        lambda p: write(p, values(4, 64, 64).astype(np.uint16), transform=Affine(10, 0, LEFT, 0, -20, TOP)),
        r"not square \(10 by 20\)",
    ),
    "mirrored": (
        lambda p: write(p, values(4, 64, 64).astype(np.uint16), transform=Affine(10, 0, LEFT, 0, 10, TOP)),
        "mirrored",
    ),
    "all nodata": (
        lambda p: write(p, np.zeros((4, 64, 64), np.uint16), nodata=0, names=("B02", "B03", "B04", "B08")),
        "not one valid pixel",
    ),
    "degrees": (
        lambda p: write(p, values(4, 64, 64).astype(np.uint16), crs="EPSG:4326", left=15, top=45, side=1e-4),
        "measured in degrees",
    ),
    "complex": (lambda p: write(p, values(4, 64, 64).astype(np.complex64)), "complex64"),
    "a VRT by another name": (
        lambda p: p.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>'),
        "cannot be opened as a GeoTIFF",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_bad_file_costs_itself_and_one_sentence(tmp_path, kind):
    pair(tmp_path / "in")
    bad = s2(tmp_path / "in" / "s2" / "bad.tif", left=LEFT + 5000)
    damage, words = DAMAGED[kind]
    damage(bad)
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    assert report.rows == 1
    said = reasons(report)["bad.tif"]
    assert pd.Series([said]).str.contains(words).all(), said
    assert "\n" not in said
    assert "reader failed" not in said


def test_a_sentinel_2_file_without_a_baseline_is_refused_and_told_how(tmp_path):
    s1(tmp_path / "in/s1/a.tif")
    s2(tmp_path / "in/s2/a.tif", baseline="")
    said = reasons(import_rasters(tmp_path / "in", tmp_path / "out"))["a.tif"]
    assert "--s2_offset" in said
    assert table(import_rasters(tmp_path / "in", tmp_path / "o2", s2_offset="-1000")).s2_offset.tolist() == [-1000]
    (tmp_path / "o.csv").write_text("name,offset\na,0\n")
    row = table(import_rasters(tmp_path / "in", tmp_path / "o3", s2_offset=str(tmp_path / "o.csv"))).iloc[0]
    assert (row.s2_offset, row.s2_offset_source) == (0, "--s2_offset")
    with pytest.raises(InputError, match="1000"):
        import_rasters(tmp_path / "in", tmp_path / "o4", s2_offset="1000")


@pytest.mark.parametrize(
    ("name", "baseline", "offset"),
    [
        ("S2B_MSIL2A_20210301T101031_N0500_R022_T33UUP_20230301T101608.SAFE", "0500", -1000),  # reprocessed: old date
        ("S2A_MSIL1C_20220301T101031_N0301_R022_T33UUP_20220301T101608.SAFE", "0301", 0),
        ("S2A_MSIL2A_20220125T101031_N0400_R022_T33UUP_20220301T101608.SAFE", "0400", -1000),
        ("S2A_MSIL2A_20220125T101031_87_48", "", None),
    ],
)
def test_the_baseline_tells_the_offset_and_the_date_does_not(name, baseline, offset):
    found = product_of(Path("/data", name, "B02.jp2"))
    assert (found.baseline, found.offset) == (baseline, offset)


def test_metadata_of_the_product_tell_the_offset(tmp_path):
    folder = tmp_path / "in" / "P.SAFE"
    for band, side in (("B02", 10.0), ("B8A", 20.0), ("B01", 60.0)):
        n = int(480 / side)
        file = (
            folder / "GRANULE" / "x" / "IMG_DATA" / f"R{int(side)}m" / f"T33UUP_20220301T101031_{band}_{int(side)}m.tif"
        )
        write(file, values(1, n, n).astype(np.uint16), side=side)
    write(file.parent / "T33UUP_20220301T101031_B02_60m.tif", values(1, 8, 8).astype(np.uint16), side=60.0)
    (folder / "MTD_MSIL2A.xml").write_text(
        "<a><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE><BOA_ADD_OFFSET band_id='0'>-1000</BOA_ADD_OFFSET></a>"
    )
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    row = table(report).iloc[0]
    assert (row.s2_offset, row.s2_baseline, row.s2_time, row.side) == (-1000, "0509", "2022-03-01T10:10:31", 10.0)
    assert row.s2_B02.endswith("B02_10m.tif")  # the finest of those that repeat a band
    assert {"s2_B8A", "s2_B01"} <= set(row.index)
    (folder / "MTD_MSIL2A.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")
    said = [*reasons(import_rasters(tmp_path / "in", tmp_path / "o2")).values()]
    assert any("declares entities" in text for text in said)


def test_which_products_carry_the_offset_is_told_and_doubt_is_voiced(tmp_path):
    for i, baseline in enumerate(("04.00", "03.01", "03.01")):
        data = values(4, 64, 64, i, low=1100 if i != 1 else 200).astype(np.uint16)
        tags = {"PROCESSING_BASELINE": baseline, "datetime": "2022-05-01T10:00:00"}
        write(tmp_path / f"in/s2/p{i}.tif", data, left=LEFT + 2000 * i, names=("B02", "B03", "B04", "B08"), tags=tags)
    said = import_rasters(tmp_path / "in", tmp_path / "out").note
    assert "1 of 3 Sentinel-2 products carry an offset" in said
    assert "s2-p0" in said.splitlines()[0]
    assert "s2-p2: no value below 1000" in said
    assert "s2-p1: no value" not in said


def test_bands_without_names_are_refused_until_they_are_named(tmp_path):
    write(tmp_path / "in/s2/a.tif", values(3, 64, 64).astype(np.uint16), tags={"PROCESSING_BASELINE": "03.01"})
    assert "--s2_bands" in reasons(import_rasters(tmp_path / "in", tmp_path / "out"))["a.tif"]
    report = import_rasters(tmp_path / "in", tmp_path / "out", s2_bands="B4,B3,B2")
    assert table(report).s2_bands.tolist() == ["B04 B03 B02"]
    assert "names 2" in reasons(import_rasters(tmp_path / "in", tmp_path / "o2", s2_bands="B4,B3"))["a.tif"]
    with pytest.raises(InputError, match="band 'red'"):
        import_rasters(tmp_path / "in", tmp_path / "o3", s2_bands="red")


def test_radar_without_a_sign_of_its_unit_is_refused(tmp_path):
    power = np.random.default_rng(0).gamma(4, 0.02, (2, 64, 64)).astype(np.float32)
    write(tmp_path / "in/s1/a.tif", power, names=("VV", "VH"))
    assert "--s1_unit" in reasons(import_rasters(tmp_path / "in", tmp_path / "out"))["a.tif"]
    report = import_rasters(tmp_path / "in", tmp_path / "o2", s1_unit="linear", s1_calibration="gamma0")
    assert table(report)[["s1_unit", "s1_calibration"]].values.tolist() == [["linear", "gamma0"]]
    s1(tmp_path / "i2/s1/b.tif")
    assert (
        "power is never below 0" in reasons(import_rasters(tmp_path / "i2", tmp_path / "o3", s1_unit="linear"))["b.tif"]
    )


def test_pairs_by_footprint_and_time_with_every_drop_listed(tmp_path):
    folder = tmp_path / "in"
    pair(folder, "near")
    s2(folder / "s2/late.tif", left=LEFT + 3000)
    s1(folder / "s1/late.tif", left=LEFT + 3000, when="2021-08-30T05:00:00")
    s2(folder / "s2/alone.tif", left=LEFT + 6000)
    s2(folder / "s2/timeless.tif", left=LEFT + 9000, when="")
    s1(folder / "s1/timeless.tif", left=LEFT + 9000)
    report = import_rasters(folder, tmp_path / "out")
    assert [*table(report).index] == ["s2-near"]
    said = [r.reason for r in report.rejected]
    assert any("51.2 days apart" in text for text in said) or any("50.8 days apart" in text for text in said), said
    assert any("no radar picture covers" in text for text in said)
    assert any("its own time is nowhere said" in text for text in said)
    assert len(said) == 5  # three optical ones and the two radar ones that nobody chose
    assert len(table(import_rasters(folder, tmp_path / "o2", days=None))) == 3
    assert len(table(import_rasters(folder, tmp_path / "o3", days=None, single=True))) == 4


def test_the_nearest_radar_picture_in_time_is_chosen(tmp_path):
    s2(tmp_path / "in/s2/a.tif")
    s1(tmp_path / "in/s1/far.tif", when="2021-07-02T05:00:00")
    s1(tmp_path / "in/s1/near.tif", when="2021-07-11T05:00:00")
    row = table(import_rasters(tmp_path / "in", tmp_path / "out")).iloc[0]
    assert row.s1.endswith("near.tif")


@pytest.mark.parametrize("shift", [4.0, 0.6])
def test_grids_a_part_of_a_pixel_apart_are_no_pair(tmp_path, shift):
    s2(tmp_path / "in/s2/a.tif")
    s1(tmp_path / "in/s1/a.tif", left=LEFT + shift)
    said = reasons(import_rasters(tmp_path / "in", tmp_path / "out"))["a.tif"]
    assert f"{shift / 10:.2f} of a pixel" in said or "no optical picture" in said
    assert any(
        f"{shift / 10:.2f} of a pixel" in r.reason for r in import_rasters(tmp_path / "in", tmp_path / "o1").rejected
    )
    assert len(table(import_rasters(tmp_path / "in", tmp_path / "o2", align="nearest"))) == 1


def test_whole_pixels_apart_the_common_ground_is_the_row(tmp_path):
    s2(tmp_path / "in/s2/a.tif")
    s1(tmp_path / "in/s1/a.tif", left=LEFT + 100, top=TOP - 50)
    row = table(import_rasters(tmp_path / "in", tmp_path / "out")).iloc[0]
    assert (row.left, row.top, row.height, row.width) == (LEFT + 100, TOP - 50, 59, 54)


def test_pictures_of_one_ground_are_one_place_whatever_their_time(tmp_path):
    for month in ("01", "07"):
        s1(tmp_path / f"in/s1/a{month}.tif", when=f"2021-{month}-10T05:00:00")
        s2(tmp_path / f"in/s2/a{month}.tif", when=f"2021-{month}-10T10:00:00")
    pair(tmp_path / "in", "b", left=LEFT + 640)  # touches, does not overlap
    found = table(import_rasters(tmp_path / "in", tmp_path / "out"))
    assert found.group["s2-a01"] == found.group["s2-a07"] != found.group["s2-b"]
    assert found.season["s2-a01"] == "winter"


def test_large_rasters_become_rows_of_squares_that_are_the_same_at_every_time(tmp_path):
    for month in ("01", "07"):
        more = {"side": 100, "when": f"2021-{month}-10T10:00:00", "left": LEFT + 130, "top": TOP - 70}
        s2(tmp_path / f"in/s2/a{month}.tif", **more)
    found = table(import_rasters(tmp_path / "in", tmp_path / "out", block=400.0))
    assert (found.height * found.width).sum() == 2 * 100 * 100
    assert set(found.group.value_counts()) == {2}
    inner = found[(found.height == 40) & (found.width == 40)]
    assert len(inner) > 0
    assert (inner.left % 400 == 0).all()
    assert (inner.top % 400 == 0).all()


def test_patterns_choose_and_what_matches_none_is_counted(tmp_path):
    pair(tmp_path / "in")
    write(tmp_path / "in/dem/a.tif", values(1, 64, 64).astype(np.int16))
    report = import_rasters(tmp_path / "in", tmp_path / "out", s1="s1/*", s2="s2/*")
    assert report.rows == 1
    assert "1 further rasters match no pattern" in report.note
    with pytest.raises(InputError, match="--s2 'nothing/\\*' matches no raster"):
        import_rasters(tmp_path / "in", tmp_path / "o2", s2="nothing/*")
    assert "nothing in its name says" in reasons(import_rasters(tmp_path / "in", tmp_path / "o3"))["a.tif"]


def test_bands_of_one_product_on_other_ground_are_refused(tmp_path):
    tags = {"PROCESSING_BASELINE": "03.01"}
    write(tmp_path / "in/p_B02.tif", values(1, 60, 60).astype(np.uint16), tags=tags)
    write(tmp_path / "in/p_B11.tif", values(1, 30, 30).astype(np.uint16), side=20.0, left=LEFT + 400, tags=tags)
    assert "does not cover the same ground" in next(
        iter(reasons(import_rasters(tmp_path / "in", tmp_path / "out")).values())
    )


@pytest.mark.realdata
def test_real_bigearthnet_folders_pair_by_place_and_time(data_dir, tmp_path):
    report = import_rasters(data_dir / "geospatial" / "bigearthnet", tmp_path)
    found = table(report)
    assert (report.rows, report.rejected) == (6, ())
    assert set(found.s2_offset) == {0}
    assert found.days.max() < 1
    for name, row in found.iterrows():  # the publisher's own pairs
        folder = data_dir / "geospatial" / "bigearthnet" / "BigEarthNet-S1-Example" / Path(row.s1_VV).parent.name
        side = next(folder.glob("*.json"))
        assert json.loads(side.read_text())["corresponding_s2_patch"] == name
    assert found.filter(like="label_").sum().sum() == 17
    assert found.season["S2A_MSIL2A_20171221T112501_56_35"] == "winter"


@pytest.mark.realdata
def test_real_terramesh_needs_what_its_files_do_not_say(data_dir, tmp_path):
    source, patterns = data_dir / "geospatial" / "terramesh", {"s1": "examples/S1RTC/*", "s2": "examples/S2L2A/*"}
    assert import_rasters(source, tmp_path / "a", **patterns).rows == 0
    told = {"s1_bands": "VV,VH", "s2_bands": "L2A", "s2_offset": "0"}
    assert import_rasters(source, tmp_path / "b", **patterns, **told).rows == 0  # no time in the optical files
    report = import_rasters(source, tmp_path / "c", **patterns, **told, landcover="examples/LULC/*", days=None)
    assert report.rows == 3
    assert sorted(table(report).crs) == ["EPSG:32616", "EPSG:32718", "EPSG:32722"]


def test_a_crs_that_leads_nowhere_is_one_sentence(tmp_path):
    """A local engineering system has no latitude: GDAL's own error, put into words."""
    local = 'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    tags = {"PROCESSING_BASELINE": "03.01"}
    write(tmp_path / "in/s2/a.tif", values(1, 32, 32).astype(np.uint16), crs=local, names=("B02",), tags=tags)
    said = reasons(import_rasters(tmp_path / "in", tmp_path / "out"))["a.tif"]
    assert "its CRS cannot be used" in said
    assert "reader failed" not in said


def test_a_number_that_contradicts_the_file_is_refused_and_a_list_by_name_is_not(tmp_path):
    s1(tmp_path / "in/s1/a.tif")
    s2(tmp_path / "in/s2/a.tif", baseline="04.00")
    said = reasons(import_rasters(tmp_path / "in", tmp_path / "out", s2_offset="0"))["a.tif"]
    assert "an offset of -1000, --s2_offset says 0" in said
    (tmp_path / "o.csv").write_text("name,offset\na,0\n", encoding="utf-8")
    report = import_rasters(tmp_path / "in", tmp_path / "o2", s2_offset=str(tmp_path / "o.csv"))
    assert table(report).s2_offset.tolist() == [0]


def test_power_that_is_called_decibel_is_refused(tmp_path):
    power = np.random.default_rng(0).uniform(0.01, 0.3, (2, 64, 64)).astype(np.float32)
    write(tmp_path / "in/s1/a.tif", power, names=("VV", "VH"))
    said = reasons(import_rasters(tmp_path / "in", tmp_path / "out", s1_unit="db"))["a.tif"]
    assert "none below 0" in said


def test_a_partner_of_what_was_refused_does_not_stand_alone_unless_wanted(tmp_path):
    s1(tmp_path / "in/s1/a.tif")
    s2(tmp_path / "in/s2/b.tif", baseline="")
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    assert report.rows == 0
    assert "would stand alone (--single keeps it)" in reasons(report)["a.tif"]
    assert import_rasters(tmp_path / "in", tmp_path / "o2", single=True).rows == 1


def decibels(kind, run=False):
    """Radar in decibel that states no nodata value, with a filled border of zeros or one lonely zero."""
    data = (-12 + 4 * np.random.default_rng(0).standard_normal((2, 64, 64))).astype(np.float32)
    data = {"full": data, "hundredths": data.round(2), "whole": np.rint(data).astype(np.int16)}[kind]
    data[data == 0] = -1
    if run:
        data[:, :, :20] = 0
    data[0, 40, 40] = 0
    return data


@pytest.mark.parametrize(
    ("kind", "run", "meaning"),
    [
        ("full", True, "nodata"),
        ("full", False, "nodata"),
        ("hundredths", True, "nodata"),
        ("hundredths", False, "value"),
        ("whole", True, "nodata"),
        ("whole", False, "value"),
    ],
)
def test_exact_zeros_in_decibel_are_no_data_unless_they_can_be_measurements(tmp_path, kind, run, meaning):
    data = decibels(kind, run)
    write(tmp_path / "in/s1/a.tif", data, names=("VV", "VH"), tags={"CALIBRATION": "sigma0"})
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    row = Manifest.load(report.manifest).row(0)
    assert row["s1_zero"] == meaning
    window = Window(0, 0, 64, 64)
    raw = read_sensor(row, tmp_path / "out", "s1", ("VV", "VH"), window)
    measured, valid = physical("s1", *raw, row)
    assert raw[1].all()  # the file itself says nothing
    assert np.array_equal(valid, (data != 0).all(0) if meaning == "nodata" else np.ones((64, 64), bool))
    assert (measured[:, valid] == data[:, valid]).all()
    share = float((data == 0).any(0).mean())
    assert f"exact zeros (s1-a: {share:.2%} of its pixels); there 0 is" in report.note
    other = "value" if meaning == "nodata" else "nodata"
    told = import_rasters(tmp_path / "in", tmp_path / "o2", s1_zero=other)
    assert Manifest.load(told.manifest).row(0)["s1_zero"] == other


def test_a_chip_of_filled_zeros_is_left_out(tmp_path):
    data = decibels("full")
    data[:, :, :32] = 0
    write(tmp_path / "in/s1/a.tif", data, names=("VV", "VH"), tags={"CALIBRATION": "sigma0"})
    table = Manifest.load(import_rasters(tmp_path / "in", tmp_path / "out").manifest)
    chips = Chips(table, ChipCut({"s1": ("VV", "VH")}, 32, 32))
    assert chips.places[:, 2].tolist() == [32, 32]


def test_radar_of_nothing_but_zeros_is_refused(tmp_path):
    write(tmp_path / "in/s1/a.tif", np.zeros((2, 64, 64), np.float32), names=("VV", "VH"))
    for unit in ("", "db", "linear"):
        said = reasons(import_rasters(tmp_path / "in", tmp_path / f"out{unit}", s1_unit=unit))["a.tif"]
        assert said.startswith("every value of it is 0")


def test_a_float_pixel_that_is_zero_in_every_optical_band_is_no_data():
    values = np.full((2, 2, 2), 300.0, np.float32)
    values[:, 0, 0] = 0
    values[0, 1, 1] = 0
    valid = physical("s2", values, np.ones((2, 2), bool), {"s2_offset": -1000})[1]
    assert valid.tolist() == [[False, True], [True, True]]
