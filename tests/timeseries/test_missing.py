"""Missing values, padding and lost windows: masked, counted and told, never data."""

import json

import numpy as np
import pytest
import torch

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.timeseries.commands import import_ucr
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.encoders import TS2VecEncoder, pool_series
from counterpoint.timeseries.manifest import WindowDataset, load_windows
from counterpoint.timeseries.preprocess import Normalizer, missing_as_nan, sentinel
from counterpoint.timeseries.readers import read_ucr
from counterpoint.timeseries.windows import WindowSet


def noise(samples, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, channels)).astype(np.float32)


def cohort(folder, signals, labels=None, splits=None):
    folder.mkdir(exist_ok=True)
    rows = []
    for i, x in enumerate(signals):
        np.save(folder / f"f{i}.npy", x)
        rows.append({"id": f"r{i}", "group": f"p{i}", "split": splits[i] if splits else "train", "file": f"f{i}.npy",
                     "fs": 64.0, "label": labels[i] if labels else ""})  # fmt: skip
    path = folder / "manifest.csv"
    Manifest.from_rows(rows, folder).save(path)
    return str(path)


@pytest.mark.parametrize("level", ["train", "patient", "window", "none"])
def test_an_infinite_value_is_a_missing_one_and_changes_no_other_patient(tmp_path, level, capsys):
    signals = [noise(256, seed=i) + i for i in range(3)]
    windows = {}
    for value in (np.inf, -np.inf, np.nan):
        signals[0][10, 0] = value
        config = SignalConfig(manifest=cohort(tmp_path / f"{value}", signals), length=64, normalize=level)
        windows[str(value)] = load_windows(config).stack()
        assert ("infinite samples, taken as missing: channel1 1 of 256" in capsys.readouterr().err) == np.isinf(value)
    np.testing.assert_array_equal(windows["inf"], windows["nan"])
    np.testing.assert_array_equal(windows["-inf"], windows["nan"])
    assert np.isnan(windows["nan"]).sum() == 1  # the sample stands in the first window alone
    assert not np.isinf(windows["inf"]).any()


def test_statistics_are_those_of_the_finite_values():
    x = noise(100, 1)
    holes = x.copy()
    holes[::7] = np.inf
    holes[3] = np.nan
    finite = holes[np.isfinite(holes[:, 0])]
    scaler = Normalizer("train").fit([holes], [True])
    np.testing.assert_allclose([scaler.mean[0], scaler.std[0]], [finite.mean(), finite.std()], rtol=1e-5)


def test_values_beyond_float32_are_missing_and_clean_signals_are_not_copied():
    x, count = missing_as_nan(np.array([[1e300, 1.0], [2.0, -np.inf]]))
    assert np.isnan(x).tolist() == [[True, False], [False, True]]
    assert count.tolist() == [1, 1]
    clean = noise(10)
    assert missing_as_nan(clean)[0] is clean


def test_marks_for_missing_values_are_told_and_real_extremes_are_not():
    x = noise(100, 1)[:, 0]
    x[5:8] = -999
    assert sentinel(x) == -999
    assert sentinel(np.array([99, 99, 98, 97, 96], np.float32)) is None  # a saturation that touches 99
    assert sentinel(noise(100, 1)[:, 0]) is None


def test_a_long_gap_costs_its_own_windows_alone(tmp_path, capsys):
    x = noise(1000)
    x[200:900, 1] = np.nan
    x[400:900, 0] = np.nan
    windows = load_windows(SignalConfig(manifest=cohort(tmp_path, [x]), length=100, step=100, normalize="none"))
    assert windows.frame["start"].tolist() == [0, 100, 200, 300, 900]
    dataset = WindowDataset(windows)
    present = [dataset[i]["present"].tolist() for i in range(5)]
    assert present == [[True, True], [True, True], [True, False], [True, False], [True, True]]
    for i in (0, 1, 4):
        start = windows.frame["start"][i]
        np.testing.assert_array_equal(dataset[i]["x"].numpy(), x[start : start + 100])  # nothing became zero
    assert not dataset[2]["x"][:, 1].any()
    assert torch.isfinite(dataset[2]["x"]).all()  # the lead that is there is not masked by the one that is not
    told = capsys.readouterr().err
    assert "r0: 5 of 10 windows are flat or empty in every channel" in told
    assert "r0: of 5 windows lack channel2 in 2; zero there, `present` is false" in told


