"""What a user's file is by its name: a score, MIDI, a picture of print, or sound."""

from __future__ import annotations

SCORE_SUFFIXES = (".mxl", ".musicxml", ".xml", ".mei")
MIDI_SUFFIXES = (".mid", ".midi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
