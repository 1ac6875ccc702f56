"""Printed or played music as words: pitches struck together from the top down, then the step to what follows.

`C5 G4 E4 C3 +1 D5 B4 G4 G3`: a chord, a quarter later the next. Pitches are those that sound, black keys as sharps (a
score's spelling is not kept), steps are in printed quarters. Lengths of notes, voices, rests, bars and ties are not
said.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from counterpoint.audio_speech.engrave import Engraving
from counterpoint.common.errors import InputError

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def pitch_name(pitch: int) -> str:
    """A MIDI pitch as musicians write it, middle C being C4.

    >>> pitch_name(60), pitch_name(70)
    ('C4', 'A#4')
    """
    octave, step = divmod(pitch, 12)
    return f"{_NAMES[step]}{octave - 1}"


def step_name(quarters: float) -> str:
    """A step in quarters, to the nearest of the divisions by 48.

    >>> step_name(1.0), step_name(0.5), step_name(1 / 3)
    ('+1', '+1/2', '+1/3')
    """
    return f"+{Fraction(round(quarters * 48), 48)}"


def music_words(places: Sequence[float], pitches: Sequence[float]) -> str:
    """The words of notes at printed places (in quarters), each said once.

    >>> music_words([0, 0, 1], [60, 64, 62])
    'E4 C4 +1 D4'
    """
    found = sorted({(round(float(place) * 48), -int(pitch)) for place, pitch in zip(places, pitches, strict=True)})
    words: list[str] = []
    before: int | None = None
    for place, pitch in found:
        if before is not None and place != before:
            words.append(step_name((place - before) / 48))
        words.append(pitch_name(-pitch))
        before = place
    return " ".join(words)


def printed_words(engraving: Engraving, low: float, high: float) -> str:
    """The notes whose heads stand between two columns of the print."""
    columns = engraving.notes[:, 3]
    return _words(engraving, (columns >= low) & (columns < high))


def played_words(engraving: Engraving, begin: float, end: float) -> str:
    """The notes that are struck between two moments of the performance, in seconds at the score's tempo."""
    onsets = engraving.notes[:, 0]
    return _words(engraving, (onsets >= begin) & (onsets < end))


def _words(engraving: Engraving, kept: np.ndarray) -> str:
    if engraving.printed is None:
        raise InputError("the engraving does not say where its notes are printed, so their steps are unknown")
    return music_words(engraving.printed[kept].tolist(), engraving.notes[kept, 2].tolist())


def check_words(text: str) -> str:
    """A user's text in the form of `music_words`.

    Raises `InputError` for what is neither a pitch nor a step.

    >>> check_words(" C5  G4 +1/2 D5 ")
    'C5 G4 +1/2 D5'
    """
    known = {pitch_name(p) for p in range(128)}
    words = text.split()
    for word in words:
        if word in known:
            continue
        try:
            step = Fraction(word.removeprefix("+")) if word.startswith("+") else None
        except (ValueError, ZeroDivisionError):
            step = None
        if step is None or step <= 0:
            raise InputError(
                f"{word!r} is neither a pitch (C4, F#3; black keys as sharps) nor a step in quarters (+1, +1/2)"
            )
    if not words:
        raise InputError("the text is empty; write pitches and steps in quarters, as in 'C5 G4 E4 +1 D5'")
    return " ".join(words)


def parse_words(text: str, modality: str, system: Any) -> dict[str, Any]:
    """A user's words as one sample, for `search --text`.

    Raises `InputError` for words that say no music, that are too many, and for a system without words.
    """
    from counterpoint.common.data.vocabulary import WordVocabulary

    if "words" not in system.assets:
        raise InputError("this run's system has no words; search it by a recording, a score or a picture")
    words, vocabulary, length = check_words(text), WordVocabulary(system.assets["words"]), system.assets["length"]
    if len(words.split()) > length - 2:
        raise InputError(f"the text has {len(words.split())} words; this run takes up to {length - 2}")
    unknown = sorted(set(words.split()) - set(vocabulary.words))
    if unknown:
        raise InputError(f"the training's music never has {', '.join(unknown)}: the run knows no such words")
    return {"index": 0, "id": "text", "group": "text", "title": words, "text": words,
            "words": vocabulary.encode(words, length)}  # fmt: skip


def word_caption(sample: dict[str, Any], modality: str, system: Any = None) -> str:
    """The words, after the piece's title where they belong to one.

    >>> word_caption({"title": "BWV 66.6", "text": "C4 +1 D4"}, "words")
    'BWV 66.6: C4 +1 D4'
    """
    title, text = str(sample.get("title") or sample.get("id", "")), str(sample.get("text", ""))
    return text if title in ("", text) else f"{title}: {text}"
