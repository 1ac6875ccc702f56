"""What a user's file is by its name: a score, MIDI, a picture of print, or sound."""

from __future__ import annotations

from pathlib import Path

from counterpoint.common.data.archives import inner_suffix

SCORE_SUFFIXES = (".mxl", ".musicxml", ".xml", ".mei")
MIDI_SUFFIXES = (".mid", ".midi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")


def modality_of(file: str | Path) -> str | None:
    """What a file is by its kind, compressed or not: `audio`, `sheet` (a score or a picture), or None.

    >>> modality_of(Path("recording.FLAC")), modality_of(Path("score.mxl")), modality_of(Path("score.musicxml.gz"))
    ('audio', 'sheet', 'sheet')
    """
    suffix = inner_suffix(file) or Path(file).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    return "sheet" if suffix in (*SCORE_SUFFIXES, *IMAGE_SUFFIXES) else None
