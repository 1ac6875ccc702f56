"""ConvNeXt over the bands of a sensor: a stem of its own, and stages that sensors may share.

Liu et al., "A ConvNet for the 2020s", CVPR 2022 (facebookresearch/ConvNeXt 048efce). Of its sizes, B is the encoder of
Sample4Geo: mean over the last map, layer norm, no head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from counterpoint.common.errors import InputError

LAYER_SCALE = 1e-6
"""Start of the factors by which a block's change is multiplied."""
EPSILON = 1e-6
Map = Float[Tensor, "batch dim rows columns"]


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Map) -> Map:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """x + gamma W_2 GELU(W_1 LN(depthwise 7 x 7 of x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(LAYER_SCALE * torch.ones(width))

    def forward(self, x: Map) -> Map:
        y = self.norm(self.dwconv(x).movedim(1, -1))
        y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
        return x + y.movedim(-1, 1)


class ConvNeXt(nn.Module):
    """Stems by sensor, then stages with a halving of the side between them.

    Args:
        bands: sensor -> its bands.
        depths: blocks of every stage.
        widths: channels of every stage.
        patch_size: pixels of the stem's patches.

    >>> network = ConvNeXt({"s1": 2, "s2": 12}, (1, 1), (8, 16), 4)
    >>> network(torch.zeros(2, 12, 32, 16), "s2").shape, network.stride
    (torch.Size([2, 16, 4, 2]), 8)
    """

    def __init__(self, bands: Mapping[str, int], depths: Sequence[int], widths: Sequence[int], patch_size: int) -> None:
        super().__init__()
        self.stems = nn.ModuleDict(
            {
                sensor: nn.Sequential(nn.Conv2d(n, widths[0], patch_size, patch_size), MapNorm(widths[0], eps=EPSILON))
                for sensor, n in bands.items()
            }
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*map(ConvNeXtBlock, [w] * d)) for w, d in zip(widths, depths, strict=True)
        )
        self.halvings = nn.ModuleList(
            nn.Sequential(MapNorm(a, eps=EPSILON), nn.Conv2d(a, b, 2, 2)) for a, b in pairwise(widths)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=EPSILON)
        self.stride = patch_size * 2 ** (len(widths) - 1)
        self.apply(_start)

    def forward(self, images: Float[Tensor, "batch bands height width"], sensor: str) -> Map:
        """The last stage's map, a place for `stride` x `stride` pixels."""
        if any(side % self.stride for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise InputError(
                f"chips of {height} x {width} pixels do not divide by the encoder's stride of {self.stride}; choose "
                "another --data.size"
            )
        x = self.stems[sensor](images)
        for stage, halving in zip(self.stages, [*self.halvings, nn.Identity()]):
            x = halving(stage(x))
        return x

    def represent(self, x: Map, seen: Bool[Tensor, "batch places"] | None = None) -> Float[Tensor, "batch dim"]:
        """Layer norm of the mean over the places that hold data; over all of them where none does."""
        if seen is None or bool(seen.all()):
            return self.norm(x.mean((2, 3)))
        share = torch.where(seen.any(1, keepdim=True), seen, True).to(x.dtype)
        return self.norm((x.flatten(2) * share[:, None]).sum(-1) / share.sum(1, keepdim=True))


def _start(part: nn.Module) -> None:
    """Weights from a normal distribution of deviation 0.02, cut at 2; biases 0."""
    if isinstance(part, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        nn.init.zeros_(part.bias)
