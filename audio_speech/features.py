"""Waveform to log-frequency spectrogram: 92 bands of 16 per octave from 30 to 6000 Hz, 20 frames a second."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from counterpoint.audio_speech.configs import SpectrogramConfig
from counterpoint.common.errors import InputError

REVISION = 1  # raise when the same waveform and settings would give another spectrogram


@lru_cache(maxsize=8)
def log_filterbank(config: SpectrogramConfig) -> Float[np.ndarray, "bins bands"]:
    """Triangular filters on logarithmically spaced centres, each with unit area.

    Centres are 440 Hz times powers of `2 ** (1 / bands_per_octave)` between fmin and fmax, moved to the nearest bin of
    the transform; centres that meet on one bin count once, which is why the low octaves have fewer bands and the
    default has 92. Every filter rises from the centre below and falls to the centre above.

    >>> log_filterbank(SpectrogramConfig()).shape
    (1024, 92)
    """
    bins = config.fft_size // 2
    spacing = config.sample_rate / config.fft_size
    low = np.floor(np.log2(config.fmin / 440) * config.bands_per_octave)
    high = np.ceil(np.log2(config.fmax / 440) * config.bands_per_octave)
    centres = 440 * 2.0 ** (np.arange(low, high) / config.bands_per_octave)
    centres = centres[(centres >= config.fmin) & (centres <= config.fmax)]
    nearest = np.unique(np.clip(np.round(centres / spacing).astype(int), 0, bins - 1))
    bank = np.zeros((bins, max(len(nearest) - 2, 0)), dtype=np.float32)
    for band, (left, centre, right) in enumerate(zip(nearest, nearest[1:], nearest[2:])):
        if right - left < 2:
            centre, right = left, left + 1
        bank[left:centre, band] = np.arange(centre - left) / max(centre - left, 1)
        bank[centre:right, band] = 1 - np.arange(right - centre) / (right - centre)
    bank /= bank.sum(axis=0)
    bank.setflags(write=False)
    return bank


def spectrogram(
    wave: Float[np.ndarray, " samples"], config: SpectrogramConfig | None = None
) -> Float[np.ndarray, "frames bands"]:
    """`log10(1 + |STFT| W)`; frame `n` is centred on sample `n * hop`, beyond the ends there is silence."""
    config = config or SpectrogramConfig()
    half, frames = config.fft_size // 2, int(np.ceil(len(wave) / config.hop))
    padded = np.zeros((frames - 1) * config.hop + config.fft_size if frames else 0, dtype=np.float32)
    room = padded[half : half + len(wave)]
    room[:] = wave[: len(room)]
    if not frames:
        return np.zeros((0, log_filterbank(config).shape[1]), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.fft_size)[:: config.hop]
    magnitude = np.abs(np.fft.rfft(windows * np.hanning(config.fft_size).astype(np.float32), axis=1)[:, :half])
    return np.log10(1 + magnitude.astype(np.float32) @ log_filterbank(config))


def read_audio(path: str | Path, sample_rate: int = 22050) -> Float[np.ndarray, " samples"]:
    """Read WAV, FLAC, OGG or MP3 through soundfile: channels averaged, resampled, float32.

    Raises:
        InputError: the file is missing, no audio, or empty.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path.name}: not readable as WAV, FLAC, OGG or MP3 ({error})") from None
    wave = wave.mean(axis=1)
    if len(wave) == 0 or not np.isfinite(wave).all():
        raise InputError(f"{path.name}: {'no samples' if len(wave) == 0 else 'samples that are not finite'}")
    return resample(wave, rate, sample_rate)


def resample(wave: Float[np.ndarray, " samples"], rate: int, target: int) -> Float[np.ndarray, " resampled"]:
    """Polyphase resampling from `rate` to `target` hertz."""
    from math import gcd

    from scipy.signal import resample_poly

    if rate == target:
        return wave.astype(np.float32)
    common = gcd(rate, target)
    return resample_poly(wave, target // common, rate // common).astype(np.float32)
