"""Readers give the file's physical values, and say what is wrong with a broken file and how to mend it."""

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers import read_edf, read_numpy, read_record, read_table, read_ucr, read_wfdb
from counterpoint.timeseries.windows import WindowSet

wfdb = pytest.importorskip("wfdb")
edfio = pytest.importorskip("edfio")


def write_wfdb(folder, name="r", fmt="16", samples=1001, channels=3, fs=250):
    """A small record written by the wfdb package itself."""
    time = np.arange(samples)[:, None] / fs
    signal = np.sin(2 * np.pi * (1 + np.arange(channels)) * time) + 0.1 * np.arange(channels)
    names = ["I", "II", "V1", "V2"][:channels]
    wfdb.wrsamp(
        name, fs, ["mV"] * channels, names, signal, fmt=[fmt] * channels, adc_gain=[200.0] * channels,
        baseline=[7] * channels, write_dir=str(folder), comments=["age: 63", "pacemaker"],
    )  # fmt: skip
    return signal


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("channels", [1, 3])
def test_wfdb_fast_path_equals_the_wfdb_package(tmp_path, fmt, channels):
    written = write_wfdb(tmp_path, fmt=fmt, channels=channels)
    record = read_wfdb(tmp_path / "r.hea")
    reference = wfdb.rdrecord(str(tmp_path / "r")).p_signal
    assert record.block is not None
    np.testing.assert_allclose(record.block, reference, atol=1e-6)
    np.testing.assert_allclose(record.block, written, atol=0.5 / 200 + 1e-6)
    assert record.channels[0].unit == "mV"
    assert record.meta == {"age": "63", "comment": "pacemaker"}


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize(("start", "stop"), [(0.004, 1.0), (1.0, None), (3.5, 3.9)])
def test_wfdb_excerpt_is_a_slice_of_the_whole(tmp_path, fmt, start, stop):
    write_wfdb(tmp_path, fmt=fmt)
    whole = read_wfdb(tmp_path / "r").block
    part = read_wfdb(tmp_path / "r", start, stop).block
    last = len(whole) if stop is None else round(stop * 250)
    np.testing.assert_array_equal(part, whole[round(start * 250) : last])


def test_wfdb_missing_samples_become_nan(tmp_path):
    write_wfdb(tmp_path)
    raw = np.fromfile(tmp_path / "r.dat", "<i2").reshape(-1, 3)
    before = int(raw[:, 1].sum(dtype=int))
    raw[10:20, 1] = -32768
    raw.tofile(tmp_path / "r.dat")
    with pytest.raises(InputError, match=r"r\.hea: channel II does not add up to the checksum"):
        read_wfdb(tmp_path / "r")
    lines = (tmp_path / "r.hea").read_text().splitlines()
    words = lines[2].split()
    assert (int(words[6]) - before) % 65536 == 0
    words[6] = str(int(raw[:, 1].sum(dtype=int)) % 65536)
    (tmp_path / "r.hea").write_text("\n".join([*lines[:2], " ".join(words), *lines[3:]]) + "\n")
    block = read_wfdb(tmp_path / "r").block
    assert np.isnan(block[10:20, 1]).all()
    assert np.isfinite(np.delete(block, slice(10, 20), 0)).all()


def _packed_310(d):
    """Three 10-bit samples in two 16-bit words: one in bits 1-10 of each, the third in both words' upper five bits."""
    a, b, c = (d.reshape(-1, 3) & 0x3FF).T
    return np.stack([a << 1 | (c & 31) << 11, b << 1 | (c >> 5) << 11], 1).astype("<u2").tobytes()


def _packed_311(d):
    """Three 10-bit samples in the lower 30 bits of a 32-bit word."""
    a, b, c = (d.reshape(-1, 3) & 0x3FF).T
    return (a | b << 10 | c << 20).astype("<u4").tobytes()


WFDB_FORMATS = {
    "80": lambda d: (d + 128).astype(np.uint8).tobytes(),
    "61": lambda d: d.astype(">i2").tobytes(),
    "160": lambda d: (d + 32768).astype("<u2").tobytes(),
    "24": lambda d: d.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes(),
    "32": lambda d: d.astype("<i4").tobytes(),
    "310": _packed_310,
    "311": _packed_311,
}


