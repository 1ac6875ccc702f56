"""Log-mel spectrogram as products of matrices: the numbers of torchaudio's, differentiable and exportable."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.audio_speech.sounds.configs import MelConfig

FLOOR = 1e-10
"""Power of silence, -100 dB."""


def mel_filters(config: MelConfig, sample_rate: int) -> Float[Tensor, "bins bands"]:
    """Triangles between neighbouring points that lie evenly on the HTK scale, mel(f) = 2595 log10(1 + f / 700).

    Peaks are 1 (no norm), as `torchaudio.functional.melscale_fbanks(norm=None, mel_scale="htk")`.
    """
    top = config.fmax or sample_rate / 2
    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (config.fmin, top))
    points = 700.0 * (10.0 ** (torch.linspace(low, high, config.bands + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = torch.linspace(0, sample_rate // 2, config.fft_size // 2 + 1, dtype=torch.float64)
    width = points.diff()
    slopes = points[None] - bins[:, None]
    down, up = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
    return torch.minimum(down, up).clamp_min(0.0).float()


class LogMel(nn.Module):
    """log(power . filters + 1e-10), frames centred on samples 0, hop, 2 hop ..., the ends mirrored.

        power_t,f = |sum_n w_n x_(t hop + n - fft / 2) exp(-2 pi i f n / fft)|^2,   w the periodic Hann window

    Shapes: [batch, samples] -> [batch, 1 + samples // hop, bands].

    >>> LogMel(MelConfig(), 16000)(torch.zeros(2, 16000)).shape
    torch.Size([2, 101, 64])
    """

    def __init__(self, config: MelConfig, sample_rate: int) -> None:
        super().__init__()
        self.size, self.hop = config.fft_size, config.hop
        time = torch.arange(self.size, dtype=torch.float64)
        window = torch.hann_window(self.size, dtype=torch.float64)
        phase = 2 * math.pi * time[:, None] * torch.arange(self.size // 2 + 1) / self.size
        basis = window[:, None] * torch.cat([phase.cos(), phase.sin()], 1)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("filters", mel_filters(config, sample_rate), persistent=False)

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames bands"]:
        half = self.size // 2
        padded = nn.functional.pad(wave[:, None], (half, half), mode="reflect")[:, 0]
        real, imaginary = (padded.unfold(1, self.size, self.hop) @ self.basis).chunk(2, -1)
        return ((real.square() + imaginary.square()) @ self.filters + FLOOR).log()
