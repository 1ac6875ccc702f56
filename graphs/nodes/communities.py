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
    h: Float[Tensor, "nodes dim"], centres: Float[Tensor, "communities dim"], temperature: float, rbf: bool = False
) -> Float[Tensor, "nodes communities"]:
    """R = softmax(sg(h) c^T / T), or with `rbf` softmax(-|sg(h) - c|^2 / T^2).

    The gradient reaches the centres only. Both are normalized here.
    """
    h, centres = unit(h.detach(), dim=1), unit(centres, dim=1)
    return (_rbf_logits(h, centres, temperature) if rbf else h @ centres.T / temperature).softmax(1)


def _squared_distances(a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows columns"]:
    return a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T


def _rbf_logits(
    h: Float[Tensor, "nodes dim"], centroids: Float[Tensor, "communities dim"], temperature: float
) -> Float[Tensor, "nodes communities"]:
    return -_squared_distances(h, centroids) / temperature**2


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
    r2: Float[Tensor, "nodes communities"], temperature: float, rbf: bool = False, gamma: float = 8e-5,
) -> Float[Tensor, ""]:  # fmt: skip
    """ReSC's community term, mean of both views.

        l_i = -log( s(i, c(i)) / sum_k w(c(i), k) s(i, k) ),   c(i) = argmax R2_i
        cosine:  s(i, k) = exp(h1_i . C2_k / T),          w = 1
        `rbf`:   s(i, k) = exp(-|h1_i - C2_k|^2 / T^2),   w(c, k) = exp(-gamma |C2_c - C2_k|^2)

    C2_k is the detached mean of view 2's members of community k. The weights of the RBF form, which spare communities
    far from one's own, give ReSC (re-weighted) its name. Empty communities are left out; the official code counts
    each as a centroid at 0.
    """
    h1, h2 = unit(h1, dim=1), unit(h2, dim=1)

    def one_way(query: Tensor, other: Tensor, assignment: Tensor) -> Tensor:
        label = assignment.argmax(1)
        centroids = community_centroids(other.detach(), label, assignment.shape[1])
        used = torch.bincount(label, minlength=assignment.shape[1]) > 0
        if rbf:
            score = _rbf_logits(query, centroids, temperature)
            weighted = score - gamma * _squared_distances(centroids, centroids)[label]
            own = score.gather(1, label[:, None])[:, 0]
            return (weighted.masked_fill(~used, -torch.inf).logsumexp(1) - own).mean()
        stats = contrast_stats(query, centroids, scale=1 / temperature, positive=Index(label), valid_cols=used)
        return (stats.lse - stats.positive).mean()

    return (one_way(h1, h2, r2) + one_way(h2, h1, r1)) / 2
