"""PixPro: pixel-to-propagation consistency of two crops."""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from counterpoint.common.kernels.unit import unit
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["PixPro", "PixelPropagation", "crop_cells"]


class PixelPropagation(nn.Module):
    """Smooth each pixel by all similar pixels of its map (PixPro's propagation module).

        y_i = sum_j max(cos(x_i, x_j), 0)^power norm(g(x_j)),     g: `layers` 1 x 1 convolutions

    Below power 1 the clamped cosine gets 1e-6, as in the official code: its power has no slope at 0.

    Args:
        dim: width of the map.
        power: 2 in the paper.
        layers: 0 (g is the identity), 1 (the paper) or 2 (with batch normalisation and ReLU between).

    Raises `ValueError` for another number of layers.

    >>> import torch
    >>> PixelPropagation(8)(torch.randn(2, 8, 3, 3)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(self, dim: int, power: float = 2.0, layers: int = 1):
        super().__init__()
        if layers not in (0, 1, 2):
            raise ValueError(f"PixelPropagation has 0, 1 or 2 layers, got {layers}")
        between = [nn.BatchNorm2d(dim), nn.ReLU(), nn.Conv2d(dim, dim, 1)] if layers == 2 else []
        self.transform = nn.Sequential(*([nn.Conv2d(dim, dim, 1)] if layers else []), *between)
        self.power = power

    def forward(self, x: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h w"]:
        """The propagated map."""
        cosine, value = unit(x.flatten(2), dim=1), unit(self.transform(x).flatten(2), dim=1)
        similarity = (cosine.mT @ cosine).clamp_min(0)
        if self.power < 1:
            similarity = similarity + 1e-6
        return (value @ (similarity**self.power).mT).view_as(x)


def crop_cells(
    box: Float[Tensor, "batch 4"], height: int, width: int
) -> tuple[Float[Tensor, "batch {height} {width} 2"], Float[Tensor, "batch"]]:
    """Where the cells of a crop's feature map lie in the image, and a cell's diagonal.

    `box` is the crop's (x1, y1, x2, y2) in the image; of a mirrored crop x1 > x2.

    >>> import torch
    >>> centres, diagonal = crop_cells(torch.tensor([[0.0, 0.0, 8.0, 6.0]]), 2, 2)
    >>> centres[0, 0].tolist(), diagonal.item()
    ([[2.0, 1.5], [6.0, 1.5]], 5.0)
    """
    cell = (box[:, 2:] - box[:, :2]) / box.new_tensor([width, height])
    steps = [torch.arange(n, device=box.device, dtype=box.dtype) + 0.5 for n in (width, height)]
    grid = torch.stack(torch.meshgrid(*steps, indexing="xy"), -1)
    return box[:, None, None, :2] + cell[:, None, None] * grid, cell.norm(dim=1)


class PixPro(Objective):
    """Pixels of two crops that lie close in the image should agree, after propagation on one side (PixPro).

        A_ij = 1[ |c_i - c_j| / bin < threshold ],   bin = the larger diagonal of the two crops' feature cells
        L = -2 mean_n sum_ij A_ij cos(y_i, x'_j) / (sum A + 1e-6),   summed over both directions

    No negatives: per image a few dozen pixels squared, as plain products.

    Call with y1, y2 (online, after `PixelPropagation`), x1, x2 (momentum maps, detached here) [batch, dim, h, w],
    centres1, centres2 [batch, h, w, 2] (positions of the cells in the original image) and cell1, cell2 [batch] (cell
    diagonals): `crop_cells` makes both from the crops' boxes. The momentum rises from 0.99 to 1 by a cosine.

    Args:
        threshold: 0.7.

    Source: Xie et al. 2021. The official code's optional loss on instances (weight 0 in its scripts) is left out.

    >>> import torch
    >>> y, centres = torch.ones(1, 4, 2, 2), torch.zeros(1, 2, 2, 2)
    >>> round(PixPro()(y, y, y, y, centres, centres, torch.ones(1), torch.ones(1)).item(), 4)
    -4.0
    """

    card = ObjectiveCard(
        paper="PixPro 2021",
        needs="dense maps, their positions, momentum encoder",
        engine="none (pixels of one image)",
        status="official numbers",
        checked="official numbers (zdaxie/PixPro e390d6b), propagation included",
    )

    def __init__(self, *, threshold: float = 0.7, **engine: Unpack[EngineSettings]):
        super().__init__(**engine)
        self.threshold = threshold

    def forward(
        self,
        y1: Float[Tensor, "batch dim h w"],
        y2: Float[Tensor, "batch dim h w"],
        x1: Float[Tensor, "batch dim h w"],
        x2: Float[Tensor, "batch dim h w"],
        centres1: Float[Tensor, "batch h w 2"],
        centres2: Float[Tensor, "batch h w 2"],
        cell1: Float[Tensor, "batch"],
        cell2: Float[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Sum of both directions."""
        maps = self.embed(*(m.flatten(2).mT for m in (y1, y2, x1.detach(), x2.detach())))
        here, there = (c.flatten(1, 2).to(maps[0].dtype) for c in (centres1, centres2))
        distance = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")
        near = (distance / torch.maximum(cell1, cell2)[:, None, None] < self.threshold).to(maps[0].dtype)
        return self._agree(maps[0], maps[3], near) + self._agree(maps[1], maps[2], near.mT)

    def _agree(self, y: Tensor, x: Tensor, near: Tensor) -> Float[Tensor, ""]:
        agreement = ((y @ x.mT) * near).sum((1, 2)) / (near.sum((1, 2)) + 1e-6)
        return -2 * self.mean(agreement)
