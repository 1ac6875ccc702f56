"""When a score sounds: tempo marks, repeats, endings, jumps and ties make one performance of the printed bars.

A note's printed place is counted in quarters from the first bar, straight through (the engraver's layout); the tempo
marks turn printed quarters into seconds; the order in which bars are played lays them one after the other:

    seconds(note in a bar) = start of that playing of the bar + T(note) - T(bar),    T(q) = integral_0^q 60 / bpm dq

so a printed bar may sound several times, always at the tempo that is printed for it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from counterpoint.common.errors import InputError

DEFAULT_BPM = 120.0
"""Quarters a minute where a score says nothing."""
MOST_BARS = 20_000
_MEI = "{http://www.music-encoding.org/ns/mei}"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"


@dataclass(frozen=True)
class Printed:
    """One printed note: onset and end in printed quarters, MIDI pitch as it sounds, pixel column, and its bar."""

    onset: float
    offset: float
    pitch: int
    column: float
    bar: str


class TempoMap:
    """Printed quarters to seconds.

    >>> TempoMap([(0.0, 60.0), (2.0, 120.0)]).seconds(3.0)
    2.5
    """

    def __init__(self, marks: Sequence[tuple[float, float]]) -> None:
        kept: dict[float, float] = {}
        for place, bpm in sorted(marks, key=lambda mark: mark[0]):
            kept[place] = bpm  # of two at one place the later counts
        if not kept or min(kept) > 0:
            kept = {0.0: DEFAULT_BPM, **kept}
        self.places, self.bpm = list(kept), list(kept.values())
        self.starts = [0.0]
        for i in range(1, len(self.places)):
            step = (self.places[i] - self.places[i - 1]) * 60 / self.bpm[i - 1]
            self.starts.append(self.starts[-1] + step)

    def seconds(self, quarters: float) -> float:
        """Seconds from the first bar's beginning, played straight through."""
        i = max(bisect_right(self.places, quarters) - 1, 0)
        return self.starts[i] + (quarters - self.places[i]) * 60 / self.bpm[i]


@dataclass(frozen=True)
class ScoreTime:
    """What the whole score says about time, read before it is laid out.

    Attributes:
        order: the bars' ids as they are played.
        tempo: bar id, beat within the bar in quarters, quarters a minute.
        shift: printed staff of a note id -> semitones that it sounds away from what is written.
        unpitched: ids of notes without a pitch.
    """

    order: list[str]
    tempo: list[tuple[str, float, float]]
    shift: dict[str, int]
    unpitched: set[str]


def read_time(toolkit, mei: str, name: str) -> ScoreTime:
    """Read the playing order from the engraver, which expands repeats, endings and jumps, and the marks from the MEI.

    Raises:
        InputError: repeats make more than `MOST_BARS` bars.
    """
    events = toolkit.renderToTimemap({"includeRests": False, "includeMeasures": True})
    order = [re.sub(r"-rend\d+$", "", event["measureOn"]) for event in events if "measureOn" in event]
    if len(order) > MOST_BARS:
        raise InputError(f"{name}: its repeats make {len(order)} bars; more than {MOST_BARS} are not played")
    root = ET.fromstring(mei)
    score = root.find(f".//{_MEI}score")
    tempo, shift, unpitched = [], {}, set()
    unit, semitones = 4.0, {}
    for element in () if score is None else score.iter():
        tag = element.tag.removeprefix(_MEI) if isinstance(element.tag, str) else ""
        if tag in ("scoreDef", "staffDef", "meterSig"):
            given = element.get("unit" if tag == "meterSig" else "meter.unit")
            unit = float(given) if given else unit
            if tag == "scoreDef" and element.get("midi.bpm"):
                tempo.append(("", 0.0, float(element.get("midi.bpm"))))
            if tag == "staffDef" and element.get("trans.semi"):
                semitones[element.get("n")] = round(float(element.get("trans.semi")))
        elif tag == "measure":
            bar = element.get(_XML_ID)
            for mark in element.iter(f"{_MEI}tempo"):
                bpm = _bpm(mark)
                if bpm:
                    tempo.append((bar, max(float(mark.get("tstamp") or 1) - 1, 0.0) * 4 / unit, bpm))
        elif tag == "staff":
            for note in element.iter(f"{_MEI}note"):
                if semitones.get(element.get("n")):
                    shift[note.get(_XML_ID)] = semitones[element.get("n")]
                if note.get("pname") is None and note.get("pnum") is None:
                    unpitched.add(note.get(_XML_ID))
    return ScoreTime(order, tempo, shift, unpitched)


def _bpm(mark: ET.Element) -> float:
    """Quarters a minute of an MEI tempo, 0 where it gives words only."""
    if mark.get("midi.bpm"):
        return float(mark.get("midi.bpm"))
    unit = mark.get("mm.unit") or "4"
    if not mark.get("mm") or not unit.isdecimal():
        return 0.0
    dots = int(mark.get("mm.dots") or 0)
    return float(mark.get("mm")) * 4 / float(unit) * (2 - 0.5**dots)


@dataclass(frozen=True)
class Performance:
    """A score as it is played.

    Attributes:
        notes: `[n, 4]` (onset s, offset s, pitch, column), sorted by onset and pitch.
        printed: `[n]` the printed quarter of each.
        jumps: seconds at which the performance leaves one place of the print for another.
        bars: (bar id, begin s, end s) of every bar as it is played.
    """

    notes: np.ndarray
    printed: np.ndarray
    jumps: np.ndarray
    bars: list[tuple[str, float, float]]


def perform(
    notes: Mapping[str, Printed], bars: Mapping[str, tuple[float, float]], ties: Mapping[str, str], time: ScoreTime
) -> Performance:
    """Play printed notes in the score's order.

    Args:
        notes: note id -> its printed place.
        bars: bar id -> begin and end in printed quarters.
        ties: later note of a tie -> the note before it; both are one where they are played in succession.
        time: order and tempo.
    """
    marks = [(bars[bar][0] + beat if bar else beat, bpm) for bar, beat, bpm in time.tempo if bar in bars or not bar]
    clock = TempoMap(marks).seconds
    inside: dict[str, list[str]] = {}
    for key, note in sorted(notes.items(), key=lambda item: item[1].onset):
        inside.setdefault(note.bar, []).append(key)
    order = [bar for bar in time.order if bar in bars] or list(bars)
    rows: list[list[float]] = []
    last: dict[str, tuple[int, float]] = {}  # note -> its row when last struck or held, and when it ended
    jumps, played, now, here = [], [], 0.0, None
    for bar in order:
        begin, end = bars[bar]
        if here is not None and abs(begin - here) > 1e-6:
            jumps.append(now)
        for key in inside.get(bar, ()):
            note = notes[key]
            onset = now + clock(note.onset) - clock(begin)
            offset = now + clock(note.offset) - clock(begin)
            before = last.get(ties.get(key, ""))
            if before is not None and abs(before[1] - onset) < 2e-3:
                row = before[0]
                rows[row][1] = max(rows[row][1], offset)
            else:
                row = len(rows)
                rows.append([onset, offset, note.pitch, note.column, note.onset])
            last[key] = (row, offset)
        played.append((bar, now, now + clock(end) - clock(begin)))
        now, here = played[-1][2], end
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    table[:, :2] = table[:, :2].round(6)
    table = table[np.lexsort((table[:, 2], table[:, 0]))]
    return Performance(table[:, :4], table[:, 4], np.array(jumps, dtype=np.float64).round(6), played)