@pytest.mark.parametrize("fmt", WFDB_FORMATS)
def test_checksums_are_held_against_every_format(tmp_path, fmt):
    d = np.clip(np.random.default_rng(int(fmt)).integers(-5, 6, (300, 2)).cumsum(0), -100, 100)
    sums = d.sum(0) % 65536
    (tmp_path / "r.dat").write_bytes(WFDB_FORMATS[fmt](d.reshape(-1)))
    rows = [f"r.dat {fmt} 50(10)/mV 16 0 {d[0, j]} {sums[j]} 0 {name}" for j, name in enumerate("ab")]
    (tmp_path / "r.hea").write_text("\n".join(["r 2 100 300", *rows, ""]))
    record = read_wfdb(tmp_path / "r.hea")
    assert record.names == ("a", "b")
    np.testing.assert_allclose([c.data for c in record.channels], (d.T - 10) / 50, atol=1e-5)
    assert len(read_wfdb(tmp_path / "r.hea", start=1.0, stop=2.0).channels[0].data) == 100  # a part has no checksum
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[{"24": 300, "32": 400}.get(fmt, 200)] ^= 4
    (tmp_path / "r.dat").write_bytes(data)
    with pytest.raises(InputError, match=r"r\.hea: channel [ab] does not add up to the checksum .*copy r\.dat again"):
        read_wfdb(tmp_path / "r.hea")


def test_wfdb_annotations_are_in_seconds_from_the_excerpt(tmp_path):
    write_wfdb(tmp_path)
    wfdb.wrann("r", "atr", np.array([250, 500, 750]), symbol=["N", "V", "N"], fs=250, write_dir=str(tmp_path))
    events = read_wfdb(tmp_path / "r", start=1.5).annotations
    assert events.label == ("V", "N")
    np.testing.assert_allclose(events.onset, [0.5, 1.5])


def test_wfdb_file_errors_name_file_and_remedy(tmp_path):
    with pytest.raises(InputError, match=r"r\.hea: no such header.*beside the signal file"):
        read_wfdb(tmp_path / "r")
    write_wfdb(tmp_path)
    data = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(data[:-60])
    with pytest.raises(InputError, match=r"r\.dat: truncated, holds 991 of the 1001.*copy the file again"):
        read_wfdb(tmp_path / "r")
    (tmp_path / "r.dat").unlink()
    with pytest.raises(InputError, match=r"r\.dat: signal file named by r\.hea is missing"):
        read_wfdb(tmp_path / "r")
    (tmp_path / "r.hea").write_text("r three 250\n")
    with pytest.raises(InputError, match=r"r\.hea: not a readable WFDB header"):
        read_wfdb(tmp_path / "r")
    (tmp_path / "r.hea").write_text("")
    with pytest.raises(InputError, match=r"r\.hea: not a readable WFDB header|lists no signals"):
        read_wfdb(tmp_path / "r")


def test_wfdb_span_and_annotator_errors(tmp_path):
    write_wfdb(tmp_path)
    with pytest.raises(InputError, match=r"covers 0-4\.004 s"):
        read_wfdb(tmp_path / "r", start=10)
    with pytest.raises(InputError, match=r"r\.qrs: no such annotation file"):
        read_wfdb(tmp_path / "r", annotator="qrs")


def test_missing_leads_are_marked_and_absent_ones_refused(tmp_path):
    write_wfdb(tmp_path)
    record = read_wfdb(tmp_path / "r")
    x, present = record.array(leads=("ii", "aVF", "I"))
    assert present.tolist() == [True, False, True]
    assert np.isnan(x[:, 1]).all()
    np.testing.assert_array_equal(x[:, 2], record.channels[0].data)
    with pytest.raises(InputError, match="none of the leads aVF; the record has I, II, V1"):
        record.array(leads=("aVF",))
    assert record.array(leads=("MLII",), aliases={"MLII": "II"})[1].all()


def write_edf(path, rates=(100.0, 25.0), seconds=10):
    signals = [
        edfio.EdfSignal(
            np.sin(2 * np.pi * np.arange(int(r * seconds)) / r), r, label=f"ch{i}", physical_dimension="uV",
            physical_range=(-2, 2),
        )
        for i, r in enumerate(rates)
    ]  # fmt: skip
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(2.5, 1.0, "seizure")]).write(path)


