"""CROMA's reconstruction: pixels of hidden patches, normalised patch by patch, from the joint encoding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from counterpoint.geospatial.models.alibi import sincos_2d
from counterpoint.geospatial.models.masking import PatchMask
from counterpoint.geospatial.models.transformer import Transformer

EPSILON = 1e-6


def normalised_patches(
    target: Float[Tensor, "batch patches values"], valid: Bool[Tensor, "batch patches values"] | None = None
) -> Float[Tensor, "batch patches values"]:
    """(x - mean) / sqrt(var + 1e-6) of every patch; the variance has n - 1 below, as in MAE. Values that are not valid
    count for neither and come out as 0.

    >>> [round(v, 3) for v in normalised_patches(torch.tensor([[[1.0, 3.0]]]))[0, 0].tolist()]
    [-0.707, 0.707]
    """
    if valid is None:
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        return (target - mean) / (var + EPSILON).sqrt()
    weight = valid.to(target.dtype)
    count = weight.sum(-1, keepdim=True)
    mean = (target * weight).sum(-1, keepdim=True) / count.clamp_min(1)
    var = ((target - mean).square() * weight).sum(-1, keepdim=True) / (count - 1).clamp_min(1)
    return (target - mean) / (var + EPSILON).sqrt() * weight


def masked_error(
    predicted: Float[Tensor, "batch patches values"],
    target: Float[Tensor, "batch patches values"],
    hidden: Float[Tensor, "batch patches"],
    valid: Bool[Tensor, "batch patches values"] | None = None,
) -> Float[Tensor, " batch"]:
    """Mean squared error over the hidden patches of every sample; of valid values alone, where some are not. A sample
    without a hidden valid value gives 0.

    Without `valid` and with equally many hidden patches in every sample, the mean over samples is the official loss.
    """
    error = (predicted - target).square()
    if valid is None:
        per_patch, weight = error.mean(-1), hidden
    else:
        counted = valid.to(error.dtype)
        per_patch = (error * counted).sum(-1) / counted.sum(-1).clamp_min(1)
        weight = hidden * counted.mean(-1)  # a patch counts by its share of valid values
    return (per_patch * weight).sum(1) / weight.sum(1).clamp_min(1e-9)


class Decoder(nn.Module):
    """A light transformer from joint tokens, mask tokens and fixed positions to the pixels of all bands.

    Attention has no ALiBi here. As in the official code the joint tokens lie where the *radar* encoder saw patches, and
    their order is restored with the radar's mask.
    """

    def __init__(self, encoder_dim: int, dim: int, depth: int, heads: int, values: int) -> None:
        super().__init__()
        self.dim = dim
        self.encoder_to_decoder = nn.Linear(encoder_dim, dim)
        self.decoder = Transformer(dim, depth, heads)
        self.linear_output = nn.Linear(dim, values)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        tokens: Float[Tensor, "batch kept width"],
        mask: PatchMask,
        rows: int,
        cols: int,
    ) -> Float[Tensor, "batch patches values"]:
        x = self.encoder_to_decoder(tokens)
        hidden = self.mask_token.expand(len(x), mask.restore.shape[1] - x.shape[1], -1)
        x = torch.cat([x, hidden], 1)
        x = x.gather(1, mask.restore.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        positions = sincos_2d(rows, cols, self.dim).to(x)
        return self.linear_output(self.decoder(x + positions))


def reconstruction_errors(
    predicted: Float[Tensor, "batch patches values"],
    targets: Mapping[str, Float[Tensor, "batch patches _"]],
    masks: Mapping[str, PatchMask],
    valid: Mapping[str, Bool[Tensor, "batch patches _"]] | None = None,
    target: str = "joint",
) -> dict[str, Float[Tensor, " batch"]]:
    """Errors of each sensor, with the values of a patch ordered sensor by sensor as `targets` is (optical first).

    `joint` normalises a patch by the mean and variance over all values of both sensors, as the official code does;
    `sensor` by those of each.
    """
    names = list(targets)
    sizes = [targets[name].shape[-1] for name in names]
    if target == "joint":
        seen = None if valid is None else torch.cat([valid[name] for name in names], -1)
        wanted = normalised_patches(torch.cat([targets[name] for name in names], -1), seen).split(sizes, -1)
    else:
        wanted = [normalised_patches(targets[name], None if valid is None else valid[name]) for name in names]
    found = {}
    for name, guess, truth in zip(names, predicted.split(sizes, -1), wanted):
        found[name] = masked_error(guess, truth, masks[name].hidden, None if valid is None else valid[name])
    return found
