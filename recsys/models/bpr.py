r"""Bayesian personalised ranking: an item met should score above an item not met.

.. math:: L = -\frac1N \sum_{(u, i, j)} \log \sigma(s_{ui} - s_{uj})

Source: Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI
2009. SELFRec's form adds 1e-5 inside the logarithm; this one needs no such guard.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bpr_rows(met: Float[Tensor, batch], other: Float[Tensor, batch]) -> Float[Tensor, batch]:
    """The loss of every pair of scores.

    >>> import torch
    >>> bpr_rows(torch.zeros(1), torch.zeros(1)).item() == torch.tensor(2.0).log().item()
    True
    """
    return F.softplus(other - met)


def squared_length(*vectors: Float[Tensor, "batch _"]) -> Float[Tensor, batch]:
    """Half the squared length of some vectors, row by row: LightGCN's L2 term, once it is averaged over the batch."""
    return sum((v**2).sum(1) for v in vectors) / 2  # type: ignore[return-value]
