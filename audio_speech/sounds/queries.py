"""Users' recordings and words as queries of the systems over recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.audio_speech.sounds.reading import read_audio
from counterpoint.audio_speech.sounds.samples import fixed_length, windows_of
from counterpoint.audio_speech.sounds.words import CaptionWords
from counterpoint.common.data.vocabulary import UNKNOWN
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note

MOST_WINDOWS = 200


def recording(file: Path, modality: str, system: Any) -> dict[str, Any]:
    """A user's recording: its middle window, and under `windows` all of it, one after the other."""
    file, config = Path(file), system.config.data
    wave = read_audio(file, config.sample_rate)
    count = min(windows_of(len(wave) / config.sample_rate, config.seconds), MOST_WINDOWS)
    last = max(len(wave) - config.samples, 0)
    starts = [last // 2] if count == 1 else np.linspace(0, last, count).astype(int).tolist()
    known = {"index": 0, "id": file.name, "group": file.name, "title": file.name}
    windows = [
        known
        | {
            "sound": fixed_length(wave[start:], config.samples),
            "length": min(len(wave) - start, config.samples),
            "seconds": round(start / config.sample_rate, 3),
        }
        for start in starts
    ]
    middle = windows[len(windows) // 2]
    return {**middle, "windows": windows} if count > 1 else middle


def words(text: str, modality: str, system: Any) -> dict[str, Any]:
    """A caption, in words that the training captions have."""
    if "words" not in system.assets:
        raise InputError("this system reads no words; give a recording (--file)")
    vocabulary = CaptionWords(system.assets["words"], system.config.text.words)
    unknown = vocabulary.unknown(text)
    numbers = vocabulary.numbers(text)
    if not (numbers > UNKNOWN).any():
        raise InputError(f"{text!r}: no training caption has a word of it; say it in other words")
    if unknown:
        note(f"no training caption has the word(s) {', '.join(dict.fromkeys(unknown))}")
    return {"caption": numbers, "said": text, "id": text, "group": text, "index": 0}
