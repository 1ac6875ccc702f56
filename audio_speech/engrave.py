"""Scores to printed music: one long two-staff strip with the exact pixel column of every note's onset.

verovio lays the score out and says when every note sounds; resvg turns its drawing into pixels. Note ids tie the two
together, so the alignment is exact by construction.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path

import numpy as np

from counterpoint.audio_speech.bars import BarNames, Bars, read_bars, read_title
from counterpoint.audio_speech.configs import EngravingConfig
from counterpoint.audio_speech.musicxml import complete
from counterpoint.audio_speech.score_time import Performance, Printed, ScoreTime, perform, read_time
from counterpoint.audio_speech.scores import read_score
from counterpoint.common.errors import InputError

REVISION = 3  # raise when the same score and settings would give other pixels or other notes

_MEI = "{http://www.music-encoding.org/ns/mei}"
_SVG = "{http://www.w3.org/2000/svg}"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
# What stands above, between and below the staves would not fit into the strip, and none of it is heard.
_UNPRINTED = {
    "verse", "tempo", "dynam", "dir", "hairpin", "harm", "fermata", "mNum", "pgHead", "pgFoot", "label", "labelAbbr",
    "pb", "sb", "expansion", "reh", "pedal", "trill", "mordent", "turn", "slur", "breath", "caesura", "phrase", "annot",
}
_ARRAYS = ("strip", "notes", "printed", "jumps")
_VOICE_NAMES = ("soprano", "alto", "tenor", "bass")


@dataclass(frozen=True)
class Engraving:
    """A printed score.

    Attributes:
        strip: `[height, width]` uint8, 0 is ink and 255 is paper.
        notes: `[notes, 4]` float64: onset and offset in seconds as performed (tempo marks, repeats, endings, jumps),
            MIDI pitch as it sounds, pixel column of the note head's centre; sorted by onset and pitch. Tied notes are
            one. A printed note that is played twice stands here twice, with one column.
        printed: `[notes]` the place in quarters at which each is printed; None: printed in the order of the onsets.
        jumps: seconds at which the performance leaves one place of the print for another.
        bars: the printed bars, and when they are played.
        title: as the score gives it; empty where it gives none.
    """

    strip: np.ndarray
    notes: np.ndarray
    printed: np.ndarray | None = None
    jumps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bars: Bars = field(default_factory=Bars.none)
    title: str = ""

    @property
    def onsets(self) -> np.ndarray:
        """`[onsets, 2]`: every distinct onset time in seconds and the mean pixel column of the notes struck then."""
        times, which = np.unique(self.notes[:, 0], return_inverse=True)
        columns = np.bincount(which, self.notes[:, 3]) / np.bincount(which)
        return np.stack([times, columns], axis=1)

    @property
    def places(self) -> np.ndarray:
        """`[onsets]`: the printed quarter of every onset; performances of one printed place share it."""
        times, which = np.unique(self.notes[:, 0], return_inverse=True)
        if self.printed is None:
            return np.arange(len(times), dtype=np.float64)
        first = np.full(len(times), np.inf)
        np.minimum.at(first, which, self.printed)
        return first.round(4)

    def snippets(self, seconds: float) -> list[int]:
        """Onsets fit for a pair of sound and print: for every printed place its first performance during which, for
        `seconds` before and after, the music goes on as it is printed. A window across a jump would sound like bars
        that do not stand beside each other; places that only such windows have are left out."""
        times, places, taken = self.onsets[:, 0], self.places, {}
        for onset, (time, place) in enumerate(zip(times, places)):
            if place not in taken and not np.any(np.abs(self.jumps - time) < seconds - 1e-6):
                taken[place] = onset
        return sorted(taken.values())

    @property
    def seconds(self) -> float:
        """When the last note ends."""
        return float(self.notes[:, 1].max())


def engrave(path: str | Path, config: EngravingConfig | None = None) -> Engraving:
    """Engrave a MusicXML, MXL or MEI score of one or two staves, or of four voices with a staff each.

    Four single-voice staves (and, in a larger score, the four staves named soprano, alto, tenor, bass) are condensed
    into a piano system: voices 1 and 2 on the upper staff, 3 and 4 on the lower one.

    Raises:
        InputError: the file cannot be read, has no notes, or has staves that make no piano system.
    """
    import verovio

    config = config or EngravingConfig()
    path = Path(path)
    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setResourcePath(str(Path(verovio.__file__).parent / "data"))  # verovio forgets it in other threads
    toolkit.setOptions({
        "breaks": "none", "scale": config.scale, "font": config.font, "xmlIdSeed": 1, "header": "none",
        "footer": "none", "adjustPageHeight": True, "adjustPageWidth": True, "svgViewBox": False,
        "pageMarginTop": 100, "pageMarginBottom": 100, "pageMarginLeft": 50, "pageMarginRight": 50,
    })  # fmt: skip
    score = complete(read_score(path), path.name)
    mei = _read(toolkit, score, path.name)
    time, names = read_time(toolkit, mei, path.name), read_bars(mei)
    mei = condense(mei, path.name)
    if not toolkit.loadData(mei):
        raise InputError(f"{path.name}: the condensed score cannot be laid out; check the file in a notation program")
    ties = _ties(mei)
    svg = toolkit.renderToSVG(1)
    drawn = _geometry(svg, path.name)
    made = _perform(toolkit, drawn, ties, time)
    if len(made.notes) == 0:
        raise InputError(f"{path.name}: no pitched notes that sound (unpitched percussion is not played)")
    strip = _raster(svg, drawn.middle, config.height)
    return Engraving(strip, made.notes, made.printed, made.jumps, _bars(names, drawn, made), read_title(score))


def engraving_key(path: str | Path, config: EngravingConfig) -> dict:
    """Everything the engraving depends on, for the content-addressed cache."""
    return {
        "what": "engraving",
        "revision": REVISION,
        "score": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "suffix": Path(path).suffix.lower(),
        "config": vars(config) | {},
        "verovio": metadata.version("verovio"),
        "resvg": metadata.version("resvg_py"),
    }


def engrave_to(path: str | Path, config: EngravingConfig, target: Path) -> None:
    """Engrave and write the result as one compressed `.npz` (no pickled objects)."""
    made = engrave(path, config)
    arrays = {name: getattr(made, name) for name in _ARRAYS} | {"title": np.array(made.title)}
    with Path(target).open("wb") as file:
        np.savez_compressed(file, **arrays, **{f"bar_{name}": value for name, value in vars(made.bars).items()})


def load_engraving(path: Path) -> Engraving:
    """Read what `engrave_to` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        bars = Bars(*(arrays[f"bar_{field.name}"] for field in fields(Bars)))
        return Engraving(*(arrays[name] for name in _ARRAYS), bars, str(arrays["title"]))


