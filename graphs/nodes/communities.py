"""gCooL: communities learnt together with node embeddings.

Source: Li, Jing, Tong, "Graph Communal Contrastive Learning", WWW 2022.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Index, contrast_stats, one_way_loss
from counterpoint.common.kernels.unit import unit


def community_assignment(
    h: Float[Tensor, "nodes dim"], centres: Float[Tensor, "communities dim"], temperature: float
) -> Float[Tensor, "nodes communities"]:
    """R = softmax(sg(h) c^T / T): the gradient reaches the centres only. Both are normalized here."""
    return (unit(h.detach(), dim=1) @ unit(centres, dim=1).T / temperature).softmax(1)


def deca_loss(
    r: Float[Tensor, "nodes communities"], edge_index: Int[Tensor, "2 edges"], lam: float
) -> Float[Tensor, ""]:
    """Dense communities (DeCA): few edges between, many inside, and not all nodes in one.

        F = R^T A R
        L = [ lam sum(F) - (n - 1 + lam) tr(F) ] / (n (n - 1)) + tr(R^T R) / (2 n)

    A is the 0/1 adjacency of `edge_index`, used edge by edge: nothing of size nodes x nodes appears.
    """
    n = len(r)
    source, target = edge_index
    ar = torch.zeros_like(r).index_add(0, source, r[target])
    inside = (r * ar).sum()
    total = (r.sum(1) * ar.sum(1)).sum()
    return (lam * total - (n - 1 + lam) * inside) / (n * (n - 1)) + r.square().sum() / (2 * n)


def node_loss(h1: Float[Tensor, "nodes dim"], h2: Float[Tensor, "nodes dim"], temperature: float) -> Float[Tensor, ""]:
    """ReSC's node term: mean_i of -log( exp(h1_i . h2_i / T) / sum_j exp(h1_i . h2_j / T) ), from view 1 to view 2.

    One direction, as the official code computes it. Both views are normalized here.
    """
    return one_way_loss(unit(h1, dim=1) / temperature, unit(h2, dim=1))


def community_centroids(
    h: Float[Tensor, "nodes dim"], label: Int[Tensor, " nodes"], n: int
) -> Float[Tensor, "communities dim"]:
    """Mean of each community's members; zero for an empty one."""
    count = torch.bincount(label, minlength=n).clamp_min(1)
    return h.new_zeros(n, h.shape[1]).index_add(0, label, h) / count[:, None]


def community_loss(
    h1: Float[Tensor, "nodes dim"], h2: Float[Tensor, "nodes dim"], r1: Float[Tensor, "nodes communities"],
    r2: Float[Tensor, "nodes communities"], temperature: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """ReSC's community term, cosine branch, mean of both views.

        l_i = -log( exp(h1_i . C2_{c(i)} / T) / sum_k exp(h1_i . C2_k / T) ),   c(i) = argmax R2_i

    C2_k is the detached mean of view 2's members of community k. Empty communities are left out.
    """
    h1, h2 = unit(h1, dim=1), unit(h2, dim=1)

    def one_way(query: Tensor, other: Tensor, assignment: Tensor) -> Tensor:
        label = assignment.argmax(1)
        centroids = community_centroids(other.detach(), label, assignment.shape[1])
        used = torch.bincount(label, minlength=assignment.shape[1]) > 0
        stats = contrast_stats(query, centroids, scale=1 / temperature, positive=Index(label), valid_cols=used)
        return (stats.lse - stats.positive).mean()

    return (one_way(h1, h2, r2) + one_way(h2, h1, r1)) / 2
