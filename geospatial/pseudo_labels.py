"""SUMMIT's pseudo-labels: what two sensors' segmenters agree on, or are sure of together, without any label.

Simons et al., "SUMMIT: Source-Free Adaptation of Uni-Modal Models to Multi-Modal Targets", ICCV 2023; official code
csimo005/SUMMIT e6fa287, xmuda/refine_pseudolabels.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100
"""The label of a pixel without one."""
BINS = 1000
MOST_SURE = 0.9
"""No class asks for more confidence than this, however sure its pixels are."""
FLOOR = 1e-6
"""Least variance of a feature."""


def confidence_counts(probabilities: Float[Tensor, "pixels classes"]) -> Int[Tensor, "classes bins"]:
    """For every class the histogram, over 0 to 1, of the probabilities of the pixels that it wins; histograms add up.

    >>> confidence_counts(torch.tensor([[0.25, 0.75], [1.0, 0.0]])).sum(1).tolist()
    [1, 1]
    """
    sure, label = probabilities.max(1)
    cell = (sure * BINS).floor().long().clamp(0, BINS - 1)
    classes = probabilities.shape[1]
    return torch.bincount(label * BINS + cell, minlength=classes * BINS).reshape(classes, BINS)


def class_medians(counts: Int[Tensor, "classes bins"]) -> Float[Tensor, " classes"]:
    """The median confidence of every class, to a thousandth, as the official code reads it off its histogram."""
    total = counts.cumsum(1).double()
    return (total - total[:, -1:] / 2).abs().argmin(1).double() / BINS


def certain(
    probabilities: Float[Tensor, "pixels classes"], medians: Float[Tensor, " classes"]
) -> Int[Tensor, " pixels"]:
    """The class of every pixel that is as sure as the median of its class, or `MOST_SURE` where that is less.

    >>> certain(torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.05, 0.95]]), torch.tensor([0.7, 0.99])).tolist()
    [-100, 0, 1]
    """
    sure, label = probabilities.max(1)
    return torch.where(sure < medians.clamp(max=MOST_SURE).to(sure)[label], IGNORE, label)


def entropy_weighted(
    one: Float[Tensor, "pixels classes"], two: Float[Tensor, "pixels classes"]
) -> Float[Tensor, "pixels classes"]:
    """(w_1 p_1 + w_2 p_2) / (w_1 + w_2) with w = exp(-H(p)): who is surer counts more.

    The official code puts 1 in the place of probabilities below 1e-10 before it adds them; here they stay.

    >>> entropy_weighted(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))[0, 0].item() > 0.8
    True
    """
    weights = [torch.special.xlogy(p, p).sum(1, keepdim=True).exp() for p in (one, two)]
    return (weights[0] * one + weights[1] * two) / (weights[0] + weights[1])


def agreed_labels(one: Int[Tensor, " pixels"], two: Int[Tensor, " pixels"]) -> Int[Tensor, " pixels"]:
    """The labels that both give.

    >>> agreed_labels(torch.tensor([1, 2, IGNORE]), torch.tensor([1, 1, 0])).tolist()
    [1, -100, -100]
    """
    return torch.where(one == two, one, IGNORE)


def class_sums(
    features: Float[Tensor, "pixels dim"], label: Int[Tensor, " pixels"], classes: int
) -> Float[Tensor, "3 classes dim"]:
    """Of every class: how many pixels have it, the sum of their features, and that of the squares. Sums add up."""
    known = label >= 0
    hot = torch.nn.functional.one_hot(label.clamp_min(0), classes).double() * known[:, None]
    x = features.double()
    count = hot.sum(0)[:, None].expand(-1, x.shape[1])
    return torch.stack([count, hot.T @ x, hot.T @ x.square()])


def class_moments(sums: Float[Tensor, "3 classes dim"]) -> tuple[Tensor, Tensor]:
    """(means, variances) [classes, dim] of the features of every class."""
    count = sums[0].clamp_min(1)
    mean = sums[1] / count
    return mean, (sums[2] / count - mean.square()).clamp_min(0)


def rejected(
    features: Float[Tensor, "pixels dim"],
    label: Int[Tensor, " pixels"],
    other: Int[Tensor, " pixels"],
    moments: tuple[Float[Tensor, "classes dim"], Float[Tensor, "classes dim"]],
    k: float = 0.5,
) -> Bool[Tensor, " pixels"]:
    """Likelihood-ratio test of a pixel's label against another one: N(f; label) <= k N(f; other), with a diagonal
    Gaussian a class, compared as logarithms (the official product of variances underflows where features are many)."""
    mean, variance = (m.to(features.dtype) for m in moments)
    variance = variance.clamp_min(FLOOR)

    def likelihood(classes: Tensor) -> Tensor:
        v = variance[classes]
        return -0.5 * ((features - mean[classes]).square() / v + v.log()).sum(1)

    return likelihood(label) <= likelihood(other) + torch.log(torch.tensor(k)).item()


def tested(
    label: Int[Tensor, " pixels"],
    guesses: tuple[Int[Tensor, " pixels"], Int[Tensor, " pixels"]],
    rejections: tuple[Bool[Tensor, " pixels"], Bool[Tensor, " pixels"]],
) -> Int[Tensor, " pixels"]:
    """Pixels without a label on which the sensors disagree take the guess of the one whose guess alone stands.

    The official code tests the second sensor's guess against itself, which rejects it only where its density
    underflows; here it is tested against the first one's, as the first one's is against it.
    """
    open_ = (label == IGNORE) & (guesses[0] != guesses[1])
    for guess, own, others in ((guesses[0], *rejections), (guesses[1], *rejections[::-1])):
        label = torch.where(open_ & ~own & others, guess, label)
    return label
