"""Image networks that are read at three levels: patches, regions, the whole volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.common.errors import InputError
from counterpoint.medical.models import VolumeEncoder, Windows, pool_stages


@dataclass(frozen=True)
class Taps:
    """What is read of a volume.

    Attributes:
        patch_map: [batch, width, i, j, k] the map of patches, `patch` [batch, i j k, width] the same as a list.
        region: [batch, queries, width].
        volume: [batch, width].
    """

    patch_map: Tensor
    region: Tensor
    volume: Tensor

    @property
    def patch(self) -> Float[Tensor, "batch places width"]:
        return self.patch_map.flatten(2).transpose(1, 2)


class Queries(nn.Module):
    """Learnt queries that look at a map: each gives one region."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "batch width i j k"]) -> Float[Tensor, "batch queries width"]:
        places = self.norm(x.flatten(2).transpose(1, 2))
        asked = self.queries.expand(len(x), -1, -1)
        return F.scaled_dot_product_attention(asked, self.key(places), self.value(places))


class ConvTaps(VolumeEncoder):
    """The network of clip-ct: patches at a quarter of the resolution, regions at an eighth, the volume as clip-ct pools
    it, so that the levels can be compared at equal networks."""

    stride = 4

    def __init__(self, windows: Any, channels: tuple[int, int, int], dim: int, queries: int) -> None:
        super().__init__(windows, channels, dim)
        del self.project  # heads are the system's
        _, b, c = channels
        self.patch_width, self.region_width, self.volume_width = b, c, 2 * c + 54 * b
        self.regions = Queries(c, queries)

    def forward(self, shown: Float[Tensor, "batch windows x y z"]) -> Taps:
        middle = self.middle(self.stem(shown))
        last = self.last(middle)
        return Taps(middle, self.regions(last), pool_stages(middle, last))


class SwinTaps(nn.Module):
    """MONAI's Swin transformer (of SwinUNETR): patches at stride 8, regions at 16, the volume pooled at 32."""

    stride = 8

    def __init__(self, windows: Any, width: int, queries: int) -> None:
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinTransformer

        self.windows = Windows(windows)
        self.swin = SwinTransformer(
            in_chans=len(windows), embed_dim=width, window_size=(7, 7, 7), patch_size=(2, 2, 2), depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24), spatial_dims=3,
        )  # fmt: skip
        self.patch_width, self.region_width, self.volume_width = 4 * width, 8 * width, 16 * width
        self.regions = Queries(8 * width, queries)
        self.whole = Queries(16 * width, 1)

    def forward(self, shown: Float[Tensor, "batch windows x y z"]) -> Taps:
        if min(shown.shape[2:]) < 64:
            raise InputError(
                f"--encoder swin needs 64 voxels or more along every axis (data.recipe.size), not "
                f"{min(shown.shape[2:])}; use --encoder conv"
            )
        maps = self.swin(shown)
        return Taps(maps[2], self.regions(maps[3]), self.whole(maps[4])[:, 0])


def taps_of(config: Any) -> ConvTaps | SwinTaps:
    """The network that `config.encoder` names."""
    if config.encoder == "swin":
        return SwinTaps(config.windows, config.swin_width, config.queries)
    return ConvTaps(config.windows, config.channels, config.dim, config.queries)
