"""Rasters killed in the middle: what was said of them is not asked again, and of other weights nothing stays."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from counterpoint.geospatial.mosaic import RasterSweep, write_sweep
from counterpoint.geospatial.strip_store import StripStore, weights_digest

sys.path.insert(0, str(Path(__file__).parent))
from test_mosaic import Means, chips_of


class Killed(BaseException):
    """What no handler catches."""


def sweep(path, chips, asked, keep, most=10**6, batch_size=64):
    means = Means()

    def say(batch):
        asked.append(len(batch["index"]))
        if len(asked) > most:
            raise Killed
        return means(batch)

    write_sweep(path, means, chips, 0, say, RasterSweep(32, 4, 4, batch_size), keep=keep)
    with rasterio.open(path) as made:
        return made.read()


def test_a_killed_raster_goes_on_where_it_was_and_is_the_same(tmp_path):
    chips, _ = chips_of(tmp_path)
    whole = sweep(tmp_path / "whole.tif", chips, [], None)
    path, asked = tmp_path / "maps/a.tif", []
    with pytest.raises(Killed):
        sweep(path, chips, asked, {"weights": "a"}, most=2)
    assert not path.exists()
    store = StripStore(path, {})
    assert not len(store), "strips of another meaning are gone"
    with pytest.raises(Killed):
        sweep(path, chips, [], {"weights": "a"}, most=2)
    asked.clear()
    found = sweep(path, chips, asked, {"weights": "a"}, batch_size=32)
    assert len(asked) == 1, "two of three strips were there, however many windows were taken at a time"
    assert np.array_equal(found, whole, equal_nan=True)
    assert [p.name for p in path.parent.iterdir()] == ["a.tif"]


def test_strips_of_other_weights_or_a_torn_file_are_made_anew(tmp_path):
    chips, _ = chips_of(tmp_path)
    path = tmp_path / "a.tif"
    with pytest.raises(Killed):
        sweep(path, chips, [], {"weights": "a"}, most=2)
    asked = []
    sweep(path, chips, asked, {"weights": "b"})
    assert len(asked) == 3
    path.unlink()
    with pytest.raises(Killed):
        sweep(path, chips, [], {"weights": "b"}, most=2)
    source = chips.manifest.folder / chips.rows[0]["s2"]
    os.utime(source, ns=(0, 0))  # as a file that was replaced
    asked = []
    with pytest.raises(Killed):
        sweep(path, chips, asked, {"weights": "b"}, most=2)
    assert len(asked) == 3, "no strip of the old file is used"
    torn = sorted((tmp_path / ".a.tif.strips").glob("0*.npy"))[0]
    torn.write_bytes(torn.read_bytes()[:70])
    asked = []
    sweep(path, chips, asked, {"weights": "b"})
    assert len(asked) == 2


def test_the_digest_tells_weights_apart():
    layer = torch.nn.Linear(2, 2)
    before = weights_digest(layer)
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6
    assert weights_digest(layer) != before
