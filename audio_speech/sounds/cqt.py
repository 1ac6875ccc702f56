"""Constant-Q transform by one Fourier transform of the whole sound: nnAudio's numbers without its convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.audio_speech.sounds.mert_configs import CQTConfig
from counterpoint.common.errors import InputError

REACH = 96
"""Of a filter's spectrum to each side, in units of its frequency / Q; further lobes of a Hann window are below 4e-7."""


@dataclass(frozen=True)
class _Bank:
    """The filters' spectra, each on its own stretch of the `length` frequencies of a transform."""

    length: int
    first: tuple[int, ...]
    spectra: tuple[Tensor, ...]


def filter_lengths(config: CQTConfig, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies f_k = fmin 2^(k / b) in hertz and the filters' lengths ceil(Q rate / f_k), Q = 1 / (2^(1/b) - 1)."""
    frequencies = config.fmin * 2.0 ** (np.arange(config.bins) / config.per_octave)
    if frequencies[-1] > sample_rate / 2:
        raise InputError(
            f"--cqt.bins: the highest of {config.bins} bins lies at {frequencies[-1]:.0f} Hz, above half of the sample "
            f"rate ({sample_rate} Hz); ask for fewer bins"
        )
    q = 1.0 / (2.0 ** (1.0 / config.per_octave) - 1.0)
    return frequencies, np.ceil(q * sample_rate / frequencies).astype(int)


@lru_cache(maxsize=4)
def _bank(config: CQTConfig, sample_rate: int, samples: int, hop: int) -> _Bank:
    frequencies, lengths = filter_lengths(config, sample_rate)
    length = math.ceil((samples + lengths.max() + 1) / hop) * hop
    first, spectra = [], []
    for f, size in zip(frequencies, lengths):
        n = np.arange(size) - (size + 1) // 2
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        kernel = window * np.exp(2j * np.pi * f / sample_rate * n)
        kernel *= np.sqrt(size) / np.abs(kernel).sum()
        around = np.zeros(length, dtype=np.complex128)
        around[n % length] = kernel
        low = max(math.floor((f - REACH * sample_rate / size) * length / sample_rate), -length // 2)
        high = min(math.ceil((f + REACH * sample_rate / size) * length / sample_rate), length // 2)
        at = np.arange(low, high + 1) % length
        spectra.append(torch.from_numpy(np.fft.fft(around)[at].conj().astype(np.complex64)))
        first.append(low)
    return _Bank(length, tuple(first), tuple(spectra))


@torch.no_grad()
def constant_q(
    wave: Float[Tensor, "batch samples"], config: CQTConfig, sample_rate: int, hop: int
) -> Float[Tensor, "batch frames bins"]:
    r"""Magnitudes, frame n centred on sample n hop, silence beyond the ends; 1 + samples // hop frames.

        C_k(n) = sqrt(N_k) | sum_t x_(n hop + t) w_k(t) e^(-2 pi i f_k t / rate) | / sum_t w_k(t)

    w_k is the periodic Hann window of N_k = ceil(Q rate / f_k) samples. A filter's spectrum is multiplied with the
    sound's; folding the product at the rate of the frames and transforming it back gives the frames and no others.

    As nnAudio 0.3.4's `CQT(norm=1, pad_mode="constant")`, which MERT takes its targets from.

    >>> constant_q(torch.randn(2, 1600), CQTConfig(bins=24, per_octave=12, fmin=110.0), 8000, 80).shape
    torch.Size([2, 21, 24])
    """
    samples = wave.shape[1]
    bank = _bank(config, sample_rate, samples, hop)
    spectrum = torch.fft.fft(wave if wave.dtype == torch.float64 else wave.float(), n=bank.length)
    kept, frames = bank.length // hop, 1 + samples // hop
    out = []
    for low, filter_spectrum in zip(bank.first, bank.spectra):
        size = len(filter_spectrum)
        at = torch.arange(low, low + size, device=wave.device) % bank.length
        part = spectrum[:, at] * filter_spectrum.to(wave.device)
        shift = low % kept
        whole = torch.nn.functional.pad(part, (shift, -(size + shift) % kept))
        folded = whole.unflatten(1, (-1, kept)).sum(1)
        out.append(torch.fft.ifft(folded)[:, :frames].abs() / hop)
    return torch.stack(out, 2)
