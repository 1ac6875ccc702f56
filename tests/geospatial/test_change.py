"""Change between two times: where it lies, what is masked, what is refused, and that known change is found."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.geospatial.change import change_scores, change_strips, changed_cells, cosine_distance, score_change
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.data.chips import ChipCut, Chips
from counterpoint.geospatial.data.grid import Grid
from counterpoint.geospatial.data.writing import write_raster
from counterpoint.geospatial.scene_files import write_scenery

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import form

TINY = {"data.size": 16, "encoder.dim": 16, "encoder.depth": 2, "encoder.heads": 2, "encoder.patch_size": 4,
        "decoder.dim": 16, "decoder.heads": 2, "train.batch_size": 8, "train.max_steps": 2, "train.tensorboard": False,
        "optim.lr": 1e-3}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("change")


@pytest.fixture(scope="module")
def scenes(folder):
    return write_scenery(folder / "scenes", 8, 40, seasons=2, clouds=0.5, seed=4, change=0.3).manifest


@pytest.fixture(scope="module")
def run(folder, scenes):
    config = override(Croma.Config(), {**TINY, "data.manifest": str(scenes), "train.out": str(folder / "run")})
    fit(create_system(Croma, config))
    return folder / "run"


class Spectra(nn.Module):
    """The mean of every patch: features that know nothing of their neighbours."""

    patch_size = 4

    def dense_features(self, batch):
        return {s: nn.functional.avg_pool2d(batch[s], 4).movedim(1, -1) for s in ("s2",) if s in batch}


def test_the_simulator_changes_what_it_says(scenes):
    table = Manifest.load(scenes)
    for _, two in table.frame.groupby("change_map"):
        maps = []
        for name in two["landcover"]:
            with rasterio.open(table.folder / name) as made:
                maps.append(made.read(1))
        with rasterio.open(table.folder / two["change_map"].iloc[0]) as made:
            assert np.array_equal(made.read(1) > 0, maps[0] != maps[1])
        assert two["changed"].nunique() == 1
    assert 0.1 < table.frame["changed"].mean() < 0.4


def test_distance_is_the_cosines_and_nothing_is_said_without_data(scenes):
    table = Manifest.load(scenes)
    cut = ChipCut({"s2": form().bands["s2"]}, 16, 16, False, 0.0)
    chips = Chips(table, cut, form(("s2",), "standard"))
    two = [i for i, row in enumerate(chips.rows) if row["change_map"] == chips.rows[0]["change_map"]]
    cloudy = next(i for i, row in enumerate(chips.rows) if row["clouds"])
    system = Spectra()
    same = np.concatenate([v["s2"] for _, v in change_strips(system, chips, chips, ["s2"], row=(two[0], two[0]))])
    assert same.shape == (10, 10)
    assert np.nanmax(np.abs(same)) < 1e-6
    found = np.concatenate([v["s2"] for _, v in change_strips(system, chips, chips, ["s2"], row=(cloudy, cloudy))])
    with rasterio.open(table.folder / chips.rows[cloudy]["s2_cloud"]) as made:
        clear = (made.read(1) == 0).reshape(10, 4, 10, 4).mean((1, 3))
    assert np.array_equal(np.isnan(found), clear < 0.5)
    a, b = torch.randn(3, 5).double().numpy(), torch.randn(3, 5).double().numpy()
    direct = 1 - torch.nn.functional.cosine_similarity(torch.tensor(a), torch.tensor(b), dim=0)
    assert np.allclose(cosine_distance(a, b), direct.numpy(), atol=1e-6)


def test_the_command_writes_where_the_scenes_lie_and_scores(capsys, folder, run, scenes):
    table = Manifest.load(scenes)
    first = table.row(0)
    pair = [table.row(i) for i in range(len(table)) if table.row(i)["change_map"] == first["change_map"]]
    words = ["geo", "change", run, pair[0]["id"], pair[1]["id"], "--manifest", scenes, "--out", folder / "c.tif",
             "--truth", table.folder / first["change_map"]]  # fmt: skip
    assert main([str(w) for w in words]) == 0
    said = capsys.readouterr().out
    assert "auroc" in said
    assert "SYNTHETIC" in said
    with rasterio.open(folder / "c.tif") as made, rasterio.open(table.folder / pair[0]["s2"]) as source:
        assert (made.crs, made.bounds, made.shape) == (source.crs, source.bounds, (10, 10))
        assert np.isnan(made.nodata)
        assert made.tags()["FEATURES"] == "joint"
        values = made.read(1)
    assert -1e-6 <= np.nanmin(values) <= np.nanmax(values) <= 2
    # One sensor's own files, without a manifest.
    files = [table.folder / row["s2"] for row in pair]
    assert main([str(w) for w in ["geo", "change", run, *files, "--out", folder / "o.tif"]]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    with rasterio.open(folder / "o.tif") as made:
        assert made.tags()["FEATURES"] == "s2"


def test_other_grids_are_refused_in_a_sentence(capsys, folder, run, scenes):
    table = Manifest.load(scenes)
    rows = [table.row(i) for i in range(len(table))]
    other = next(row for row in rows if row["change_map"] != rows[0]["change_map"])
    words = ["geo", "change", run, rows[0]["id"], other["id"], "--manifest", scenes, "--out", folder / "no.tif"]
    assert main([str(w) for w in words]) == 2
    assert "lie on different grids (upper left corners" in capsys.readouterr().err
    words = ["geo", "change", run, rows[0]["id"], "nobody", "--manifest", scenes]
    assert main([str(w) for w in words]) == 2
    assert "nobody" in capsys.readouterr().err
    assert main(["geo", "change", str(run), str(folder / "a.tif"), str(folder / "b.tif")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (folder / "no.tif").exists()


def test_a_cell_changed_where_half_of_what_is_known_did(tmp_path):
    grid = Grid("EPSG:32633", 5e5, 5e6, 10.0, 6, 4)
    values = np.array([[1, 1, 0, 0]] * 2 + [[1, 9, 9, 9]] * 2 + [[2, 0, 9, 0]] * 2, np.uint8)
    write_raster(tmp_path / "t.tif", values[None], grid, nodata=9)
    assert changed_cells(tmp_path / "t.tif", grid, 2).tolist() == [[1, 0], [1, -1], [1, 0]]
    assert score_change(np.array([0.1, 0.9]), np.array([0, 1])).metrics == {"auroc": 1.0, "auprc": 1.0}
    assert "alike" in score_change(np.array([0.1, 0.9]), np.array([1, 1])).reason


def test_known_change_is_scored_by_place(run):
    found = change_scores(OpenRun.of(load_run(run, "last")))
    assert set(found) == {f"change by distance, {name}" for name in ("s1", "s2", "joint")}
    score = found["change by distance, joint"]
    assert 0 < score.metrics["auroc"] < 1
    assert score.chance["auroc"] == 0.5
    assert score.intervals["auroc"].groups == 2
