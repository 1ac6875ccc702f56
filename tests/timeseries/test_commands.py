"""The verbs: folders become manifests, nothing is dropped in silence, and mistakes end in one sentence."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import override
from counterpoint.timeseries.commands import import_arrays, import_edf, import_ucr, import_wfdb, preview, simulate
from counterpoint.timeseries.configs import SignalConfig, TS2VecConfig
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.gallery import caption, draw, picture, query
from counterpoint.timeseries.importers import check_row
from counterpoint.timeseries.manifest import WindowDataset, load_windows
from counterpoint.timeseries.ts2vec import TS2Vec
from counterpoint.timeseries.windows import WindowSet

wfdb = pytest.importorskip("wfdb")


def write_records(folder):
    generator = np.random.default_rng(0)
    for patient, diagnosis in (("patient1", "infarct"), ("patient2", "healthy")):
        (folder / patient).mkdir(parents=True)
        for name in ("a", "b"):
            wfdb.wrsamp(
                name, 100, ["mV"] * 2, ["I", "II"], generator.normal(size=(400, 2)), fmt=["16"] * 2,
                write_dir=str(folder / patient), comments=[f"diagnosis: {diagnosis}"],
            )  # fmt: skip


def test_wfdb_folder_becomes_a_manifest_and_bad_records_are_named(tmp_path):
    write_records(tmp_path / "db")
    (tmp_path / "db" / "patient2" / "b.dat").write_bytes(b"\0" * 10)
    report = import_wfdb(tmp_path / "db", tmp_path / "out", patient="folder", label="diagnosis")
    assert report.rows == 3
    assert [r.source.split("/")[-1] for r in report.rejected] == ["b.hea"]
    assert "truncated, holds 2 of the 400" in report.rejected[0].reason
    frame = Manifest.load(report.manifest).frame
    assert sorted(frame["group"]) == ["patient1", "patient1", "patient2"]
    assert set(frame["label"]) == {"infarct", "healthy"}
    config = SignalConfig(manifest=str(report.manifest), length=100, step=50)
    windows = load_windows(config)
    assert len(windows) == 3 * 7
    assert windows.leads == ("I", "II")
    assert not windows.synthetic


def test_cached_windows_are_the_same_and_memory_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    write_records(tmp_path / "db")
    manifest = str(import_wfdb(tmp_path / "db", tmp_path / "out").manifest)
    plain = load_windows(SignalConfig(manifest=manifest, length=100, fs=50.0, low=1.0))
    for _ in range(2):
        cached = load_windows(SignalConfig(manifest=manifest, length=100, fs=50.0, low=1.0, cache=True))
        assert isinstance(cached.signals[0], np.memmap)
        np.testing.assert_array_equal(cached.stack(), plain.stack())


def test_import_errors_name_what_was_found(tmp_path):
    with pytest.raises(InputError, match=r"no \.hea file in it"):
        import_wfdb(tmp_path, tmp_path / "out")
    write_records(tmp_path / "db")
    report = import_wfdb(tmp_path / "db", tmp_path / "out", label="age")
    assert report.rows == 0
    assert "its header has no field 'age'; it has diagnosis" in report.rejected[0].reason
    with pytest.raises(InputError, match="found no <name>_TRAIN and <name>_TEST files"):
        import_ucr(tmp_path / "db", tmp_path / "out")


def test_archive_keeps_its_split_and_arrays_need_a_rate(tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Toy_{part}.txt").write_text("1 0 1 2 3\n2 3 2 1 0\n")
    report = import_ucr(tmp_path, tmp_path / "out")
    frame = Manifest.load(report.manifest).frame
    assert frame["split"].value_counts().to_dict() == {"train": 2, "test": 2}
    windows = load_windows(SignalConfig(manifest=str(report.manifest), length=0, normalize="none"))
    assert windows.where(split="test").stack()[1, :, 0].tolist() == [3, 2, 1, 0]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2)))
    (rejected,) = import_arrays(tmp_path / "x.npy", tmp_path / "o2").rejected
    assert "sampling rate is unknown; give the import --fs" in rejected.reason
    assert import_arrays(tmp_path / "x.npy", tmp_path / "o2", fs=10.0).rows == 1


def test_bdf_files_of_a_folder_are_listed(tmp_path):
    """A folder search that passed over them would leave recordings out in silence."""
    (tmp_path / "a.bdf").write_bytes(b"\xffBIOSEMI".ljust(600))
    rejected = import_edf(tmp_path, tmp_path / "out").rejected
    assert [(Path(r.source).name, "convert it to EDF+" in r.reason) for r in rejected] == [("a.bdf", True)]


def test_beat_windows_from_annotations(tmp_path):
    generator = np.random.default_rng(0)
    wfdb.wrsamp("r", 100, ["mV"], ["II"], generator.normal(size=(1000, 1)), fmt=["16"], write_dir=str(tmp_path))
    wfdb.wrann("r", "atr", np.array([10, 200, 500, 980]), symbol=["N", "V", "N", "N"], fs=100, write_dir=str(tmp_path))
    manifest = str(import_wfdb(tmp_path, tmp_path / "out").manifest)
    windows = load_windows(SignalConfig(manifest=manifest, beats=True))
    assert windows.frame["label"].tolist() == ["V", "N"]  # the first and last beat are cut by the record's ends
    assert windows.frame["start"].tolist() == [175, 475]


def test_flat_rows_fail_the_check(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones((50, 2)))
    with pytest.raises(InputError, match="every channel is flat or missing"):
        check_row({"id": "x", "file": "flat.npy", "fs": 10.0}, tmp_path)


def test_pictures_keep_gaps_and_queries_fit_the_system(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    x[40:60, 0] = np.nan
    picture = draw(x, ("I", "<II>"))
    assert picture.count("<path") == 2
    assert picture.split("<path")[1].count("M") == 2  # the pen is lifted once
    assert "&lt;II>" in picture
    np.savez(tmp_path / "q.npz", x=np.nan_to_num(x), fs=10.0, leads=["I", "II"])
    config = TS2VecConfig(data=SignalConfig(length=64, normalize="train"))
    form = SignalForm(("II", "I"), ("", ""), 10.0, np.zeros(2), np.full(2, 2.0))
    windows = query(tmp_path / "q.npz", "signal", TS2Vec(config, form.assets()))
    assert [len(windows), *windows[0]["x"].shape] == [2, 64, 2]
    np.testing.assert_allclose(windows[1]["x"], np.nan_to_num(x)[32:96, ::-1] / 2, atol=1e-6)
    other = SignalForm(("V1",), ("",), 10.0)
    with pytest.raises(InputError, match="V1"):
        query(tmp_path / "q.npz", "signal", TS2Vec(override(config, {"data.normalize": "record"}), other.assets()))


def test_a_window_is_called_by_record_time_and_leads_and_marked_on_its_recording():
    """Ten seconds from 0:12 of a recording of one minute: a fifth of the way, a sixth of the line."""
    x = np.random.default_rng(0).normal(size=(600, 1)).astype(np.float32)
    rows = [{"id": "100", "group": "p1", "label": "N", "split": "test"}]
    windows = WindowSet.build([x], 100, 20, rows, 10.0, ("MLII",))
    sample = WindowDataset(windows)[6]
    assert caption(sample) == "100, 0:12-0:22, MLII"
    media = picture(sample)
    assert media.label == "100, 0:12\u20110:22"
    assert media.caption == "MLII, p1, N"
    line, window = re.findall(r'<rect [^>]*x="([\d.]+)"[^>]*width="([\d.]+)"', media.image)
    (left, long), (start, wide) = (tuple(map(float, pair)) for pair in (line, window))
    assert (start - left) / long == pytest.approx(12 / 60, abs=0.01)
    assert wide / long == pytest.approx(10 / 60, abs=0.01)
    whole = WindowDataset(WindowSet.build([x], 600, 600, rows, 10.0, ("MLII",)))[0]
    assert caption(whole) == "100, whole, MLII"
    assert "<rect" not in picture(whole).image


def test_a_long_signal_is_drawn_with_every_peak():
    """One sample of 5,000 stands out: thinning keeps it."""
    x = np.zeros((5000, 1), np.float32)
    x[1234] = 1.0
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", draw(x))]
    assert min(heights) < 5 < 90 < max(heights)
    assert len(heights) < 500


def test_simulated_folder_goes_through_check_preview_and_training(tmp_path, capsys):
    report = simulate(tmp_path / "sim", patients=6)
    assert "synthetic" in report.note
    page = preview(report.manifest, tmp_path / "page.html", recordings=2, seconds=2.0)
    assert "synthetic" in page.files["preview"].read_text().lower()
    assert main(["timeseries", "data", "check", str(report.manifest), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] == 36
    arguments = [
        "timeseries", "pretrain", "ts2vec", "--preset", "small", "--data.manifest", str(report.manifest),
        "--data.length", "64", "--encoder.depth", "3", "--train.max_steps", "2", "--train.batch_size", "8",
        "--train.out", str(tmp_path / "run"), "--train.tensorboard", "false", "--train.validate_every_epochs", "100",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert (tmp_path / "run" / "checkpoints" / "last").is_dir()


def test_systems_are_listed_with_their_papers(capsys):
    assert main(["timeseries", "systems", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"ts2vec", "comet", "frame-projections", "dbpm"} <= set(listed)
    assert all(entry["paper"] for entry in listed.values())


@pytest.mark.realdata
def test_real_folder_imports_whole(data_dir, tmp_path):
    report = import_wfdb(data_dir / "timeseries" / "wfdb", tmp_path / "out")
    assert not report.rejected
    frame = Manifest.load(report.manifest).frame.set_index("id")
    assert set(frame.index) == {"100", "03700181", "a103l", "s0010_re", "v102s"}
    assert frame.loc["03700181", "fs"] == 500
    edf = import_edf(data_dir / "timeseries" / "wfdb", tmp_path / "edf")
    assert edf.rows == 1
    assert "annotations but no signals" in edf.rejected[0].reason
