"""Damaged files of every importer: taken, or left out with a sentence that names the file; never anything else."""

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve

MUSICXML = (
    '<?xml version="1.0"?><score-partwise version="3.1"><part-list><score-part id="P1"><part-name>a</part-name>'
    '</score-part></part-list><part id="P1"><measure number="1"><attributes><divisions>1</divisions><time><beats>4'
    "</beats><beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>"
    + "<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration><type>quarter</type></note>" * 4
    + "</measure></part></score-partwise>"
)
SPICE = ".subckt inv a y vss\nM1 y a vss vss nmos w=1u l=1u\nC1 a y 1f\n.ends\nX1 in out 0 inv\nC2 in out 2f\n"


def edf(path: Path) -> None:
    def field(value, width):
        return str(value).ljust(width).encode()

    head = b"".join([field(0, 8), field("X", 80), field("X", 80), field("01.01.20", 8), field("00.00.00", 8),
                     field(512, 8), field("", 44), field(4, 8), field(1, 8), field(1, 4)])  # fmt: skip
    values = ("I", 16), ("", 80), ("mV", 8), (-1, 8), (1, 8), (-32768, 8), (32767, 8), ("", 80), (50, 8), ("", 32)
    path.write_bytes(head + b"".join(field(*v) for v in values) + np.arange(200, dtype="<i2").tobytes())


def wfdb(path: Path) -> None:
    path.write_text("r 1 50 200\nr.dat 16 200 16 0 0 0 0 I\n")
    path.with_name("r.dat").write_bytes(np.arange(200, dtype="<i2").tobytes())


def midi(path: Path) -> None:
    events = b"".join(bytes([0, 0x90, p, 80, 0x60, 0x80, p, 0]) for p in (60, 62, 64)) + bytes([0, 0xFF, 0x2F, 0])
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 0, 0x60])
    path.write_bytes(head + b"MTrk" + len(events).to_bytes(4, "big") + events)


def mxl(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        box = '<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", box)
        archive.writestr("a.xml", MUSICXML)


def text(content: str):
    return lambda path: path.write_text(content)


TS = "@problemName a\n@timeStamps false\n@classLabel true a b\n@data\n1,2,3:a\n3,2,1:b\n"
CSV = "time,I [mV]\n" + "".join(f"{i / 50},{i % 7}\n" for i in range(100))
# (vertical, importer) -> how to make a good file of every kind it reads. A new importer must stand here.
READERS = {
    ("timeseries", "edf"): {"r.edf": edf},
    ("timeseries", "wfdb"): {"r.hea": wfdb},
    ("timeseries", "arrays"): {
        "r.csv": text(CSV),
        "r.npz": lambda path: np.savez(path, x=np.arange(100.0).reshape(50, 2), fs=50.0),
        "r.npy": lambda path: np.save(path, np.arange(100.0).reshape(50, 2)),
    },
    ("timeseries", "ucr"): {"a_TRAIN.ts": text(TS)},
    ("audio", "scores"): {"a.musicxml": text(MUSICXML), "a.mxl": mxl, "a.mid": midi},
    ("graphs", "molecules"): {"m.csv": text("smiles,y\nCCO,1\nc1ccccc1,0\nCC(C)O,1\n"), "m.smi": text("CCO a\nCC b\n")},
    ("graphs", "circuits"): {"c.sp": text(SPICE)},
}
OPTIONS = {"edf": {}, "arrays": {"fs": 50.0}, "molecules": {"split": "none"}}
HUGE = (b"0", b"-1", b"nan", b"inf", b"1e999", b"99999999999999999999", b"1000000000", b"")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One accident: cut, bits flipped, zeroed, bytes swapped, a number edited, another encoding, emptied, doubled."""
    data, kind = bytearray(content), rng.randrange(8)
    at = rng.randrange(len(data))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[at : at + 40] = bytes(len(data[at : at + 40]))
    elif kind == 3:
        other = rng.randrange(len(data))
        data[at], data[other] = data[other], data[at]
    elif kind in (4, 5):
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        if digits:
            place = rng.choice(digits)
            data[place : place + 1] = rng.choice(HUGE)
    elif kind == 6:
        return rng.choice((b"", data.decode("latin-1").encode("utf-16"), b"\xef\xbb\xbf" + bytes(data)))
    else:
        return bytes(data) * 2
    return bytes(data)


def outcome(vertical: str, importer, name: str, source: Path, out: Path) -> str:
    """What became of one import: `accepted`, `named`, or the sentence that names nothing."""
    try:
        report = resolve(importer.run)(source, out, **OPTIONS.get(importer.name, {}))
    except InputError as error:
        said = str(error)
    else:
        if not report.rejected:
            return "accepted"
        said = " ".join(f"{r.source}: {r.reason}" for r in report.rejected)
    return "named" if name.split(".")[0].split("_")[0] in said and "\n" not in said.strip() else said


def importers():
    return [(name, importer) for name, load in find_verticals().items() if name in ("audio", "graphs", "timeseries")
            for importer in load().importers]  # fmt: skip


def inject(tmp_path: Path, variants: int) -> dict[str, int]:
    counts: dict[str, int] = {"accepted": 0, "named": 0}
    for vertical, importer in importers():
        for name, make in READERS[vertical, importer.name].items():
            folder = tmp_path / importer.name / name
            folder.mkdir(parents=True)
            make(folder / name)
            if importer.name == "ucr":
                (folder / name.replace("TRAIN", "TEST")).write_bytes((folder / name).read_bytes())
            good, rng = (folder / name).read_bytes(), random.Random(name)
            source = folder if importer.name in ("ucr", "wfdb") else folder / name
            assert outcome(vertical, importer, name, source, folder / "out") == "accepted", name
            for _ in range(variants):
                (folder / name).write_bytes(damaged(good, rng))
                became = outcome(vertical, importer, name, source, folder / "out")
                assert became in counts, (name, became)
                counts[became] += 1
    return counts


def test_every_importer_has_its_entry():
    assert {(vertical, importer.name) for vertical, importer in importers()} <= READERS.keys()


def test_a_sample_of_accidents(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    counts = inject(tmp_path / "in", 3)
    assert counts["named"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_accidents(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    counts = inject(tmp_path / "in", 60)
    assert counts["named"] > counts["accepted"] / 10


