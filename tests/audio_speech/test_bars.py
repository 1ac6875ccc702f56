"""Bar numbers, keys and titles: what is printed, what is heard, through repeats and divided bars."""

import sys
from pathlib import Path

import numpy as np
import pytest

from counterpoint.audio_speech.bars import Bars, read_title
from counterpoint.audio_speech.configs import EngravingConfig
from counterpoint.audio_speech.engrave import engrave, engrave_to, load_engraving
from counterpoint.audio_speech.pieces import chorale_folder

sys.path.insert(0, str(Path(__file__).parent))
from written_music import BACK, direction, ending, repeat, score


def renumbered(path: Path, *numbers: str) -> Path:
    """The score with other bar numbers: "X1" as notation programs call the second half of a divided bar."""
    text = path.read_text()
    for i, number in enumerate(numbers, 1):
        hidden = ' implicit="yes"' if number[0] in "X0" else ""
        text = text.replace(f'number="{i}">', f'number=" {number}"{hidden}>', 1)
    path.write_text(text.replace('number=" ', 'number="'))
    return path


def test_bars_are_numbered_as_printed_and_stand_where_their_notes_do(tmp_path):
    path = renumbered(score(tmp_path / "a.musicxml", [("", "")] * 5), "0", "1", "2", "X1", "3")
    found = engrave(path)
    assert found.bars.names.tolist() == ["0", "1", "2", "2", "3"]
    assert np.allclose(found.bars.columns[1:, 0], found.bars.columns[:-1, 1]), "each begins where the last one ends"
    for i, column in enumerate(found.onsets[:, 1]):
        assert found.bars.seen(column - 1, column + 1) == [i // 2]
    assert found.bars.played.tolist() == [[i, i + 1, i] for i in range(5)]
    assert found.bars.words(found.bars.heard(0.5, 2.5)) == "bars 0-2"
    assert found.bars.words(found.bars.heard(2.2, 3.8)) == "bar 2"


def test_what_is_heard_across_a_repeat_is_named_in_two_parts(tmp_path):
    bars = [
        (repeat("left", "forward"), ""),
        (ending("left", "1", "start"), ending("right", "1", "stop", BACK)),
        (ending("left", "2", "start"), ending("right", "2", "stop")),
        ("", ""),
    ]
    found = engrave(score(tmp_path / "a.musicxml", [*bars[:1], ("", ""), *bars[1:]]))
    assert found.bars.played[:, 2].tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert found.bars.words(found.bars.heard(1.0, 4.0)) == "bars 2-3, 1"
    assert found.bars.words(found.bars.heard(4.0, 7.0)) == "bars 2, 4-5"
    assert found.bars.words(found.bars.heard(3.0, 4.0)) == "bar 1", "the second time as the first"
    assert found.bars.words([]) == ""


def test_tempo_moves_the_moments_of_bars_and_not_their_columns(tmp_path):
    slow = engrave(score(tmp_path / "a.musicxml", [(direction('tempo="60"'), ""), ("", "")])).bars
    fast = engrave(score(tmp_path / "b.musicxml", [(direction('tempo="240"'), ""), ("", "")])).bars
    assert slow.played[:, :2].tolist() == [[0, 2], [2, 4]]
    assert fast.played[:, :2].tolist() == [[0, 0.5], [0.5, 1]]
    assert np.array_equal(slow.columns, fast.columns)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("<key><fifths>-1</fifths><mode>minor</mode></key>", "D minor"),
        ("<key><fifths>6</fifths><mode>major</mode></key>", "F# major"),
        ("<key><fifths>-6</fifths><mode>major</mode></key>", "Gb major"),
        ("<key><fifths>-3</fifths></key>", "3 flats"),
        ("<key><fifths>0</fifths></key>", "no sharps or flats"),
        ("", ""),
    ],
)
def test_the_key_is_what_is_signed(tmp_path, signature, words):
    assert engrave(score(tmp_path / "a.musicxml", [("", "")], signature)).bars.keys.tolist() == [words]


def test_a_change_of_key_holds_from_its_bar(tmp_path):
    change = "<attributes><key><fifths>2</fifths><mode>major</mode></key></attributes>"
    first = "<key><fifths>-1</fifths><mode>major</mode></key>"
    bars = engrave(score(tmp_path / "a.musicxml", [("", ""), (change, ""), ("", "")], first)).bars
    assert bars.keys.tolist() == ["F major", "D major", "D major"]
    assert bars.key([1, 2]) == "D major"


def test_the_slivers_at_the_edges_of_a_window_are_not_named():
    columns = np.array([[0, 50], [50, 100], [100, 150], [150, 153], [153, 200.0]])
    bars = Bars(np.array(list("12345")), np.array([""] * 5), columns, np.zeros((0, 3)))
    assert bars.seen(46, 144) == [1, 2], "four pixels of a hundred are no bar"
    assert bars.seen(40, 140) == [0, 1, 2]
    assert bars.seen(60, 160) == [1, 2, 3, 4], "a short bar that is all there is named"


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<work><work-title>Sonata</work-title></work><movement-title>Adagio</movement-title>", "Sonata, Adagio"),
        ("<work><work-title>Air</work-title></work><movement-title>Air</movement-title>", "Air"),
        ("<movement-title> Gavotte\n en rondeau </movement-title>", "Gavotte en rondeau"),
        ("<movement-title>bwv66.6.mxl</movement-title>", ""),
        ("<credit><credit-type>title</credit-type><credit-words>Elegy</credit-words></credit>", "Elegy"),
        ("<credit><credit-words>page 1</credit-words></credit>", ""),
    ],
)
def test_titles(head, title):
    assert read_title(f"<score-partwise>{head}</score-partwise>") == title


def test_the_title_of_mei():
    names = 'xmlns="http://www.music-encoding.org/ns/mei"'
    title = "<titleStmt><title>Aus <rend>meines</rend> Herzens</title></titleStmt>"
    assert read_title(f"<mei {names}><meiHead><fileDesc>{title}</fileDesc></meiHead></mei>") == "Aus meines Herzens"


def test_a_chorale_keeps_its_bars_in_the_cache_and_under_condensation(tmp_path):
    path = chorale_folder() / "bwv66.6.mxl"
    first = engrave(path)
    engrave_to(path, EngravingConfig(), tmp_path / "a.npz")
    again = load_engraving(tmp_path / "a.npz")
    for name, value in vars(first.bars).items():
        assert np.array_equal(value, getattr(again.bars, name)), name
    assert again.title == ""
    assert first.bars.names.tolist() == [str(i) for i in range(10)], "an upbeat, and nine bars"
    assert set(first.bars.keys) == {"F# minor"}
    starts = first.bars.played[:, 0]
    assert first.bars.played[0, 1] == pytest.approx(60 / 96), "an upbeat of one quarter at 96"
    for time, column in first.onsets:
        bar = int(np.searchsorted(starts, time + 1e-6) - 1)
        assert first.bars.columns[bar, 0] <= column <= first.bars.columns[bar, 1], "sound and print name one bar"
