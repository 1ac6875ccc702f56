"""An exported encoder of signals: any length, NaN as in training, and a recipe from which its inputs can be made."""

import json

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from counterpoint.common.data import Manifest
from counterpoint.common.lazy import resolve
from counterpoint.common.trainers import create_system, override
from counterpoint.common.trainers.exporting import export
from counterpoint.timeseries.cli import vertical
from counterpoint.timeseries.configs import TS2VecConfig
from counterpoint.timeseries.ts2vec import TS2Vec

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
TINY = {"encoder.dim": 4, "encoder.hidden": 4, "encoder.depth": 6}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Recordings in two units, of 100 Hz, with a gap; asked for at 50 Hz. Returns the manifest and one raw signal."""
    folder, rng, rows = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0), []
    for i in range(6):
        x = rng.normal(3 * i, 1 + i, size=(120, 2)).astype(np.float32)
        np.savez(folder / f"r{i}.npz", x=x, fs=100.0, leads=["I", "II"])
        split = ("train", "train", "val", "test")[i % 4]
        rows.append({"id": f"r{i}", "group": f"p{i}", "split": split, "file": f"r{i}.npz"})
    Manifest.from_rows(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def exported(cohort, tmp_path_factory):
    data = {"data.manifest": str(cohort), "data.length": 40, "data.fs": 50.0, "data.normalize": "train",
            "data.leads": ("II", "I")}  # fmt: skip
    system = create_system(TS2Vec, override(TS2VecConfig(), TINY | data)).eval()
    report = export(system, tmp_path_factory.mktemp("model") / "m.onnx")
    return system, report, onnxruntime.InferenceSession(str(report.path))


def test_time_is_free_beyond_every_dilation(exported):
    """Deep blocks reach further than the window traced; eagerly they take a short cut there, which binds no length."""
    system, report, session = exported
    assert session.get_inputs()[0].shape == ["batch", "time", 2]
    assert report.shapes == {"x": "[batch, time, channels = 2] float32"}
    assert report.checked_lengths == (27, 61)
    assert not report.notes
    for length in (9, 150, 700):
        x = torch.randn(3, length, 2)
        x[0, 3] = torch.nan
        x[1, length - 4 :] = torch.nan
        (found,) = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, system.encode({"x": x})["signal"], atol=1e-5)


@pytest.mark.parametrize("name", ["comet", "dbpm", "frame-projections"])
def test_every_system_takes_other_lengths_and_shares_no_memory_between_sizes(cohort, tmp_path, capfd, name):
    """The runtime says so when sizes that it was told to be equal are not."""
    entry = next(entry for entry in vertical.systems if entry.name == name)
    data = {"data.manifest": str(cohort), "data.length": 40, "data.leads": ("II", "I")}
    small = {"width": 8, "dim": 8, "frequencies": 4} if name == "frame-projections" else TINY
    system = create_system(resolve(entry.system), override(resolve(entry.config)(), small | data)).eval()
    report = export(system, tmp_path / "m.onnx")
    assert report.shapes == {"x": "[batch, time, channels = 2] float32"}
    assert report.checked_lengths == (27, 61)
    assert "Shape mismatch" not in capfd.readouterr().err
    sizes = [d for v in onnx.load(tmp_path / "m.onnx").graph.value_info for d in v.type.tensor_type.shape.dim]
    assert "None" not in {d.dim_param for d in sizes}


def test_the_metadata_suffice_to_make_the_inputs(exported, cohort):
    """Without the suite: the file's own words, numpy and scipy."""
    system, _, session = exported
    recipe = json.loads(session.get_modelmeta().custom_metadata_map["counterpoint.preprocessing"])
    assert recipe["inputs"]["x"]["axes"] == ["batch", "time", "channels"]
    known, normalize = recipe["assets"], recipe["normalize"]
    assert (known["leads"], known["fs"], normalize) == (["II", "I"], 50.0, "train")
    assert (recipe["low"], recipe["high"], recipe["notch"]) == (None, None, None)
    raw = np.load(cohort.parent / "r3.npz")
    lead = [raw["leads"].tolist().index(name) for name in known["leads"]]
    at_rate = resample_poly(raw["x"][:, lead], int(known["fs"]), int(raw["fs"]), axis=0, padtype="line")
    mine = ((at_rate - known["mean"]) / known["std"])[: recipe["length"]].astype(np.float32)
    sample = system.datasets().test[0]
    assert sample["id"] == "r3:0"
    np.testing.assert_allclose(mine, sample["x"], atol=1e-5)
    (found,) = session.run(None, {"x": mine[None]})
    with torch.no_grad():
        np.testing.assert_allclose(found[0], system.encode({"x": sample["x"][None]})["signal"][0], atol=1e-4)


def test_a_system_of_a_fixed_length_says_so(exported, tmp_path):
    system, _, _ = exported

    class Fixed(torch.nn.Module):
        """Weights for every time step."""

        inputs, assets = TS2Vec.inputs, system.assets
        modalities, preprocessing, datasets = ("signal",), system.preprocessing, system.datasets

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(80, 3)

        def encode(self, batch, modality=None):
            return {"signal": self.layer(batch["x"].flatten(1))}

    report = export(Fixed(), tmp_path / "fixed.pt2", batch={"x": torch.randn(4, 40, 2)})
    assert report.shapes == {"x": "[batch, time = 40, channels = 2] float32"}
    assert report.checked_lengths == ()
    assert "x: time is fixed: the encoder takes no other" in report.notes[0]
