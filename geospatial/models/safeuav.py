"""SafeUAV's map-to-map network, which PHG-MAE trains: a U-net with a row of dilated convolutions at its bottom.

Marcu et al., "SafeUAV", ECCV workshops 2018, as released with PHG-MAE's distilled models (Meehai/
video-representations-extractor ddcb105, vre_repository/semantic_segmentation/safeuav/model.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

DILATIONS = (1, 2, 4, 8, 16, 32)


def _conv(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, dilation, dilation), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _up(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def beside_skip(x: Float[Tensor, "batch a rows cols"], skip: Float[Tensor, "batch b height width"]) -> Tensor:
    """Both maps together; the smaller one is filled with zeros below and at the right."""
    right, below = skip.shape[-1] - x.shape[-1], skip.shape[-2] - x.shape[-2]
    return torch.cat([pad(x, (0, right, 0, below)), skip], 1)


class MapToMap(nn.Module):
    """Every input channel to `filters` channels of the same side; parameters are named as released.

    >>> network = MapToMap(5, 2)
    >>> network(torch.zeros(1, 5, 17, 20)).shape, network.bottom(torch.zeros(1, 5, 17, 20))[-1].shape
    (torch.Size([1, 2, 17, 20]), torch.Size([1, 16, 3, 3]))
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        n = filters
        self.conv1, self.conv2, self.conv3 = _conv(channels, n), _conv(n, n), _conv(n, n, 2)
        self.conv4, self.conv5, self.conv6 = _conv(n, 2 * n), _conv(2 * n, 2 * n), _conv(2 * n, 2 * n, 2)
        self.conv7, self.conv8, self.conv9 = _conv(2 * n, 4 * n), _conv(4 * n, 4 * n), _conv(4 * n, 4 * n, 2)
        for i, dilation in enumerate(DILATIONS):
            setattr(self, f"dilate{i + 1}", _conv(8 * n if i else 4 * n, 8 * n, 1, dilation))
        self.conv10_t, self.conv11 = _up(8 * n, 4 * n), _conv(8 * n, 4 * n)
        self.conv12_t, self.conv13 = _up(4 * n, 2 * n), _conv(4 * n, n)
        self.conv14_t, self.conv15 = _up(n, n), _conv(2 * n, n)

    def bottom(self, x: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The three maps that the way up takes beside it, and the sum of the dilated convolutions."""
        first = self.conv1(x)
        second = self.conv4(self.conv3(self.conv2(first)))
        third = self.conv7(self.conv6(self.conv5(second)))
        y = self.conv9(self.conv8(third))
        total = 0.0
        for i in range(len(DILATIONS)):
            y = getattr(self, f"dilate{i + 1}")(y)
            total = total + y
        return first, second, third, total

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch filters height width"]:
        return self.rise(*self.bottom(x))

    def rise(self, first: Tensor, second: Tensor, third: Tensor, y: Tensor) -> Tensor:
        """From the bottom to the input's side."""
        y = self.conv11(beside_skip(self.conv10_t(y), third))
        y = self.conv13(beside_skip(self.conv12_t(y), second))
        return self.conv15(beside_skip(self.conv14_t(y), first))


class SafeUAV(nn.Module):
    """`MapToMap` and a layer a pixel to the output channels."""

    def __init__(self, channels: int, outputs: int, filters: int) -> None:
        super().__init__()
        self.encoder, self.decoder = MapToMap(channels, filters), nn.Conv2d(filters, outputs, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch outputs height width"]:
        return self.decoder(self.encoder(x))
