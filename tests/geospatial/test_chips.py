"""Chips: what is read lies where it should, masks are masks, types last until the batch, statistics are fixed."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.warp import Resampling, calculate_default_transform, reproject

from counterpoint.common.data import Manifest
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import override
from counterpoint.geospatial.base import RasterSystem, with_splits
from counterpoint.geospatial.commands import import_rasters
from counterpoint.geospatial.configs import CromaConfig
from counterpoint.geospatial.data import raster
from counterpoint.geospatial.data.checking import check_row
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.form import Moments, physical
from counterpoint.geospatial.data.grid import Grid, Window, distance_km
from counterpoint.geospatial.data.layers import KeptPaths, read_sensor, row_grid
from counterpoint.geospatial.data.raster import read_window
from counterpoint.geospatial.data.splits import split_places
from counterpoint.geospatial.scene_files import write_scenery

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import form
from raster_files import LEFT, TOP, s1, s2, values, write

S2 = {"s2": ("B02", "B03", "B04", "B08")}


def manifest_of(folder, out, **options):
    return Manifest.load(import_rasters(folder, out, **options).manifest)


@pytest.fixture
def bands(tmp_path):
    """Ten-, twenty- and sixty-metre bands on one ground."""
    tags = {"PROCESSING_BASELINE": "03.01", "datetime": "2021-07-10T10:00:00"}
    data = {}
    for name, side in (("B02", 10.0), ("B11", 20.0), ("B01", 60.0)):
        n = int(600 / side)
        data[name] = values(1, n, n, seed=n).astype(np.uint16)
        write(tmp_path / f"in/p_{name}.tif", data[name], side=side, tags=tags)
    return manifest_of(tmp_path / "in", tmp_path / "out"), data


@pytest.mark.parametrize("window", [Window(0, 0, 12, 12), Window(7, 13, 10, 9), Window(41, 5, 19, 55)])
def test_coarse_bands_repeat_the_pixel_that_each_centre_falls_into(bands, window):
    table, data = bands
    found, valid = read_sensor(table.row(0), table.folder, "s2", ("B11", "B01", "B02"), window)
    assert found.dtype == np.uint16
    assert valid.all()
    r, c = np.mgrid[window.row : window.row + window.height, window.col : window.col + window.width]
    for i, (name, factor) in enumerate((("B11", 2), ("B01", 6), ("B02", 1))):
        assert np.array_equal(found[i], data[name][0][r // factor, c // factor]), name


def test_bands_come_by_name_whatever_their_place_in_the_file(tmp_path):
    data = values(4, 64, 64).astype(np.uint16)
    tags = {"PROCESSING_BASELINE": "03.01"}
    write(tmp_path / "in/s2/a.tif", data, names=("B08", "B02", "B04", "B03"), tags=tags)
    table = manifest_of(tmp_path / "in", tmp_path / "out")
    found, _ = read_sensor(table.row(0), table.folder, "s2", ("B02", "B08"), Window(0, 0, 64, 64))
    assert np.array_equal(found, data[[1, 0]])
    with pytest.raises(InputError, match=r"row 1 .*has no band B11 of s2 \(it has B08, B02, B04, B03\)"):
        Chips(table, ChipCut({"s2": ("B02", "B11")}, 32, 32))


def test_nodata_nan_masks_and_the_outside_are_masks_and_never_values(tmp_path):
    data = values(1, 20, 20).astype(np.float32)
    data[0, 0, :5] = -9999
    data[0, 1, :5] = np.nan
    path = write(tmp_path / "a.tif", data, nodata=-9999.0)
    grid = Grid("EPSG:32633", LEFT, TOP, 10.0, 20, 20)
    _, valid = read_window(path, [1], grid, grid, Window(0, 0, 20, 20))
    assert not valid[0, :2, :5].any()
    assert valid[0, 2:].all()
    # Beyond the file: a window of a larger grid.
    wide = Grid("EPSG:32633", LEFT - 50, TOP + 50, 10.0, 40, 40)
    found, valid = read_window(path, [1], grid, wide, Window(0, 0, 40, 40))
    assert valid.sum() == 400 - 10
    assert np.array_equal(found[0, 7:25, 5:25], data[0, 2:])
    away, valid = read_window(path, [1], grid, wide, Window(30, 30, 5, 5))
    assert not valid.any()
    assert away.shape == (1, 5, 5)
    with rasterio.open(path, "r+") as target:
        target.nodata = None
        mask = np.full((20, 20), 255, np.uint8)
        mask[5] = 0
        target.write_mask(mask)
    raster.close_handles()
    _, valid = read_window(path, [1], grid, grid, Window(0, 0, 20, 20))
    assert not valid[0, 5].any()


def test_whole_nodata_numbers_are_compared_in_the_files_type(tmp_path):
    grid = Grid("EPSG:32633", LEFT, TOP, 10.0, 20, 20)
    for number, (kind, nodata) in enumerate((("uint16", 0), ("int16", -9999), ("uint8", 255))):
        data = values(1, 20, 20).clip(1, 200).astype(kind)
        data[0, 4, :7] = nodata
        path = write(tmp_path / f"{number}.tif", data, nodata=nodata)
        for _ in range(2):  # of a file that is open the second time
            found, valid = read_window(path, [1, 1], grid, grid, Window(0, 0, 20, 20))
            assert found.dtype == kind
            assert np.array_equal(valid, found != nodata)
            assert (~valid).sum() == 14


def test_a_file_is_looked_for_once_and_a_name_that_leads_outside_is_refused_every_time(tmp_path):
    class Counting:
        asked = 0

        def __truediv__(self, name):
            self.asked += 1
            return Folder(tmp_path) / name

    folder = Counting()
    paths = KeptPaths(folder)
    assert paths / "a.tif" == paths / "a.tif" == tmp_path / "a.tif"
    assert folder.asked == 1
    for _ in range(2):
        with pytest.raises(InputError, match="leads out"):
            paths / "../a.tif"


def test_another_crs_is_warped_onto_the_grid_and_the_same_is_not(tmp_path, monkeypatch):
    north = np.linspace(0, 1000, 80)[None, :, None] + np.linspace(0, 100, 80)[None, None] + np.zeros((1, 80, 80))
    path = write(tmp_path / "a.tif", north.astype(np.float32), nodata=-1.0)
    grid = Grid("EPSG:32633", LEFT, TOP, 10.0, 80, 80)
    with rasterio.open(path) as source:
        transform, width, height = calculate_default_transform(
            source.crs, "EPSG:32632", 80, 80, *source.bounds, resolution=10
        )
        other = np.full((1, height, width), -1, np.float32)
        reproject(source.read(), other, src_transform=source.transform, src_crs=source.crs, dst_transform=transform,
                  dst_crs="EPSG:32632", dst_nodata=-1, src_nodata=-1, resampling=Resampling.nearest)  # fmt: skip
    moved = write(tmp_path / "b.tif", other, crs="EPSG:32632", transform=transform, nodata=-1.0)
    own = Grid("EPSG:32632", transform.c, transform.f, 10.0, height, width)
    window = Window(20, 20, 40, 40)
    back, valid = read_window(moved, [1], own, grid, window)
    assert valid.all()
    straight, _ = read_window(path, [1], grid, grid, window)
    assert np.abs(back - straight).max() < 30  # two nearest pixels: at most one and a half apart
    monkeypatch.setattr("rasterio.vrt.WarpedVRT", None)
    raster.close_handles()
    read_window(path, [1], grid, grid, window)  # would fail if it were warped


def test_clouds_are_no_data_and_their_chips_left_out_and_counted(tmp_path, capsys):
    s2(tmp_path / "in/s2/a.tif", side=96)
    cover = np.zeros((1, 96, 96), np.uint8)
    cover[0, :32, :40] = 1
    write(tmp_path / "in/cloud/a.tif", cover)
    table = manifest_of(tmp_path / "in", tmp_path / "out", s2="s2/*", cloud="cloud/*")
    chips = Chips(with_splits(table), ChipCut(S2, 32, 32))
    assert len(chips) == 8
    assert "1 of 9 chips hold less than 50% valid pixels" in capsys.readouterr().err
    beside = next(i for i in range(8) if chips.places[i].tolist() == [0, 0, 32])
    assert chips[beside]["s2_valid"].sum() == 32 * 24
    assert len(Chips(table, ChipCut(S2, 32, 32, clouds=False))) == 9


def test_scene_classification_hides_clouds_and_not_snow(tmp_path):
    tags = {"PROCESSING_BASELINE": "03.01"}
    write(tmp_path / "in/p_B02.tif", values(1, 60, 60).astype(np.uint16), tags=tags)
    classes = np.full((1, 30, 30), 4, np.uint8)
    classes[0, :10], classes[0, 10:20] = 9, 11
    write(tmp_path / "in/p_SCL.tif", classes, side=20.0, tags=tags)
    table = manifest_of(tmp_path / "in", tmp_path / "out")
    _, valid = read_sensor(table.row(0), table.folder, "s2", ("B02",), Window(0, 0, 60, 60))
    assert not valid[:20].any()
    assert valid[20:].all()


def test_samples_keep_the_files_type_and_batches_are_measurements(tmp_path):
    for name, baseline, left in (("a", "03.01", 0), ("b", "04.00", 1000)):
        data = np.full((4, 32, 32), 1700 + (1000 if baseline == "04.00" else 0), np.uint16)
        data += np.arange(1024, dtype=np.uint16).reshape(32, 32) % 7
        tags = {"PROCESSING_BASELINE": baseline}
        write(tmp_path / f"in/s2/{name}.tif", data, left=LEFT + left, names=S2["s2"], tags=tags, nodata=0)
    table = with_splits(manifest_of(tmp_path / "in", tmp_path / "out"))
    chips = Chips(table, ChipCut(S2, 32, 32), form(("s2",), "standard", S2))
    assert [chips[i]["s2"].dtype for i in range(2)] == [torch.uint16] * 2
    batch = chips.collate([chips[0], chips[1]])
    assert batch["s2"].dtype == torch.float32
    assert torch.equal(batch["s2"][0], batch["s2"][1])  # the offset is gone
    assert batch["s2"][0, 0, 0, 0].item() == pytest.approx((1700 - 1500) / 800)


def test_linear_power_and_decibel_are_the_same_chip():
    db = (-12 + 4 * np.random.default_rng(0).standard_normal((2, 8, 8))).astype(np.float32)
    power = (10 ** (db / 10)).astype(np.float64)
    power[:, 0, 0] = 0.0
    valid = np.ones((8, 8), bool)
    found, seen = physical("s1", power, valid, {"s1_unit": "linear"})
    assert not seen[0, 0]
    assert found[:, 0, 0].tolist() == [0.0, 0.0]
    assert np.allclose(found[:, 1:], db[:, 1:], atol=1e-4)


def test_scaling_is_fixed_and_a_uniform_chip_is_harmless():
    known = form(("s1",))
    x = torch.full((1, 2, 4, 4), -12.0)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    scaled = known.scaled("s1", x, valid)
    assert scaled[0, :, 1:].unique().tolist() == [0.5]
    assert scaled[0, :, 0, 0].tolist() == [0.0, 0.0]
    assert known.scaled("s1", x - 8, valid)[0, 0, 1, 1] == 0.0  # two deviations below, and cut off beyond
    assert known.scaled("s1", x + 80, valid)[0, 0, 1, 1] == 1.0
    assert torch.allclose(known.unscaled("s1", known.scaled("s1", x + 3, valid))[0, :, 1:], x[0, :, 1:] + 3)
    assert type(known).of(known.assets()).assets().hash == known.assets().hash


def test_moments_are_those_of_all_valid_pixels_together():
    rng = np.random.default_rng(0)
    parts = [(rng.normal(i, 1 + i, (3, 5, 5)), rng.random((5, 5)) < 0.7) for i in range(4)]
    moments = Moments(3)
    for part in parts:
        moments.add(*part)
    together = np.concatenate([x[:, v] for x, v in parts], 1)
    assert np.allclose(moments.mean, together.mean(1))
    assert np.allclose(moments.std, together.std(1))


@pytest.fixture
def places(tmp_path):
    """Three pairs, one a split; the test one lies far away and is brighter."""
    for i, split in enumerate(("train", "val", "test")):
        more = {"left": LEFT + 50_000 * i, "side": 96, "seed": i}
        s1(tmp_path / f"in/s1/{split}.tif", **more)
        s2(tmp_path / f"in/s2/{split}.tif", **more)
    table = manifest_of(tmp_path / "in", tmp_path / "out")
    frame = table.frame.assign(split=[name.removeprefix("s2-") for name in table.frame["id"]])
    Manifest(frame, table.root, None, table.meta, table.outside).save(tmp_path / "out" / "m.parquet")
    return tmp_path / "out" / "m.parquet"


def config_of(manifest, **changes):
    settings = {"data.manifest": str(manifest), "data.size": 32, "data.s2_bands": S2["s2"], "encoder.patch_size": 4}
    return override(CromaConfig(), settings | changes)


def test_statistics_are_of_training_alone_and_travel_with_the_weights(places):
    config = config_of(places)
    data = RasterSystem.read(config)
    assets = RasterSystem.learn(config, data)
    with rasterio.open(places.parent.parent / "in/s2/train.tif") as source:
        assert np.allclose(assets["s2_mean"], source.read().mean((1, 2)))
    assert assets["calibration"] == "sigma0"
    sets = RasterSystem(config, assets).datasets()
    assert (len(sets.train), len(sets.val), len(sets.test)) == (9, 9, 9)
    assert np.array_equal(sets.test.form.mean["s2"], assets["s2_mean"])
    assert sets.train.row_of(8) == data.frame.index[data.frame["split"] == "train"][0]
    assert len(set(sets.train.ids)) == 9
    assert set(sets.train.groups) == {"s2-train"}


def test_other_scenes_are_held_to_the_form(places, tmp_path):
    config = config_of(places)
    assets = RasterSystem.learn(config, RasterSystem.read(config))
    table = Manifest.load(places)
    other = Manifest(table.frame.assign(s1_calibration="gamma0"), table.root, None, {}, table.outside)
    with pytest.raises(InputError, match="its radar is gamma0, and the system takes sigma0"):
        RasterSystem(config, assets).use(other).datasets()
    coarse = Manifest(table.frame.assign(side=20.0), table.root, None, {}, table.outside)
    with pytest.raises(InputError, match="pixels of 20 m, and the system takes 10 m"):
        RasterSystem(config, assets).use(coarse).datasets()
    mixed = Manifest(table.frame.assign(s1_calibration=["sigma0", "gamma0", "sigma0"], split="train"), table.root)
    with pytest.raises(InputError, match="sigma0 and in gamma0"):
        RasterSystem.learn(config, mixed)


def test_random_chips_are_drawn_anew_from_the_samples_own_seed(places):
    config = config_of(places, **{"data.sampler": "random"})
    assets = RasterSystem.learn(config, RasterSystem.read(config))
    train = RasterSystem(config, assets).datasets().train

    def at(seed):
        torch.manual_seed(seed)
        sample = train[0]
        return sample["row"], sample["col"]

    assert at(1) == at(1)
    assert len({at(seed) for seed in range(8)}) > 3
    assert train.hash != RasterSystem(config_of(places), assets).datasets().train.hash
    assert RasterSystem(config, assets).evaluation_datasets().train.ids[0].endswith(":0_0")


def test_both_sensors_are_turned_alike(places):
    config = config_of(places)
    assets = RasterSystem.learn(config, RasterSystem.read(config))
    train = RasterSystem(config, assets).datasets().train
    samples = [{**train[i], "turn": turn} for i, turn in ((0, 0), (0, 5))]
    batch = train.collate(samples)
    for name in ("s1", "s2", "s1_valid"):
        assert torch.equal(batch[name][1], torch.rot90(batch[name][0], 1, (-2, -1)).flip(-1))


def test_every_process_opens_its_own_file(places):
    chips = Chips(Manifest.load(places), ChipCut(S2, 32, 32))
    assert chips[0]["s2"].shape == (4, 32, 32)
    again = pickle.loads(pickle.dumps(chips))  # noqa: S301 - as a worker receives it: no handle travels
    assert torch.equal(again[0]["s2"], chips[0]["s2"])
    assert [chips[i]["id"] for i in range(len(chips))] == chips.ids
    batches = torch.utils.data.DataLoader(chips, batch_size=3, num_workers=2, collate_fn=chips.collate)
    assert sum(len(batch["index"]) for batch in batches) == len(chips)


def test_an_unreadable_chip_names_its_row_or_is_skipped(places):
    table = Manifest.load(places)
    file = table.folder / table.row(0)["s2"]
    cut = ChipCut(S2, 32, 32)
    chips, skipping = Chips(table, cut), Chips(table, cut, on_error="skip")
    file.write_bytes(file.read_bytes()[:600])
    raster.close_handles()
    with pytest.raises(InputError, match=r"m.parquet, row \d+ \(id s2-\w+\): .*; repair the row"):
        chips[0]
    assert "cannot be" in skipping[0].reason
    raster.close_handles()


def test_a_place_without_a_map_is_of_no_known_class_and_leaves_the_others_theirs(tmp_path):
    table = Manifest.load(write_scenery(tmp_path, 3, 32, seed=1).manifest)
    fewer = replace(table, frame=table.frame.assign(landcover=[None, *table.frame["landcover"][1:]]))
    some, every = (Chips(t, ChipCut(S2, 16, 16)) for t in (fewer, table))
    assert some.has_landcover
    for position in range(len(some)):
        own, lacks = some[position], some.row_of(position) == 0
        assert (some.column("label")[position] is None, own["label"] is None) == (lacks, lacks)
        expected = torch.full((16, 16), -1) if lacks else every[position]["landcover"]
        assert torch.equal(own["landcover"], expected)
    assert check_row(fewer.row(0), fewer.folder)[-1].startswith("has no map of land cover")
    assert not any("land cover" in note for note in check_row(fewer.row(1), fewer.folder))


def test_distances_between_boxes_are_of_their_nearest_points():
    degree = 111.195
    assert distance_km((0, 0, 1, 1), (2, 0, 3, 1)) == pytest.approx(degree * np.cos(np.radians(1)), rel=1e-3)
    assert distance_km((0, 0, 1, 1), (0.5, 3, 0.6, 4)) == pytest.approx(2 * degree, rel=1e-4)
    assert distance_km((0, 0, 1, 1), (1, 1, 2, 2)) == 0
    assert distance_km((179.5, 0, 179.9, 1), (-179.9, 0, -179.5, 1)) == pytest.approx(0.2 * degree, rel=1e-3)
    assert distance_km((10, 50, 10, 50), (11, 50, 11, 50)) == pytest.approx(71.5, rel=1e-2)


def test_splits_keep_places_whole_and_tell_how_near_they_lie(tmp_path):
    for i in range(12):
        left, top = LEFT + 20_000 * (i % 4), TOP - 20_000 * (i // 4)
        for month in ("01", "07"):
            s2(tmp_path / f"in/s2/p{i:02d}-{month}.tif", side=32, left=left, top=top, when=f"2021-{month}-10T10:00:00")
    report = import_rasters(tmp_path / "in", tmp_path / "out")
    done = split_places(report.manifest, None, 0.5, 0.25, None, 0, 0.0, 0.0)
    table = Manifest.load(done.files["manifest"])
    assert table.frame.groupby("group")["split"].nunique().max() == 1
    known = done.figures["distance_km"]
    assert set(known) == {"train to val", "train to test", "val to test"}
    assert min(known.values()) == pytest.approx(20 - 0.32, abs=0.1)
    apart = split_places(report.manifest, tmp_path / "out" / "apart.parquet", 0.8, 0.1, None, 0, 0.0, 25.0)
    assert apart.figures["dropped"] > 0
    assert min(apart.figures["distance_km"].values()) >= 25
    square = split_places(report.manifest, tmp_path / "out" / "square.parquet", 0.5, 0.25, None, 0, 0.4, 0.0)
    frame = Manifest.load(square.files["manifest"]).frame
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert row_grid(Manifest.load(square.files["manifest"]).row(0)).side == 10


def test_digital_number_zero_is_no_data_whether_the_file_says_so_or_not(tmp_path):
    data = values(4, 64, 64).astype(np.uint16)
    data[:, :, :32] = 0
    data[2, 40, 40] = 0  # one band alone
    tags = {"PROCESSING_BASELINE": "04.00"}
    write(tmp_path / "in/s2/a.tif", data, names=S2["s2"], tags=tags)
    table = with_splits(manifest_of(tmp_path / "in", tmp_path / "out"))
    assert table.frame["s2_valid"].isna().all()
    chips = Chips(table, ChipCut(S2, 32, 32), form(("s2",), "standard", S2))
    assert chips.places[:, 2].tolist() == [32, 32]  # the empty half gives none
    batch = chips.collate([chips[1]])
    assert not batch["s2_valid"][0, 8, 8]
    assert batch["s2"][0, :, 8, 8].tolist() == [0.0] * 4
