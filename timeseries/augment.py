"""Random changes of batches of windows; numbers come from torch's global generator (the loader seeds it per batch)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def scaled(
    x: Float[Tensor, "batch time channels"], deviation: float = 1.1, per: Literal["channel", "step"] = "channel"
) -> Float[Tensor, "batch time channels"]:
    """Multiply every channel of every window by its own number from N(1, deviation^2), or every time step.

    DBPM's official code draws a number per time step, shared by the channels. At 1.1, its value, signs flip often.
    """
    batch, time, channels = x.shape
    shape = (batch, 1, channels) if per == "channel" else (batch, time, 1)
    return x * (1 + deviation * torch.randn(shape, dtype=x.dtype, device=x.device))


def jittered(x: Float[Tensor, "batch time channels"], deviation: float = 0.8) -> Float[Tensor, "batch time channels"]:
    """Add white noise of this deviation."""
    return x + deviation * torch.randn_like(x)


def permuted(x: Float[Tensor, "batch time channels"], segments: int = 8) -> Float[Tensor, "batch time channels"]:
    """Cut every window at random places into 2 to `segments` pieces and shuffle them; all channels move together."""
    batch, time, _ = x.shape
    rows = []
    for _ in range(batch):
        count = int(torch.randint(min(2, segments), segments + 1, ()))
        cuts = torch.sort(torch.randperm(time - 1)[: count - 1] + 1).values.tolist()
        pieces = torch.tensor_split(torch.arange(time), cuts)
        rows.append(torch.cat([pieces[i] for i in torch.randperm(len(pieces)).tolist()]))
    order = torch.stack(rows).to(x.device)
    return x.gather(1, order[..., None].expand_as(x))


def permuted_jittered(
    x: Float[Tensor, "batch time channels"], segments: int = 8, deviation: float = 0.8
) -> Float[Tensor, "batch time channels"]:
    """DBPM's strong augmentation."""
    return jittered(permuted(x, segments), deviation)


def time_warped(x: Float[Tensor, "batch time channels"], strength: float = 0.4) -> Float[Tensor, "batch time channels"]:
    """Play every window faster or slower by a factor from 1 +/- strength around its middle, edges held.

    It changes rates: the wrong augmentation for tasks about rate, which is what frame projections avoid.
    """
    batch, time, _ = x.shape
    factor = 1 + strength * (2 * torch.rand(batch, 1, device=x.device, dtype=x.dtype) - 1)
    middle = (time - 1) / 2
    place = ((torch.arange(time, device=x.device, dtype=x.dtype) - middle) * factor + middle).clamp(0, time - 1)
    low = place.floor().long().clamp(max=time - 2)
    part = (place - low)[..., None]
    rows = torch.arange(batch, device=x.device)[:, None]
    return x[rows, low] * (1 - part) + x[rows, low + 1] * part