def condense(mei: str, name: str) -> str:
    """Return the MEI score as a piano system of at most two staves, without text, dynamics and ornaments.

    Raises:
        InputError: neither one or two staves, nor four voices.
    """
    ET.register_namespace("", _MEI[1:-1])
    root = ET.fromstring(mei)
    score = root.find(f".//{_MEI}score")
    if score is None:
        raise InputError(f"{name}: no score inside the file")
    _drop(score, _UNPRINTED)
    voices = _voices(root, ET.fromstring(mei), name)
    if len(voices) == 4:
        _merge_staves(score, voices)
    return ET.tostring(root, encoding="unicode")


def _read(toolkit, score: str, name: str) -> str:
    loaded = toolkit.loadData(score)
    mei = toolkit.getMEI() if loaded else ""
    if "<note" not in mei:
        raise InputError(f"{name}: not a readable score with notes (damaged, empty, or another format)")
    return mei


def _drop(element: ET.Element, tags: set[str]) -> None:
    for child in list(element):
        if child.tag.removeprefix(_MEI) in tags:
            element.remove(child)
        else:
            _drop(child, tags)


def _voices(root: ET.Element, labelled: ET.Element, name: str) -> list[str]:
    """Staff numbers to keep, top to bottom; four of them are to be condensed, one or two stay as they are."""
    staves = {}
    for staff in labelled.iter(f"{_MEI}staffDef"):
        label = staff.find(f"{_MEI}label")
        staves.setdefault(staff.get("n"), "".join(label.itertext()).strip().lower() if label is not None else "")
    if len(staves) <= 2:
        return list(staves)
    crowded = {staff.get("n") for staff in root.iter(f"{_MEI}staff") if len(staff.findall(f"{_MEI}layer")) > 1}
    voices = list(staves)
    if len(voices) > 4:
        found = [[n for n, label in staves.items() if label.startswith(voice)] for voice in _VOICE_NAMES]
        voices = [n for match in found for n in match] if all(len(match) == 1 for match in found) else []
    if len(voices) != 4:
        raise InputError(
            f"{name}: {len(staves)} staves; a piano system takes one or two staves, or four voices "
            "(four staves, or staves named soprano, alto, tenor, bass)"
        )
    if crowded & set(voices):
        raise InputError(f"{name}: staff {min(crowded & set(voices))} of four holds several voices; give a piano score")
    return voices


