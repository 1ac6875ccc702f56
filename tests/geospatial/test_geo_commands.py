"""The vertical on the command line, from scenes to maps, with small sizes; resumed as if it had not stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.scene import SIMULATED, draw_ground, draw_landscape
from counterpoint.geospatial.scene_files import write_scenery

sys.path.insert(0, str(Path(__file__).parent))
from raster_files import s1

TINY = {"data.size": 16, "encoder.dim": 16, "encoder.depth": 2, "encoder.heads": 2, "encoder.patch_size": 4,
        "decoder.dim": 16, "decoder.heads": 2, "train.batch_size": 8, "train.max_steps": 3, "train.tensorboard": False,
        "optim.lr": 1e-3}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("geo")


@pytest.fixture(scope="module")
def scenes(folder):
    return write_scenery(folder / "scenes", 9, 32, clouds=0.4, offset="some", seed=3).manifest


@pytest.fixture(scope="module")
def run(folder, scenes):
    config = override(Croma.Config(), {**TINY, "data.manifest": str(scenes), "train.out": str(folder / "run")})
    fit(create_system(Croma, config))
    return folder / "run"


def done(capsys, *words):
    code = main([str(w) for w in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_simulated_scenes_are_what_they_say(scenes):
    table = Manifest.load(scenes)
    assert "simulator" in table.meta["synthetic"]
    row = table.row(0)
    with rasterio.open(table.folder / row["s2"]) as optical, rasterio.open(table.folder / row["s1"]) as radar:
        assert "simulator" in optical.tags()["SYNTHETIC"]
        assert optical.transform == radar.transform
        assert (optical.nodata, optical.dtypes[0], radar.dtypes[0]) == (0, "int16", "float32")
        assert optical.read().min() > 0
    assert set(table.frame["s2_offset"]) == {0, -1000}
    assert table.frame["clouds"].any()
    assert not table.frame["clouds"].all()
    shares = table.frame[[f"shared_{name}" for name in SIMULATED]].sum(axis=1)
    assert np.allclose(shares, 1)
    again = write_scenery(scenes.parent.parent / "again", 9, 32, clouds=0.4, offset="some", seed=3).manifest
    pd.testing.assert_frame_equal(Manifest.load(again).frame, table.frame)


def test_given_the_ground_the_sensors_share_no_noise():
    """Looks at one ground: what is left after their mean is uncorrelated between radar and optical."""
    ground = draw_ground(np.random.default_rng(0), 48, "temperate farm", 0.5)
    looks = [draw_landscape(np.random.default_rng([1, i]), ground, 0.6) for i in range(24)]
    water = [draw_landscape(np.random.default_rng([2, i]), ground, 0.6).optical["haze"] for i in range(24)]
    radar = np.stack([look.s1[0] for look in looks])
    trees = ground.landcover == 1
    assert np.corrcoef(radar[:, trees].mean(1), [look.optical["haze"] for look in looks])[0, 1] ** 2 < 0.3
    assert len(set(water)) == 24
    power = 10 ** (radar[:, trees] / 10)
    looks_seen = (power.mean(0) ** 2 / power.var(0)).mean()
    assert 3.5 < looks_seen < 6.5  # equivalent number of looks
    blue, infrared = (np.stack([look.s2[i] for look in looks])[:, trees].mean() for i in (1, 7))
    assert infrared > 3 * blue


def test_from_a_run_to_figures_and_rasters(capsys, run, scenes, monkeypatch):
    monkeypatch.setattr("counterpoint.geospatial.protocols.FOREST_PIXELS", 500)
    figures = json.loads(
        done(capsys, "geo", "evaluate", run, "--label", "label", "--bootstrap", 5, "--baseline", "none", "--json")
    )
    assert "synthetic" in json.dumps(figures).lower() or "simulator" in json.dumps(figures)
    names = set(figures["results"])
    wanted = {
        "land cover from joint",
        "land cover from s1, chips of twice the side",
        "land cover from s2, the same ground at the trained side",
        "land cover by pixels (random forest)",
        "retrieval within a place s1 -> s2",
        "label by share of places, joint",
    }
    assert wanted <= names, names
    said = done(capsys, "geo", "embed", run, "--format", "geotiff")
    assert "SYNTHETIC" in said
    made = sorted((run / "embeddings-test-geotiff").glob("*.tif"))
    table = Manifest.load(scenes).select(split="test")
    assert len(made) == len(table)
    row = next(r for r in map(table.row, range(len(table))) if made[0].stem == r["id"])
    with rasterio.open(made[0]) as embedding, rasterio.open(table.folder / row["s2"]) as source:
        assert embedding.bounds == source.bounds
        assert embedding.crs == source.crs
        assert (embedding.count, embedding.shape) == (16, (8, 8))


def test_a_head_of_land_cover_maps_places(capsys, folder, run, scenes):
    words = (
        "--task",
        "dense",
        "--labels",
        "landcover",
        "--modality",
        "joint",
        "--train.max_steps",
        2,
        "--train.out",
        folder / "ft",
    )
    done(capsys, "geo", "finetune", run, *words, "--train.tensorboard", "false")
    done(capsys, "geo", "map", folder / "ft", "--out", folder / "maps")
    table = Manifest.load(scenes).select(split="test")
    with (
        rasterio.open(folder / "maps" / f"{table.row(0)['id']}.tif") as made,
        rasterio.open(table.folder / table.row(0)["s2"]) as source,
    ):
        assert made.transform == source.transform
        assert made.shape == source.shape
        assert made.tags()["CLASS_1"] == "water"
        assert made.dtypes == ("uint8",)
    assert main(["geo", "map", str(run), "--out", str(folder / "no")]) == 2
    assert "finetune" in capsys.readouterr().err


def test_a_users_raster_asks(capsys, folder, run):
    s1(folder / "mine.tif", side=32)
    said = json.loads(
        done(capsys, "geo", "search", run, "--file", folder / "mine.tif", "--source", "s1", "--to", "s2", "--json")
    )
    assert said
    (folder / "bad.tif").write_bytes(b"II*")
    assert main(["geo", "search", str(run), "--file", str(folder / "bad.tif"), "--source", "s1", "--to", "s2"]) == 2
    assert "bad.tif" in capsys.readouterr().err


def test_check_preview_and_split(capsys, folder, scenes):
    assert "9 of 9 rows can be used" in done(capsys, "geo", "data", "check", scenes)
    done(capsys, "geo", "data", "preview", scenes, "--out", folder / "p.html", "--places", 2)
    assert "SYNTHETIC" in (folder / "p.html").read_text().upper()
    said = json.loads(done(capsys, "geo", "data", "split", scenes, "--out", folder / "s.parquet", "--json"))
    assert said["distance_km"]["train to test"] > 1


def test_a_run_that_stopped_ends_as_one_that_did_not(folder, scenes, monkeypatch):
    """In the middle of an epoch, with random chips, flips and masks drawn per sample."""
    settings = {**TINY, "data.manifest": str(scenes), "data.sampler": "random", "train.max_steps": 5}
    settings |= {"train.checkpoint_every_steps": 2}
    fit(create_system(Croma, override(Croma.Config(), {**settings, "train.out": str(folder / "whole")})))
    update = Croma.after_update

    def dies(self):
        update(self)
        if self.progress.total_step == 3:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(Croma, "after_update", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(create_system(Croma, override(Croma.Config(), {**settings, "train.out": str(folder / "cut")})))
    assert main(["geo", "pretrain", "--resume", str(folder / "cut")]) == 0
    a, b = (load_run(folder / name, "last").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_plugins_of_the_field_train_any_system(folder, scenes):
    plugins = {
        "neighbour_batches": {"near": 2, "far": 2, "ranks": 6, "similar_every": 1},
        "gram_anchor": {"start": 1, "modality": "joint"},
    }
    settings = {
        **TINY,
        "data.manifest": str(scenes),
        "train.max_steps": None,
        "train.max_epochs": 3,
        "train.log_every": 1,
        "train.plugins": plugins,
    }
    system = create_system(Croma, override(Croma.Config(), {**settings, "train.out": str(folder / "plug")}))
    fit(system)
    known = pd.read_csv(folder / "plug" / "metrics.csv")
    assert "train/gram" in known
    assert known["train/gram"].dropna().iloc[-1] > 0
