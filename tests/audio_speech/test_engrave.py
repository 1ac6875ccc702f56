"""Engraving: the printed notes are the score's notes, and they stand where the alignment says."""

import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest

from counterpoint.audio_speech.configs import EngravingConfig
from counterpoint.audio_speech.engrave import condense, engrave, engrave_to, engraving_key, load_engraving
from counterpoint.audio_speech.pieces import chorale_folder
from counterpoint.common.errors import InputError

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def sounding_notes(path) -> np.ndarray:
    """Onset and end in quarters and MIDI pitch, read from MusicXML without verovio; ties joined."""
    archive = zipfile.ZipFile(path)
    name = next(n for n in archive.namelist() if n.endswith(".xml") and not n.startswith("META"))
    rows = []
    for part in ET.fromstring(archive.read(name)).findall("part"):
        now, previous, division, tied = 0.0, 0.0, 1.0, {}
        for element in (e for measure in part.findall("measure") for e in measure):
            if element.tag == "attributes" and element.find("divisions") is not None:
                division = float(element.findtext("divisions"))
            elif element.tag == "backup":
                now -= float(element.findtext("duration")) / division
            elif element.tag == "note" and element.find("grace") is None:
                length = float(element.findtext("duration")) / division
                onset = previous if element.find("chord") is not None else now
                if element.find("chord") is None:
                    previous, now = now, now + length
                pitch = element.find("pitch")
                if pitch is None:
                    continue
                midi = STEPS[pitch.findtext("step")] + 12 * (int(pitch.findtext("octave")) + 1)
                midi += int(float(pitch.findtext("alter") or 0))
                ties = {tie.get("type") for tie in element.findall("tie")}
                if "stop" in ties and midi in tied:
                    tied[midi][1] = onset + length
                    if "start" not in ties:
                        del tied[midi]
                    continue
                rows.append([onset, onset + length, midi])
                if "start" in ties:
                    tied[midi] = rows[-1]
    return np.array(sorted(rows))


@pytest.mark.parametrize("name", ["bwv66.6", "bwv116.6", "bwv297", "bwv18.5-w"])
def test_the_notes_are_those_of_the_file(name):
    path = chorale_folder() / f"{name}.mxl"
    truth, score = sounding_notes(path), engrave(path)
    first = {place: score.notes[score.printed == place, 0].min() for place in score.printed}
    once = score.notes[:, 0] == [first[place] for place in score.printed]  # a repeat is printed once
    length = (score.notes[:, 1] - score.notes[:, 0])[once]
    quarters = np.c_[score.printed[once], score.printed[once] + length, score.notes[once, 2]]
    quarters[:, 1] = quarters[:, 0] + length * np.median(truth[:, 1] - truth[:, 0]) / np.median(length)
    quarters = quarters[np.lexsort((quarters[:, 1], quarters[:, 2], np.round(quarters[:, 0], 2)))]
    truth = truth[np.lexsort((truth[:, 1], truth[:, 2], truth[:, 0]))]
    assert quarters.shape == truth.shape
    assert np.abs(quarters - truth).max() < 0.01


def test_ink_stands_at_every_onset_and_the_strip_has_the_asked_height():
    engraving = engrave(chorale_folder() / "bwv66.6.mxl")
    strip, onsets = engraving.strip, engraving.onsets
    assert strip.shape[0] == 160
    assert strip.dtype == np.uint8
    darkness = (255.0 - strip).sum(axis=0)
    offsets = np.arange(-7, 8)
    profile = np.mean([darkness[round(x) + offsets] for _, x in onsets[2:-2]], axis=0)
    heads, beside = profile[np.abs(offsets) <= 1], profile[np.abs(offsets) >= 5]
    assert heads.min() > 1.5 * beside.mean(), "note heads and stems stand at the onsets, five staff lines beside them"
    near = np.abs(offsets) <= 4
    weight = profile[near] - profile.min()
    assert abs((weight * offsets[near]).sum() / weight.sum()) < 0.5, "and are centred there to half a pixel"
    assert np.all(np.diff(onsets[:, 1]) > 0), "music runs from left to right"


def test_the_system_stands_in_the_middle_of_the_strip():
    for name in ("bwv66.6", "bwv40.6"):
        rows = (engrave(chorale_folder() / f"{name}.mxl").strip < 240).mean(axis=1)
        lines = np.flatnonzero(rows > 0.8)  # staff lines run through
        assert len(lines) >= 10
        assert abs((lines.min() + lines.max()) / 2 - 80) <= 4


def test_four_voices_are_condensed_to_two_staves_and_other_staves_are_refused():
    def score(staves: int, labels=()) -> str:
        definitions = "".join(
            f'<staffDef n="{i + 1}" lines="5"><label>{labels[i] if labels else ""}</label></staffDef>'
            for i in range(staves)
        )
        voices = "".join(f'<staff n="{i + 1}"><layer n="1"><note/></layer></staff>' for i in range(staves))
        return (
            '<mei xmlns="http://www.music-encoding.org/ns/mei"><score><scoreDef><staffGrp>'
            f"{definitions}</staffGrp></scoreDef><section><measure>{voices}</measure></section></score></mei>"
        )

    condensed = ET.fromstring(condense(score(4), "a.mei"))
    ns = "{http://www.music-encoding.org/ns/mei}"
    assert [s.get("n") for s in condensed.iter(f"{ns}staffDef")] == ["1", "2"]
    assert [len(s.findall(f"{ns}layer")) for s in condensed.iter(f"{ns}staff")] == [2, 2]
    named = ("Horn", "Soprano", "Alto", "Tenor", "Bass")
    kept = ET.fromstring(condense(score(5, named), "a.mei"))
    assert len(list(kept.iter(f"{ns}layer"))) == 4, "the horn is not a voice"
    with pytest.raises(InputError, match="3 staves"):
        condense(score(3), "trio.mei")


def test_engraving_twice_gives_the_same_pixels_and_survives_the_file(tmp_path):
    path = chorale_folder() / "bwv66.6.mxl"
    first = engrave(path)
    engrave_to(path, EngravingConfig(), tmp_path / "a.npz")
    again = load_engraving(tmp_path / "a.npz")
    assert np.array_equal(first.strip, again.strip)
    assert np.array_equal(first.notes, again.notes)


def test_the_key_changes_with_the_score_and_with_the_settings(tmp_path):
    folder = chorale_folder()
    keys = [
        engraving_key(folder / "bwv66.6.mxl", EngravingConfig()),
        engraving_key(folder / "bwv66.6.mxl", EngravingConfig(font="Bravura")),
        engraving_key(folder / "bwv297.mxl", EngravingConfig()),
    ]
    assert len({str(key) for key in keys}) == 3
    copy = tmp_path / "other-name.mxl"
    copy.write_bytes((folder / "bwv66.6.mxl").read_bytes())
    assert engraving_key(copy, EngravingConfig()) == keys[0], "content counts, not the name"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.mxl", b"PK nonsense", "not a readable score"),
        ("empty.musicxml", b"", "not a readable score"),
        ("silent.musicxml", b"<score-partwise><part-list/></score-partwise>", "not a readable score"),
        ("letter.docx", b"words", "is not a score"),
    ],
)
def test_unusable_files_say_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        engrave(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        engrave(tmp_path / "absent.mxl")
