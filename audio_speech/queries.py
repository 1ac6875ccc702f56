"""Users' files as queries: a recording, a score or a picture of print, cut into windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.audio_speech.configs import SheetDataConfig
from counterpoint.audio_speech.engrave import engrave
from counterpoint.audio_speech.features import analyse, read_audio
from counterpoint.audio_speech.kinds import IMAGE_SUFFIXES, SCORE_SUFFIXES
from counterpoint.audio_speech.snippets import audio_window, clock, sheet_window
from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError

MOST_WINDOWS = 200


@dataclass(frozen=True)
class _Whole:
    """A user's file, ready to be cut: its length and the window's in the file's own unit (frames or columns), the
    window about a centre, and what a musician calls that place."""

    long: int
    wide: int
    cut: Callable[[float], np.ndarray]
    place: Callable[[float], dict[str, str]]


def query(file: Path, modality: str, system: Any) -> dict[str, Any]:
    """A user's file as one sample: its middle window, and under `windows` all of it, overlapping by half.

    `audio` takes WAV, FLAC, OGG and MP3; `sheet` takes a score, or a picture of one two-staff system (scaled to the
    training height). A file of one window has no `windows`.

    Raises:
        InputError: unreadable, compressed, silent, or a sound shorter than half a window.
    """
    file, data = Path(file), system.config.data
    if reason := packed(file):
        raise InputError(f"{file.name}: {reason}")
    if modality == "audio":
        whole = _recording(file, data)
    elif modality == "sheet":
        whole = _print(file, data)
    else:
        raise InputError(f"modality {modality!r} is unknown; audio-sheet has sheet and audio")

    def window(centre: float) -> dict[str, Any]:
        known = {"index": 0, "id": file.name, "group": file.name, "title": file.name}
        return known | whole.place(centre) | {modality: torch.from_numpy(whole.cut(centre))}

    count = min(max(2 * (whole.long // whole.wide) - 1, 1), MOST_WINDOWS)
    found = window(whole.long / 2)
    if count > 1:
        centres = np.linspace(whole.wide / 2, whole.long - whole.wide / 2, count)
        found["windows"] = [window(centre) for centre in centres]
    return found


def _recording(file: Path, data: SheetDataConfig) -> _Whole:
    spectrum, wide = analyse(read_audio(file, data.spectrogram.sample_rate), data.spectrogram), data.frames
    rate, long = data.spectrogram.frames_per_second, len(spectrum)
    if long < wide / 2:
        raise InputError(
            f"{file.name}: the recording is too short ({long / rate:.1f} s); give at least "
            f"{wide / 2 / rate:.1f} s, half a window"
        )

    def place(centre: float) -> dict[str, str]:
        return {"time": clock(max(centre - wide / 2, 0) / rate, min(centre + wide / 2, long) / rate)}

    return _Whole(long, wide, lambda centre: audio_window(spectrum, centre, wide), place)


def _print(file: Path, data: SheetDataConfig) -> _Whole:
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    wide = data.sheet_width
    if file.suffix.lower() not in SCORE_SUFFIXES:
        page = _read_picture(file, data.engraving.height)
        return _Whole(page.shape[1], wide, lambda centre: sheet_window(page, centre, wide), lambda centre: {})
    score = engrave(file, data.engraving)

    def place(centre: float) -> dict[str, str]:
        bars = score.bars.seen(centre - wide / 2, centre + wide / 2)
        title = {"title": score.title} if score.title else {}
        return {**title, "key": score.bars.key(bars), "bars printed": score.bars.words(bars)}

    strip = score.strip
    return _Whole(strip.shape[1], wide, lambda centre: sheet_window(strip, centre, wide), place)


def _read_picture(file: Path, height: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if file.suffix.lower() not in IMAGE_SUFFIXES:
        known = ", ".join((*SCORE_SUFFIXES, *IMAGE_SUFFIXES))
        raise InputError(f"{file.name}: {file.suffix or 'no suffix'} is neither score nor picture; taken are {known}")
    try:
        with Image.open(file) as opened:
            page = opened.convert("L")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{file.name}: not a readable picture ({error})") from None
    width = max(1, round(page.width * height / page.height))
    return np.asarray(page.resize((width, height), Image.Resampling.LANCZOS))
