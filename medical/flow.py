"""Deformations between volumes: warping, integration, folding, and the losses that GEMINI learns them by.

A flow is in voxels: the warped volume at place p is the volume at p + flow(p). Zero flow is the identity (the official
code normalises for `align_corners=True` and samples without it, so there zero flow moves the volume). Places, warped
values and local correlations are computed in float32 at least, also under mixed precision: bfloat16 places are off by
a quarter of a voxel, and variances of a window are differences of large sums.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def warp(
    x: Float[Tensor, "batch channels x y z"], flow: Float[Tensor, "batch 3 x y z"], mode: str = "bilinear"
) -> Float[Tensor, "batch channels x y z"]:
    """x at p + flow(p), linear (or `nearest`); 0 where that lies outside.

    >>> x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    >>> torch.equal(warp(x, torch.zeros(1, 3, 2, 2, 2)), x)
    True
    """
    size, (x, flow) = x.shape[2:], _precise(x, flow)
    places = torch.stack(
        torch.meshgrid(*[torch.arange(n, device=x.device, dtype=flow.dtype) for n in size], indexing="ij")
    )
    at = places + flow
    scaled = [2 * at[:, i] / max(n - 1, 1) - 1 for i, n in enumerate(size)]
    grid = torch.stack(scaled[::-1], dim=-1)  # grid_sample names the last axis first
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, padding_mode="zeros", align_corners=True)


def _precise(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Half-precision tensors as float32; others as they are."""
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)


def integrate(velocity: Float[Tensor, "batch 3 x y z"], steps: int) -> Float[Tensor, "batch 3 x y z"]:
    """exp(velocity) by scaling and squaring: the flow of a constant velocity after unit time. Smooth velocities give
    diffeomorphisms, which do not fold; `steps=0` leaves the velocity as the flow."""
    if not steps:
        return velocity
    flow = velocity / 2**steps
    for _ in range(steps):
        flow = flow + warp_edge(flow, flow)
    return flow


def warp_edge(x: Float[Tensor, "batch channels x y z"], flow: Float[Tensor, "batch 3 x y z"]) -> Tensor:
    """As `warp`, with the nearest value inside where the place lies outside (composition of flows)."""
    size, (x, flow) = x.shape[2:], _precise(x, flow)
    places = torch.stack(
        torch.meshgrid(*[torch.arange(n, device=x.device, dtype=flow.dtype) for n in size], indexing="ij")
    )
    at = places + flow
    grid = torch.stack([2 * at[:, i] / max(n - 1, 1) - 1 for i, n in enumerate(size)][::-1], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def folding(flow: Float[Tensor, "batch 3 x y z"]) -> Float[Tensor, " batch"]:
    """Share of the places where the deformation is turned inside out: det J <= 0 of p + flow(p), forward differences.

    >>> folding(torch.zeros(1, 3, 4, 4, 4)).item()
    0.0
    """
    d = [flow.diff(dim=i + 2)[:, :, : flow.shape[2] - 1, : flow.shape[3] - 1, : flow.shape[4] - 1] for i in range(3)]
    jacobian = torch.stack(d, dim=2).permute(0, 3, 4, 5, 1, 2) + torch.eye(3, device=flow.device)
    return (torch.linalg.det(jacobian.float()) <= 0).float().mean((1, 2, 3))


def smoothness(flow: Float[Tensor, "batch 3 x y z"]) -> Float[Tensor, ""]:
    """Mean square of the forward differences along each axis, averaged over the axes (GEMINI's L_smo)."""
    return sum(flow.diff(dim=i).square().mean() for i in (2, 3, 4)) / 3


def local_ncc(
    a: Float[Tensor, "batch 1 x y z"], b: Float[Tensor, "batch 1 x y z"], window: int = 9
) -> Float[Tensor, "batch 1 x y z"]:
    """Squared correlation of the two volumes in a window about every place (zero beyond the ends, as in the official
    code, so that windows at the border are biased): cross^2 / (var_a var_b + 1e-5)."""
    n, (a, b) = window**3, _precise(a, b)

    def total(x: Tensor) -> Tensor:
        for axis in range(3):  # a box is three lines: 3 x 9 additions in place of 9^3
            shape, pad = [1, 1, 1, 1, 1], [0, 0, 0]
            shape[axis + 2], pad[axis] = window, window // 2
            x = F.conv3d(x, torch.ones(shape, dtype=x.dtype, device=x.device), padding=tuple(pad))
        return x

    with torch.autocast(a.device.type, enabled=False):
        sa, sb, saa, sbb, sab = total(a), total(b), total(a * a), total(b * b), total(a * b)
    ma, mb = sa / n, sb / n
    cross = sab - mb * sa - ma * sb + ma * mb * n
    var_a = saa - 2 * ma * sa + ma * ma * n
    var_b = sbb - 2 * mb * sb + mb * mb * n
    return cross * cross / (var_a * var_b + 1e-5)


def ncc_loss(
    a: Float[Tensor, "batch 1 x y z"], b: Float[Tensor, "batch 1 x y z"], mask: Tensor | None = None, window: int = 9
) -> Float[Tensor, ""]:
    """1 - mean of the local correlation, over the mask where one is given (GEMINI's L_gvs)."""
    cc = local_ncc(a, b, window)
    return 1 - cc.mean() if mask is None else 1 - (mask * cc).sum() / mask.sum().clamp_min(1)


def cosine_loss(
    a: Float[Tensor, "batch channels x y z"],
    b: Float[Tensor, "batch channels x y z"],
    mask: Float[Tensor, "batch 1 x y z"],
) -> Float[Tensor, ""]:
    """1 - mean over the mask of the cosine of the two feature vectors at every place."""
    cos = F.cosine_similarity(a, b, dim=1)[:, None]
    return 1 - (mask * cos).sum() / mask.sum().clamp_min(1)
