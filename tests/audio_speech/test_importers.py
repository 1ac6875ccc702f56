"""The user's own scores and sounds: good ones in, each bad one listed with its reason."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from counterpoint.audio_speech.commands import import_scores, preview, simulate
from counterpoint.audio_speech.configs import AudioSheetConfig
from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.importers import check_row
from counterpoint.audio_speech.midi import midi_to_musicxml
from counterpoint.audio_speech.pieces import chorale_files
from counterpoint.audio_speech.queries import query
from counterpoint.common.data import Manifest, check_leakage
from counterpoint.common.errors import InputError


def scale_midi(path: Path, pitches=(60, 62, 64, 65, 48)) -> Path:
    """A format-0 file: quarter notes one after the other at 120 beats per minute."""
    events = b""
    for pitch in pitches:
        events += bytes([0, 0x90, pitch, 80]) + bytes([0x60, 0x80, pitch, 0])
    events += bytes([0, 0xFF, 0x2F, 0])
    track = b"MTrk" + len(events).to_bytes(4, "big") + events
    path.write_bytes(b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 0, 0x60]) + track)
    return path


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Imports render into the test's own cache."""
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))


def test_a_folder_is_imported_and_each_bad_file_is_listed(tmp_path, own_cache):
    source = tmp_path / "in"
    (source / "more").mkdir(parents=True)
    for file in chorale_files(4):
        (source / file.name).write_bytes(file.read_bytes())
    scale_midi(source / "more" / "scale.mid")
    bad = {
        "broken.mxl": b"PK nonsense",
        "empty.musicxml": b"",
        "noise.mid": b"RIFF nothing",
        "damaged.mid": b"MThd garbage",
        "more/packed.musicxml.gz": b"any",
    }
    for name, content in (bad | {"notes.txt": b"buy milk", "more/page.pdf": b"%PDF", "more/log.gz": b""}).items():
        (source / name).write_bytes(content)
    report = import_scores(source, tmp_path / "out", workers=1)
    assert report.rows == 5
    assert {Path(r.source).relative_to(source).as_posix() for r in report.rejected} == set(bad)
    assert all(line.count(f"{name}:") == 1 for name in bad for line in report.lines if f"/{name}:" in line)
    assert any(line.endswith("packed.musicxml.gz: is compressed, unpack it first (gunzip)") for line in report.lines)
    manifest = Manifest.load(report.manifest)
    facts = manifest.frame.set_index("id").loc["more-scale", ["title", "key", "bars"]]
    assert facts.tolist() == ["scale", "C major", 2]
    assert set(manifest.frame["split"]) == {"train", "val", "test"}
    check_leakage(manifest)
    for i in range(len(manifest)):
        check_row(manifest.row(i), manifest.root)
    assert "more-scale" in set(manifest.frame["id"])
    left = {p.name for p in (tmp_path / "out" / "scores").iterdir()}
    assert left == {Path(s).name for s in manifest.frame["score"]}, "no copy of a bad score is left behind"
    with pytest.raises(InputError, match="no score named"):
        check_row({"id": "x", "score": None}, manifest.root)


def test_midi_keeps_pitches_and_rhythm(tmp_path):
    notes = engrave(midi_to_musicxml(scale_midi(tmp_path / "a.mid"), tmp_path / "a.musicxml")).notes
    assert notes[:, 2].tolist() == [60, 62, 64, 65, 48]
    assert np.allclose(np.diff(notes[:, 0]), notes[1, 0], atol=0.002), "equal quarters"
    with pytest.raises(InputError, match="no pitched notes"):
        midi_to_musicxml(scale_midi(tmp_path / "b.mid", ()), tmp_path / "b.musicxml")


def test_a_missing_or_empty_source_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        import_scores(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.mxl or .* file in it"):
        import_scores(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "letter.txt").write_text("words")
    with pytest.raises(InputError, match=r"letter\.txt: is no \.mxl or .* file"):
        import_scores(tmp_path / "letter.txt", tmp_path / "out")


def test_rendering_to_files_gives_what_the_manifest_names(tmp_path, own_cache):
    report = simulate(tmp_path / "out", pieces=6, rendition="organ@1.2", workers=1)
    manifest = Manifest.load(report.manifest)
    assert report.rows == len(manifest) == 6
    assert "synthetic" in report.note
    row = manifest.row(0)
    strip = np.asarray(Image.open(manifest.file(row["strip"])))
    notes = np.loadtxt(manifest.file(row["notes"]), delimiter=",", skiprows=1)
    wave, rate = soundfile.read(manifest.file(row["audio"]))
    assert strip.shape[0] == 160
    assert rate == 22050
    assert abs(len(wave) / rate - notes[:, 1].max() - 1.0) < 0.05
    assert np.abs(notes[:, 3]).max() < strip.shape[1]
    page = preview(report.manifest, tmp_path / "preview.html", pieces=2)
    text = page.files["preview"].read_text(encoding="utf-8")
    assert text.count("<audio") == 2
    assert "synthesised" in text


def test_a_file_becomes_a_query(tmp_path):
    system = SimpleNamespace(config=AudioSheetConfig())
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 44100), 44100)
    assert query(tmp_path / "a.wav", "audio", system)["audio"].shape == (84, 92)
    assert query(chorale_files(1)[0], "sheet", system)["sheet"].shape == (160, 200)
    page = Image.new("RGB", (3200, 320), "white")
    page.save(tmp_path / "blank.png")
    page.paste((0, 0, 0), (0, 100, 1600, 104))
    page.save(tmp_path / "a.png")
    found = query(tmp_path / "a.png", "sheet", system)
    assert found["sheet"].shape == (160, 200)
    assert len(found["windows"]) == 8, "of fifteen windows the blank ones do not vote"
    assert all(int(window["sheet"].min()) < 128 for window in found["windows"])
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "a.wav.gz").write_bytes(b"any")
    (tmp_path / "a.mxl.gz").write_bytes(b"any")
    for name, modality, message in (
        ("a.wav.gz", "audio", "a.wav.gz: is compressed, unpack it first"),
        ("a.mxl.gz", "sheet", "a.mxl.gz: is compressed, unpack it first"),
        ("b.png", "sheet", "not a readable picture"),
        ("blank.png", "sheet", "blank.png: the picture is blank"),
        ("a.wav", "sheet", "neither score nor picture"),
        ("a.png", "audio", "cannot be decoded as sound"),
        ("a.png", "smell", "unknown"),
    ):
        with pytest.raises(InputError, match=message):
            query(tmp_path / name, modality, system)


def test_an_id_names_files_inside_of_the_folder_alone(tmp_path, own_cache):
    score = chorale_files(1)[0]
    (tmp_path / score.name).write_bytes(score.read_bytes())
    table = Manifest.from_rows([{"id": "../../escaped", "score": score.name}], tmp_path).save(tmp_path / "m.csv")
    report = simulate(tmp_path / "deep" / "out", manifest=table.path, workers=1)
    row = Manifest.load(report.manifest).row(0)
    assert row["id"] == "../../escaped"
    assert all("/" not in row[kind].split("/", 1)[1] for kind in ("score", "strip", "audio", "notes"))
    assert {p.parent.parent for p in tmp_path.rglob("*escaped*")} == {tmp_path / "deep" / "out"}
