"""What a biosignal team really has: mixed units, missing leads, clashing names. Nothing is lost in silence."""

import numpy as np
import pytest

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.trainers import create_system, override
from counterpoint.timeseries.commands import import_arrays, import_wfdb
from counterpoint.timeseries.configs import SignalConfig, TS2VecConfig
from counterpoint.timeseries.manifest import WindowDataset, load_windows
from counterpoint.timeseries.ts2vec import TS2Vec

wfdb = pytest.importorskip("wfdb")


def write(folder, name, leads=("I", "II"), units=("mV", "mV"), scale=1.0, samples=400, fs=100, signal=None):
    """A record whose values, in mV, are the same noise whatever its unit."""
    folder.mkdir(parents=True, exist_ok=True)
    if signal is None:
        signal = np.random.default_rng(0).normal(size=(samples, len(leads)))
    wfdb.wrsamp(
        name, fs, list(units), list(leads), signal * scale, fmt=["16"] * len(leads),
        adc_gain=[1000.0 / scale] * len(leads), baseline=[0] * len(leads), write_dir=str(folder),
    )  # fmt: skip


def windows_of(tmp_path, **changes):
    manifest = str(import_wfdb(tmp_path / "db", tmp_path / "out").manifest)
    return load_windows(SignalConfig(**{"manifest": manifest, "length": 100, "normalize": "none", **changes}))


def test_units_are_brought_to_those_of_the_first_recording(tmp_path):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", units=("uV", "uV"), scale=1000.0)
    windows = windows_of(tmp_path)
    assert windows.units == ("mV", "mV")
    first, second = windows.signals
    np.testing.assert_allclose(second, first, atol=2e-3)
    wanted = windows_of(tmp_path, leads=("I", "II"), units=("uV", "uV"))
    np.testing.assert_allclose(wanted.signals[1], 1000 * first, rtol=1e-3, atol=2)


def test_another_quantity_in_a_lead_is_refused_by_name(tmp_path):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", units=("mV", "mmHg"))
    with pytest.raises(InputError, match=r"b\.hea: channel II is in mmHg where mV is expected.*leave the lead out"):
        windows_of(tmp_path)


def test_a_lead_without_a_unit_is_told(tmp_path, capsys):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", units=("mV", "NU"))
    assert windows_of(tmp_path).units == ("mV", "mV")
    assert "b.hea: lead II states no unit; taken as mV" in capsys.readouterr().err


def test_missing_and_flat_leads_and_lost_windows_are_told(tmp_path, capsys):
    generator = np.random.default_rng(0)
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", leads=("II",), units=("mV",))
    flat = generator.normal(size=(400, 2))
    flat[:, 0] = 0.5
    write(tmp_path / "db", "c", signal=flat)
    write(tmp_path / "db", "d", samples=60)
    write(tmp_path / "db", "e", signal=np.full((400, 2), 0.25))
    windows = windows_of(tmp_path)
    told = capsys.readouterr().err
    for line in (
        "b: no usable I; zero in its windows",
        "c: no usable I; zero in its windows",
        "d: 60 samples, shorter than one window of 100",
        "e: 7 of 7 windows are flat or empty in every channel",
    ):
        assert line in told
    assert set(windows.frame["record"]) == {"a", "b", "c"}
    dataset = WindowDataset(windows)
    lacking = next(i for i in range(len(windows)) if windows.frame["record"].iat[i] == "b")
    assert dataset[lacking]["present"].tolist() == [False, True]
    assert not dataset[lacking]["x"][:, 0].any()


def test_a_record_without_any_of_the_leads_names_the_remedy(tmp_path):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", leads=("V1", "V2"))
    with pytest.raises(InputError, match=r"b\.hea: none of the leads I, II; the record has V1, V2; name common leads"):
        windows_of(tmp_path)


def test_recordings_of_several_rates_need_one(tmp_path):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b", fs=250, samples=1000)
    with pytest.raises(InputError, match=r"b\.hea: 250 Hz where earlier recordings have 100 Hz; set --data\.fs"):
        windows_of(tmp_path)
    assert [len(x) for x in windows_of(tmp_path, fs=50.0).signals] == [200, 200]


def test_clashing_names_get_ids_of_their_own_and_records_stay_their_own_patients(tmp_path):
    write(tmp_path / "db" / "x", "b")
    write(tmp_path / "db", "x-b")
    write(tmp_path / "db" / "y", "b")
    frame = Manifest.load(import_wfdb(tmp_path / "db", tmp_path / "out").manifest).frame
    assert frame["id"].is_unique
    assert frame["group"].nunique() == len(frame) == 3  # x/b and y/b are two patients, not one called b
    for suffix in ("csv", "npz"):
        (tmp_path / "two").mkdir(exist_ok=True)
        if suffix == "csv":
            (tmp_path / "two" / "r.csv").write_text("time,a\n0,1\n0.1,2\n0.2,3\n")
        else:
            np.savez(tmp_path / "two" / "r.npz", x=np.ones((5, 1)), fs=10.0)
    report = import_arrays(tmp_path / "two", tmp_path / "out2")
    assert sorted(Manifest.load(report.manifest).frame["id"]) == ["r-csv", "r-npz"]


