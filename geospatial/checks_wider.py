"""Checks of claims about chips larger than those of the training: CROMA's distances in place of learnt positions.

Encoders are trained on chips of 32 pixels, and a linear decoder of land cover is fitted to their features there. Then
held-out places of 64 pixels are mapped twice: as one chip, and as the four chips of 32 that it is made of.

    loss of an encoder = mean IoU(the four chips) - mean IoU(the one chip), of the same pixels

`croma-positions` compares these losses for two optical masked autoencoders (He et al., 2022) that differ in one thing:
2D-ALiBi, or a learnt vector a position, brought to the larger grid by bilinear interpolation as is usual for ViTs.
Sizes and margins were fixed before either was run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from counterpoint.common.metrics.power import group_shares
from counterpoint.common.metrics.segmentation import mean_iou
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.claims import Claim, Measured
from counterpoint.geospatial.baselines import OpticalMAE
from counterpoint.geospatial.check_scenes import DATA, UNSEEN, VIT, held_out, iou_by_place, trained
from counterpoint.geospatial.configs import OpticalMAEConfig
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.models.croma import SensorEncoder, patch_grid
from counterpoint.geospatial.models.masking import PatchMask, kept_rows, patchify
from counterpoint.geospatial.models.transformer import hide_keys
from counterpoint.geospatial.protocols import class_codes, decoded, fit_decoders, parted, wider


class LearntPositions(SensorEncoder):
    """A sensor's encoder that adds a learnt vector to every patch and has no bias of distances."""

    def __init__(self, bands: int, dim: int, depth: int, heads: int, patch_size: int, side: int) -> None:
        super().__init__(bands, dim, depth, heads, patch_size)
        self.table = nn.Parameter(torch.randn(1, dim, side, side) * 0.02)

    def forward(
        self,
        images: Float[Tensor, "batch bands height width"],
        mask: PatchMask | None = None,
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Tokens of all patches, or of those that a mask keeps; the table is interpolated to other grids."""
        grid = patch_grid(images, self.patch_size)
        table = self.table if grid == self.table.shape[-2:] else interpolate(self.table, grid, mode="bilinear")
        x = self.vit.linear_input(patchify(images, self.patch_size)) + table.flatten(2).transpose(1, 2)
        seen = valid
        if mask is not None:
            x = kept_rows(x, mask.keep)
            seen = None if valid is None else valid.gather(1, mask.keep)
        return self.vit.transformer(x, hide_keys(x.new_zeros(1, 1, x.shape[1], x.shape[1]), seen))


class PositionedMAE(OpticalMAE):
    """The optical masked autoencoder with learnt positions in its encoder."""

    def __init__(self, config: OpticalMAEConfig, assets: Assets) -> None:
        super().__init__(config, assets)
        size = config.encoder
        side = config.data.size // size.patch_size
        self.encoder = LearntPositions(self.channels("s2"), size.dim, size.depth, size.heads, size.patch_size, side)
        self.encoder.gap = nn.Identity()


Tables = Int[np.ndarray, "places classes classes"]


@torch.no_grad()
def both_sides(run: OpenRun, name: str) -> tuple[Tables, Tables, list[str]]:
    """(confusion matrix of every place as one chip of twice the side, as four of the trained side, places), by the
    decoder that is fitted to the features `name` of the training chips."""
    known, whole = run.samples("train"), wider(run.samples("test"))
    classes = class_codes(known)
    decoders = fit_decoders(run, known, classes, run.system.patch_size)
    large, places = decoded(run, decoders, whole, classes)[name]
    small, parts = decoded(run, decoders, parted(whole), classes)[name]
    if parts.tolist() != np.repeat(places, 4).tolist():
        raise ValueError("the four chips of a place do not follow one another")
    return large, small.reshape(len(large), 4, *large.shape[1:]).sum(1), places.tolist()


def wider_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """Mean intersection over union by CROMA's joint features, of places as one chip or as four."""
    large, small, places = both_sides(held_out(trained(Croma, seed, VIT), groups), "joint")
    return iou_by_place(large if arm == "twice the side" else small, places)


def positions_check(data: Path | None, arm: str, seed: int, groups: int = UNSEEN) -> Measured:
    """The loss at twice the side (see the module's text) with learnt positions or with 2D-ALiBi."""
    system = trained(PositionedMAE if arm == "learnt positions" else OpticalMAE, seed, VIT)
    return loss_by_place(*both_sides(held_out(system, groups), "s2"))


def loss_by_place(large: Tables, small: Tables, places: list[str]) -> Measured:
    """Mean IoU at the trained side less that at twice the side, and every place's share in it."""
    one, four = large.astype(np.float64), small.astype(np.float64)

    def loss(w: np.ndarray) -> float:
        return mean_iou(np.tensordot(w, four, 1)) - mean_iou(np.tensordot(w, one, 1))

    return Measured.of(group_shares(loss, len(places), places))


_CROMA = "Fuller et al., NeurIPS 2023"
WIDE: dict[str, tuple[Claim, Callable[..., Any]]] = {
    claim.name: (claim, run)
    for claim, run in (
        (
            Claim("croma-wider", "chips of twice the trained side are mapped at most two points worse than in quarters",
                  "trained side", "twice the side", "mean IoU", margin=-0.02, source=_CROMA, data=DATA,
                  held_out=UNSEEN),
            wider_check,
        ),
        (
            Claim("croma-positions", "2D-ALiBi loses three points less at twice the side than learnt positions",
                  "learnt positions", "2D-ALiBi", "loss of mean IoU", higher_is_better=False, source=_CROMA, data=DATA,
                  effect=0.03, held_out=UNSEEN),
            positions_check,
        ),
    )
}  # fmt: skip