def test_edf_keeps_rates_units_and_annotations(tmp_path):
    write_edf(tmp_path / "a.edf")
    record = read_edf(tmp_path / "a.edf")
    assert [c.fs for c in record.channels] == [100.0, 25.0]
    assert record.channels[0].unit == "uV"
    expected = np.sin(2 * np.pi * np.arange(1000) / 100)
    np.testing.assert_allclose(record.channels[0].data, expected, atol=1e-4)
    assert (record.annotations.label, record.annotations.onset[0]) == (("seizure",), 2.5)
    x, present = record.array(100.0)
    assert x.shape == (1000, 2)
    assert present.all()
    # Both channels hold the same 1 Hz sine; the slow one comes back to it away from the ends.
    np.testing.assert_allclose(x[100:900, 1], x[100:900, 0], atol=0.02)


def test_edf_errors_name_file_and_remedy(tmp_path):
    write_edf(tmp_path / "a.edf")
    data = (tmp_path / "a.edf").read_bytes()
    (tmp_path / "cut.edf").write_bytes(data[:-300])
    with pytest.raises(
        InputError, match=r"cut\.edf: truncated, holds \d+ of the \d+ data records.*copy the file again"
    ):
        read_edf(tmp_path / "cut.edf")
    (tmp_path / "text.edf").write_text("not a recording " * 40)
    with pytest.raises(InputError, match=r"text\.edf: not an EDF file"):
        read_edf(tmp_path / "text.edf")


def write_discontinuous(path, onsets, rates=(50.0, 10.0)):
    """An EDF+D written byte by byte: one-second data records that begin at the given times."""
    labels = [f"ch{i}" for i in range(len(rates))] + ["EDF Annotations"]
    counts = [int(rate) for rate in rates] + [16]
    count = len(labels)

    def fields(values, width):
        return b"".join(str(v).ljust(width).encode() for v in values)

    head = (
        fields(["0"], 8) + fields(["X X X X", "Startdate 01-JAN-2020 X X X"], 80) + fields(["01.01.20", "00.00.00"], 8)
    )
    head += fields([256 * (count + 1)], 8) + fields(["EDF+D"], 44) + fields([len(onsets), 1], 8) + fields([count], 4)
    head += fields(labels, 16) + fields([""] * count, 80) + fields(["uV"] * count, 8)
    head += fields([-3276.8] * count, 8) + fields([3276.7] * count, 8) + fields([-32768] * count, 8)
    head += fields([32767] * count, 8) + fields([""] * count, 80) + fields(counts, 8) + fields([""] * count, 32)
    body, taken = b"", [0] * len(rates)
    for i, onset in enumerate(onsets):
        for j, samples in enumerate(counts[:-1]):
            body += np.arange(taken[j], taken[j] + samples).astype("<i2").tobytes()
            taken[j] += samples
        event = b"+2.5\x14spike\x14\x00" if i == 0 else b""
        body += (f"+{onset}\x14\x14\x00".encode() + event).ljust(32, b"\0")
    path.write_bytes(head + body)


def test_discontinuous_edf_keeps_its_gaps(tmp_path):
    write_discontinuous(tmp_path / "d.edf", [0, 1, 4.5, 5.5])
    record = read_edf(tmp_path / "d.edf")
    for channel, rate in zip(record.channels, (50, 10)):
        assert len(channel.data) == 6.5 * rate
        gap = np.isnan(channel.data)
        assert np.flatnonzero(gap).tolist() == list(range(2 * rate, int(4.5 * rate)))
        # The samples count up by one digital step of 0.1 uV, in their order, on both sides of the gap.
        np.testing.assert_allclose(channel.data[~gap], 0.1 * np.arange(4 * rate), atol=1e-3)
    assert record.annotations.label == ("spike",)
    assert record.annotations.onset[0] == 2.5
    x, _ = record.array(50.0)
    windows = WindowSet.build([x], 50, 25, [{"id": "d"}], 50.0)
    for window in windows.stack():
        steps = np.diff(window[:, 0])
        assert np.nanmax(steps) < 0.11  # no window holds the two sides of the gap as neighbours


def test_discontinuous_edf_errors_name_the_data_record(tmp_path):
    write_discontinuous(tmp_path / "d.edf", [0, 1, 1.5])
    with pytest.raises(InputError, match=r"d\.edf, data record 3: begins at 1\.5 s, before .* ends at 2 s"):
        read_edf(tmp_path / "d.edf")
    write_discontinuous(tmp_path / "d.edf", [0, 1, 30 * 86400])
    with pytest.raises(InputError, match=r"d\.edf: its data records lie 30 days apart; save the pieces"):
        read_edf(tmp_path / "d.edf")
    write_discontinuous(tmp_path / "d.edf", [0, 2])
    data = (tmp_path / "d.edf").read_bytes()
    (tmp_path / "d.edf").write_bytes(data.replace(b"+2\x14", b"x2\x14"))
    with pytest.raises(InputError, match=r"d\.edf, data record 2: no time of its own|d\.edf: not a readable EDF"):
        read_edf(tmp_path / "d.edf")
    (tmp_path / "d.edf").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"d\.edf: truncated, holds 1 of the 2"):
        read_edf(tmp_path / "d.edf")


