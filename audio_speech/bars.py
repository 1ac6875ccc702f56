"""What musicians call a place in a score: its title, its key, its bar numbers as they are printed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterpoint.audio_speech.kinds import MIDI_SUFFIXES, SCORE_SUFFIXES

_MEI = "{http://www.music-encoding.org/ns/mei}"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
_FIFTHS = "FCGDAEB"
# Mode -> how many fifths its tonic lies above that of major with the same signature.
_TONICS = {
    "major": 0, "ionian": 0, "minor": 3, "aeolian": 3, "dorian": 2, "phrygian": 4, "lydian": -1, "mixolydian": 1,
    "locrian": 5,
}  # fmt: skip
SLIVER = 0.05
"""Share of a window up to which the edge of a bar goes unmentioned, unless all of the bar lies within."""


@dataclass(frozen=True)
class Bars:
    """The printed bars of a score, in the order of the print, and when they are played.

    Attributes:
        names: `[bars]` the printed bar number ("0" for most upbeats, "8a"); a bar without one has its forerunner's.
        keys: `[bars]` the key in force, as it is signed ("F# minor"; "1 flat" where the score gives no mode).
        columns: `[bars, 2]` pixel columns of the begin and the end.
        played: `[playings, 3]` begin and end in seconds and the bar's place in the print, in the order of the
            performance: a repeated bar stands here twice.
    """

    names: np.ndarray
    keys: np.ndarray
    columns: np.ndarray
    played: np.ndarray

    @classmethod
    def none(cls) -> Bars:
        """Those of a score that says nothing of bars."""
        return cls(np.zeros(0, str), np.zeros(0, str), np.zeros((0, 2)), np.zeros((0, 3)))

    def seen(self, low: float, high: float) -> list[int]:
        """The bars printed between two columns."""
        return np.flatnonzero(_within(self.columns, low, high)).tolist()

    def heard(self, begin: float, end: float) -> list[int]:
        """The bars played between two moments, in the order of the performance."""
        return self.played[_within(self.played, begin, end), 2].astype(int).tolist()

    def words(self, bars: Iterable[int]) -> str:
        """Their printed numbers; what does not follow in the print is parted.

        >>> columns, keys = np.zeros((4, 2)), np.array(["C major"] * 4)
        >>> Bars(np.array(["0", "1", "2", "3"]), keys, columns, np.zeros((0, 3))).words([1, 2, 3, 0])
        'bars 1-3, 0'
        """
        runs: list[list[int]] = []
        for bar in bars:
            if runs and bar == runs[-1][-1] + 1:
                runs[-1].append(bar)
            else:
                runs.append([bar])
        spans = [list(dict.fromkeys((str(self.names[run[0]]), str(self.names[run[-1]])))) for run in runs]
        several = len(spans) > 1 or any(len(span) > 1 for span in spans)
        return f"bar{'s' if several else ''} {', '.join(map('-'.join, spans))}" if spans else ""

    def key(self, bars: Iterable[int]) -> str:
        """The key of the first of some bars."""
        return next((str(self.keys[bar]) for bar in bars), "")


def _within(spans: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which spans (begin, end, ...) have more than a sliver of the window in common with it, or lie within it."""
    begin, end = spans[:, 0], spans[:, 1]
    shared = np.minimum(end, high) - np.maximum(begin, low)
    return (shared > SLIVER * (high - low)) | ((shared > 0) & (shared >= end - begin))


@dataclass(frozen=True)
class BarNames:
    """Ids, printed numbers and keys of the bars of a score."""

    ids: list[str]
    numbers: list[str]
    keys: list[str]


def read_bars(mei: str) -> BarNames:
    """What an MEI score says of its bars; the key is that of the first staff that sounds as it is written."""
    score = ET.fromstring(mei).find(f".//{_MEI}score")
    names, key = BarNames([], [], []), ""
    if score is None:
        return names
    written = {s.get("n") for s in score.iter(f"{_MEI}staffDef") if float(s.get("trans.semi") or 0)}
    staves = [s.get("n") for s in score.iter(f"{_MEI}staffDef")]
    staff = next((n for n in staves if n not in written), staves[0] if staves else None)
    for element in score.iter():
        tag = element.tag.removeprefix(_MEI) if isinstance(element.tag, str) else ""
        if tag == "measure":
            number = (element.get("n") or "").strip()
            if not re.match(r"\d", number):  # as in the second half of a divided bar, which no print numbers
                number = names.numbers[-1] if names.numbers else number or "0"
            names.ids.append(element.get(_XML_ID))
            names.numbers.append(number)
            names.keys.append(key)
        elif tag == "scoreDef" or (element.get("n") == staff and tag in ("staffDef", "staff")):
            key = _signed(element, tag) or key
    return names


def _signed(element: ET.Element, tag: str) -> str:
    """The key that a definition, or a staff of a bar, signs; empty where it signs none."""
    if element.get("key.sig"):
        return key_name(element.get("key.sig"), element.get("key.mode") or "")
    found = element.iter(f"{_MEI}keySig") if tag == "staff" else element.findall(f"{_MEI}keySig")
    signs = list(found)
    return key_name(signs[-1].get("sig") or "", signs[-1].get("mode") or "") if signs else ""


def key_name(signature: str, mode: str) -> str:
    """A key signature of MEI in words.

    >>> key_name("3s", "minor"), key_name("2f", "major"), key_name("2f", "dorian")
    ('F# minor', 'Bb major', 'C dorian')
    >>> key_name("1f", ""), key_name("0", "")
    ('1 flat', 'no sharps or flats')
    """
    found = re.fullmatch(r"(\d+)([sf]?)", signature)
    if not found:
        return ""
    count = int(found[1])
    if mode not in _TONICS:
        return f"{count} {'sharp' if found[2] == 's' else 'flat'}{'s' * (count > 1)}" if count else "no sharps or flats"
    octave, letter = divmod((-count if found[2] == "f" else count) + _TONICS[mode] + 1, 7)
    return f"{_FIFTHS[letter]}{'#' * octave}{'b' * -octave} {mode}"


def read_title(score: str) -> str:
    """Work and movement of a MusicXML score, else what its first page calls the title; the title of an MEI score.

    Empty where there is none, and for a file's name, which some programs write there.

    >>> read_title("<s><work><work-title>Sonata</work-title></work><movement-title>Adagio</movement-title></s>")
    'Sonata, Adagio'
    """
    root = ET.fromstring(score)
    found = [root.find("work/work-title"), root.find("movement-title")]
    if all(title is None for title in found):
        credits = (c for c in root.findall("credit") if (c.findtext("credit-type") or "").strip() == "title")
        found = [next((c.find("credit-words") for c in credits), root.find(f".//{_MEI}titleStmt/{_MEI}title"))]
    words = [" ".join("".join(title.itertext()).split()) for title in found if title is not None]
    titles = dict.fromkeys(w for w in words if w and Path(w).suffix.lower() not in (*SCORE_SUFFIXES, *MIDI_SUFFIXES))
    return ", ".join(titles)
