"""Radiographs with reports: the recipe, what is read and refused, a run that evaluates, embeds and searches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.common import runs
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.medical.cli import vertical
from counterpoint.medical.clip_xr import ClipXR
from counterpoint.medical.commands import embed_scan, simulate
from counterpoint.medical.radiograph_configs import ClipXRConfig, PictureRecipeConfig
from counterpoint.medical.radiograph_data import load_picture, load_radiographs, to_picture

TINY = {
    "data.recipe": {"size": 24, "fit": "pad"}, "data.tokens": 64, "data.workers": 1, "channels": [4, 6], "dim": 8,
    "text": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0}, "shift": 1, "train.batch_size": 6,
    "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    return simulate(folder, 12, 6, 8, size=24, spacing=14.0, workers=1, kind="radiographs").manifest


@pytest.fixture(scope="module")
def run(flat, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERPOINT_CACHE", str(out.parent / "cache"))
        changes = TINY | {"data.manifest": str(flat), "train.out": str(out), "train.max_steps": 4}
        fit(create_system(ClipXR, override(ClipXRConfig(), changes)))
        yield out


def config(manifest, **changes):
    return override(ClipXRConfig(), TINY | {"data.manifest": str(manifest)} | changes)


def changed(flat, name, **cells):
    table = Manifest.load(flat)
    frame = table.frame.copy()
    for column, (row, value) in cells.items():
        frame.loc[row, column] = value
    return replace(table, frame=frame, path=None).save(flat.parent / name).path


def test_the_recipe_is_true_to_scale_and_keeps_the_middle():
    grey = np.zeros((60, 30), dtype=np.float32)
    grey[20:40, 10:20] = 1.0
    pad, crop = (to_picture(grey, PictureRecipeConfig(size=30, fit=fit)) for fit in ("pad", "crop"))
    assert pad.shape == crop.shape == (30, 30)
    assert pad.sum() == pytest.approx(10 * 5, rel=0.02)  # half the scale
    assert np.allclose(pad[:, :7], 0)
    assert np.array_equal(crop, grey[15:45])
    rows, columns = (np.average(np.arange(30), weights=pad.sum(axis)) for axis in (1, 0))
    assert (rows, columns) == pytest.approx((14.5, 14.5), abs=0.6)


def test_percentiles_become_black_and_white_and_a_flat_picture_is_refused():
    grey = np.linspace(0.2, 0.6, 10_000).reshape(100, 100)
    shown = to_picture(grey, PictureRecipeConfig(size=100, low=1, high=99))
    assert (shown.min(), shown.max()) == (0.0, 1.0)
    assert np.allclose(to_picture(grey, PictureRecipeConfig(size=100)), grey, atol=1e-6)
    with pytest.raises(InputError, match="percentiles are alike"):
        to_picture(np.pad(np.ones((2, 2)), 49), PictureRecipeConfig(size=100, low=1, high=99))


def test_a_radiograph_without_a_report_is_not_trained_on_and_still_evaluated(flat, monkeypatch, tmp_path):
    """Two pictures without a report would otherwise be told to be alike."""
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    manifest = changed(flat, "silent.parquet", reports=(0, ""))
    system = create_system(ClipXR, config(manifest))
    whole = system.evaluation_datasets().train
    assert len(system.datasets().train) == len(whole) - 1
    assert whole.ids[0] not in system.datasets().train.ids
    assert 0 not in {v for q in range(len(whole.pools["report"])) for v in whole.relevant("report", "xr").of_query(q)}


def test_volumes_and_unreadable_pictures_are_told_from_radiographs(flat, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"row 1 \(id train-00000\).*none.png"):
        load_radiographs(config(changed(flat, "bad.parquet", image=(0, "images/none.png"))).data)
    ct = simulate(tmp_path / "ct", 2, 2, 2, size=24, spacing=14.0, workers=1).manifest
    with pytest.raises(InputError, match="no file named in column 'image' .it names a volume, which clip-ct"):
        load_radiographs(config(ct).data)


def test_another_recipe_is_another_prepared_picture(flat, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    a, b = (load_radiographs(config(flat, **{"data.recipe": {"size": n}}).data).volumes[0] for n in (24, 12))
    assert a != b
    assert load_picture(b).shape == (12, 12)


def test_the_run_evaluates_embeds_and_searches(run, flat, tmp_path):
    runs.evaluate(run, bootstrap=20, baseline="none", vertical=vertical, out=tmp_path / "e.json")
    said = (tmp_path / "e.json").read_text()
    figures = json.loads(said)
    assert "zero-shot findings" in said
    assert "report -> xr" in said
    assert "xr -> report" in said
    assert "synthetic" in said.lower() or "generator" in said
    assert figures
    table = Manifest.load(flat)
    row = table.select("test").row(0)
    file = table.file(row["image"])
    found = runs.search(run, file=file, to="xr", top=1, vertical=vertical)
    assert found.figures["neighbours"][0]["id"] == row["id"]
    assert found.figures["neighbours"][0]["cosine"] == pytest.approx(1.0, abs=1e-4)
    asked = runs.search(run, text="Left pleural effusion.", source="report", to="xr", top=3, vertical=vertical)
    assert len(asked.figures["neighbours"]) == 3
    vector = np.load(embed_scan(run, file, tmp_path / "v.npy").files["vector"])
    system = load_run(run, "best").eval()
    sample = system.evaluation_datasets().test[0]
    with torch.no_grad():
        expected = system.encode({"xr": sample["xr"][None]}, "xr")["xr"][0]
    assert np.allclose(vector, expected.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="name one PNG, JPEG or DICOM file"):
        embed_scan(run, file.parent)
    page = runs.report(run, out=tmp_path / "r.html", bootstrap=20, examples=1)
    assert "data:image/png" in next(iter(page.files.values())).read_text()


def test_labels_of_minus_one_do_not_count_and_words_are_refused(run):
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.medical.evaluation import flat_protocols

    opened = OpenRun.load(run)
    names = opened.samples().frame["cardiomegaly"]
    opened.samples().frame = opened.samples().frame.assign(cardiomegaly=[-1.0, 1.0, 0.0, *names[3:]])
    found = flat_protocols(opened.drawing(10, 0))["zero-shot findings"]
    assert found.counts["cardiomegaly"][1] == len(names) - 1
    opened.samples().frame = opened.samples().frame.assign(cardiomegaly="maybe")
    with pytest.raises(InputError, match="label column 'cardiomegaly' holds 'maybe'"):
        flat_protocols(opened)