TS = """#comment
@problemName Toy
@timeStamps false
@univariate false
@classLabel true a b
@data
1,2,3:4,5,6:a
1,?,3:4,5,?:b
"""


def test_ts_reads_channels_missing_values_and_unequal_lengths(tmp_path):
    (tmp_path / "x.ts").write_text(TS)
    toy = read_ucr(tmp_path / "x.ts")
    assert toy.name == "Toy"
    assert toy.labels == ("a", "b")
    assert toy.x.shape == (2, 3, 2)
    assert toy.x[0, :, 1].tolist() == [4, 5, 6]
    assert np.isnan(toy.x[1]).tolist() == [[False, False], [True, False], [False, True]]


def test_arff_reads_relational_and_plain_series(tmp_path):
    (tmp_path / "m.arff").write_text("@relation 'M'\n@data\n'1,2\\n3,4',Walk\n\"5,6\\n7,8\",Run\n")
    both = read_ucr(tmp_path / "m.arff")
    assert both.x[1].tolist() == [[5, 7], [6, 8]]
    assert both.labels == ("Walk", "Run")
    (tmp_path / "u.arff").write_text("@relation U\n@data\n1,2,?,x\n")
    assert np.isnan(read_ucr(tmp_path / "u.arff").x[0, :, 0]).tolist() == [False, False, True]


@pytest.mark.parametrize("separator", ["  ", "\t", ","])
def test_tables_read_label_first_and_drop_padding(tmp_path, separator):
    rows = [["1.0000e+00", "0.5", "1.5", "NaN"], ["2", "3", "4", "5"]]
    (tmp_path / "Toy_TRAIN.txt").write_text("\n".join(separator.join(row) for row in rows))
    toy = read_ucr(tmp_path / "Toy_TRAIN.txt")
    assert (toy.labels, toy.lengths.tolist(), toy.name) == (("1", "2"), [2, 3], "Toy")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.ts", TS + "1,2:b\n", r"x\.ts, line 9: 1 channel\(s\) where the rows before have 2"),
        ("x.ts", TS + "1,2:1,oops:b\n", r"x\.ts, line 9: 'oops' is not a number; write \?"),
        ("x.ts", TS + "1,2:3,4:c\n", r"x\.ts, line 9: label 'c' is not among @classLabel a b"),
        ("x.ts", TS[:40], r"x\.ts: no @data line; not a \.ts file, or cut"),
        ("x.ts", TS[: TS.index("1,2,3")], r"x\.ts: no data rows"),
        ("x.ts", "@timeStamps true\n@data\n", r"x\.ts, line 1: series with time stamps"),
        ("m.arff", "@data\n'1,2\\n3,4\n", r"m\.arff, line 2: the quoted series is not closed; the line is cut"),
        ("t.txt", "1\n", r"t\.txt, line 1: a label but no values"),
        ("t.doc", "1 2", r"t\.doc: not a UCR/UEA file by its suffix; use one of"),
    ],
)
def test_archive_errors_name_file_line_and_remedy(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_ucr(tmp_path / name)


def test_tables_with_time_give_rate_and_units(tmp_path):
    frame = pd.DataFrame({"time": np.arange(50) / 25, "II [mV]": np.arange(50.0), "ABP (mmHg)": 1.0})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for suffix in ("csv", "parquet"):
        record = read_record(tmp_path / f"a.{suffix}")
        assert [(c.name, c.unit, round(c.fs, 6)) for c in record.channels] == [("II", "mV", 25), ("ABP", "mmHg", 25)]
        assert record.channels[0].data.tolist() == list(range(50))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": [0, 0.1, 0.2, 0.5, 0.6], "x": [1.0] * 5}, r"row 5: time jumps by 0\.3 s where the step is 0\.1 s"),
        ({"time": [0, 0.1, 0.1, 0.2], "x": [1.0] * 4}, r"row 4: column time must rise"),
        ({"x": [1.0, 2.0]}, r"no time column and no rate; add a column time"),
        ({"time": [0, 0.1, 0.2], "x": [1.0, "high", 2.0]}, r"column x, row 3: 'high' is not numeric"),
        ({"time": [0, 0.1, 0.2]}, r"no signal columns beside the time"),
    ],
)
def test_table_errors_name_row_and_remedy(tmp_path, columns, message):
    pd.DataFrame(columns).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match=r"bad\.csv.*" + message):
        read_table(tmp_path / "bad.csv")


