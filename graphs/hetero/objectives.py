r"""MEOW's two terms, memory linear in the nodes.

    L_info  = mean_i [ log sum_j w_ij exp(a_i.b_j / tau) - a_i.b_i / tau ]      w_ij: the runs that part i and j
    L_proto = mean over runs of mean_i [ log(N/K sum_k exp(a_i.m_k / phi_k)) - a_i.m_c(i) / phi_c(i) ]

The weighted sum of L_info is the sum over runs of what lies outside of the anchor's own cluster, so each run is one
pass with that cluster left out. Its positive stands in no denominator.

Source: jianxiangyu/MEOW at 6a072d7, code_meow/module/contrast.py (values and gradients equal in float64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Diagonal, Index, SameLabel, contrast_stats
from counterpoint.graphs.hetero.kmeans import Clusters


def parted_loss(
    anchors: Float[Tensor, "nodes dim"], others: Float[Tensor, "nodes dim"], runs: Sequence[Clusters], tau: float
) -> Float[Tensor, ""]:
    """L_info of unit vectors. A run that leaves every node in one cluster parts none and adds nothing; if that is so of
    all runs the loss is -inf, as it is in the released code."""
    stats = [
        contrast_stats(anchors, others, scale=1 / tau, positive=Diagonal(), exclude=SameLabel(run.assigned))
        for run in runs
    ]
    return (torch.stack([s.lse for s in stats]).logsumexp(0) - stats[0].positive).mean()


def prototype_loss(anchors: Float[Tensor, "nodes dim"], runs: Sequence[Clusters]) -> Float[Tensor, ""]:
    """L_proto of unit vectors; no gradient reaches the centres."""
    found = []
    for run in runs:
        positive = Index(run.assigned)
        stats = contrast_stats(anchors, run.centroids, col_scale=1 / run.temperatures, positive=positive)
        found.append((stats.lse - stats.positive).mean() + math.log(len(anchors) / len(run.centroids)))
    return torch.stack(found).mean()
