"""Small recordings for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def tone(seconds: float = 0.5, pitch: float = 440.0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = RATE, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **options)
    return path


def speech(folder: Path, speakers: int = 4, digits: int = 3, takes: int = 2) -> Path:
    """Recordings `digit_speaker_take.wav`: a pitch for every digit, a voice for every speaker."""
    for speaker in range(speakers):
        for digit in range(digits):
            for take in range(takes):
                wave = tone(0.3 + 0.05 * take, 300 * (digit + 1)) + 0.2 * tone(0.3 + 0.05 * take, 90 + 20 * speaker)
                write(folder / f"{digit}_voice{speaker}_{take}.wav", wave)
    return folder
