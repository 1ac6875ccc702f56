"""A linear decoder from a patch's features to the classes of its pixels, fitted in closed form."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-3
"""Penalty, as a share of the mean variance of the features."""


class PatchDecoder:
    """argmax over classes of W x + b, with a row of W for every pixel of a patch and every class: ridge regression on
    the pixels' classes as zeros and ones (pixels without a class count for none, a patch by its share of them).

    Features are seen batch by batch and not kept: memory is that of a width x width matrix.

    >>> decoder = PatchDecoder(2, classes=2, patch=1)
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    >>> decoder.see(x, torch.tensor([[[0, 1]]])); _ = decoder.fit()
    >>> decoder.predict(x).tolist()
    [[[0, 1]]]
    """

    def __init__(self, width: int, classes: int, patch: int) -> None:
        self.classes, self.patch = classes, patch
        outputs = classes * patch**2
        self.xx = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.xy = torch.zeros(width + 1, outputs, dtype=torch.float64)
        self.weight: Tensor | None = None

    def see(self, x: Float[Tensor, "batch rows cols width"], target: Int[Tensor, "batch height wide"]) -> None:
        """Add patches and their pixels' classes."""
        flat = _with_one(x.flatten(0, 2).double())
        pixels = self._by_patch(target)
        known = (pixels >= 0).double().mean(-1)
        hot = torch.nn.functional.one_hot(pixels.clamp_min(0), self.classes).double() * (pixels >= 0).unsqueeze(-1)
        weighted = flat * known.unsqueeze(-1)
        self.xx += weighted.T @ flat
        self.xy += flat.T @ hot.flatten(1)

    def fit(self) -> PatchDecoder:
        """Solve for the weights."""
        width = len(self.xx) - 1
        penalty = torch.eye(width + 1, dtype=torch.float64) * RIDGE * self.xx.diagonal()[:width].mean()
        penalty[width, width] = 0.0
        self.weight = torch.linalg.lstsq(self.xx + penalty, self.xy, driver="gelsd").solution
        return self

    def predict(self, x: Float[Tensor, "batch rows cols width"]) -> Int[Tensor, "batch height wide"]:
        """The class of every pixel."""
        if self.weight is None:
            raise ValueError("fit() comes before predict()")
        b, rows, cols, _ = x.shape
        scores = _with_one(x.flatten(0, 2).double()) @ self.weight
        best = scores.unflatten(-1, (self.patch**2, self.classes)).argmax(-1)
        grid = best.reshape(b, rows, cols, self.patch, self.patch).permute(0, 1, 3, 2, 4)
        return grid.reshape(b, rows * self.patch, cols * self.patch)

    def _by_patch(self, target: Tensor) -> Int[Tensor, "patches pixels"]:
        b, h, w = target.shape
        p = self.patch
        return target.reshape(b, h // p, p, w // p, p).permute(0, 1, 3, 2, 4).reshape(-1, p * p)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def confusion_of(
    said: Int[Tensor, "batch height wide"], target: Int[Tensor, "batch height wide"], classes: int
) -> Int[np.ndarray, "batch classes classes"]:
    """A confusion matrix a sample (rows true, columns said) over the pixels that have a class."""
    found = []
    for s, t in zip(said, target):
        known = t >= 0
        flat = t[known] * classes + s[known]
        found.append(torch.bincount(flat, minlength=classes**2).reshape(classes, classes).numpy())
    return np.stack(found)
