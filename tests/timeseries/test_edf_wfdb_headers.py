"""Headers as devices really write them: what is read has the right unit and time, what is not is one sentence."""

import numpy as np
import pytest

from counterpoint.common.errors import InputError
from counterpoint.timeseries.events import step_classes
from counterpoint.timeseries.readers import read_edf, read_wfdb
from counterpoint.timeseries.record import Annotations, Record

DIGITAL = np.arange(-50, 50).astype("<i2")


def edf(path, labels=("A",), units=(b"uV",), low=("-3276.8",), high=("3276.7",), digital=("-32768", "32767"), **head):
    """Two one-second data records of 50 samples a signal; one digital step is 0.1 units."""
    n = len(labels)

    def fields(values, width):
        return b"".join((v if isinstance(v, bytes) else str(v).encode()).ljust(width)[:width] for v in values)

    first = head.get("first", b"0".ljust(8))
    out = first + fields(["X", "X"], 80) + fields(["01.01.20", "00.00.00", 256 * (n + 1)], 8) + fields([""], 44)
    out += fields([head.get("records", 2), head.get("seconds", 1)], 8) + fields([n], 4)
    out += fields(labels, 16) + fields([""] * n, 80) + fields((units * n)[:n], 8)
    out += fields((low * n)[:n], 8) + fields((high * n)[:n], 8)
    out += fields([digital[0]] * n, 8) + fields([digital[1]] * n, 8) + fields([""] * n, 80)
    out += fields([50] * n, 8) + fields([""] * n, 32)
    for half in (DIGITAL[:50], DIGITAL[50:]):
        out += b"".join((half * (j + 1)).tobytes() for j in range(n))
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("unit", [b"\xb5V", "\u00b5V".encode(), "\u03bcV".encode(), b"uV", b"UV", b"microV"])
def test_every_spelling_of_microvolts_is_microvolts(tmp_path, unit):
    channel = read_edf(edf(tmp_path / "a.edf", units=(unit,))).channels[0]
    assert channel.unit == "uV"
    np.testing.assert_allclose(channel.data, 0.1 * DIGITAL, atol=1e-3)


def test_a_unit_that_lost_its_prefix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.edf: channel A is in '\?V', a unit that cannot be read"):
        read_edf(edf(tmp_path / "a.edf", units=(b"?V",)))


def test_comma_decimals_are_numbers_and_copies_stay_reachable(tmp_path):
    record = read_edf(edf(tmp_path / "a.edf", ("T8", "-", "T8", "-"), low=("-3276,8",), high=("3276,7",)))
    assert record.names == ("T8", "-", "T8#2", "-#2")
    x, _ = record.array()
    np.testing.assert_allclose(x, 0.1 * DIGITAL[:, None] * [1, 2, 3, 4], atol=1e-3)
    assert "now called T8#2" in record.notes[0]


@pytest.mark.parametrize("limits", [("0", "0"), ("nan", "1"), ("-inf", "inf"), ("x", "1")])
def test_an_uncalibrated_channel_is_named_and_left_out(tmp_path, limits):
    path = edf(tmp_path / "a.edf", ("A", "B"), low=("-3276.8", limits[0]), high=("3276.7", limits[1]))
    record = read_edf(path)
    assert record.names == ("A",)
    assert "channel B left out" in record.notes[0]


@pytest.mark.parametrize("digital", [("32767", "-32768"), ("5", "5")])
def test_digital_limits_that_give_no_scale_are_refused(tmp_path, digital):
    with pytest.raises(InputError, match=r"a\.edf: channel A left out, its digital limits"):
        read_edf(edf(tmp_path / "a.edf", digital=digital))


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "-1", "1e9"])
def test_a_record_duration_without_a_rate_is_one_sentence(tmp_path, seconds):
    with pytest.raises(InputError, match=r"a\.edf: its header gives data records of .* seconds"):
        read_edf(edf(tmp_path / "a.edf", seconds=seconds))


def test_bdf_under_another_name_is_refused_and_unknown_lengths_are_measured(tmp_path):
    with pytest.raises(InputError, match=r"b\.edf: a BDF file"):
        read_edf(edf(tmp_path / "b.edf", first=b"\xffBIOSEMI"))
    assert len(read_edf(edf(tmp_path / "c.edf", records=-1)).channels[0].data) == 100


