"""A recording on disk: what is known of it without keeping it, and a stretch of it as mono samples at one rate."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.audio_speech.features import LEVEL, SILENT, loudness, resample_wave
from counterpoint.common.data.archives import packed
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note

BLOCK = 60  # seconds looked at at a time
FULL_SCALE = 0.9999
CLIPPED = 1e-3  # share of samples at full scale from which a recording is called clipped
CANCELS = 0.1  # the channels' mean is this much quieter than the loudest of them


@dataclass(frozen=True)
class SoundFacts:
    """What is known of a recording that was looked through.

    Attributes:
        seconds: how long it is.
        sample_rate: in hertz, as recorded.
        channels: how many.
        level_db: root mean square of the loudest channel, 0 dB is full scale.
        channel: the one to read where the channels cancel each other, counted from 1; 0: their mean.
        notes: what its owner should hear of it.
    """

    seconds: float
    sample_rate: int
    channels: int
    level_db: float
    channel: int
    notes: tuple[str, ...]


def sound_facts(path: str | Path) -> SoundFacts:
    """Look through a recording, a minute at a time.

    Raises:
        InputError: it cannot be decoded, is cut off, empty or silent, or has samples that are not finite.
    """
    import soundfile

    path = Path(path)
    if reason := packed(path):
        raise InputError(reason)
    refuse_cut_off(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, expected = file.samplerate, file.channels, file.frames
            squares, peak = np.zeros(channels), 0.0
            mono_squares, frames, bad, full, loud = 0.0, 0, 0, 0, 0.0
            while len(block := file.read(BLOCK * rate, dtype="float32", always_2d=True)):
                frames, bad = frames + len(block), bad + int((~np.isfinite(block)).sum())
                wide = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
                squares, mono_squares = squares + (wide**2).sum(0), mono_squares + (wide.mean(1) ** 2).sum()
                peak, full = max(peak, float(np.abs(wide).max())), full + int((np.abs(wide) >= FULL_SCALE).sum())
                loud = max(loud, *(loudness(c, max(rate // 20, 1)) for c in wide.T.astype(np.float32)))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"cannot be decoded as sound ({' '.join(str(error).split())})") from None
    if frames < expected and path.suffix.lower() in (".flac", ".ogg", ".wav"):
        raise InputError(f"is cut off: {frames / rate:.2f} of {expected / rate:.2f} s can be read; copy it again")
    if not frames:
        raise InputError("holds no samples")
    if bad:
        raise InputError(f"{bad} of {frames * channels} samples are not finite; export the recording anew")
    if loud < SILENT:
        raise InputError("is silent")
    level = np.sqrt(squares / frames)
    notes, channel = [], 0
    if np.sqrt(mono_squares / frames) < CANCELS * level.max():
        channel = int(level.argmax()) + 1
        notes.append(f"its channels cancel each other; only channel {channel} is used")
    if peak > 1.001:
        notes.append(f"its samples reach beyond full scale (to {peak:.2f})")
    elif full > CLIPPED * frames * channels:
        share = 100 * full / (frames * channels)
        notes.append(f"many of its samples are at full scale ({share:.1f} %): probably clipped")
    decibels = round(20 * float(np.log10(level.max())), 1)
    return SoundFacts(round(frames / rate, 4), rate, channels, decibels, channel, tuple(notes))


def refuse_cut_off(path: Path) -> None:
    """Raise `InputError` for a WAV file shorter than its header says, and for an Ogg stream without its last page.

    The decoder reads what is there of either and says nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            while len(chunk := file.read(8)) == 8:
                name, length = struct.unpack("<4sI", chunk)
                if name == b"data":
                    there = size - file.tell()
                    if there < length < 0xFFFFFF00:  # a stream's header says 2 ** 32 - 1: unknown
                        raise InputError(f"is cut off: {there} of {length} bytes of samples are there; copy it again")
                    return
                file.seek(length + length % 2, 1)
        elif head[:4] == b"OggS":
            file.seek(max(size - (1 << 17), 0))
            tail = file.read()
            if not _ends(tail[tail.rfind(b"OggS") :]):
                raise InputError("is cut off: the Ogg stream lacks its last page; copy it again")


def _ends(page: bytes) -> bool:
    """Whether bytes are a whole page of an Ogg stream, and its last."""
    if len(page) < 27 or not page.startswith(b"OggS") or not page[5] & 4:
        return False
    lengths = page[27 : 27 + page[26]]
    return len(lengths) == page[26] and len(page) >= 27 + len(lengths) + sum(lengths)


def read_stretch(
    path: str | Path, sample_rate: int, start: float = 0.0, seconds: float | None = None, channel: int = 0
) -> Float[np.ndarray, " samples"]:
    """Mono samples of a stretch of a recording, resampled; fewer than asked for where it ends before.

    Args:
        path: WAV, FLAC, OGG, MP3 or AIFF.
        sample_rate: wanted, in hertz.
        start, seconds: the stretch; all from `start` on unless `seconds` says how much.
        channel: one channel, counted from 1; 0 takes the mean of all.

    Raises:
        InputError: the file is missing, cannot be decoded, or ends before `start`; samples that are not finite.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, first = file.samplerate, round(start * file.samplerate)
            if first >= file.frames > 0 and first:
                raise InputError(f"{path.name}: ends after {file.frames / rate:.2f} s, before {start:.2f} s")
            file.seek(first)
            wave = file.read(-1 if seconds is None else round(seconds * rate), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path.name}: cannot be decoded ({' '.join(str(error).split())})") from None
    if not np.isfinite(wave).all():
        raise InputError(f"{path.name}: samples that are not finite; export the recording anew")
    mono = wave[:, channel - 1] if channel else wave.mean(axis=1)
    return resample_wave(mono, rate, sample_rate)


def read_audio(path: str | Path, sample_rate: int = 22050) -> Float[np.ndarray, " samples"]:
    """A whole recording as mono samples; what its owner should hear of it (channels that cancel each other, clipping)
    is noted.

    Raises:
        InputError: as `sound_facts`, with the file's name.
    """
    facts = looked_through(path)
    return read_stretch(path, sample_rate, channel=facts.channel)


def looked_through(path: str | Path) -> SoundFacts:
    """`sound_facts` of a recording a user names: errors say its name, its notes are told.

    Raises:
        InputError: the file is missing; as `sound_facts`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        facts = sound_facts(path)
    except InputError as error:
        advice = "" if ";" in str(error) else "; give another recording"
        raise InputError(f"{path.name}: {error}{advice}") from None
    for text in facts.notes:
        note(f"{path.name}: {text}")
    return facts


def levelled(wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """The samples with their loud parts at one level, however loud the recording is; a pause stays a pause.

    >>> wave = np.sin(np.arange(8000) / 5).astype(np.float32)
    >>> bool(np.allclose(levelled(wave), levelled(0.01 * wave), atol=1e-5))
    True
    """
    level = loudness(wave)
    return wave * np.float32(LEVEL / level) if level >= SILENT else np.zeros_like(wave)
