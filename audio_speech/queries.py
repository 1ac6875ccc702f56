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
from counterpoint.audio_speech.features import analyse
from counterpoint.audio_speech.kinds import IMAGE_SUFFIXES, SCORE_SUFFIXES
from counterpoint.audio_speech.snippets import audio_window, sheet_window, stretch
from counterpoint.audio_speech.sounds.reading import read_audio
from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError

MOST_WINDOWS = 200
PAUSE = 0.01
"""Features below this, beside music at their level, are a pause: at most the noise 60 dB under the music."""


@dataclass(frozen=True)
class _Whole:
    """A user's file, ready to be cut: its length and the window's in the file's own unit (frames or columns), the
    window about a centre, what a musician calls that place, and whether a window holds silence or blank paper."""

    long: int
    wide: int
    cut: Callable[[float], np.ndarray]
    place: Callable[[float], dict[str, str]]
    empty: Callable[[np.ndarray], bool]


def query(file: Path, modality: str, system: Any) -> dict[str, Any]:
    """A user's file as one sample: its middle window, and under `windows` all of it, overlapping by half, without those
    that hold a pause or blank paper.

    `audio` takes WAV, FLAC, OGG and MP3; `sheet` takes a score, or a picture of one two-staff system (scaled to the
    training height). A file of one window has no `windows`.

    Raises:
        InputError: unreadable, compressed, silent or blank, or a sound shorter than half a window.
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

    count = min(max(2 * (whole.long // whole.wide) - 1, 1), MOST_WINDOWS)
    centres = np.linspace(whole.wide / 2, whole.long - whole.wide / 2, count) if count > 1 else [whole.long / 2]
    cut = {centre: whole.cut(centre) for centre in centres}
    told = [centre for centre in centres if not whole.empty(cut[centre])] or list(centres)
    known = {"index": 0, "id": file.name, "group": file.name, "title": file.name}
    windows = [known | whole.place(c) | {modality: torch.from_numpy(cut[c])} for c in told]
    middle = windows[len(windows) // 2]
    return {**middle, "windows": windows} if count > 1 else middle


def _recording(file: Path, data: SheetDataConfig) -> _Whole:
    spectrum, wide = analyse(read_audio(file, data.spectrogram.sample_rate), data.spectrogram), data.frames
    rate, long = data.spectrogram.frames_per_second, len(spectrum)
    least = f"give at least {wide / 2 / rate:.1f} s, half a window"
    if long < wide / 2:
        raise InputError(f"{file.name}: the recording is too short ({long / rate:.1f} s); {least}")
    if (sounding := int((spectrum.max(axis=1) >= PAUSE).sum())) < wide / 2:
        raise InputError(f"{file.name}: only {sounding / rate:.1f} s of the recording are not silent; {least}")

    def place(centre: float) -> dict[str, str]:
        return {"time": stretch(max(centre - wide / 2, 0) / rate, min(centre + wide / 2, long) / rate)}

    return _Whole(long, wide, lambda c: audio_window(spectrum, c, wide), place, lambda window: window.max() < PAUSE)


def _print(file: Path, data: SheetDataConfig) -> _Whole:
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    wide = data.sheet_width
    if file.suffix.lower() not in SCORE_SUFFIXES:
        page = _read_picture(file, data.engraving.height)
        if _blank(page):
            raise InputError(f"{file.name}: the picture is blank; give one with printed music")
        return _Whole(page.shape[1], wide, lambda c: sheet_window(page, c, wide), lambda c: {}, _blank)
    score = engrave(file, data.engraving)

    def place(centre: float) -> dict[str, str]:
        bars = score.bars.seen(centre - wide / 2, centre + wide / 2)
        title = {"title": score.title} if score.title else {}
        return {**title, "key": score.bars.key(bars), "bars printed": score.bars.words(bars)}

    strip = score.strip
    return _Whole(strip.shape[1], wide, lambda c: sheet_window(strip, c, wide), place, _blank)


def _blank(page: np.ndarray) -> bool:
    """Whether the darkest and the lightest point differ by less than a fifth of the range from ink to paper."""
    return int(page.max()) - int(page.min()) < 50


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
