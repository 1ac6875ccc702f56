"""Stages, events, tables and folds that stand beside recordings, attached at import; what is wrong is named."""

import numpy as np
import pytest

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.timeseries.commands import import_bids, import_edf, import_ptbxl, import_wfdb
from counterpoint.timeseries.configs import SignalConfig
from counterpoint.timeseries.importers import check_row
from counterpoint.timeseries.manifest import load_windows
from counterpoint.timeseries.ptbxl import statements

edfio = pytest.importorskip("edfio")
wfdb = pytest.importorskip("wfdb")
FS = 10.0
STAGES = ("W", "N1", "N2")


def write_edf(path, seconds=120, annotations=(), names=("Fpz", "Cz"), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(seed).normal(size=(len(names), int(seconds * FS)))
    scale = {"physical_dimension": "uV", "physical_range": (-9, 9)}
    signals = [edfio.EdfSignal(v, FS, label=n, **scale) for n, v in zip(names, x)]
    edfio.Edf(signals if seconds else [], annotations=[edfio.EdfAnnotation(*a) for a in annotations]).write(path)


def write_night(folder, night="SC4001E", seconds=120, shift=0.0, scorer="C"):
    write_edf(folder / f"{night}0-PSG.edf", seconds)
    stages = [(30.0 * i + shift, 30.0, f"Sleep stage {s}") for i, s in enumerate(STAGES)]
    scored = edfio.Edf([], annotations=[edfio.EdfAnnotation(*a) for a in stages])
    scored.write(folder / f"{night}{scorer}-Hypnogram.edf")


def reasons(report):
    return [r.reason for r in report.rejected]


def test_sleep_stages_of_a_hypnogram_become_the_classes_of_windows(tmp_path):
    for night in ("SC4001E", "SC4002E", "SC4011E"):
        write_night(tmp_path / "edf", night)
    report = import_edf(tmp_path / "edf", tmp_path / "m")
    assert (report.rows, report.rejected) == (3, ())
    assert Manifest.load(report.manifest).frame["group"].tolist() == ["SC400", "SC400", "SC401"]  # nights of a subject
    stages = tuple(f"Sleep stage {s}" for s in STAGES)
    data = {"manifest": str(report.manifest), "length": 200, "step": 100, "events": stages, "window_class": "events"}
    windows = load_windows(SignalConfig(**data))
    first = windows.frame[windows.frame["signal"] == 0]
    # Windows of 20 s every 10 s; stages change at 30, 60 and 90 s: a window half in each has no majority.
    expected = ["W", "W", "", "N1", "N1", "", "N2", "N2", "", "", ""]
    assert first["label"].tolist() == [f"Sleep stage {s}" if s else "" for s in expected]
    with pytest.raises(InputError, match="name them with --data.events"):
        load_windows(SignalConfig(**{**data, "events": ()}))


def test_hypnograms_without_a_night_of_another_one_and_twice(tmp_path):
    write_night(tmp_path / "lone")
    (tmp_path / "lone" / "SC4001E0-PSG.edf").unlink()
    write_edf(tmp_path / "lone" / "a.edf")
    report = import_edf(tmp_path / "lone", tmp_path / "m1")
    assert report.rows == 1
    assert reasons(report) == [
        "a hypnogram without its recording, no SC4001E?-PSG.edf beside it; bring both into one folder"
    ]
    write_night(tmp_path / "far", shift=5000.0)
    (reason,) = reasons(import_edf(tmp_path / "far", tmp_path / "m2"))
    assert "SC4001EC-Hypnogram.edf: all 3 annotations lie outside of SC4001E0-PSG.edf, which lasts 120 s" in reason
    write_night(tmp_path / "two")
    write_night(tmp_path / "two", scorer="H")
    (reason,) = reasons(import_edf(tmp_path / "two", tmp_path / "m3"))
    assert "has 2 hypnograms beside it (SC4001EC-Hypnogram.edf, SC4001EH-Hypnogram.edf)" in reason
    write_edf(tmp_path / "bare" / "SC4001E0-PSG.edf")
    assert "no hypnogram SC4001E?-Hypnogram.edf beside it" in import_edf(tmp_path / "bare", tmp_path / "m4").note


def write_records(folder, names=("A1", "A2", "A3"), samples=100):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        x = np.random.default_rng(i).normal(size=(samples, 1))
        wfdb.wrsamp(name, 100, ["mV"], ["II"], x, fmt=["16"], write_dir=str(folder))


@pytest.mark.parametrize("head", ["", "record,label\n"])
def test_challenge_tables_give_recordings_their_class(tmp_path, head):
    write_records(tmp_path / "db")
    table = tmp_path / "REFERENCE.csv"
    table.write_text(f"{head}A1,N\nA3,A\n")
    report = import_wfdb(tmp_path / "db", tmp_path / "m", table=table)
    frame = Manifest.load(report.manifest).frame
    assert dict(zip(frame["id"], frame["label"])) == {"A1": "N", "A2": "", "A3": "A"}
    assert report.note == "A2: has no row in REFERENCE.csv"


def test_columns_of_a_table_name_patient_class_and_split(tmp_path):
    write_records(tmp_path / "db")
    table = tmp_path / "facts.csv"
    table.write_text("file_name,person,rhythm,split\nA1.hea,p,AF,train\nA2.hea,p,N,train\nA3.hea,q,N,test\n")
    report = import_wfdb(tmp_path / "db", tmp_path / "m", patient="person", label="rhythm", table=table)
    frame = Manifest.load(report.manifest).frame
    assert frame[["group", "label", "split"]].values.tolist() == [
        ["p", "AF", "train"], ["p", "N", "train"], ["q", "N", "test"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("record,label\nA1,N\nA9,N\n", "row 2: record 'A9' is none of the 3 recordings imported"),
        ("record,label\nA1,N\nA2,N\nA1,A\n", r"row 3: record 'A1' stands there a second time \(first in row 1\)"),
        ("record,label\nA1,N\nA1.hea,N\n", "row 2: recording A1 has a row already, 1"),
        ("record,label\nA1,N,x\n", "row 1: 3 cells where 2 columns are named"),
        ("record,label\n,N\n", "row 1: record is empty"),
        ("record,split\nA1,dev\n", "row 1: split 'dev' is not train, val, test or empty"),
        ("record,fs\nA1,3\n", "column 'fs' is one that the import writes itself"),
        ("who,what,when\nA1,N,x\n", "no column names the recordings"),
        ("", "the table is empty"),
    ],
)
def test_wrong_rows_of_a_table_are_named(tmp_path, rows, said):
    write_records(tmp_path / "db")
    table = tmp_path / "facts.csv"
    table.write_text(rows)
    with pytest.raises(InputError, match=f"facts.csv.*{said}"):
        import_wfdb(tmp_path / "db", tmp_path / "m", table=table)


PTBXL = "ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr\n"
CLASSES = ",diagnostic,diagnostic_class\nNORM,1.0,NORM\nIMI,1.0,MI\nASMI,1.0,MI\nCLBBB,1.0,CD\nSR,,\n"


def write_ptbxl(folder, *rows):
    write_records(folder, ("00001_lr", "00002_lr", "00003_lr", "00004_lr"))
    (folder / "scp_statements.csv").write_text(CLASSES)
    (folder / "ptbxl_database.csv").write_text(PTBXL + "".join(f"{row}\n" for row in rows))


GOOD = (
    "1,15.0,\"{'NORM': 100.0, 'SR': 0.0}\",3,00001_lr,x",
    "2,16.0,\"{'IMI': 80.0, 'ASMI': 15.0}\",9,00002_lr,x",
    "3,17.0,\"{'IMI': 80.0, 'CLBBB': 100.0}\",10,00003_lr,x",
)


def test_ptbxl_folds_become_splits_and_statements_classes(tmp_path):
    write_ptbxl(tmp_path / "db", *GOOD)
    report = import_ptbxl(tmp_path / "db", tmp_path / "m")
    frame = Manifest.load(report.manifest).frame
    assert frame[["id", "group", "split", "label"]].values.tolist() == [
        ["1", "15", "train", "NORM"], ["2", "16", "val", "MI"], ["3", "17", "test", ""]
    ]  # fmt: skip
    assert frame["superclasses"].tolist() == ["NORM", "MI", "CD MI"]
    assert "1 of 3 recordings have none or several of the diagnostic classes" in report.note
    two = Manifest.load(import_ptbxl(tmp_path / "db", tmp_path / "m2", label="MI").manifest).frame["label"]
    assert two.tolist() == ["not MI", "MI", "MI"]
    with pytest.raises(InputError, match=r"no row has the statement or class 'WPW' \(--label\); there are: ASMI, CD"):
        import_ptbxl(tmp_path / "db", tmp_path / "m3", label="WPW")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("4,18,\"{'NORM': 1.0}\",11,00004_lr,x", "strat_fold is '11', not a fold from 1 to 10"),
        ("4,18,\"{'NORM': 1.0}\",2.5,00004_lr,x", "strat_fold is '2.5', not a fold from 1 to 10"),
        ("4,18,__import__('os').getcwd(),1,00004_lr,x", "scp_codes is \"__import__('os').getcwd()\", not a dictionary"),
        ("4,18,\"{'NORM': 'x'}\",1,00004_lr,x", "not a dictionary of statements and numbers"),
        ("4,,\"{'NORM': 1.0}\",1,00004_lr,x", "patient_id is empty"),
        ("4,18,\"{'NORM': 1.0}\",1,00009_lr,x", "filename_lr 00009_lr.hea: no such file"),
        ("4,18,\"{'NORM': 1.0}\",1,00001_lr,x", "filename_lr 00001_lr.hea stands in the row of ecg_id 1 already"),
        ("4,15,\"{'NORM': 1.0}\",10,00004_lr,x", "patient 15 is in train by row 1, in test by this strat_fold"),
    ],
)
def test_wrong_rows_of_ptbxl_are_left_out_by_name(tmp_path, row, said):
    write_ptbxl(tmp_path / "db", *GOOD, row)
    report = import_ptbxl(tmp_path / "db", tmp_path / "m")
    assert report.rows == 3
    (left,) = report.rejected
    assert left.source.endswith("ptbxl_database.csv, row 4")
    assert said in left.reason


