"""Representation scattering: contrast without negatives, for large graphs (CircuitGCL, after SGRL).

Source: Shen et al., "Transferable Parasitic Estimation via Graph Contrastive Learning and Label Rebalancing in AMS
Circuits", 2025 (arXiv 2507.06535); He et al., "Exploitation of a Latent Mechanism in Graph Contrastive Learning:
Representation Scattering", NeurIPS 2024.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from counterpoint.common.losses import Shared


def scattering_loss(target: Float[Tensor, "nodes dim"]) -> Float[Tensor, ""]:
    """Push the nodes away from their common centre, on the unit sphere.

        u_i = target_i / |target_i|,  c = mean_i u_i,  L = - mean_i |u_i - c|^2

    Where ranks share the batch, c is the mean of all nodes. L lies in [-1, 0] and reaches -1 when the mean is the
    origin: mean_i |u_i - c|^2 = 1 - |c|^2.

    >>> scattering_loss(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).item()
    -1.0
    """
    over, u = Shared(), normalize(target, dim=1)
    centre = over.union(u.sum(0, keepdim=True)).sum(0) / max(over.count(u), 1)
    return -over.mean((u - centre).square().sum(1))


def alignment_loss(predicted: Float[Tensor, "nodes dim"], target: Float[Tensor, "nodes dim"]) -> Float[Tensor, ""]:
    """Follow the target encoder: L = - mean_i cos(predicted_i, sg(target_i))."""
    return -Shared().mean(cosine_similarity(predicted, target.detach(), dim=1))


def aggregate(
    h: Float[Tensor, "nodes dim"], edge_index: Int[Tensor, "2 edges"], hops: int
) -> Float[Tensor, "nodes dim"]:
    """A_hat^hops h with A_hat = D^-1/2 (A + I) D^-1/2: SGRL's topology term (not in CircuitGCL's code)."""
    n = len(h)
    loops = torch.arange(n, device=h.device)
    source, target = torch.cat([edge_index, torch.stack([loops, loops])], 1)
    inverse = torch.bincount(target, minlength=n).to(h).rsqrt()
    weight = (inverse[source] * inverse[target])[:, None]
    for _ in range(hops):
        h = torch.zeros_like(h).index_add(0, target, weight * h[source])
    return h
