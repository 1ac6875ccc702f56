"""Waveform to log-frequency spectrogram: 92 bands of 16 per octave from 30 to 6000 Hz, 20 frames a second."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from counterpoint.audio_speech.configs import SpectrogramConfig

REVISION = 2  # raise when the same waveform and settings would give another spectrogram

LEVEL = 0.1
"""Root mean square that the loud parts of every sound are brought to."""
LOUD_BLOCK = 1102
"""Samples of a block of 50 ms, of which loudness is told."""
SILENT = 3e-5
"""Sounds whose loud parts are below this (-90 dB, the noise of 16-bit dither) are silent."""


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
    return np.log10(1 + band_magnitudes(windows, config))


def band_magnitudes(
    windows: Float[np.ndarray, "frames samples"], config: SpectrogramConfig
) -> Float[np.ndarray, "frames bands"]:
    """`|STFT| W` of frames cut already; it grows with the sound's level in proportion."""
    magnitude = np.abs(np.fft.rfft(windows * np.hanning(config.fft_size).astype(np.float32), axis=1))
    return magnitude[:, : config.fft_size // 2].astype(np.float32) @ log_filterbank(config)


def loudness(wave: Float[np.ndarray, " samples"], block: int = LOUD_BLOCK) -> float:
    """Root mean square of the loud parts: the 95th percentile over blocks of 50 ms, which neither a click nor a pause
    moves; where nearly all is pause, over the blocks within 60 dB of the loudest."""
    if len(wave) == 0:
        return 0.0
    block = max(min(block, len(wave)), 1)
    return loud_part(block_levels(wave, block))


def block_levels(wave: Float[np.ndarray, " samples"], block: int) -> Float[np.ndarray, " blocks"]:
    """Root mean squares of whole blocks; what is left behind the last one does not count."""
    blocks = wave[: len(wave) // block * block].reshape(-1, block)
    return np.sqrt(np.mean(np.square(blocks, dtype=np.float64), axis=1))


def loud_part(levels: Float[np.ndarray, " blocks"]) -> float:
    """The level that `loudness` takes of those of a sound's blocks."""
    level, floor = np.percentile(levels, 95), 1e-3 * levels.max()
    return float(level if level >= floor else np.percentile(levels[levels >= floor], 95))


def analyse(
    wave: Float[np.ndarray, " samples"], config: SpectrogramConfig | None = None
) -> Float[np.ndarray, "frames bands"]:
    """The features of training and of queries: the spectrogram at the level `LEVEL`, however loud the recording is.

    >>> wave = np.sin(np.arange(22050) / 10).astype(np.float32)
    >>> bool(np.allclose(analyse(wave), analyse(0.01 * wave), atol=1e-4))
    True
    """
    level = loudness(wave)
    return spectrogram(wave * np.float32(LEVEL / level) if level > 0 else wave, config)


def resample_wave(wave: Float[np.ndarray, " samples"], rate: int, target: int) -> Float[np.ndarray, " resampled"]:
    """Polyphase resampling from `rate` to `target` hertz."""
    from math import gcd

    from scipy.signal import resample_poly

    if rate == target:
        return wave.astype(np.float32)
    common = gcd(rate, target)
    return resample_poly(wave, target // common, rate // common).astype(np.float32)
