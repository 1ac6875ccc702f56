"""Tables as devices and people write them: the right rate, no column taken for a signal in silence, or one sentence."""

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers import read_record, read_table

X = np.random.default_rng(0).normal(size=(60, 2)).round(3)
START = 1530782691


def write(path, columns, sep=",", decimal=".", encoding="utf-8", before=""):
    text = pd.DataFrame(columns).to_csv(sep=sep, decimal=decimal, index=False, lineterminator="\n")
    path.write_bytes((before + text).encode(encoding))
    return path


def signal(clock, name="time"):
    return {name: clock, "x": X[: len(clock), 0], "y": X[: len(clock), 1]}


STEPS = np.arange(60)
STAMPS = pd.Timestamp(START, unit="s") + pd.to_timedelta(40 * STEPS, unit="ms")
CLOCKS = {
    "seconds": ("time", STEPS / 25, ""),
    "epoch s": ("timestamp", START + STEPS / 25, "epoch s"),
    "epoch ms": ("timestamp", START * 10**3 + 40 * STEPS, "epoch ms"),
    "epoch us": ("unix_time", START * 10**6 + 40_000 * STEPS, "epoch us"),
    "epoch ns": ("Timestamp", START * 10**9 + 40_000_000 * STEPS, "epoch ns"),
    "unit in brackets": ("time [ms]", 40 * STEPS, "in ms"),
    "unit in the name": ("timestamp_us", 40_000 * STEPS, "in us"),
    "dates": ("time", STAMPS.strftime("%Y-%m-%d %H:%M:%S.%f"), "dates"),
    "ISO with zone": ("datetime", [f"{s.isoformat()}+02:00" for s in STAMPS], "dates"),
    "day first": ("time", STAMPS.strftime("%d/%m/%Y %H:%M:%S.%f"), "dates"),
    "colon before milliseconds": ("time", [s.strftime("%Y-%m-%d %H:%M:%S:%f")[:-3] for s in STAMPS], "dates"),
    "times of day": ("time", STAMPS.strftime("%H:%M:%S.%f"), "times of day"),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_clocks_give_the_rate_and_what_was_assumed(tmp_path, kind):
    name, clock, said = CLOCKS[kind]
    record = read_table(write(tmp_path / "a.csv", signal(clock, name)))
    assert [c.name for c in record.channels] == ["x", "y"]
    assert record.channels[0].fs == pytest.approx(25, rel=1e-6)
    assert said in " ".join(record.notes)
    np.testing.assert_allclose(record.channels[1].data, X[:, 1], rtol=1e-6)


def test_a_change_of_offset_is_no_jump_and_midnight_passes(tmp_path):
    utc = pd.Timestamp("2023-10-29 00:59:59", tz="UTC") + pd.to_timedelta(40 * STEPS, unit="ms")
    local = [s.isoformat() for s in utc.tz_convert("Europe/Zurich")]
    assert {s[-6:] for s in local} == {"+02:00", "+01:00"}
    assert read_table(write(tmp_path / "a.csv", signal(local))).channels[0].fs == pytest.approx(25)
    late = (pd.Timestamp("2023-01-01 23:59:59") + pd.to_timedelta(40 * STEPS, unit="ms")).strftime("%H:%M:%S.%f")
    record = read_table(write(tmp_path / "b.csv", signal(late)))
    assert record.channels[0].fs == pytest.approx(25)
    assert "midnight passed" in record.notes[0]


def test_repeated_and_rounded_stamps(tmp_path):
    coarse = read_table(write(tmp_path / "a.csv", signal((STEPS + 4) // 10)))  # ten samples share a stamp of 1 s
    assert coarse.channels[0].fs == pytest.approx(10)
    assert "10 samples share each stamp of 1 s" in coarse.notes[0]
    rounded = read_table(write(tmp_path / "b.csv", signal((STEPS / 128).round(3))))  # 7 or 8 ms
    assert rounded.channels[0].fs == pytest.approx(128, rel=2e-3)
    lost = np.delete((STEPS + 4) // 10, slice(20, 25))
    with pytest.raises(InputError, match=r"a\.csv, row 18: this stamp of column time has 5 samples where"):
        read_table(write(tmp_path / "a.csv", signal(lost)))


def test_a_given_rate_tells_the_unit(tmp_path):
    path = write(tmp_path / "a.csv", signal(40 * STEPS))
    assert read_table(path, fs=25.0).channels[0].fs == 25
    assert "time [ms]" in read_table(path).notes[0]  # alone it is 0.025 Hz, which is questioned
    with pytest.raises(InputError, match=r"the time column says 0\.025 Hz where 30 Hz were given \(--fs"):
        read_table(path, fs=30.0)


DST = pd.Timestamp("2023-10-29 02:59:59") + pd.to_timedelta(40 * STEPS, unit="ms")
BAD_CLOCKS = {
    r"row 32: .*goes back by an hour \(the end of summer time\?\); write times with their UTC offset": [
        (s - pd.Timedelta(hours=int(i >= 30))).strftime("%Y-%m-%d %H:%M:%S.%f") for i, s in enumerate(DST)
    ],
    r"row 32: time jumps by 3600\.04 s where the step is 0\.04 s; the beginning of summer time\?": [
        (s + pd.Timedelta(hours=int(i >= 30))).strftime("%Y-%m-%d %H:%M:%S.%f") for i, s in enumerate(DST)
    ],
    r"row 22: time jumps by 2\.04 s where the step is 0\.04 s; fill the gap": STEPS / 25 + 2 * (STEPS >= 20),
    r"row 22: .*goes back; sort the rows": STEPS / 25 - 0.5 * (STEPS >= 20),
    r"row 22: .*repeats a stamp; remove the doubled row": (STEPS - (STEPS >= 20)) / 25,
    r"row 12: column time holds no time \(.*nan.*\); every sample needs its time": np.where(STEPS == 10, np.nan, STEPS),
    r"row 2: column time holds no time that can be read \('soon'\)": ["soon"] * 60,
}


@pytest.mark.parametrize("message", BAD_CLOCKS)
def test_clocks_that_give_no_rate_name_row_and_remedy(tmp_path, message):
    with pytest.raises(InputError, match=r"a\.csv, " + message):
        read_table(write(tmp_path / "a.csv", signal(BAD_CLOCKS[message])))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sep": ";", "decimal": ","}, "split by ';', numbers have decimal commas"),
        ({"sep": ";"}, "split by ';'"),
        ({"sep": "\t"}, "split by tabs"),
        ({"sep": " "}, "split by blanks"),
        ({"encoding": "utf-8-sig"}, ""),
        ({"encoding": "utf-16"}, "UTF-16"),
        ({"encoding": "utf-16-le"}, "UTF-16-LE"),
        ({"before": "# exported\n# by a device\n"}, "2 lines before the table"),
        ({"before": "Serial Number: N1, rev 2\nStart Time 11:00:00\n\n---------\n"}, "3 lines before the table"),
    ],
)
def test_layouts_are_found_out_and_said(tmp_path, options, said):
    record = read_table(write(tmp_path / "a.csv", signal(STEPS / 25), **options))
    assert [(c.name, c.fs) for c in record.channels] == [("x", 25.0), ("y", 25.0)]
    np.testing.assert_allclose(record.channels[0].data, X[:, 0], rtol=1e-6)
    assert said in " ".join(record.notes)


def test_names_may_be_latin_1_doubled_or_absent(tmp_path):
    columns = {"time": STEPS / 25, "Höhe": X[:, 0], "y": X[:, 1]}
    record = read_table(write(tmp_path / "a.csv", columns, encoding="latin-1"))
    assert record.names == ("Höhe", "y")
    text = (tmp_path / "b.csv").write_text
    text("time,x,x\n" + "\n".join(f"{t / 25},{a},{b}" for t, (a, b) in enumerate(X)))
    record = read_table(tmp_path / "b.csv")
    assert record.names == ("x", "x.1")
    assert "numbered: x" in record.notes[-1]
    text("\n".join(f"{a},{b}" for a, b in X))
    record = read_table(tmp_path / "b.csv", fs=25.0)
    assert len(record.channels[0].data) == 60  # the first line is data, not names
    assert "no line of names" in record.notes[0]
    text("\n".join(f"{t / 25},{a},{b}" for t, (a, b) in enumerate(X)))
    with pytest.raises(InputError, match="no line of names, and its first column rises like a clock; add a first line"):
        read_table(tmp_path / "b.csv", fs=25.0)


def test_device_lines_give_rate_and_units(tmp_path):
    body = "".join(f"{a},{b}\n" for a, b in X)
    (tmp_path / "a.csv").write_text("--- Data File Created By A Device at 30 Hz Filter Normal ---\n----\nx,y\n" + body)
    record = read_table(tmp_path / "a.csv")
    assert record.channels[0].fs == 30
    assert "30 Hz is taken from the line" in " ".join(record.notes)
    (tmp_path / "b.csv").write_text(
        "'Elapsed time','MLII','V5'\n'hh:mm:ss.mmm','mV','mV'\n"
        + "".join(f"'0:{t / 25:06.3f}',{a},{b}\n" for t, (a, b) in enumerate(X))
    )
    record = read_table(tmp_path / "b.csv")
    assert [(c.name, c.unit) for c in record.channels] == [("MLII", "mV"), ("V5", "mV")]
    assert record.channels[0].fs == pytest.approx(25)


def test_classes_people_and_codes_are_no_signals(tmp_path):
    columns = {
        **signal(STEPS / 25), "activity": np.where(STEPS < 25, 1, 4), "subject": 7, "place": "wrist", "row": STEPS,
        "button": (STEPS >= 30).astype(int), "note": ["", "up"] * 30, "ok": [True, False] * 30,
        "level [1]": STEPS // 20,
    }  # fmt: skip
    record = read_table(write(tmp_path / "a.csv", columns))
    assert record.names == ("x", "y", "level")
    assert record.meta == {"subject": "7"}
    assert record.annotations.label == ("1", "4")
    assert record.annotations.onset.tolist() == [0.0, 1.0]
    assert record.annotations.duration.tolist() == [1.0, 1.4]
    told = " ".join(record.notes)
    for name in ("activity", "subject", "place", "row", "button", "note", "ok"):
        assert f"column {name} " in told
    assert "(button [1])" in told
    columns["subject"] = np.where(STEPS < 40, 7, 8)
    with pytest.raises(InputError, match=r"row 42: column subject changes, so the file holds several recordings"):
        read_table(write(tmp_path / "a.csv", columns))


def test_cut_and_ragged_lines_are_named(tmp_path):
    path = write(tmp_path / "a.csv", signal(STEPS / 25))
    path.write_text(path.read_text().rsplit(",", 1)[0] + "\n")
    with pytest.raises(InputError, match=r"a\.csv, row 61: 2 fields where the table has 3; the line is cut"):
        read_table(path)


def test_arrays_are_refused_before_they_are_expanded_or_unpickled(tmp_path):
    def refuses(name, reason, fs=10.0):
        with pytest.raises(InputError, match=reason) as found:
            read_record(tmp_path / name, fs)
        assert "pickle" not in str(found.value)

    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refuses("o.npy", "it holds Python objects; save numeric arrays only")
    np.savez(tmp_path / "o.npz", x=np.array([[1, "a"]], dtype=object))
    refuses("o.npz", r"x\.npy: .*Python objects")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((150_000_000, 1)))
    refuses("bomb.npz", r"expands from [\d,]+ to at least 1,200,000,\d+ bytes")
    for name, array in {"c": X + 1j, "b": X > 0, "t": X.astype(str), "d": np.array(3.0), "e": X[:0]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        refuses(f"{name}.npy", "real numbers .time, channels. are expected")
    np.save(tmp_path / "turned.npy", np.zeros((12, 5000)))
    refuses("turned.npy", r"12 time steps of 5000 channels; .*save it transposed")
    np.savez(tmp_path / "named.npz", x=X.T, fs=10.0, leads=["a", "b"])
    refuses("named.npz", r"looks like \[channels, time\], save it transposed", None)
    np.save(tmp_path / "told.npy", X.T)
    assert "is it transposed?" in read_record(tmp_path / "told.npy", 10.0).notes[0]
    for fs in ("abc", np.nan, -5.0, [1.0, 2.0]):
        np.savez(tmp_path / "fs.npz", x=X, fs=fs)
        refuses("fs.npz", "its array fs is .*one positive number of hertz is expected", None)
    np.savez(tmp_path / "fs.npz", x=X, fs=25.0)
    refuses("fs.npz", r"its array fs says 25 Hz where 10 Hz were given \(--fs")


def damaged(data: bytes, generator: np.random.Generator):
    """Cuts, flipped bytes, holes, doubled parts, foreign bytes."""
    for share in (0.0, 0.01, 0.3, 0.6, 0.97):
        yield data[: int(len(data) * share)]
    for count in (1, 5, 50):
        changed = bytearray(data)
        for place in generator.integers(0, len(data), count):
            changed[place] = generator.integers(256)
        yield bytes(changed)
    half = len(data) // 2
    yield data[:half] + bytes(64) + data[half:]
    yield data[half:]
    yield data + data
    yield data[:half] + b"\xff\xfe,;\t\"'\n" + data[half:]
    yield bytes(generator.integers(0, 256, 300).tolist())


SOURCES = ("a.csv", "a.parquet", "a.npy", "a.npz", "a.ts", "a.arff", "a.txt", "a.jsonl", "m.csv")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOURCES)
def test_damaged_files_are_read_or_end_in_one_sentence(tmp_path, name):
    from counterpoint.common.data import Manifest
    from counterpoint.timeseries.readers import read_ucr

    path = tmp_path / name
    series = ",".join(map(str, X[:, 0]))
    texts = {
        ".ts": f"@problemName A\n@classLabel true a b\n@data\n{series}:a\n{series}:b\n",
        ".arff": f"@relation A\n@data\n{series},a\n{series},b\n",
        ".txt": f"1,{series}\n2,{series}\n",
        ".jsonl": '{"id": "a", "file": "a.npy", "fs": 1.0}\n{"id": "b", "file": "b.npy", "fs": 2.0}\n',
    }
    if path.suffix in texts:
        path.write_text(texts[path.suffix])
    elif name == "m.csv":
        path.write_text("id,group,split,file,fs\na,p,train,a.npy,1\nb,q,test,b.npy,2\n")
    elif path.suffix == ".csv":
        write(path, signal(STEPS / 25))
    elif path.suffix == ".parquet":
        pd.DataFrame(signal(STEPS / 25)).to_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, X)
    else:
        np.savez_compressed(path, x=X, fs=25.0, leads=["a", "b"])
    read = read_ucr if path.suffix in (".ts", ".arff", ".txt") else read_record
    read = Manifest.load if name in ("m.csv", "a.jsonl") else read
    data, generator = path.read_bytes(), np.random.default_rng(0)
    read(path) if name != "a.npy" else read(path, 25.0)
    for content in damaged(data, generator):
        path.write_bytes(content)
        said = path.name
        try:
            read(path) if name != "a.npy" else read(path, 25.0)
        except InputError as error:  # anything else fails the test
            said = str(error)
        assert path.name in said
        assert "\n" not in said


def test_the_import_takes_patient_and_label_from_columns_and_tells_what_it_did(tmp_path):
    from counterpoint.common.data import Manifest
    from counterpoint.timeseries.commands import import_arrays

    (tmp_path / "in").mkdir()
    for i in range(2):
        write(tmp_path / "in" / f"s{i}.csv", {**signal(STEPS / 25), "subject": i + 7, "activity": "walk"}, sep=";")
    report = import_arrays(tmp_path / "in", tmp_path / "out", patient="subject", label="activity")
    frame = Manifest.load(report.manifest).frame
    assert frame["group"].tolist() == ["7", "8"]
    assert frame["label"].tolist() == ["walk", "walk"]
    assert frame["leads"].tolist() == ["x y", "x y"]
    assert "s0 and 1 more: columns are split by ';'" in report.note
