"""Multi-crop: a few large and many small crops of every sample, encoded with one pass per size (SwAV)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["MultiCrop", "encode_crops", "random_resized_crop"]


def random_resized_crop(
    x: Float[Tensor, "batch channels *places"],
    size: int,
    scale: tuple[float, float],
    *,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch channels *size"]:
    """A rectangle of every image (or stretch of every series), resized to `size` by linear interpolation.

    The share of the area is uniform on `scale`, the aspect ratio log-uniform on `ratio` (of images), the place uniform;
    a side longer than the image's is cut to it. Every sample draws its own.

    >>> random_resized_crop(torch.zeros(2, 3, 32, 48), 16, (0.1, 0.5)).shape
    torch.Size([2, 3, 16, 16])
    >>> random_resized_crop(torch.zeros(2, 3, 100), 50, (0.1, 0.5)).shape
    torch.Size([2, 3, 50])
    """
    if x.dim() not in (3, 4):
        raise ValueError(f"crops are taken of [batch, channels, time] or [batch, channels, y, x], got {tuple(x.shape)}")
    device = torch.device("cpu") if generator is None else generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(x), generator=generator, device=device, dtype=torch.float64)

    area = uniform(*scale)
    if x.dim() == 3:
        sides = [area]
    else:
        aspect = torch.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))  # width over height, in pixels
        high, wide = x.shape[-2:]
        sides = [torch.sqrt(area * wide / (high * aspect)), torch.sqrt(area * aspect * high / wide)]
    sides = [side.clamp(max=1.0) for side in sides]
    starts = [(1 - side) * uniform(0.0, 1.0) for side in sides]
    if x.dim() == 3:  # a series is an image of one row
        sides, starts = [torch.ones_like(area), *sides], [torch.zeros_like(area), *starts]
    theta = torch.zeros(len(x), 2, 3, dtype=torch.float64, device=device)
    for axis in (0, 1):  # x, then y
        side, start = sides[1 - axis], starts[1 - axis]
        theta[:, axis, axis], theta[:, axis, 2] = side, 2 * start + side - 1
    image = x if x.dim() == 4 else x[:, :, None]
    out = (size, size) if x.dim() == 4 else (1, size)
    grid = nn.functional.affine_grid(theta, [*image.shape[:2], *out], align_corners=False).to(image)
    found = nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return found if x.dim() == 4 else found[:, :, 0]


class MultiCrop:
    """Crops of several sizes of a batch, in the order SwAV takes them: the large ones, which give assignments, first.

    Args:
        sizes, counts, scales: per size its pixels (or steps), how many crops, and their share of the area; SwAV's
            2 x 224 + 6 x 96 of ImageNet.
        augment: what else is done to a crop (colour, blur, flips).
        ratio, generator: as in `random_resized_crop`.

    Source: Caron et al. 2020; facebookresearch/swav, src/multicropdataset.py.

    >>> crops = MultiCrop(sizes=(8, 4), counts=(2, 3))(torch.zeros(5, 1, 16, 16))
    >>> [tuple(c.shape[2:]) for c in crops]
    [(8, 8), (8, 8), (4, 4), (4, 4), (4, 4)]
    """

    def __init__(
        self,
        sizes: Sequence[int] = (224, 96),
        counts: Sequence[int] = (2, 6),
        scales: Sequence[tuple[float, float]] = ((0.14, 1.0), (0.05, 0.14)),
        *,
        augment: Callable[[Tensor], Tensor] | None = None,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        generator: torch.Generator | None = None,
    ) -> None:
        if not len(sizes) == len(counts) == len(scales):
            raise ValueError(f"sizes, counts and scales need one entry each per size, got {sizes}, {counts}, {scales}")
        self.sizes, self.counts, self.scales = tuple(sizes), tuple(counts), tuple(scales)
        self.augment, self.ratio, self.generator = augment, ratio, generator

    def __call__(self, x: Float[Tensor, "batch channels *places"]) -> list[Tensor]:
        """All crops, [batch, channels, size(, size)] each."""
        crops = [
            random_resized_crop(x, size, scale, ratio=self.ratio, generator=self.generator)
            for size, count, scale in zip(self.sizes, self.counts, self.scales)
            for _ in range(count)
        ]
        return crops if self.augment is None else [self.augment(crop) for crop in crops]


def encode_crops(encoder: Callable[[Tensor], Tensor], crops: Sequence[Tensor]) -> list[Tensor]:
    """Every crop's embedding [batch, dim]; neighbours of one size go through the encoder together, one pass per size.

    Batch normalisation therefore sees all crops of a size at once, as in the official code.

    >>> encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> [e.shape for e in encode_crops(encoder, [torch.zeros(5, 3, 8, 8)] * 2 + [torch.zeros(5, 3, 4, 4)])]
    [torch.Size([5, 3]), torch.Size([5, 3]), torch.Size([5, 3])]
    """
    found: list[Tensor] = []
    for _, same in groupby(crops, key=lambda crop: crop.shape[2:]):
        together = list(same)
        found += encoder(torch.cat(together)).split([len(crop) for crop in together])
    return found
