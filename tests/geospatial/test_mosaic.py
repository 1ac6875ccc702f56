"""Whole rasters: every cell once, where the source has it; a restart finishes; the decoder is linear algebra."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import override
from counterpoint.geospatial.commands import import_rasters
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.decoder import PatchDecoder, confusion_of
from counterpoint.geospatial.mosaic import RasterSweep, strips, write_sweep
from counterpoint.geospatial.protocols import numbered, parted, wider
from counterpoint.geospatial.writers import embedding_rasters

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import form
from raster_files import LEFT, TOP, values, write

BANDS = {"s2": ("B02", "B03", "B04", "B08")}
FORM = form(("s2",), "standard", BANDS)


class Means(nn.Module):
    """The mean of every cell: what it says of one does not depend on its neighbours."""

    def forward(self, batch):
        return nn.functional.avg_pool2d(batch["s2"], 4).permute(0, 2, 3, 1)


def chips_of(tmp_path, height=70, width=53, side=10.0):
    data = values(4, height, width).astype(np.uint16)
    data[:, 10:14, 20:24] = 0
    tags = {"PROCESSING_BASELINE": "03.01"}
    write(tmp_path / "in/s2/a.tif", data, names=BANDS["s2"], nodata=0, tags=tags, side=side)
    table = Manifest.load(import_rasters(tmp_path / "in", tmp_path / "out").manifest)
    return Chips(table, ChipCut(BANDS, 32, 32), FORM), data


@pytest.mark.parametrize("margin", [0, 4, 12])
def test_every_cell_is_said_once_and_where_it_lies(tmp_path, margin):
    chips, data = chips_of(tmp_path)
    found = np.concatenate([v for _, v in strips(Means(), chips, 0, Means(), RasterSweep(32, 4, margin, 3))], 1)
    assert found.shape == (4, 18, 14)
    scaled = (data.astype(float) - 1500) / 800
    scaled[:, 10:14, 20:24] = 0.0
    padded = np.pad(scaled, ((0, 0), (0, 2), (0, 3)))
    expected = padded.reshape(4, 18, 4, 14, 4).mean((2, 4))
    hole = np.zeros((18, 14), bool)
    whole = np.ones((72, 56), bool)
    whole[70:], whole[:, 53:], whole[10:14, 20:24] = False, False, False
    hole = ~whole.reshape(18, 4, 14, 4).any((1, 3))
    assert np.isnan(found[:, hole]).all()
    assert np.allclose(found[:, ~hole], expected[:, ~hole], atol=1e-5)


@pytest.mark.parametrize("cog", [False, True])
def test_rasters_lie_where_their_source_lies(tmp_path, cog):
    chips, _ = chips_of(tmp_path)
    write_sweep(tmp_path / "e.tif", Means(), chips, 0, Means(), RasterSweep(32, 4, 4), cog=cog, tags={"A": "b"})
    with rasterio.open(tmp_path / "e.tif") as made, rasterio.open(tmp_path / "in/s2/a.tif") as source:
        assert made.crs == source.crs
        assert (made.transform.a, made.transform.c, made.transform.f) == (40.0, LEFT, TOP)
        assert made.bounds.left == source.bounds.left
        assert made.bounds.top == source.bounds.top
        assert made.bounds.right - source.bounds.right < 40
        assert made.tags()["A"] == "b"
        assert (made.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == cog
        assert np.isnan(made.nodata)
        # A point of the ground is the same pixel in both.
        x, y = source.xy(40, 30)
        assert made.index(x, y) == (10, 7)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_windows_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="do not divide into cells of 4"):
        RasterSweep(30, 4, 0)


@torch.no_grad()
def test_a_place_of_one_window_gives_the_systems_own_tokens_and_a_restart_goes_on(tmp_path):
    for i in range(2):
        tags = {"PROCESSING_BASELINE": "03.01", "datetime": "2021-07-10T10:00:00"}
        more = {"left": LEFT + 1000 * i, "tags": tags}
        write(tmp_path / f"in/s2/a{i}.tif", values(12, 16, 16, i).astype(np.uint16), names=form().bands["s2"], **more)
        radar = (-12 + np.random.default_rng(i).standard_normal((2, 16, 16))).astype(np.float32)
        write(tmp_path / f"in/s1/a{i}.tif", radar, names=("VV", "VH"), **more)
    table = Manifest.load(import_rasters(tmp_path / "in", tmp_path / "out").manifest)
    torch.manual_seed(0)
    sizes = {"encoder.dim": 16, "encoder.depth": 2, "encoder.heads": 2, "encoder.patch_size": 4, "data.size": 16}
    system = Croma(override(Croma.Config(), sizes | {"contrast": 1.0, "reconstruction": 0.0}), form().assets()).eval()
    chips = Chips(table, ChipCut(form().bands, 16, 16), form())
    done = embedding_rasters(system, chips, tmp_path / "e")
    assert (done.figures["rasters"], done.figures["kept"], done.figures["features"]) == (2, 0, "joint")
    direct = system.dense_features(chips.collate([chips[1]]))["joint"][0]
    with rasterio.open(sorted((tmp_path / "e").glob("*.tif"))[1]) as made:
        whole = torch.from_numpy(made.read()).permute(1, 2, 0)
    # Windows of 16 with a margin of 0: one window is the place.
    assert torch.allclose(whole, direct, atol=1e-5)
    sorted((tmp_path / "e").glob("*.tif"))[0].unlink()
    again = embedding_rasters(system, chips, tmp_path / "e")
    assert (again.figures["rasters"], again.figures["kept"]) == (1, 1)


def test_the_decoder_finds_classes_that_are_linear_in_the_features():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, 4, 12, generator=generator)
    weight = torch.randn(12, 4 * 3, generator=generator)
    target = (x @ weight).unflatten(-1, (2, 2, 3)).argmax(-1).permute(0, 1, 3, 2, 4).reshape(40, 8, 8)
    decoder = PatchDecoder(12, 3, 2)
    holes = target.clone()
    holes[:, ::3] = -1
    decoder.see(x[:20], holes[:20])
    decoder.see(x[20:], target[20:])
    said = decoder.fit().predict(x)
    assert (said == target).float().mean() > 0.85
    table = confusion_of(said, holes, 3)
    assert table.sum() == (holes >= 0).sum()


def test_codes_become_numbers_and_unknown_ones_nothing():
    codes = torch.tensor([-1, 0, 2, 5, 9, 200])
    assert numbered(codes, [2, 5]).tolist() == [-1, -1, 0, 1, -1, -1]


def test_wide_chips_and_their_quarters_are_the_same_ground(tmp_path):
    chips, _ = chips_of(tmp_path, 64, 128)
    twice = wider(chips)
    parts = parted(twice)
    assert (len(twice), len(parts)) == (2, 8)
    joined = torch.cat(
        [torch.cat([parts[0]["s2"], parts[1]["s2"]], 2), torch.cat([parts[2]["s2"], parts[3]["s2"]], 2)], 1
    )
    assert torch.equal(joined, twice[0]["s2"])
    four = wider(Chips(chips.manifest, ChipCut(BANDS, 16, 16), FORM), 4)
    parts = parted(four, 4)
    assert (len(four), len(parts)) == (2, 32)
    rows = [torch.cat([parts[4 * r + c]["s2"] for c in range(4)], 2) for r in range(4)]
    assert torch.equal(torch.cat(rows, 1), four[0]["s2"])
    assert wider(twice) is None or len(wider(twice)) == 0
