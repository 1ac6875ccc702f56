"""MusicXML said out in full: what the format lets a program leave out and the engraver does not work out for itself.

The engraver times notes by `<type>`, `<dot>` and `<tuplet>` and joins them by `<tied>`, which are notation and may be
missing; what is always there is the sound: `<duration>`, `<time-modification>` and `<tie>`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fractions import Fraction

from counterpoint.common.errors import InputError

_TYPES = {
    Fraction(2) ** power: name
    for power, name in zip(
        range(5, -9, -1),
        ("maxima", "long", "breve", "whole", "half", "quarter", "eighth", "16th", "32nd", "64th", "128th", "256th",
         "512th", "1024th"),
    )
}  # fmt: skip


def complete(score: str, name: str) -> str:
    """The score with the notation of what sounds; as it is given where nothing is missing, and if it is MEI.

    Raises:
        InputError: a note without `<type>` whose duration is no note's value.
    """
    if "<part-list" not in score:
        return score
    root = ET.fromstring(score)
    divisions: dict[str, Fraction] = {}
    changed = False
    for part, bar in _bars(root):
        runs: dict[str, list[ET.Element]] = {}
        written: dict[str, bool] = {}  # voice -> within a tuplet that is written
        for element in bar:
            if element.tag == "attributes" and element.findtext("divisions"):
                divisions[part] = Fraction(element.findtext("divisions").strip())
            elif element.tag in ("backup", "forward"):
                changed |= _close(runs)
            elif element.tag == "note" and element.find("grace") is None:
                changed |= _add_type(element, divisions.get(part, Fraction(1)), name, bar.get("number"))
                changed |= _add_tied(element)
                if element.find("chord") is None:
                    changed |= _follow(element, runs, written)
        changed |= _close(runs)
    return ET.tostring(root, encoding="unicode") if changed else score


def _bars(root: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """(part, what it plays in a bar), in order, of a score by parts or by bars."""
    for outer in root:
        if outer.tag == "part":
            yield from ((outer.get("id") or "", bar) for bar in outer.findall("measure"))
        elif outer.tag == "measure":
            yield from ((part.get("id") or "", part) for part in outer.findall("part"))


def _ratio(note: ET.Element) -> Fraction:
    """Written notes in the time of one that sounds: 3/2 in a triplet."""
    actual, normal = (note.findtext(f"time-modification/{side}-notes") for side in ("actual", "normal"))
    return Fraction(actual.strip()) / Fraction(normal.strip()) if actual and normal else Fraction(1)


def _add_type(note: ET.Element, divisions: Fraction, name: str, bar: str | None) -> bool:
    rest = note.find("rest")
    if note.find("type") is not None or not note.findtext("duration") or (rest is not None and rest.get("measure")):
        return False
    quarters = Fraction(note.findtext("duration").strip()) / divisions
    found = [(d, _TYPES.get(quarters * _ratio(note) / (2 - Fraction(1, 2**d)))) for d in range(4)]
    dots, kind = next(((d, kind) for d, kind in found if kind), (0, None))
    if kind is None:
        if rest is not None or not quarters:
            return False
        raise InputError(
            f"{name}: bar {bar}: a note of {quarters} quarters has no <type>, and no note has this value; open the "
            "file in a notation program and export it anew"
        )
    ET.SubElement(note, "type").text = kind
    for _ in range(dots - len(note.findall("dot"))):
        ET.SubElement(note, "dot")
    return True


def _notations(note: ET.Element) -> ET.Element:
    found = note.find("notations")
    return ET.SubElement(note, "notations") if found is None else found


def _add_tied(note: ET.Element) -> bool:
    drawn = {tied.get("type") for tied in note.findall("notations/tied")}
    missing = [t.get("type") for t in note.findall("tie") if t.get("type") in ("start", "stop")]
    missing = [kind for kind in missing if kind not in drawn]
    for kind in missing:
        ET.SubElement(_notations(note), "tied", {"type": kind})
    return bool(missing)


def _follow(note: ET.Element, runs: dict[str, list[ET.Element]], written: dict[str, bool]) -> bool:
    """Take a note into the run of its voice that lacks a tuplet, or close that run before it."""
    voice = note.findtext("voice") or ""
    tuplets = {tuplet.get("type") for tuplet in note.findall("notations/tuplet")}
    inside = written.get(voice, False) or bool(tuplets)
    written[voice] = "stop" not in tuplets and ("start" in tuplets or written.get(voice, False))
    # Two notes in tremolo share their time by a modification that is no tuplet.
    shake = any(t.get("type") in ("start", "stop") for t in note.findall("notations/ornaments/tremolo"))
    lacks = _ratio(note) != 1 and not inside and not shake
    run, changed = runs.get(voice, []), False
    if run and not (lacks and _ratio(run[-1]) == _ratio(note)):
        changed = _close({voice: runs.pop(voice)})
    if lacks:
        runs.setdefault(voice, []).append(note)
    return changed


def _close(runs: dict[str, list[ET.Element]]) -> bool:
    """Write each run as a tuplet without number and bracket, which the print has not either."""
    found = bool(runs)
    for run in runs.values():
        for note, kind in ((run[0], "start"), (run[-1], "stop")):
            ET.SubElement(_notations(note), "tuplet", {"type": kind, "bracket": "no", "show-number": "none"})
    runs.clear()
    return found
