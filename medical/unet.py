"""A 3D UNet with features at full resolution, as GEMINI's backbone: double convolutions, group norm, leaky ReLU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def double(inputs: int, width: int) -> nn.Sequential:
    """Twice 3 x 3 x 3 convolution, group norm (channels / 8 groups), leaky ReLU of slope 0.2."""
    layers: list[nn.Module] = []
    for a in (inputs, width):
        groups = max(width // 8, 1)
        layers += [nn.Conv3d(a, width, 3, padding=1), nn.GroupNorm(groups, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Levels of `channels`, halved by maximum pooling and brought back by trilinear interpolation; sizes need not be
    powers of two.

    >>> UNet(1, (8, 16))(torch.zeros(1, 1, 5, 6, 7)).shape
    torch.Size([1, 8, 5, 6, 7])
    """

    def __init__(self, inputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(double(a, b) for a, b in zip((inputs, *channels), channels))
        self.up = nn.ModuleList(double(a + b, b) for a, b in zip(channels[:0:-1], channels[-2::-1]))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "batch inputs x y z"]) -> Float[Tensor, "batch channels x y z"]:
        kept = []
        for i, stage in enumerate(self.down):
            x = stage(x if i == 0 else F.max_pool3d(x, 2))
            kept.append(x)
        x = kept.pop()
        for stage in self.up:
            skip = kept.pop()
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=True)
            x = stage(torch.cat([skip, x], 1))
        return x
