"""Random masks of patches, as masked autoencoders draw them, where patches without data are hidden first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class PatchMask(NamedTuple):
    """Which patches an encoder sees.

    Attributes:
        keep: the patches seen, in the order in which they are encoded.
        restore: for every patch its place in (seen, then hidden): what brings the order back.
        hidden: 1 where a patch is hidden, 0 where it is seen.
    """

    keep: Int[Tensor, "batch kept"]
    restore: Int[Tensor, "batch patches"]
    hidden: Float[Tensor, "batch patches"]


def random_mask(
    noise: Float[Tensor, "batch patches"], ratio: float, valid: Bool[Tensor, "batch patches"] | None = None
) -> PatchMask:
    """Hide int(patches (1 - ratio)) short of all patches: those with the greatest noise; ones that are not valid before
    all others.

    >>> mask = random_mask(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 0.5)
    >>> mask.keep.tolist(), mask.hidden.tolist()
    ([[1, 3]], [[1.0, 0.0, 1.0, 0.0]])
    """
    count = max(int(noise.shape[1] * (1 - ratio)), 1)
    ranked = noise if valid is None else noise + (~valid).to(noise.dtype)
    order = ranked.argsort(dim=1, stable=True)
    hidden = torch.ones_like(noise)
    keep = order[:, :count]
    return PatchMask(keep, order.argsort(dim=1), hidden.scatter(1, keep, 0.0))


def kept_rows(x: Float[Tensor, "batch patches dim"], ids: Int[Tensor, "batch kept"]) -> Float[Tensor, "batch kept dim"]:
    """The rows of some patches."""
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def patchify(images: Float[Tensor, "batch bands height width"], patch: int) -> Float[Tensor, "batch patches values"]:
    """Images as rows of patches; within a patch band by band, row by row.

    >>> patchify(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    b, c, h, w = images.shape
    if h % patch or w % patch:
        raise ValueError(f"{h} x {w} pixels do not divide into patches of {patch}")
    cut = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(
    patches: Float[Tensor, "batch patches values"], patch: int, rows: int, cols: int
) -> Float[Tensor, "batch bands height width"]:
    """The inverse of `patchify`."""
    b, bands = patches.shape[0], patches.shape[-1] // patch**2
    cut = patches.reshape(b, rows, cols, bands, patch, patch)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(b, bands, rows * patch, cols * patch)
