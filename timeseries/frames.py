r"""Projections of windows on frames: the orthonormal Fourier basis and a Gabor frame.

A frame {g_k} of R^T has bounds 0 < A <= B with A |x|^2 <= sum_k |<x, g_k>|^2 <= B |x|^2. The real Fourier basis is
orthonormal: A = B = 1 (Parseval). The Gabor frame is overcomplete: its atoms are Gaussian windows times complex
oscillations, at logarithmically spaced frequencies and at every time step, with one low-pass atom for what lies below.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def fourier(x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch parts bins channels"]:
    """Coefficients on the real orthonormal Fourier basis, as [cosine, sine] parts per frequency bin.

        |fourier(x)|^2 = |x|^2            for each window and channel

    Interior bins carry the factor sqrt(2) of the pair of conjugate coefficients.

    >>> x = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(fourier(x).square().sum((1, 2)), x.square().sum(1), rtol=1e-4)
    True
    """
    time = x.shape[1]
    spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
    weight = torch.full((spectrum.shape[1], 1), math.sqrt(2), dtype=x.dtype, device=x.device)
    weight[0] = 1
    if time % 2 == 0:
        weight[-1] = 1
    return torch.stack([spectrum.real * weight, spectrum.imag * weight], 1)


class GaborFrame(nn.Module):
    """Magnitudes of Gabor coefficients [batch, atoms, time, channels], computed by FFT on the circle.

        W_k(t) = <x, g_k(. - t)>,   g_k hat(f) = c exp(-(f - f_k)^2 / (2 s_k^2)),   s_k = f_k / cycles

    Frequencies f_k run from 2 / time to 0.5 (cycles per sample) in equal ratios; atom 0 is the low-pass one, centred at
    0 with the width of the lowest band-pass atom. `bounds(time)` are the exact frame bounds on the circle of `time`.

    >>> lower, upper = GaborFrame(16).bounds(128)
    >>> 0 < lower <= upper
    True
    """

    def __init__(self, frequencies: int = 32, cycles: float = 6.0):
        super().__init__()
        if frequencies < 2 or cycles <= 0:
            raise ValueError(f"GaborFrame: at least 2 frequencies and positive cycles, got {frequencies} and {cycles}")
        self.frequencies, self.cycles = frequencies, cycles

    @property
    def atoms(self) -> int:
        """Band-pass atoms and the low-pass one."""
        return self.frequencies + 1

    def centres(self, time: int) -> Float[Tensor, " frequencies"]:
        """Centre frequencies in cycles per sample."""
        return torch.logspace(math.log10(2 / time), math.log10(0.5), self.frequencies, dtype=torch.float64)

    def response(self, time: int) -> Float[Tensor, "atoms time"]:
        """Fourier transforms of the atoms at the FFT's frequencies (band-pass atoms live on positive ones)."""
        f = torch.fft.fftfreq(time, dtype=torch.float64).abs()
        positive = (torch.arange(time) <= time // 2).double()
        centre = self.centres(time)[:, None]
        # The atom must be wider than the gap to its neighbour, or the frame would have holes.
        step = centre * ((0.5 * time / 2) ** (1 / (self.frequencies - 1)) - 1)
        width = torch.maximum(centre / self.cycles, step / 2)
        band = math.sqrt(2) * torch.exp(-((f - centre) ** 2) / (2 * width**2)) * positive
        low = torch.exp(-(f**2) / (2 * (2 / time) ** 2))[None]
        return torch.cat([low, band])

    def bounds(self, time: int) -> tuple[float, float]:
        """The frame bounds A and B for real signals: extrema over f of sum_k (|g_k(f)|^2 + |g_k(-f)|^2) / 2."""
        power = self.response(time).square().sum(0)
        mirrored = torch.roll(power.flip(0), 1)
        total = (power + mirrored) / 2
        return float(total.min()), float(total.max())

    def coefficients(self, x: Float[Tensor, "batch time channels"]) -> Tensor:
        """Complex coefficients [batch, atoms, time, channels]."""
        response = self.response(x.shape[1]).to(x.device, x.dtype)
        spectrum = torch.fft.fft(x, dim=1)
        return torch.fft.ifft(spectrum[:, None] * response[None, :, :, None], dim=2)

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch atoms time channels"]:
        return self.coefficients(x).abs()