def test_ptbxl_ids_stand_once_and_statements_are_data(tmp_path):
    write_ptbxl(tmp_path / "db", *GOOD, GOOD[0])
    with pytest.raises(InputError, match=r"ptbxl_database.csv, row 4: ecg_id '1' stands there a second time"):
        import_ptbxl(tmp_path / "db", tmp_path / "m")
    for text in ("[1]", "{1: 2.0}", "(" * 500, "{'a': nan}", "{[]: 1}", "{'a': 1" + "0" * 20_000 + "}"):
        with pytest.raises(InputError, match="scp_codes"):
            statements(text)


def write_bids(folder, events="onset\tduration\ttrial_type\n1.0\t2.0\tseizure\n5\tn/a\tblink\n", channels=None):
    for subject in ("01", "02"):
        place = folder / f"sub-{subject}" / "eeg"
        write_edf(place / f"sub-{subject}_task-rest_eeg.edf", 20, seed=int(subject))
        (place / f"sub-{subject}_task-rest_events.tsv").write_text(events)
    channels = channels or "name\ttype\tunits\tstatus\nFpz\tEEG\tuV\tbad\nCz\tEEG\tµV\tgood\n"
    (folder / "task-rest_channels.tsv").write_text(channels, encoding="utf-8")  # inherited by both subjects
    (folder / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-01\tepilepsy\nsub-02\tn/a\n")


def test_bids_events_bad_channels_and_participants_arrive_in_training(tmp_path):
    write_bids(tmp_path / "bids")
    report = import_bids(tmp_path / "bids", tmp_path / "m", label="diagnosis")
    frame = Manifest.load(report.manifest).frame
    assert frame[["group", "label", "events"]].values.tolist() == [["sub-01", "epilepsy", 2], ["sub-02", "", 2]]
    windows = load_windows(
        SignalConfig(manifest=str(report.manifest), length=50, step=50, events=("seizure",), normalize="none")
    )
    assert windows.steps[0][:40].tolist() == [0] * 10 + [1] * 20 + [0] * 10
    assert windows.present.tolist() == [[False, True]] * 2  # Fpz is marked bad
    root = tmp_path / "m"
    notes = check_row(Manifest.load(report.manifest).row(0), root)
    assert any("channel Fpz is marked bad in task-rest_channels.tsv" in note for note in notes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"events": "onset\tduration\ttrial_type\n1\t1\ta\n25\t1\ta\n"}, "events.tsv, row 2: the event at 25 s lies"),
        ({"events": "onset\tduration\ttrial_type\n-9\t1\ta\n"}, "events.tsv, row 1: the event at -9 s lies outside"),
        ({"events": "onset\tduration\ttrial_type\nx\t1\ta\n"}, "events.tsv, row 1: onset is 'x', not a number"),
        ({"events": "onset\tduration\ttrial_type\n1\t-1\ta\n"}, "events.tsv, row 1: duration is -1, below 0"),
        ({"events": "onset\tduration\n1\t1\n"}, "has no column 'trial_type' or 'value'"),
        ({"channels": "name\tunits\nOz\tuV\n"}, "channels.tsv, row 1: the recording has no channel 'Oz'; it has Fpz"),
        ({"channels": "name\tunits\nCz\tuV\nCz\tuV\n"}, "channels.tsv, row 2: name 'Cz' stands there a second time"),
        ({"channels": "name\tunits\nCz\tmV\n"}, "row 1: channel Cz is in mV, and in the recording in uV"),
    ],
)
def test_bids_files_that_contradict_each_other_are_named(tmp_path, wrong, said):
    write_bids(tmp_path / "bids", **wrong)
    report = import_bids(tmp_path / "bids", tmp_path / "m")
    assert report.rows == 0
    assert all(said in reason for reason in reasons(report))


def test_participants_stand_once_and_recordings_have_bids_names(tmp_path):
    write_bids(tmp_path / "bids")
    write_edf(tmp_path / "bids" / "odd.edf", 20)
    assert "is not named as a BIDS recording" in reasons(import_bids(tmp_path / "bids", tmp_path / "m"))[0]
    people = tmp_path / "bids" / "participants.tsv"
    with pytest.raises(InputError, match="participants.tsv: has no column 'sick'"):
        import_bids(tmp_path / "bids", tmp_path / "m", label="sick")
    people.write_text("participant_id\tdiagnosis\nsub-01\ta\n")
    report = import_bids(tmp_path / "bids", tmp_path / "m", label="diagnosis")
    assert any("participants.tsv has no row for sub-02" in reason for reason in reasons(report))
    people.write_text("participant_id\tdiagnosis\nsub-01\ta\nsub-01\tb\n")
    with pytest.raises(InputError, match="participants.tsv, row 2: participant_id 'sub-01' stands there a second time"):
        import_bids(tmp_path / "bids", tmp_path / "m", label="diagnosis")
