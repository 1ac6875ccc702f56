"""The chorales, their choice, and the grouping by tune."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.pieces import chorale_files, chorale_folder, melody, same_tune
from counterpoint.common.errors import InputError


def test_a_smaller_choice_is_part_of_a_larger_one():
    few, more = ({f.stem for f in chorale_files(n)} for n in (10, 40))
    assert few < more < {f.stem for f in chorale_files()}
    assert "bwv846" not in {f.stem for f in chorale_files()}
    with pytest.raises(InputError, match=r"data\.pieces"):
        chorale_files(-1)


def test_settings_of_one_hymn_are_grouped_and_others_are_not():
    """O Sacred Head in the St Matthew Passion (five times), two settings of Jesu, meine Freude, and two other hymns."""
    names = ["bwv244.15", "bwv244.17", "bwv244.44", "bwv244.54", "bwv227.1", "bwv227.11", "bwv66.6", "bwv302"]
    tune = same_tune({n: melody(engrave(chorale_folder() / f"{n}.mxl").notes) for n in names})
    assert len({tune[n] for n in names[:4]}) == 1
    assert tune["bwv227.1"] == tune["bwv227.11"]
    assert len(set(tune.values())) == 4


@given(st.lists(st.integers(50, 80), min_size=8, max_size=40), st.integers(-12, 12))
@settings(max_examples=50)
def test_transposition_keeps_the_tune(pitches, shift):
    line = np.array(pitches)
    assert len(set(same_tune({"a": line, "b": line + shift}).values())) == 1


def test_grouping_is_transitive_and_does_not_depend_on_order():
    generator = np.random.default_rng(0)
    a, c = (generator.integers(50, 80, 30) for _ in range(2))
    middle = np.concatenate([a[:20], c[:20]])
    tunes = same_tune({"c": c, "b": middle, "a": a})
    assert tunes == {"a": "a", "b": "a", "c": "a"}
    assert len(set(same_tune({"a": a, "c": c}).values())) == 2


def test_the_melody_is_the_highest_sounding_voice_without_short_notes():
    notes = np.array([[0, 2, 72, 0], [0, 1, 60, 0], [1, 2, 80, 0], [2, 4, 71, 0], [4, 4.2, 90, 0], [4.2, 6, 69, 0.0]])
    assert melody(notes).tolist() == [80, 71, 69] or melody(notes).tolist() == [72, 80, 71, 69]
