"""MIDI to a two-staff score, through music21. A MIDI file has no notation, so part of this is guesswork, said below."""

from __future__ import annotations

from pathlib import Path

from counterpoint.common.errors import InputError

MIDDLE_C = 60


def check_midi(content: bytes, name: str) -> None:
    """Refuse what is no whole MIDI file in ticks per quarter.

    Raises:
        InputError: another format, cut, division 0, or time in SMPTE frames.
    """
    if content[:4] != b"MThd":
        raise InputError(f"{name}: not a MIDI file (it does not start with MThd)")
    if len(content) < 14 or int.from_bytes(content[4:8], "big") < 6:
        raise InputError(f"{name}: damaged MIDI (its header is cut); export it anew")
    tracks, division = int.from_bytes(content[10:12], "big"), int.from_bytes(content[12:14], "big")
    if division == 0:
        raise InputError(f"{name}: damaged MIDI (its header says 0 ticks per quarter); export it anew")
    if division & 0x8000:
        raise InputError(f"{name}: counts time in SMPTE frames and so has no beats; export it with ticks per quarter")
    place, found = 8 + int.from_bytes(content[4:8], "big"), 0
    while found < tracks:
        end = place + 8 + int.from_bytes(content[place + 4 : place + 8], "big")
        if len(content) < place + 8 or len(content) < end:
            raise InputError(f"{name}: damaged MIDI (cut within track {found + 1} of {tracks}); export it anew")
        found += content[place : place + 4] == b"MTrk"
        place = end


def midi_to_musicxml(path: str | Path, target: str | Path) -> Path:
    """Write the notes of a MIDI file as a MusicXML piano score.

    Onsets and lengths are quantised to sixteenths and triplets; notes from middle C upward go to the upper staff, the
    others to the lower one, simultaneous ones become chords. Kept are pitches, the quantised rhythm, time signatures
    and tempo changes. Lost are performed timing, loudness, pedal, instruments, voices and percussion; key signature
    and spelling are guessed.

    Raises:
        InputError: not a MIDI file, or one without pitched notes.
    """
    from music21 import chord, clef, converter, metadata, note, stream, tempo
    from music21.exceptions21 import Music21Exception

    path, target = Path(path), Path(target)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    check_midi(path.read_bytes(), path.name)
    try:
        score = converter.parse(path, format="midi", forceSource=True, storePickle=False)
    except (Music21Exception, ValueError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise InputError(f"{path.name}: damaged MIDI ({' '.join(str(error).split())[:120]})") from error
    flat = score.stripTies().flatten()  # music21 has cut held notes at its bars
    staves = {True: stream.Part(id="upper"), False: stream.Part(id="lower")}
    for element in flat.notes:
        if not isinstance(element, (note.Note, chord.Chord)):
            continue
        for pitch in element.pitches:
            single = note.Note(pitch, quarterLength=max(float(element.quarterLength), 0.25))
            staves[pitch.midi >= MIDDLE_C].insert(element.offset, single)
    if not any(part.notes for part in staves.values()):
        raise InputError(f"{path.name}: no pitched notes")
    piano = stream.Score()
    piano.metadata = metadata.Metadata(movementName=path.stem)  # else music21 invents a title
    marks = {float(mark.offset): mark for mark in flat.getElementsByClass(tempo.MetronomeMark)}
    key = flat.analyze("key")
    for upper, part in staves.items():
        staff = part.chordify()
        staff.insert(0, clef.TrebleClef() if upper else clef.BassClef())
        staff.insert(0, key)
        for signature in flat.getElementsByClass("TimeSignature"):
            staff.insert(signature.offset, signature)
        for offset, mark in marks.items() if upper else ():
            staff.insert(offset, mark)
        staff = staff.makeMeasures()
        staff.makeTies(inPlace=True)
        _tie(staff, [(float(n.offset), float(n.offset + n.quarterLength), n.pitch.midi) for n in part.notes])
        piano.insert(0, staff)
    try:
        piano.write("musicxml", fp=str(target))
    except Music21Exception as error:
        raise InputError(f"{path.name}: cannot be written as a score ({' '.join(str(error).split())[:120]})") from error
    return target


def _tie(staff, notes: list[tuple[float, float, int]]) -> None:
    """Tie the slices of each held note, and only those: between bars and within, in chords that move beside it."""
    from music21 import tie

    spans: dict[int, list[tuple[float, float]]] = {}
    for onset, end, midi in notes:
        spans.setdefault(midi, []).append((onset, end))
    for element in staff.recurse().notes:
        begin = float(element.getOffsetInHierarchy(staff))
        end = begin + float(element.quarterLength)
        for single in getattr(element, "notes", (element,)):
            held = spans.get(single.pitch.midi, ())
            since = any(o < begin - 1e-6 and begin + 1e-6 < e for o, e in held)
            beyond = any(o < end - 1e-6 and end + 1e-6 < e for o, e in held)
            kind = {(True, True): "continue", (True, False): "stop", (False, True): "start"}.get((since, beyond))
            single.tie = tie.Tie(kind) if kind else None