def test_annotations_before_the_recording_mark_no_step():
    events = Annotations.of([-5.0, -1.0, 50.0], ["a", "a", "a"], [1.0, 1.5, 1.0])
    assert step_classes(Record("r", (), events), ("a",), 8, 4.0).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def wfdb_record(folder, rate="100", gain="200(0)/mV", length=" 100"):
    folder.joinpath("r.dat").write_bytes(np.repeat(DIGITAL, 2).tobytes())
    lines = [f"r 2 {rate}{length}", *(f"r.dat 16 {gain} 12 0 0 0 0 {lead}" for lead in ("I", "II"))]
    folder.joinpath("r.hea").write_text("\n".join(lines), encoding="utf-8")
    return folder / "r.hea"


@pytest.mark.parametrize("rate", ["0", "nan", "inf", "-5"])
def test_wfdb_rates_that_are_none_are_one_sentence(tmp_path, rate):
    with pytest.raises(InputError, match=r"r\.hea: not a readable WFDB header"):
        read_wfdb(wfdb_record(tmp_path, rate=rate))


@pytest.mark.parametrize("gain", ["nan/mV", "inf/mV", "-inf(0)/mV"])
def test_wfdb_gains_that_are_none_are_one_sentence(tmp_path, gain):
    with pytest.raises(InputError, match=r"r\.hea: signal 1 has the gain"):
        read_wfdb(wfdb_record(tmp_path, gain=gain))


def test_wfdb_microvolts_and_unstated_length_with_several_rates(tmp_path):
    record = read_wfdb(wfdb_record(tmp_path, gain="10(0)/\u00b5V", length=""))
    assert [(c.unit, len(c.data)) for c in record.channels] == [("uV", 100)] * 2
    (tmp_path / "r.hea").write_text("r 2 10\nr.dat 16x3 10(0)/mV 12 0 0 0 0 I\nr.dat 16 10(0)/mV 12 0 0 0 0 II\n")
    fast, slow = read_wfdb(tmp_path / "r.hea").channels
    frames = np.repeat(DIGITAL, 2).reshape(-1, 4) / 10
    assert (fast.fs, slow.fs) == (30.0, 10.0)
    np.testing.assert_allclose(fast.data, frames[:, :3].ravel())
    np.testing.assert_allclose(slow.data, frames[:, 3])


def test_wfdb_header_without_the_signals_it_announces_is_one_sentence(tmp_path):
    (tmp_path / "r.hea").write_text("r 2 100 100\n")
    with pytest.raises(InputError, match=r"r\.hea: .*not as many as its first line says"):
        read_wfdb(tmp_path / "r.hea")


def test_wfdb_segments_do_not_lose_the_prefix_of_their_unit(tmp_path):
    wfdb_record(tmp_path, gain="10(0)/\u00b5V")
    (tmp_path / "whole.hea").write_text("whole/2 2 100 200\nr 100\nr 100\n")
    with pytest.raises(InputError, match=r"r\.hea: states the unit '\u00b5V', which segments cannot keep"):
        read_wfdb(tmp_path / "whole.hea")
    (tmp_path / "whole.hea").write_text("whole/2 2 100 200\nr 100\nlost 100\n")
    wfdb_record(tmp_path, gain="10(0)/uV")
    with pytest.raises(InputError, match="lost"):
        read_wfdb(tmp_path / "whole.hea")


@pytest.mark.parametrize("kind", ["edf", "wfdb"])
def test_damaged_headers_end_in_words(tmp_path, kind):
    path = edf(tmp_path / "a.edf", ("A", "B")) if kind == "edf" else wfdb_record(tmp_path)
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        for place in generator.integers(0, min(len(good), 768), 2):
            bad[place] = generator.choice([0, 32, 45, 48, 57, 110, 255, int(generator.integers(256))])
        path.write_bytes(bytes(bad))
        try:
            record = read_edf(path) if kind == "edf" else read_wfdb(path)
        except InputError:
            continue
        assert not any(np.isinf(c.data).any() for c in record.channels)
