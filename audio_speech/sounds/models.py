"""Towers: convolutions over a log-mel spectrogram, a transformer over words, the encoder of CPC over samples."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.audio_speech.sounds.configs import TextConfig, TowerConfig
from counterpoint.common.data.vocabulary import PAD


class SoundTower(nn.Module):
    """Blocks of two 3x3 convolutions with batch norm and ReLU and 2x2 mean pooling; over what is left the mean along
    frequency, then maximum plus mean along time; a linear layer (PANN's CNN10, Kong et al. 2020).

    Every band is standardised by a batch norm first. Frames behind the end of a short sound do not count.

    >>> SoundTower(TowerConfig((8, 16), 32), 64)(torch.zeros(2, 100, 64), torch.tensor([100, 50])).shape
    torch.Size([2, 32])
    """

    def __init__(self, config: TowerConfig, bands: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(bands)
        blocks, width = [], 1
        for out in config.channels:
            layers: list[nn.Module] = []
            for _ in range(2):
                layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                width = out
            blocks.append(nn.Sequential(*layers, nn.AvgPool2d(2)))
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(width, config.dim)

    def places(self, mel: Float[Tensor, "batch frames bands"]) -> Float[Tensor, "batch places channels"]:
        """A vector for every 2 ** blocks frames."""
        x = self.norm(mel.mT).mT[:, None]
        return self.blocks(x.contiguous(memory_format=torch.channels_last)).mean(3).mT

    def forward(
        self, mel: Float[Tensor, "batch frames bands"], frames: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """`frames`: how many of each sound are its own."""
        x = self.places(mel)
        stride = 2 ** len(self.blocks)
        kept = torch.arange(x.shape[1], device=x.device)[None] < (frames[:, None] + stride - 1) // stride
        kept = kept[..., None] | (torch.arange(x.shape[1], device=x.device) == 0)[None, :, None]
        mean = (x * kept).sum(1) / kept.sum(1)
        return self.out(mean + x.masked_fill(~kept, -torch.inf).amax(1))


class TextTower(nn.Module):
    """A transformer over words with learnt places; the mean over a caption's words.

    >>> tower = TextTower(TextConfig(width=16, layers=1, heads=2, words=5), words=10)
    >>> tower(torch.tensor([[3, 4, 0, 0, 0]])).shape
    torch.Size([1, 16])
    """

    def __init__(self, config: TextConfig, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, config.width, padding_idx=PAD)
        self.places = nn.Parameter(0.02 * torch.randn(config.words, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, numbers: Int[Tensor, "batch words"]) -> Float[Tensor, "batch width"]:
        absent = numbers == PAD
        absent = absent & ~absent.all(1, keepdim=True)  # an empty caption is all padding, which attention cannot take
        x = self.layers(self.words(numbers) + self.places[: numbers.shape[1]], src_key_padding_mask=absent)
        kept = (~absent)[..., None]
        return self.norm((x * kept).sum(1) / kept.sum(1))


class WaveEncoder(nn.Module):
    """Five strided convolutions over samples, strides 5, 4, 2, 2, 2 and widths 10, 8, 4, 4, 4 (CPC's): a latent every
    160 samples. Each is normalised over channels (the released code's ChannelNorm) and rectified.

    >>> WaveEncoder(32)(torch.zeros(2, 20480)).shape
    torch.Size([2, 128, 32])
    """

    stride = 160

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
        self.layers = nn.ModuleList(
            nn.Conv1d(1 if i == 0 else width, width, size, stride, padding)
            for i, (size, stride, padding) in enumerate(sizes)
        )
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in sizes)

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch steps width"]:
        x = wave[:, None]
        for layer, norm in zip(self.layers, self.norms):
            x = torch.relu(norm(layer(x)))
        return x.mT


class ChannelNorm(nn.Module):
    """(x - mean) / sqrt(var + 1e-5) over the channels of each step (unbiased variance), learnt scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width, 1)), nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Float[Tensor, "batch width steps"]) -> Float[Tensor, "batch width steps"]:
        centred = x - x.mean(1, keepdim=True)
        return centred * torch.rsqrt(x.var(1, keepdim=True) + 1e-5) * self.weight + self.bias
