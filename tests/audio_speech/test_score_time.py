"""When a score sounds: tempo marks, repeats, endings, jumps, ties, transposition, in seconds that can be counted."""

from pathlib import Path

import numpy as np
import pytest

from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.midi import midi_to_musicxml
from counterpoint.audio_speech.pieces import chorale_files
from counterpoint.audio_speech.score_time import TempoMap
from counterpoint.audio_speech.scores import read_score
from counterpoint.common.errors import InputError

TIME = "<time><beats>2</beats><beat-type>4</beat-type></time>"


def quarter(step: str, marks: str = "") -> str:
    return (
        f"<note><pitch><step>{step}</step><octave>5</octave></pitch><duration>2</duration>{marks}<voice>1</voice>"
        "<type>quarter</type></note>"
    )


def direction(sound: str, sign: str = "<words>mark</words>") -> str:
    return f"<direction><direction-type>{sign}</direction-type><sound {sound}/></direction>"


def repeat(side: str, way: str, more: str = "") -> str:
    return f'<barline location="{side}"><repeat direction="{way}" {more}/></barline>'


def ending(side: str, number: str, kind: str, inner: str = "") -> str:
    return f'<barline location="{side}"><ending number="{number}" type="{kind}"/>{inner}</barline>'


BACK = '<repeat direction="backward"/>'


def score(path: Path, bars: list[tuple[str, str]], transpose: str = "") -> Path:
    """Bars of two quarters, the first of them C, D, E, ... in turn, with something before and behind the notes."""
    text = "".join(
        f'<measure number="{i + 1}">'
        + (f"<attributes><divisions>2</divisions>{TIME}{transpose}</attributes>" if i == 0 else "")
        + f"{before}{quarter('CDEFGAB'[i])}{quarter('C')}{after}</measure>"
        for i, (before, after) in enumerate(bars)
    )
    head = '<part-list><score-part id="P1"><part-name>Piano</part-name></score-part></part-list>'
    path.write_text(f'<score-partwise version="3.1">{head}<part id="P1">{text}</part></score-partwise>')
    return path


def played(path: Path) -> list[int]:
    """Which bars are played, by their first notes, which come every two quarters."""
    notes = engrave(path).notes
    return [[72, 74, 76, 77, 79, 81, 83].index(int(pitch)) + 1 for pitch in notes[::2, 2]]


@pytest.mark.parametrize(
    ("bars", "order"),
    [
        ([("", ""), ("", repeat("right", "backward")), ("", "")], [1, 2, 1, 2, 3]),
        ([("", ""), (repeat("left", "forward"), repeat("right", "backward", 'times="3"')), ("", "")], [1, 2, 2, 2, 3]),
        (
            [
                (repeat("left", "forward"), ""),
                (ending("left", "1", "start"), ending("right", "1", "stop", BACK)),
                (ending("left", "2", "start"), ending("right", "2", "stop")),
                ("", ""),
            ],
            [1, 2, 1, 3, 4],
        ),
        ([("", ""), ("", direction('fine="yes"')), ("", ""), ("", direction('dacapo="yes"'))], [1, 2, 3, 4, 1, 2]),
        (
            [
                ("", ""),
                (direction('segno="s"', "<segno/>"), ""),
                ("", direction('tocoda="c"')),
                ("", direction('dalsegno="s"')),
                (direction('coda="c"', "<coda/>"), ""),
            ],
            [1, 2, 3, 4, 2, 3, 5],
        ),
    ],
)
def test_repeats_endings_and_jumps_are_played(tmp_path, bars, order):
    path = score(tmp_path / "a.musicxml", bars)
    assert played(path) == order
    found = engrave(path)
    assert found.seconds == pytest.approx(len(order), abs=1e-6), "a bar of two quarters lasts a second at 120"
    breaks = [i for i in range(1, len(order)) if order[i] != order[i - 1] + 1]
    assert found.jumps.tolist() == pytest.approx(breaks)
    columns = {}
    for (_, column), place in zip(found.onsets, found.places):
        columns.setdefault(place, set()).add(column)
    assert all(len(several) == 1 for several in columns.values()), "one printed place has one column"
    assert len(columns) == 2 * len(set(order))
    assert len(found.snippets(0.0)) == 2 * len(set(order)), "each printed onset is one snippet"
    times = found.onsets[found.snippets(0.75), 0]
    assert all(abs(jump - time) >= 0.75 - 1e-6 for jump in found.jumps for time in times)


def test_tempo_marks_hold_from_where_they_stand_also_within_a_bar_and_at_a_repeat(tmp_path):
    bars = [(direction('tempo="60"'), ""), (direction('tempo="240"'), repeat("right", "backward"))]
    assert engrave(score(tmp_path / "a.musicxml", bars)).onsets[:, 0].tolist() == pytest.approx(
        [0, 1, 2, 2.25, 2.5, 3.5, 4.5, 4.75]
    )
    text = (tmp_path / "a.musicxml").read_text().replace(direction('tempo="240"'), "").replace(BACK, "")
    first, second = quarter("C"), quarter("C")
    (tmp_path / "b.musicxml").write_text(text.replace(first + second, first + direction('tempo="120"') + second, 1))
    assert engrave(tmp_path / "b.musicxml").onsets[:3, 0].tolist() == pytest.approx([0, 1, 1.5])
    dotted = "<metronome><beat-unit>quarter</beat-unit><beat-unit-dot/><per-minute>40</per-minute></metronome>"
    mark = f"<direction><direction-type>{dotted}</direction-type></direction>"
    assert engrave(score(tmp_path / "c.musicxml", [(mark, "")])).seconds == pytest.approx(2.0), "60 quarters"
    assert TempoMap([]).seconds(4) == 2.0


