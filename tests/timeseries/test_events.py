"""From annotations to classes of time steps, to a dense head and to event figures on the command line."""

import json

import numpy as np
import pytest
import torch

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.timeseries.commands import import_edf, import_wfdb
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.detection import anomalies, window_events
from counterpoint.timeseries.events import step_classes, stretches
from counterpoint.timeseries.manifest import WindowDataset, load_windows
from counterpoint.timeseries.record import Annotations, Record

edfio = pytest.importorskip("edfio")
wfdb = pytest.importorskip("wfdb")
FS = 50.0


def write_bursts(folder, patients=8, seconds=30):
    """EDF recordings of noise; one annotated burst of 8 Hz, 4 s long, begins 10 + patient seconds in."""
    generator, time = np.random.default_rng(0), np.arange(int(seconds * FS)) / FS
    folder.mkdir(parents=True, exist_ok=True)
    for p in range(patients):
        burst = (time >= 10 + p) & (time < 14 + p)
        x = 10 * generator.normal(size=(2, len(time))) + 40 * burst * np.sin(2 * np.pi * 8 * time)
        signals = [
            edfio.EdfSignal(x[j], FS, label=f"C{j + 3}", physical_dimension="uV", physical_range=(-400, 400))
            for j in range(2)
        ]
        edfio.Edf(signals, annotations=[edfio.EdfAnnotation(10.0 + p, 4.0, "seizure")]).write(folder / f"p{p}.edf")


def write_manifest(tmp_path):
    write_bursts(tmp_path / "edf")
    path = import_edf(tmp_path / "edf", tmp_path / "m").manifest
    table = Manifest.load(path)
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    Manifest(table.frame.assign(split=splits), table.root).save(path)
    return path


def burst_windows(tmp_path, **changes):
    data = SignalConfig(**{"manifest": str(write_manifest(tmp_path)), "length": 50, "step": 25, "events": ("seizure",)})
    return load_windows(data if not changes else SignalConfig(**{**vars(data), **changes}))


def test_rhythms_last_until_the_next_one_and_other_annotations_keep_their_length():
    events = Annotations.of([0.0, 2.0, 5.0, 7.0], ["(N", "V", "(AFIB", "noise"], [0, 0, 0, 1.5])
    found = stretches(Record("r", (), events))
    assert found.duration.tolist() == [5.0, 0.0, 0.0, 1.5]


def test_steps_take_the_class_of_their_annotation():
    events = Annotations.of([0.5, 1.0, 3.0], ["a", "b", "c"], [1.0, 0.5, 0.25])
    classes = step_classes(Record("r", (), events), ("b", "a"), 16, 4.0)
    assert classes.tolist() == [0, 0, 2, 2, 1, 1] + [0] * 10  # b comes later and wins; c was not asked for
    assert (step_classes(Record("r", ()), ("a",), 8, 4.0) == -1).all()  # nobody has looked
    points = Annotations.of([1.0], ["N"])
    with pytest.raises(InputError, match=r"r: annotation 'N' at 1\.000 s has no duration; set --data\.event_width"):
        step_classes(Record("r", (), points), ("N",), 8, 4.0)
    assert step_classes(Record("r", (), points), ("N",), 8, 4.0, width=1.0).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_windows_carry_the_classes_of_their_own_steps(tmp_path):
    windows = burst_windows(tmp_path)
    for i in (0, 25, len(windows) - 1):
        row = windows.frame.iloc[i]
        time = (row["start"] + np.arange(50)) / FS
        onset = 10 + int(row["record"][1:])
        assert windows.steps_of(i).tolist() == ((time >= onset) & (time < onset + 4)).astype(int).tolist()
    sample = WindowDataset(windows)[25]
    assert sample["steps"].dtype == torch.int64
    assert sample["steps"].shape == (50,)
    half = burst_windows(tmp_path, fs=25.0)  # at another rate the classes keep their places in time
    assert half.steps[3].sum() == 4 * 25
    whole = burst_windows(tmp_path, length=0)
    assert whole.steps[0].shape == (whole.length,)