def test_folders_links_and_wrong_sources_end_in_a_sentence(tmp_path):
    write(tmp_path / "db", "a")
    (tmp_path / "db" / "folder.hea").mkdir()
    (tmp_path / "db" / "lost.hea").symlink_to(tmp_path / "nowhere.hea")
    (tmp_path / "db" / "text.hea").write_bytes(bytes(range(256)))
    report = import_wfdb(tmp_path / "db", tmp_path / "out")
    assert report.rows == 1
    reasons = {r.source.rsplit("/", 1)[-1]: r.reason for r in report.rejected}
    assert set(reasons) == {"folder.hea", "lost.hea", "text.hea"}
    assert "leads nowhere" in reasons["lost.hea"]
    assert import_wfdb(tmp_path / "db" / "a", tmp_path / "o2").rows == 1  # a record's name, as WFDB tools take it
    with pytest.raises(InputError, match=r"gone: no such file or folder"):
        import_wfdb(tmp_path / "gone", tmp_path / "o3")


def test_a_gain_of_zero_is_the_default_gain(tmp_path):
    write(tmp_path / "db", "a")
    header = (tmp_path / "db" / "a.hea").read_text().splitlines()
    words = header[1].split()
    header[1] = " ".join([*words[:2], "0", *words[3:]])
    (tmp_path / "db" / "a.hea").write_text("\n".join(header) + "\n")
    windows = windows_of(tmp_path)
    # 200 units per millivolt, as the WFDB header format has it, where the file was written with 1000.
    digital = np.fromfile(tmp_path / "db" / "a.dat", "<i2").reshape(-1, 2)
    np.testing.assert_allclose(windows.signals[0][:, 0], digital[:, 0] / 200, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated, its end mark is missing"),
        (bytes([7, 4, 9, 4]), "truncated, its end mark is missing; copy the annotation file again"),
        (bytes(range(256)) + bytes(2), "not a readable WFDB annotation file"),
    ],
)
def test_broken_annotation_files_are_rejected_by_name(tmp_path, content, reason):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b")
    (tmp_path / "db" / "a.atr").write_bytes(content)
    report = import_wfdb(tmp_path / "db", tmp_path / "o")
    assert report.rows == 1
    assert "a.atr" in report.rejected[0].reason
    assert reason in report.rejected[0].reason


def test_a_run_remembers_leads_units_and_rate(tmp_path):
    """Other recordings are then brought to the same form: the order of leads in a later file does not matter."""
    write(tmp_path / "db", "a")
    windows = windows_of(tmp_path, normalize="record")
    config = TS2VecConfig(data=SignalConfig(length=100, normalize="record"))
    system = create_system(TS2Vec, config, windows)
    assert (system.form.leads, system.form.units, system.form.fs) == (("I", "II"), ("mV", "mV"), 100.0)
    signal = np.random.default_rng(0).normal(size=(400, 2))
    write(tmp_path / "later", "z", leads=("II", "I"), units=("uV", "uV"), scale=1000.0, signal=signal[:, ::-1])
    manifest = str(import_wfdb(tmp_path / "later", tmp_path / "out2").manifest)
    other = TS2Vec.read(override(config, {"data.manifest": manifest}), system.assets)
    np.testing.assert_allclose(other.stack(), windows.stack(), atol=5e-3)


def run(capsys, *arguments):
    code = main(["timeseries", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_mistakes_on_the_command_line_end_in_one_sentence(tmp_path, capsys):
    write(tmp_path / "db", "a")
    write(tmp_path / "db", "b")
    manifest = import_wfdb(tmp_path / "db", tmp_path / "out").manifest
    frame = Manifest.load(manifest).frame.assign(group="same", split=["train", "test"])
    frame.to_csv(tmp_path / "out" / "leak.csv", index=False)
    frame.assign(id="a").to_csv(tmp_path / "out" / "twice.csv", index=False)
    (tmp_path / "db" / "b.dat").write_bytes(b"\0" * 10)
    small = ["--preset", "small", "--train.max_steps", 1, "--train.out", tmp_path / "run", "--data.length", 64]
    cases = {
        "group 'same' stands in test and train": ["--data.manifest", tmp_path / "out" / "leak.csv"],
        "id 'a' stands there a second time": ["--data.manifest", tmp_path / "out" / "twice.csv"],
        "b.dat: truncated, holds 2 of the 400": ["--data.manifest", manifest],
        "--data.normalize is channel; it must be one of none": ["--data.normalize", "channel"],
        "unknown option '--data.lenght'": ["--data.lenght", 64],
        "--data.generator is emg; it must be one of ecg, eeg, har": ["--data.generator", "emg"],
        "no annotation 'AFIB' in any recording": [
            "--data.manifest",
            tmp_path / "out" / "ok.csv",
            "--data.events",
            "AFIB",
        ],
    }
    Manifest.load(manifest).frame.iloc[:1].to_csv(tmp_path / "out" / "ok.csv", index=False)
    for sentence, arguments in cases.items():
        code, told = run(capsys, "pretrain", "ts2vec", *small, *arguments)
        assert (code, sentence in told, told.strip().count("\n")) == (2, True, 0), told


def test_a_leaking_split_does_not_reach_the_probes():
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.timeseries.protocols import protocols
    from counterpoint.timeseries.simulate import ecg
    from counterpoint.timeseries.splits import split_windows_at_random

    windows = split_windows_at_random(ecg(patients=6, trials=1, windows=6, length=64), {"train": 0.5, "test": 0.5})
    config = TS2VecConfig(data=SignalConfig(length=64))
    system = create_system(TS2Vec, config, windows)
    with pytest.raises(LeakageError):
        protocols(OpenRun.of(system))