def _merge_staves(score: ET.Element, voices: list[str]) -> None:
    """Voices 1, 2 become layers 1, 2 of staff 1; voices 3, 4 those of staff 2."""
    place = {n: (1 + i // 2, 1 + i % 2) for i, n in enumerate(voices)}
    definition = score.find(f"{_MEI}scoreDef")
    kept = {s.get("n"): s for s in definition.iter(f"{_MEI}staffDef") if s.get("n") in (voices[0], voices[3])}
    upper, lower = kept[voices[0]], kept[voices[3]]
    for group in definition.findall(f"{_MEI}staffGrp"):
        definition.remove(group)
    system = ET.SubElement(definition, f"{_MEI}staffGrp", {"bar.thru": "true"})
    ET.SubElement(system, f"{_MEI}grpSym", {"symbol": "brace"})
    for number, staff in enumerate((upper, lower), start=1):
        staff.set("n", str(number))
        for extra in [child for child in staff if child.tag == f"{_MEI}instrDef"]:
            staff.remove(extra)
        system.append(staff)
    for inner in list(score.iter(f"{_MEI}scoreDef")):
        if inner is not definition:
            for group in inner.findall(f"{_MEI}staffGrp"):  # a change of key or metre for every staff stays
                inner.remove(group)
    for measure in score.iter(f"{_MEI}measure"):
        _merge_measure(measure, place)


def _merge_measure(measure: ET.Element, place: dict[str, tuple[int, int]]) -> None:
    merged = {}
    for staff in measure.findall(f"{_MEI}staff"):
        measure.remove(staff)
        if staff.get("n") not in place:
            continue
        number, layer_number = place[staff.get("n")]
        target = merged.setdefault(number, ET.Element(f"{_MEI}staff", {"n": str(number)}))
        for layer in staff.findall(f"{_MEI}layer"):
            layer.set("n", str(layer_number))
            if layer_number != (1 if number == 1 else 2):  # the clef in force is that of the outer voice
                _drop(layer, {"clef"})
            for element in layer.iter():
                if "stem.dir" in element.attrib:
                    element.set("stem.dir", "up" if layer_number == 1 else "down")
            target.append(layer)
    for number in sorted(merged, reverse=True):
        merged[number][:] = sorted(merged[number], key=lambda layer: layer.get("n"))
        measure.insert(0, merged[number])
    ids = {e.get(_XML_ID) for staff in merged.values() for e in staff.iter()}
    for control in [c for c in measure if c.tag != f"{_MEI}staff"]:
        start = control.get("startid", "").lstrip("#")
        if start and start not in ids:
            measure.remove(control)
        elif control.get("staff") in place:
            control.set("staff", str(place[control.get("staff")][0]))
        elif "staff" in control.attrib:
            measure.remove(control)


def _ties(mei: str) -> dict[str, str]:
    """Second note of a tie -> first note."""
    ties = {}
    for tag in re.findall(r"<(?:\w+:)?tie\b[^>]*>", mei):
        ends = dict(re.findall(r'(startid|endid)="#([^"]+)"', tag))
        if len(ends) == 2:
            ties[ends["endid"]] = ends["startid"]
    return ties


@dataclass(frozen=True)
class _Drawn:
    """Where the drawing has what, in pixels: note id -> column, bar id -> its columns, the system's middle row."""

    notes: dict[str, float]
    bars: dict[str, tuple[float, float]]
    middle: float


def _geometry(svg: str, name: str) -> _Drawn:
    root = ET.fromstring(svg)
    page = root.find(f"{_SVG}svg")
    width = float(root.get("width").removesuffix("px"))
    zoom = width / float(page.get("viewBox").split()[2])
    margin = page.find(f"{_SVG}g[@class='page-margin']")
    left, top = (float(v) for v in re.findall(r"-?[\d.]+", margin.get("transform")))
    columns, bars, lines, bar = {}, {}, [], ""
    for group in margin.iter(f"{_SVG}g"):
        kind = group.get("class", "").split(" ")[0]
        if kind == "note":
            head = group.find(f"{_SVG}g[@class='notehead']/{_SVG}use")
            if head is not None:
                x, scale = re.match(r"translate\(([-\d.]+).*scale\(([-\d.]+)", head.get("transform")).groups()
                columns[group.get("id")] = left + float(x) + 164 * float(scale)  # half a black note head, in font units
        elif kind == "measure":
            bar = group.get("id")
        elif kind == "staff":
            ruled = [[float(v) for v in re.findall(r"-?[\d.]+", p.get("d"))] for p in group.findall(f"{_SVG}path")]
            if ruled:
                bars.setdefault(bar, (left + ruled[0][0], left + ruled[0][2]))
                lines.append((min(y for _, y, *_ in ruled), max(y for _, y, *_ in ruled)))
    if not columns or not lines:
        raise InputError(f"{name}: the score was laid out without notes")
    return _Drawn(
        {note: x * zoom - 0.5 for note, x in columns.items()},  # pixel k covers k to k + 1
        {bar: (begin * zoom - 0.5, end * zoom - 0.5) for bar, (begin, end) in bars.items()},
        (top + (lines[0][0] + lines[:2][-1][1]) / 2) * zoom,
    )


def _perform(toolkit, drawn: _Drawn, ties: dict[str, str], time: ScoreTime) -> Performance:
    onset, offset, within, bars, bar, place = {}, {}, {}, {}, "", 0.0
    for event in toolkit.renderToTimemap({"includeRests": True, "includeMeasures": True}):
        place = event["qstamp"]
        if "measureOn" in event:
            bar = event["measureOn"]
            bars[bar] = place
        for note in event.get("on", ()):
            onset.setdefault(note, place)
            within.setdefault(note, bar)
        for note in event.get("off", ()):
            offset[note] = place
    ends = [*list(bars.values())[1:], place]
    spans = {bar: (begin, end) for (bar, begin), end in zip(bars.items(), ends)}
    notes = {}
    for note in onset:
        if note in time.unpitched or note not in drawn.notes or offset.get(note, 0.0) <= onset[note]:
            continue
        pitch = toolkit.getMIDIValuesForElement(note)["pitch"] + time.shift.get(note, 0)
        notes[note] = Printed(onset[note], offset[note], pitch, drawn.notes[note], within[note])
    return perform(notes, spans, ties, time)


def _bars(names: BarNames, drawn: _Drawn, made: Performance) -> Bars:
    place = {bar: i for i, bar in enumerate(names.ids)}
    columns = [drawn.bars.get(bar, (0.0, 0.0)) for bar in names.ids]
    played = [(begin, end, place[bar]) for bar, begin, end in made.bars if bar in place]
    return Bars(
        np.array(names.numbers, dtype=str),
        np.array(names.keys, dtype=str),
        np.array(columns, dtype=np.float64).reshape(-1, 2),
        np.array(played, dtype=np.float64).reshape(-1, 3),
    )


def _raster(svg: str, middle: float, height: int) -> np.ndarray:
    """Draw, and cut `height` rows about the system's middle; paper where the drawing ends."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True)
    page = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    strip = np.full((height, page.shape[1]), 255, dtype=np.uint8)
    top = round(middle - height / 2)
    first, last = max(top, 0), min(top + height, page.shape[0])
    strip[first - top : last - top] = page[first:last]
    return strip
