"""Losses of recommenders over user and item vectors: all items, or some drawn ones. One value a row."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Index, contrast_stats


def next_item_loss(
    users: Float[Tensor, "batch dim"], items: Float[Tensor, "items dim"], target: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    r"""Cross-entropy of the right item among all of them, :math:`\log\sum_j e^{u \cdot i_j} - u \cdot i_t`, in memory
    linear in batch plus items.

    >>> import torch
    >>> next_item_loss(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([2])).exp().round().tolist()
    [4.0]
    """
    stats = contrast_stats(users, items, positive=Index(target))
    return stats.lse - stats.positive


def binary_loss(positive: Float[Tensor, "batch"], negative: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    r"""SASRec's, :math:`-\log \sigma(s^+) - \log(1 - \sigma(s^-))`."""
    return F.softplus(-positive) + F.softplus(negative)