def test_numpy_reads_one_series_of_many(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    record = read_record(tmp_path / "x.npy", fs=50.0, row=2)
    np.testing.assert_array_equal(record.block, x[2])
    np.savez(tmp_path / "x.npz", x=x[0], fs=10.0, leads=["a", "b", "c"])
    assert read_numpy(tmp_path / "x.npz").names == ("a", "b", "c")


def test_numpy_errors_name_file_and_remedy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 20, 3)))
    with pytest.raises(InputError, match=r"x\.npy: holds 4 series; name one by the manifest's row column \(0-3\)"):
        read_numpy(tmp_path / "x.npy", fs=1.0)
    with pytest.raises(InputError, match=r"x\.npy: row 9 asked for but the file holds rows 0-3"):
        read_numpy(tmp_path / "x.npy", fs=1.0, row=9)
    with pytest.raises(InputError, match=r"x\.npy: the sampling rate is unknown; give the import --fs"):
        read_numpy(tmp_path / "x.npy", row=1)
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"o\.npy: not a readable NumPy file.*numeric arrays only"):
        read_numpy(tmp_path / "o.npy", fs=1.0)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:300])
    with pytest.raises(InputError, match=r"cut\.npy: not a readable NumPy file"):
        read_numpy(tmp_path / "cut.npy", fs=1.0, row=0)


def test_dispatch_errors(tmp_path):
    with pytest.raises(InputError, match=r"a\.xyz: no reader for \.xyz; use one of \.hea"):
        read_record(tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"gone\.edf: no such file"):
        read_record(tmp_path / "gone.edf")


@pytest.mark.realdata
def test_real_records_equal_the_wfdb_package(data_dir):
    folder = data_dir / "timeseries" / "wfdb"
    for name in ("100", "a103l", "v102s"):
        record = read_wfdb(folder / name)
        reference = wfdb.rdrecord(str(folder / name)).p_signal
        np.testing.assert_allclose(record.block, reference, atol=1e-5)
        np.testing.assert_array_equal(np.isnan(record.block), np.isnan(reference))
    beats = read_wfdb(folder / "100").annotations
    assert len(beats) == 2274
    assert beats.label[0] == "(N"
    assert beats.onset[1] == pytest.approx(77 / 360)


@pytest.mark.realdata
def test_real_multi_frequency_record_keeps_its_rates_and_loses_its_skew(data_dir):
    record = read_wfdb(data_dir / "timeseries" / "wfdb" / "03700181")
    assert [(c.name, c.fs, c.unit) for c in record.channels] == [
        ("MCL1", 500.0, "mV"), ("ABP", 125.0, "mmHg"), ("RESP", 125.0, "mV"),
    ]  # fmt: skip
    raw = wfdb.rdrecord(str(data_dir / "timeseries" / "wfdb" / "03700181"), smooth_frames=False, ignore_skew=True)
    skewed, straight = raw.e_p_signal[2], record.channels[2].data
    np.testing.assert_allclose(straight[1000:2000], skewed[1004:2004], atol=1e-6)
    x, _ = record.array(250.0)
    assert x.shape == (150_000, 3)


@pytest.mark.realdata
def test_real_edf_and_archives(data_dir):
    folder = data_dir / "timeseries"
    generator = read_edf(folder / "wfdb" / "test_generator_2.edf")
    assert len(generator.channels) == 11
    sine = generator.channels[generator.names.index("sine 8 Hz")]
    spectrum = np.abs(np.fft.rfft(sine.data - sine.data.mean()))
    assert np.fft.rfftfreq(len(sine.data), 1 / sine.fs)[spectrum.argmax()] == pytest.approx(8.0, abs=0.01)
    stages = read_edf(folder / "wfdb" / "test_edfann.edf")
    assert not stages.channels
    assert stages.annotations.label[0] == "Sleep stage W"
    shapes = {
        name: read_ucr(folder / "ucr_uea" / name).x.shape for name in ("GunPoint_TEST.txt", "BasicMotions_TEST.arff")
    }
    assert shapes == {"GunPoint_TEST.txt": (150, 150, 1), "BasicMotions_TEST.arff": (40, 100, 6)}
