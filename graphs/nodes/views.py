"""Views of one attributed graph: edges dropped and features masked, evenly or by centrality.

Sources: Zhu et al., "Deep Graph Contrastive Representation Learning" (GRACE), 2020, and "Graph Contrastive Learning
with Adaptive Augmentation" (GCA), WWW 2021, whose centrality weights gCooL uses.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def drop_edges(edge_index: Int[Tensor, "2 edges"], p: float | Float[Tensor, " edges"]) -> Int[Tensor, "2 kept"]:
    """Drop each edge with probability `p`, both of its directions together."""
    forward = edge_index[0] < edge_index[1]
    half = edge_index[:, forward]
    probability = p[forward] if isinstance(p, Tensor) else torch.full((half.shape[1],), float(p))
    kept = half[:, torch.rand(half.shape[1]) >= probability]
    return torch.cat([kept, kept.flip(0)], 1)


def mask_features(x: Tensor, p: float | Float[Tensor, " features"]) -> Tensor:
    """Set whole feature columns of `x` [nodes, features] (dense or sparse) to zero, each with probability `p`."""
    keep = (torch.rand(x.shape[1]) >= p).to(x.dtype)
    if not x.is_sparse:
        return x * keep
    values = x.values() * keep[x.indices()[1]]
    return torch.sparse_coo_tensor(x.indices(), values, x.shape, is_coalesced=True, check_invariants=False)


def edge_weights(
    edge_index: Int[Tensor, "2 edges"], n_nodes: int, centrality: str = "degree"
) -> Float[Tensor, " edges"]:
    """GCA's weight of each edge, w = (s_max - s_e) / (s_max - s_mean), s_e = log centrality of its target.

    `centrality`: `degree` or `pagerank` (damping 0.85, 10 steps). Unimportant edges weigh more: they are dropped more.
    """
    degree = torch.bincount(edge_index[1], minlength=n_nodes).float()
    if centrality == "degree":
        score = degree
    elif centrality == "pagerank":
        score = torch.full((n_nodes,), 1.0 / n_nodes)
        for _ in range(10):
            share = score[edge_index[0]] / degree[edge_index[0]]
            score = 0.85 * torch.zeros(n_nodes).index_add(0, edge_index[1], share) + 0.15 / n_nodes
    else:
        raise ValueError(f"centrality must be 'degree' or 'pagerank', got {centrality!r}")
    s = score.clamp_min(1e-12).log()[edge_index[1]]
    return (s.max() - s) / (s.max() - s.mean()).clamp_min(1e-12)


def drop_probabilities(weights: Float[Tensor, " items"], p: float, threshold: float = 0.7) -> Float[Tensor, " items"]:
    """Scale weights to mean `p`, capped at `threshold`."""
    return (weights / weights.mean().clamp_min(1e-12) * p).clamp_max(threshold)


def feature_weights(
    x: Float[Tensor, "nodes features"], importance: Float[Tensor, " nodes"]
) -> Float[Tensor, " features"]:
    """GCA's weight of each feature: how little the important nodes have of it."""
    s = (x.abs() * importance[:, None]).sum(0).clamp_min(1e-12).log()
    return (s.max() - s) / (s.max() - s.mean()).clamp_min(1e-12)
