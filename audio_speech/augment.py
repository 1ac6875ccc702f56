"""Random views of sheet and audio snippets, for whole batches, on any device, from a generator passed in.

The kinds, probabilities and overlaps are those of the official configuration of the audio-sheet system; amplitudes
that it leaves to its libraries (noise, blur, elastic distortion) are our reading. Without augmentation both functions
only cut and resize the window, so training and evaluation share one path.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from counterpoint.audio_speech.configs import AudioAugmentConfig, SheetAugmentConfig


def sheet_view(
    sheet: UInt8[Tensor, "batch height wide"],
    width: int,
    config: SheetAugmentConfig | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, "batch 1 half_height half_width"]:
    """The middle `width` columns at half size, ink 1 and paper 0; with `config` a random view of them.

    Shift, scale, rotation and elastic distortion are one resampling of the page, so music from beyond the window comes
    into view; blur and noise follow. Each acts on a sample with its own probability.
    """
    batch, height, wide = sheet.shape
    ink = 1.0 - sheet[:, None].float() / 255.0
    if config is None:
        margin = (wide - width) // 2
        return F.avg_pool2d(ink[..., margin : margin + width], 2)
    draw = _Draw(batch, sheet.device, generator)
    rows, columns = height // 2, width // 2
    y = torch.arange(rows, device=sheet.device) * 2 + 0.5 - (height - 1) / 2  # offsets from the middle, in pixels
    x = torch.arange(columns, device=sheet.device) * 2 + 0.5 - (width - 1) / 2
    size = torch.exp(draw.between(math.log(config.scale_range[0]), math.log(config.scale_range[1]), config.scale))
    angle = draw.between(-config.degrees, config.degrees, config.rotate) * (math.pi / 180)
    shift_x = draw.between(-1, 1, config.shift_x) * (1 - config.overlap) * width
    shift_y = draw.between(-1, 1, config.shift_y) * (1 - config.overlap) * height
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    at_x = cos[:, None, None] * x - sin[:, None, None] * y[:, None] + shift_x[:, None, None]
    at_y = sin[:, None, None] * x + cos[:, None, None] * y[:, None] + shift_y[:, None, None]
    for probability, cell, pixels in ((config.elastic_small, 8, 1.5), (config.elastic_large, 32, 5.0)):
        at_x = at_x + draw.chance(probability)[:, None, None] * pixels * draw.smooth(rows, columns, cell)
        at_y = at_y + draw.chance(probability)[:, None, None] * pixels * draw.smooth(rows, columns, cell)
    grid = torch.stack([at_x * (2 / wide), at_y * (2 / height)], dim=-1)
    view = F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    blurred = F.avg_pool2d(view, 3, stride=1, padding=1, count_include_pad=False)
    view = torch.lerp(view, blurred, draw.between(0, 1, config.blur)[:, None, None, None])
    grain = draw.between(0, 0.15, config.noise)[:, None, None] * draw.normal(rows, columns)
    stain = draw.between(0, 0.15, config.perlin)[:, None, None] * draw.smooth(rows, columns, 16)
    return view + (grain + stain)[:, None]


def audio_view(
    audio: Float[Tensor, "batch long bands"],
    frames: int,
    config: AudioAugmentConfig | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, "batch 1 bands frames"]:
    """The middle `frames` as a picture (bands upward, time to the right); with `config` a random view of them.

    Shift and stretch resample time; noise, gain and equalisation act on magnitudes `10 ** s - 1` of the spectrogram
    `s = log10(1 + magnitude)`; masks set whole frames or bands to silence.
    """
    batch, long, bands = audio.shape
    margin = (long - frames) // 2
    if config is None:
        return audio[:, margin : margin + frames].transpose(1, 2)[:, None].contiguous()
    draw = _Draw(batch, audio.device, generator)
    low, high = (math.log(v) for v in config.stretch_range)
    speed = torch.exp(draw.between(low, high, config.stretch))
    shift = draw.between(-1, 1, config.shift) * (1 - config.overlap) * frames
    offset = torch.arange(frames, device=audio.device) - frames // 2
    time = (margin + frames // 2 + offset * speed[:, None] + shift[:, None]).clamp(0, long - 1)
    before = time.floor().clamp(max=max(long - 2, 0)).long()
    after = (before + 1).clamp(max=long - 1)
    part = (time - before)[..., None]
    view = torch.lerp(*(audio.gather(1, i[..., None].expand(-1, -1, bands)) for i in (before, after)), part)
    gain_db = draw.between(-config.gain_db, config.gain_db, config.gain)[:, None, None]
    curve = draw.chance(config.eq)[:, None, None] * config.eq_db * draw.smooth(1, bands, 16)
    magnitude = (10.0**view - 1.0) * 10.0 ** ((gain_db + curve) / 20)
    hiss = (draw.chance(config.noise) * 10.0 ** (draw.uniform() * 2 - 1.5))[:, None, None]
    magnitude = torch.sqrt(magnitude**2 + (hiss * draw.normal(frames, bands)) ** 2)
    view = torch.log10(1.0 + magnitude)
    view = view * draw.mask(frames, config.time_mask, config.mask_share)[:, :, None]
    view = view * draw.mask(bands, config.freq_mask, config.mask_share)[:, None, :]
    return view.transpose(1, 2)[:, None].contiguous()


class _Draw:
    """Random numbers for every sample of a batch."""

    def __init__(self, batch: int, device: torch.device, generator: Generator | None) -> None:
        self.batch, self.device, self.generator = batch, device, generator

    def uniform(self) -> Float[Tensor, " batch"]:
        return torch.rand(self.batch, device=self.device, generator=self.generator)

    def chance(self, probability: float) -> Float[Tensor, " batch"]:
        """1 with the probability, else 0."""
        return (self.uniform() < probability).float()

    def between(self, low: float, high: float, probability: float) -> Float[Tensor, " batch"]:
        """Uniform between two numbers with the probability, else 0."""
        return self.chance(probability) * (low + (high - low) * self.uniform())

    def normal(self, rows: int, columns: int) -> Float[Tensor, "batch rows columns"]:
        return torch.randn(self.batch, rows, columns, device=self.device, generator=self.generator)

    def smooth(self, rows: int, columns: int, cell: int) -> Float[Tensor, "batch rows columns"]:
        """Noise that changes over about `cell` positions: normal numbers on a coarse grid, interpolated between."""
        coarse = self.normal(math.ceil(rows / cell) + 1, math.ceil(columns / cell) + 1)[:, None]
        return F.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=True)[:, 0]

    def mask(self, length: int, probability: float, share: float) -> Float[Tensor, "batch length"]:
        """0 on one random run of at most `share` of the positions with the probability, else 1."""
        run = self.chance(probability) * self.uniform() * share * length
        start = self.uniform() * (length - run)
        place = torch.arange(length, device=self.device)
        return 1.0 - ((place >= start[:, None]) & (place + 1 <= (start + run)[:, None])).float()