def archive(folder, lengths, labels):
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    series = [generator.normal(size=n).round(3) for n in lengths]
    text = "".join(f"{','.join(map(str, x))}:{y}\n" for x, y in zip(series, labels))
    for part in ("TRAIN", "TEST"):
        (folder / f"U_{part}.ts").write_text(f"@problemName U\n@equalLength false\n@classLabel true a b\n@data\n{text}")
    return series


def test_short_series_keep_their_values_and_padding_is_a_mask(tmp_path, capsys):
    series = archive(tmp_path / "in", [20, 100, 40, 100], "abab")
    manifest = str(import_ucr(tmp_path / "in", tmp_path / "out").manifest)
    windows = load_windows(SignalConfig(manifest=manifest, length=0, normalize="none"))
    assert "4 of 8 recordings are shorter than the longest of 100 samples" in capsys.readouterr().err
    assert windows.frame["label"].value_counts().to_dict() == {"a": 4, "b": 4}
    part = windows.where(split="train")
    dataset = WindowDataset(part, of=windows)
    for i, values in enumerate(series):
        x = dataset[i]["x"][:, 0]
        np.testing.assert_allclose(x[: len(values)], values, rtol=1e-6)
        assert torch.isnan(x[len(values) :]).all()
    scaled = load_windows(SignalConfig(manifest=manifest, length=0, normalize="train"))
    every = np.concatenate(series)
    np.testing.assert_allclose([scaled.mean[0, 0], scaled.std[0, 0]], [every.mean(), every.std()], rtol=1e-5)


def test_padded_steps_take_no_part_in_a_series_representation():
    torch.manual_seed(0)
    encoder = TS2VecEncoder(1, dim=8, hidden=4, depth=2, dropout=0.0).eval()
    x = torch.randn(1, 40, 1)
    padded = torch.cat([x, torch.full((1, 60, 1), torch.nan)], 1)
    z = encoder(padded)
    assert torch.equal(pool_series(z, padded), z[:, :40].amax(1))
    whole = torch.full((1, 5, 1), torch.nan)
    assert torch.isfinite(pool_series(encoder(whole), whole)).all()
    assert torch.equal(pool_series(encoder(x), x), pool_series(encoder(x)))


def test_a_class_that_loses_all_its_samples_is_an_error(tmp_path):
    archive(tmp_path / "in", [20, 100, 40, 100], "abab")
    manifest = str(import_ucr(tmp_path / "in", tmp_path / "out").manifest)
    with pytest.raises(InputError, match=r"class 'a' loses all of its 2 \w+ recordings.*data\.length \(0 takes"):
        load_windows(SignalConfig(manifest=manifest, length=64))
    assert len(load_windows(SignalConfig(manifest=manifest, length=20, step=20)))


def test_what_no_window_covers_is_told(tmp_path, capsys):
    load_windows(SignalConfig(manifest=cohort(tmp_path, [noise(250), noise(300)]), length=100, step=100))
    told = capsys.readouterr().err
    assert "windows of 100 samples cut recordings of 250 to 300 samples; 50 samples at the end of 1 recordings" in told


def test_archives_with_odd_lengths_and_lost_classes(tmp_path):
    head = "@problemName P\n@equalLength true\n@classLabel true a b\n@data\n"
    path = tmp_path / "P.ts"
    path.write_text(head + "1,2,3,4:1,2:a\n")
    with pytest.raises(InputError, match=r"P\.ts, line 5: channel 2 has 2 values where channel 1 has 4; resample"):
        read_ucr(path)
    path.write_text(head + "1,2,3,4:a\n1,2,3:b\n")
    with pytest.raises(InputError, match=r"line 6: 3 values where the rows before have 4 and @equalLength is true"):
        read_ucr(path)
    path.write_bytes(("\ufeff" + head + "1,inf,3,4:a\n").encode("utf-16-le"))
    found = read_ucr(path)
    assert found.name == "P"
    assert np.isnan(found.x[0, :, 0]).tolist() == [False, True, False, False]
    assert found.notes == (
        "P.ts: no series of class b, which @classLabel declares", "P.ts: 1 infinite values, taken as missing",
    )  # fmt: skip


