"""What a user's file is by its name: a score, MIDI, a picture of print, or sound."""

from __future__ import annotations

import shlex
from pathlib import Path

from counterpoint.common.errors import InputError

SCORE_SUFFIXES = (".mxl", ".musicxml", ".xml", ".mei")
MIDI_SUFFIXES = (".mid", ".midi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


def modality_of(file: str | Path) -> str | None:
    """What a file is by its kind, packed or not: `audio`, `sheet` (a score or a picture), or None.

    >>> modality_of(Path("recording.FLAC")), modality_of(Path("score.mxl")), modality_of(Path("score.musicxml.gz"))
    ('audio', 'sheet', 'sheet')
    """
    suffix = inner_suffix(file)
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    return "sheet" if suffix in (*SCORE_SUFFIXES, *IMAGE_SUFFIXES) else None


def inner_suffix(file: str | Path) -> str:
    """The suffix in lower case, under that of a packer if there is one.

    >>> inner_suffix(Path("a.MusicXML.gz")), inner_suffix(Path("a.mid"))
    ('.musicxml', '.mid')
    """
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def refuse_packed(file: str | Path) -> None:
    """Raise `InputError` for a file that is packed by gzip or the like."""
    suffix = Path(file).suffix.lower()
    if suffix in PACKED_SUFFIXES:
        how = f": gunzip {shlex.quote(str(file))}" if suffix == ".gz" else ""
        raise InputError(f"{Path(file).name}: is packed ({suffix}); unpack it first{how}")
