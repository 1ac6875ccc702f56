"""The spectrogram of a recording of any length: read, resampled and analysed a minute at a time, at one level."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, gcd
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.audio_speech.configs import SpectrogramConfig
from counterpoint.audio_speech.features import (
    LEVEL,
    LOUD_BLOCK,
    band_magnitudes,
    block_levels,
    loud_part,
    loudness,
    resample_wave,
)
from counterpoint.audio_speech.sounds.reading import BLOCK, looked_through
from counterpoint.common.progress import track


def long_spectrogram(
    path: str | Path, config: SpectrogramConfig, seconds: float = BLOCK
) -> Float[np.ndarray, "frames bands"]:
    """What `analyse(read_audio(path))` gives, with `seconds` of samples in memory at a time (an hour's
    frames take 26 MB).

    The recording is looked through once before (`looked_through`): what cannot be used is refused, and where the
    channels cancel each other one of them is read.

    Raises:
        InputError: the file is missing, no audio, cut off, empty, silent, or has samples that are not finite.
    """
    import soundfile

    facts = looked_through(path)
    half, hop = config.fft_size // 2, config.hop
    total = ceil(facts.seconds / seconds)
    samples, levels, found = 0, [], []
    waiting, unlevelled = np.zeros(half, dtype=np.float32), np.zeros(0, dtype=np.float32)
    with soundfile.SoundFile(path) as file:
        for wave in track(resampled(file, facts.channel, config.sample_rate, seconds), "listening", total):
            samples += len(wave)
            unlevelled = np.concatenate([unlevelled, wave])
            used = len(unlevelled) // LOUD_BLOCK * LOUD_BLOCK
            levels.append(block_levels(unlevelled[:used], LOUD_BLOCK))
            unlevelled = unlevelled[used:]
            waiting = np.concatenate([waiting, wave])
            made = _frames(waiting, config)
            found.append(made)
            waiting = waiting[len(made) * hop :]
    left = ceil(samples / hop) - sum(map(len, found))
    rest = np.zeros(max((left - 1) * hop + config.fft_size, 0), dtype=np.float32)
    rest[: len(waiting)] = waiting[: len(rest)]
    found.append(_frames(rest, config)[: max(left, 0)])
    known = np.concatenate(levels)
    level = loud_part(known) if len(known) else loudness(unlevelled)
    return np.log10(1 + np.concatenate(found) * np.float32(LEVEL / level if level > 0 else 1.0))


def _frames(wave: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """Magnitudes of all frames that lie within `wave`."""
    if len(wave) < config.fft_size:
        return band_magnitudes(np.zeros((0, config.fft_size), dtype=np.float32), config)
    windows = np.lib.stride_tricks.sliding_window_view(wave, config.fft_size)[:: config.hop]
    return band_magnitudes(windows, config)


def resampled(file, channel: int, rate: int, seconds: float) -> Iterator[Float[np.ndarray, " samples"]]:
    """An open sound file as mono samples at `rate`, a stretch at a time; laid end to end they are those of the whole
    file resampled at once. Every stretch is resampled with as much around it as the filter reaches."""
    common = gcd(file.samplerate, rate)
    up, down = rate // common, file.samplerate // common
    reach = down * ceil((10 * max(up, down) / up + 1) / down)
    size = down * ceil(seconds * file.samplerate / down)
    kept, before, last = np.zeros(0, dtype=np.float32), 0, False
    while not last:
        block = file.read(size, dtype="float32", always_2d=True)
        last = len(block) < size
        kept = np.concatenate([kept, block[:, channel - 1] if channel else block.mean(axis=1)])
        end = len(kept) if last else (len(kept) - reach) // down * down
        if end > before:
            yield resample_wave(kept, file.samplerate, rate)[before * up // down : None if last else end * up // down]
            start = max(end - reach, 0)
            kept, before = kept[start:], end - start