def test_the_check_lists_missing_samples_as_notes(tmp_path, capsys):
    x = noise(100)
    x[:3, 0], x[7, 1], x[50:60, 1] = np.nan, np.inf, -999
    assert main(["timeseries", "data", "check", cohort(tmp_path, [x]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    notes = [n["note"] for n in found["notes"]]
    assert found["usable"] == 1
    assert notes[:2] == [
        "infinite samples, taken as missing: channel2 1 of 100", "missing samples of 100: channel1 3, channel2 1",
    ]  # fmt: skip
    assert "channel channel2 is -999 in 10 samples" in notes[2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fs": "abc"}, "fs is 'abc'; give a positive number of hertz"),
        ({"fs": float("inf")}, "fs is 'inf'; give a positive number of hertz"),
        ({"fs": -5}, "fs is -5; give a positive number of hertz"),
        ({"fs": 0}, "fs is 0; give a positive number of hertz"),
        ({"row": 1.5}, "row is 1.5; give the number of a series"),
        ({"row": "one"}, "row is 'one'; give the number of a series"),
        ({"file": 12}, "file is 12; the column file names the recording"),
        ({"file": None}, "no file; the column file names the recording"),
        ({"file": "gone.npy"}, "no such file"),
    ],
)
def test_wrong_cells_are_named_by_check_and_training(tmp_path, capsys, change, reason):
    np.save(tmp_path / "a.npy", noise(100))
    rows = [{"id": name, "file": "a.npy", "fs": 10.0, "row": None} for name in "ab"]
    rows[1] |= change
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["timeseries", "data", "check", str(path)]) == 2
    shown = capsys.readouterr()
    assert "row 2 (b)" in shown.out
    assert reason in shown.out
    small = ["--preset", "small", "--data.length", "50", "--train.max_steps", "1", "--train.out", str(tmp_path / "run")]
    assert main(["timeseries", "pretrain", "ts2vec", "--data.manifest", str(path), *small]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert ("gone.npy" if "gone" in str(change) else f"{path}, row 2 (id b)") in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("name", "text", "side", "reason"),
    [
        ("m.csv", "id,file\na,a.npy\n", "{bad", r"m\.csv\.meta\.json: not readable as JSON .*repair or remove it"),
        ("m.csv", "id,file\na,a.npy\n", "[1]", r"m\.csv\.meta\.json: facts about a manifest are one JSON object"),
        ("m.csv", "id,file\na,a.npy,10\n", "", r"m\.csv: rows have more fields than the header names"),
        ("m.csv", "id;file\na;a.npy\n", "", r"m\.csv: its columns are not split by commas"),
        ("m.csv", "name,file\na,a.npy\n", "", r"m\.csv: has no column .id. \(its columns: name, file\); give"),
        ("m.csv", "id,file\n", "", "the manifest has no rows"),
        ("m.csv", "id,file\na,x\na,y\n", "", r"m\.csv, row 2: id 'a' stands there a second time"),
        ("m.jsonl", '{"id": "a"}\n[1]\n', "", r"m\.jsonl, line 2: a row is a JSON object, not list"),
        ("m.jsonl", "[" * 100_000, "", r"m\.jsonl, line 1: not JSON"),
    ],
)
def test_wrong_manifests_end_in_one_sentence(tmp_path, name, text, side, reason):
    (tmp_path / name).write_text(text)
    if side:
        (tmp_path / f"{name}.meta.json").write_text(side)
    with pytest.raises(InputError, match=reason):
        load_windows(SignalConfig(manifest=str(tmp_path / name)))


def test_windows_of_a_flat_signal_are_left_out_with_their_number():
    windows = WindowSet.build([np.ones((40, 1), np.float32), noise(40, 1)], 10, 10, [{"id": "a"}, {"id": "b"}], 1.0)
    assert windows.notes == ("a: 4 of 4 windows are flat or empty in every channel",)
    assert set(windows.frame["record"]) == {"b"}
