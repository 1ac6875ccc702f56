"""PamC: contrast whose negatives are cluster sums (meta-nodes), linear in the number of nodes.

Source: Kulatilleke, Portmann, Chandra, "Efficient block contrastive learning via parameter-free meta-node
approximation", 2022 (arXiv 2209.14067).
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import Self, contrast_stats
from counterpoint.common.kernels.unit import unit


def influence(edge_index: Int[Tensor, "2 edges"], n_nodes: int, order: int, *, sum_orders: bool = True) -> Tensor:
    """The positives' weights: A = D^-1 (sym(E) + I); A + A^2 + ... + A^order (`sum_orders`) or A^order alone.

    Returns a coalesced sparse [n, n] tensor.

    >>> influence(torch.tensor([[0], [1]]), 2, order=1).to_dense()
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    loops = torch.arange(n_nodes)
    pairs = torch.cat([edge_index, edge_index.flip(0), torch.stack([loops, loops])], 1)
    pairs = torch.unique(pairs, dim=1)
    degree = torch.bincount(pairs[0], minlength=n_nodes)
    a = torch.sparse_coo_tensor(pairs, 1.0 / degree[pairs[0]], (n_nodes, n_nodes), check_invariants=True).coalesce()
    total = power = a
    for _ in range(order - 1):
        with warnings.catch_warnings():
            # The product of two COO tensors goes through CSR inside PyTorch, which calls CSR beta; we keep COO.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            power = torch.sparse.mm(power, a).coalesce()
        total = (total + power).coalesce() if sum_orders else power
    return total


def metanode_loss(
    z: Float[Tensor, "nodes dim"], weights: Tensor, cluster: Int[Tensor, " nodes"], tau: float, eps: float = 1e-10
) -> Float[Tensor, ""]:
    """The contrastive term of PamC.

        pos_i = sum_j w_ij exp(tau cos(z_i, z_j)),                 cos(z_i, z_i) taken as 0
        C_k   = sum_{i in cluster k} z_i
        neg_k = sum_l exp(tau cos(C_k, C_l)),                      cos(C_k, C_k) taken as 0
        L     = - mean_i log(pos_i + eps) + mean_k log(neg_k + eps)

    `tau` multiplies. The self terms' cosine of 0 (instead of 1) is the official code's and is kept, since both means
    depend on it. Clusters without members, which give NaN there, are left out here.

    Args:
        z: embeddings, not normalized (the cluster sums depend on their lengths).
        weights: sparse [nodes, nodes], see `influence`.
        cluster: hard assignment of each node (the official code's; the paper writes soft ones).

    Time and memory: O(edges dim + nodes dim + clusters^2) instead of O(nodes^2 dim).
    """
    if len(cluster) != len(z) or tuple(weights.shape) != (len(z), len(z)):
        raise ValueError(f"{len(z)} nodes need as many clusters ({len(cluster)}) and weights ({tuple(weights.shape)})")
    rows = unit(z, dim=1)
    row, column = weights.indices()
    cosine = (rows[row] * rows[column]).sum(1).masked_fill(row == column, 0.0)
    positive = z.new_zeros(len(z)).index_add(0, row, weights.values().to(z) * (tau * cosine).exp())
    members, dense_cluster = torch.unique(cluster, return_inverse=True)
    centres = z.new_zeros(len(members), z.shape[1]).index_add(0, dense_cluster, z)
    centres = unit(centres, dim=1)
    others = contrast_stats(centres, centres, scale=tau, exclude=Self()).lse
    negative = torch.logaddexp(others, torch.zeros_like(others))  # the self term, exp(0)
    return torch.logaddexp(negative, negative.new_tensor(eps).log()).mean() - (positive + eps).log().mean()


def full_loss(z: Float[Tensor, "nodes dim"], weights: Tensor, tau: float, eps: float = 1e-10) -> Float[Tensor, ""]:
    """The loss that meta-nodes approximate: every other node is a negative (quadratic in time, linear in memory)."""
    each = torch.arange(len(z), device=z.device)
    positive_only = metanode_loss(z, weights, torch.zeros_like(each), tau, eps)
    # With one cluster the negative term is log(exp(0) + eps), a constant that is taken back out.
    constant = torch.log(z.new_tensor(1.0 + eps))
    rows = unit(z, dim=1)
    others = contrast_stats(rows, rows, scale=tau, exclude=Self()).lse
    return positive_only - constant + torch.logaddexp(others, torch.zeros_like(others)).mean()


def student_assignment(
    z: Float[Tensor, "nodes dim"], centres: Float[Tensor, "clusters dim"], v: float = 1.0
) -> Float[Tensor, "nodes clusters"]:
    """DEC's soft assignment q_ik ~ (1 + |z_i - c_k|^2 / v)^(-(v + 1) / 2), rows sum to 1 (Xie et al., ICML 2016)."""
    distance = torch.cdist(z, centres).square()
    q = (1 + distance / v).pow(-(v + 1) / 2)
    return q / q.sum(1, keepdim=True)


def target_distribution(q: Float[Tensor, "nodes clusters"]) -> Float[Tensor, "nodes clusters"]:
    """DEC's sharpened target p_ik ~ q_ik^2 / sum_i q_ik, rows summing to 1; carries no gradient."""
    p = q.detach().square() / q.detach().sum(0)
    return p / p.sum(1, keepdim=True)


def dec_loss(q: Float[Tensor, "nodes clusters"], p: Float[Tensor, "nodes clusters"]) -> Float[Tensor, ""]:
    """KL(p || q), mean over nodes, in nats."""
    return (p * (p.clamp_min(1e-12).log() - q.clamp_min(1e-12).log())).sum(1).mean()