def test_steps_that_were_not_recorded_are_unknown(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, 1))
    x[100:150] = np.nan
    wfdb.wrsamp("r", 100, ["mV"], ["II"], x, fmt=["16"], adc_gain=[100.0], baseline=[0], write_dir=str(tmp_path))
    wfdb.wrann("r", "atr", np.array([120, 300]), symbol=["V", "V"], fs=100, write_dir=str(tmp_path))
    manifest = str(import_wfdb(tmp_path, tmp_path / "m").manifest)
    steps = load_windows(SignalConfig(manifest=manifest, length=100, events=("V",), event_width=0.2)).steps[0]
    assert (steps[100:150] == -1).all()
    assert np.flatnonzero(steps == 1).tolist() == list(range(290, 310))


def test_an_annotation_that_is_nowhere_is_named_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"no annotation 'spike' in any recording .*there are: seizure \(8\)"):
        burst_windows(tmp_path, events=("spike",))


def test_a_probe_finds_events_that_the_vectors_show_and_not_those_they_do_not(tmp_path):
    windows = burst_windows(tmp_path)
    holds = torch.tensor([float((windows.steps_of(i) > 0).mean()) for i in range(len(windows))])
    noise = torch.randn(len(windows), 3, generator=torch.Generator().manual_seed(0))
    found = window_events(torch.cat([holds[:, None], noise], 1), windows, n_boot=20)
    assert (found.recordings, found.true_events, found.found_events, found.said_events) == (2, 2, 2, 2)
    assert found.scores.metrics["auroc"] > 0.97
    assert found.scores.intervals["auroc"].groups == 2
    assert window_events(noise, windows, n_boot=20).scores.metrics["auroc"] < 0.7
    with pytest.raises(InputError, match="needs annotated test windows"):
        window_events(noise, windows.where(split="train"))


class Amplitude:
    """A stand-in whose representation of a step is its absolute value, 0 when hidden."""

    device = torch.device("cpu")

    def represent_steps(self, x, mask_last=False):
        z = x.abs()
        if mask_last:
            z = z.clone()
            z[:, -1] = 0
        return z


def test_anomaly_protocol_scores_whole_recordings_against_their_annotations(tmp_path):
    windows = burst_windows(tmp_path).normalized("record")
    found = anomalies(Amplitude(), windows, steps=3000, context=10, delay=100, n_boot=20)
    assert (found.recordings, found.steps) == (2, 2 * 1500)
    assert found.scores.metrics["event_recall"] == 1.0
    some = anomalies(Amplitude(), windows, steps=400, context=10, n_boot=20)
    assert some.steps == 400
    with pytest.raises(InputError, match="needs training recordings"):
        anomalies(Amplitude(), windows.where(split="test"))


@pytest.mark.slow
def test_events_anomalies_and_a_dense_head_from_the_command_line(tmp_path, capsys):
    manifest, run = write_manifest(tmp_path), tmp_path / "run"
    options = {
        "data.manifest": manifest, "data.length": 50, "data.events": "seizure", "encoder.depth": 3, "encoder.dim": 8,
        "encoder.hidden": 8, "train.max_steps": 4, "train.batch_size": 8, "train.tensorboard": "false",
        "train.out": run,
        "anomaly_steps": 400, "anomaly_context": 20,
    }  # fmt: skip
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    assert main(["timeseries", "pretrain", "ts2vec", "--preset", "small", *words]) == 0
    capsys.readouterr()
    assert main(["timeseries", "evaluate", str(run), "--bootstrap", "20", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    for name in ("events, probe on windows", "anomaly scores, 7 steps of delay credited"):
        scores = results[name]["scores"]
        assert set(scores["metrics"]) >= {"step_f1", "event_f1", "event_recall", "event_precision"}
        assert scores["intervals"]["event_f1"]["groups"] == 2
    assert results["anomaly scores, 7 steps of delay credited"]["steps"] == 400
    fine = tmp_path / "fine"
    more = ["--train.max_epochs", "2", "--train.out", str(fine), "--train.tensorboard", "false"]
    assert main(["timeseries", "finetune", str(run), "--task", "dense", "--labels", "steps", *more]) == 0
    found = json.loads((fine / "finetune.json").read_text())["test"]
    assert found["classes"] == ["0", "1"]
    assert found["intervals"]["mean_iou"]["groups"] == 2