def test_a_note_tied_over_four_bars_is_struck_once(tmp_path):
    bars = []
    for i in range(4):
        kinds = [kind for kind, wanted in (("stop", i > 0), ("start", i < 3)) if wanted]
        ties = "".join(f'<tie type="{kind}"/>' for kind in kinds)
        tied = "".join(f'<tied type="{kind}"/>' for kind in kinds)
        bars.append(
            f'<measure number="{i + 1}">{f"<attributes><divisions>2</divisions>{TIME}</attributes>" if i == 0 else ""}'
            f"<note><pitch><step>C</step><octave>5</octave></pitch><duration>4</duration>{ties}<voice>1</voice>"
            f"<type>half</type><notations>{tied}</notations></note></measure>"
        )
    head = '<score-partwise version="3.1"><part-list><score-part id="P1"><part-name/></score-part></part-list>'
    (tmp_path / "a.musicxml").write_text(f'{head}<part id="P1">{"".join(bars)}</part></score-partwise>')
    assert engrave(tmp_path / "a.musicxml").notes[:, :3].tolist() == [[0.0, 4.0, 72.0]]


def test_a_clarinet_sounds_a_tone_lower_and_drums_do_not_sound(tmp_path):
    lower = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    assert engrave(score(tmp_path / "a.musicxml", [("", "")], lower)).notes[:, 2].tolist() == [70, 70]
    drums = score(tmp_path / "b.musicxml", [("", "")]).read_text().replace("pitch>", "unpitched>")
    drums = drums.replace("step>", "display-step>").replace("octave>", "display-octave>")
    (tmp_path / "b.musicxml").write_text(drums)
    with pytest.raises(InputError, match="no pitched notes"):
        engrave(tmp_path / "b.musicxml")


def midi(path: Path, events: list[tuple[int, bytes]], division: int = 96) -> Path:
    body, now = b"", 0
    for tick, event in sorted(events, key=lambda one: one[0]):
        delta = tick - now
        body += (bytes([0x80 | delta >> 7, delta & 0x7F]) if delta > 127 else bytes([delta])) + event
        now = tick
    body += bytes([0, 0xFF, 0x2F, 0])
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + division.to_bytes(2, "big")
    path.write_bytes(head + b"MTrk" + len(body).to_bytes(4, "big") + body)
    return path


def struck(pitch: int, begin: int, end: int) -> list[tuple[int, bytes]]:
    return [(begin, bytes([0x90, pitch, 80])), (end, bytes([0x80, pitch, 0]))]


def test_midi_tempos_and_held_notes(tmp_path):
    events = [(0, b"\xff\x51\x03" + (10**6).to_bytes(3, "big")), (192, b"\xff\x51\x03" + (500_000).to_bytes(3, "big"))]
    for i in range(4):
        events += struck(72 + i, 96 * i, 96 * i + 96)
    notes = engrave(midi_to_musicxml(midi(tmp_path / "a.mid", events), tmp_path / "a.musicxml")).notes
    assert notes[:, 0].tolist() == pytest.approx([0, 1, 2, 2.5])
    held = struck(64, 0, 768)
    for i in range(8):
        held += struck(72 + 2 * (i % 2), 96 * i, 96 * i + 96)
    notes = engrave(midi_to_musicxml(midi(tmp_path / "b.mid", held), tmp_path / "b.musicxml")).notes
    assert notes[notes[:, 2] == 64, :2].tolist() == [[0.0, 4.0]], "struck once under the moving notes"
    assert len(notes) == 9


@pytest.mark.parametrize(
    ("division", "cut", "message"), [(0, 0, "0 ticks"), (0xE728, 0, "SMPTE"), (96, 10, "cut within track 1")]
)
def test_midi_that_has_no_beats_or_is_cut_says_so(tmp_path, division, cut, message):
    path = midi(tmp_path / "a.mid", struck(60, 0, 96), division)
    path.write_bytes(path.read_bytes()[: -cut or None])
    with pytest.raises(InputError, match=message):
        midi_to_musicxml(path, tmp_path / "a.musicxml")


# Instruments play on when the choir, which is what is engraved, has ended.
POSTLUDES = {"bwv130.6", "bwv171.6", "bwv248.23-2", "bwv248.42-4", "bwv248.64-6", "bwv248.9-1", "bwv41.6", "bwv79.3"}


def farthest(path: Path) -> float:
    """Seconds from an onset of the engraving to the nearest one in the engraver's own time map of the whole file, or
    between the ends of both, whichever is more.

    That map has every part and strikes tied notes again, so the engraving's onsets are looked for in it.
    """
    import verovio

    toolkit = verovio.toolkit()
    toolkit.setResourcePath(str(Path(verovio.__file__).parent / "data"))
    toolkit.setOptions({"breaks": "none", "xmlIdSeed": 1})
    assert toolkit.loadData(read_score(path))
    events = toolkit.renderToTimemap({"includeRests": False})
    times = np.array([e["tstamp"] / 1000 for e in events if e.get("on")])
    made = engrave(path)
    onsets = float(np.abs(made.onsets[:, :1] - times[None, :]).min(axis=1).max())
    left = max(e["tstamp"] for e in events if e.get("off")) / 1000 - made.seconds
    return max(onsets, -left if path.stem in POSTLUDES and left > 0.010 else abs(left))


def test_chorales_sound_when_the_engraver_s_own_time_map_says():
    assert [path.stem for path in chorale_files(6) if farthest(path) > 0.010] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_chorale_sounds_when_the_engraver_s_own_time_map_says():
    checked, wrong = 0, []
    for path in chorale_files():
        try:
            gap = farthest(path)
        except InputError:  # more staves than a piano system has
            continue
        checked += 1
        wrong += [path.stem] if gap > 0.010 else []
    assert checked == 405
    assert wrong == []
