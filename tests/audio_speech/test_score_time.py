"""When a score sounds: tempo marks, repeats, endings, jumps, ties, transposition, in seconds that can be counted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.midi import midi_to_musicxml
from counterpoint.audio_speech.musicxml import complete
from counterpoint.audio_speech.pieces import chorale_files
from counterpoint.audio_speech.score_time import TempoMap
from counterpoint.audio_speech.scores import read_score
from counterpoint.common.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from written_music import BACK, TIME, direction, ending, quarter, repeat, score


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


def eighths(type_: str = "<type>eighth</type>", first: str = "", last: str = "") -> str:
    """A triplet of eighths on C, D, E, at 6 divisions a quarter."""
    shared = "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
    return "".join(
        f"<note><pitch><step>{step}</step><octave>5</octave></pitch><duration>2</duration><voice>1</voice>{type_}"
        f"{shared}{marks}</note>"
        for step, marks in zip("CDE", (first, "", last))
    )


def in_sixths(path: Path, *bars: str) -> Path:
    """Bars of two quarters as given, at 6 divisions a quarter."""
    text = "".join(f'<measure number="{i + 1}">{bar}</measure>' for i, bar in enumerate(bars))
    text = text.replace("1\">", f"1\"><attributes><divisions>6</divisions>{TIME}</attributes>", 1)
    head = '<part-list><score-part id="P1"><part-name/></score-part></part-list>'
    path.write_text(f'<score-partwise version="3.1">{head}<part id="P1">{text}</part></score-partwise>')
    return path


def tuplet(kind: str) -> str:
    return f'<notations><tuplet type="{kind}"/></notations>'


THIRDS = [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6]


@pytest.mark.parametrize(
    "beats",
    [
        (eighths(), eighths()),
        (eighths(""), eighths("")),
        (eighths(first=tuplet("start"), last=tuplet("stop")), eighths()),
        (eighths(), eighths(first=tuplet("start"), last=tuplet("stop"))),
        (eighths(first=tuplet("start"), last=tuplet("stop")), eighths(first=tuplet("start"), last=tuplet("stop"))),
    ],
)
def test_triplets_sound_in_thirds_whether_or_not_they_are_notated(tmp_path, beats):
    found = engrave(in_sixths(tmp_path / "a.musicxml", "".join(beats), "".join(beats)))
    assert found.notes[:, 0].tolist() == pytest.approx([*THIRDS, *(1 + third for third in THIRDS)], abs=1e-5)
    assert found.seconds == pytest.approx(2.0)


def test_notes_without_a_type_have_that_of_their_duration(tmp_path):
    def plain(duration: int) -> str:
        return f"<note><pitch><step>G</step><octave>4</octave></pitch><duration>{duration}</duration></note>"

    notes = engrave(in_sixths(tmp_path / "a.musicxml", plain(9) + plain(3), plain(12))).notes
    assert notes[:, :2].tolist() == [[0.0, 0.75], [0.75, 1.0], [1.0, 2.0]]
    short, long, _ = eighths("").split("</note>", 2)  # of a third and of two thirds of a quarter
    bar = f"{short}</note>{long.replace('<duration>2', '<duration>4')}</note>{plain(6)}"
    notes = engrave(in_sixths(tmp_path / "b.musicxml", bar)).notes
    assert notes[:, 0].tolist() == pytest.approx([0, 1 / 6, 1 / 2], abs=1e-5)
    with pytest.raises(InputError, match=r"c\.musicxml: bar 1: a note of 5/6 quarters has no <type>"):
        engrave(in_sixths(tmp_path / "c.musicxml", plain(5) + plain(7)))


def test_a_note_is_struck_once_where_its_tie_is_sound_only_and_chords_keep_their_own(tmp_path):
    def chord(ties: dict[str, str], *kinds: str) -> str:
        return "".join(
            f"<note>{'<chord/>' if i else ''}<pitch><step>{step}</step><octave>5</octave></pitch>"
            "<duration>12</duration>"
            + "".join(f'<tie type="{kind}"/>' for kind in kinds if ties.get(step))
            + "<voice>1</voice><type>half</type></note>"
            for i, step in enumerate("CE")
        )

    bars = [chord({"C": "yes"}, *kinds) for kinds in (("start",), ("stop", "start"), ("stop",))]
    notes = engrave(in_sixths(tmp_path / "a.musicxml", *bars)).notes[:, :3]
    assert notes.tolist() == [[0.0, 3.0, 72.0], [0.0, 1.0, 76.0], [1.0, 2.0, 76.0], [2.0, 3.0, 76.0]]


def test_what_is_written_in_full_is_given_to_the_engraver_as_it_is(tmp_path):
    for path in (chorale_files(1)[0], score(tmp_path / "a.musicxml", [("", "")])):
        text = read_score(path)
        assert complete(text, path.name) == text
    shake = '<notations><ornaments><tremolo type="%s">3</tremolo></ornaments></notations>'
    two = "<time-modification><actual-notes>2</actual-notes><normal-notes>1</normal-notes></time-modification>"
    notes = "".join(
        f"<note><pitch><step>{s}</step><octave>5</octave></pitch><duration>6</duration><voice>1</voice><type>half</type>"
        f"{two}{shake % kind}</note>"
        for s, kind in (("C", "start"), ("E", "stop"))
    )
    text = in_sixths(tmp_path / "b.musicxml", notes).read_text()
    assert complete(text, "b") == text, "a tremolo of two notes is no tuplet"


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
