"""Graph convolutions for node representations."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def normalized_adjacency(
    edge_index: Int[Tensor, "2 edges"], n_nodes: int | torch.SymInt
) -> tuple[Tensor, Tensor, Tensor]:
    """D^-1/2 (A + I) D^-1/2 as (source, target, weight)."""
    loops = torch.arange(n_nodes)
    source, target = torch.cat([edge_index, torch.stack([loops, loops])], 1)
    inverse = torch.zeros(n_nodes).index_add(0, target, torch.ones_like(target, dtype=torch.float32)).rsqrt()
    return source, target, inverse[source] * inverse[target]


def thin(x: Float[Tensor, "nodes features"], density: float = 0.1) -> Tensor:
    """Features as a sparse matrix where few are set (bags of words), else as they are."""
    return x.to_sparse().coalesce() if x.count_nonzero() < density * x.numel() else x


def sparse_product(x: Tensor, weight: Float[Tensor, "out features"]) -> Float[Tensor, "nodes out"]:
    """x W^T of dense or sparse features."""
    # The sparse product reads rows of its second factor: from a transposed view it is four times as slow.
    return torch.sparse.mm(x, weight.T.contiguous()) if x.is_sparse else nn.functional.linear(x, weight)


class GCN(nn.Module):
    """Kipf and Welling's convolutions, h <- act(A_hat h W + b), an activation after each layer.

    >>> GCN(5, [8, 4])(torch.randn(3, 5), torch.tensor([[0, 1], [1, 0]])).shape
    torch.Size([3, 4])
    """

    def __init__(self, in_dim: int, widths: list[int], activation: str = "relu"):
        super().__init__()
        sizes = [in_dim, *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.activations = nn.ModuleList(nn.PReLU() if activation == "prelu" else nn.ReLU(inplace=True) for _ in widths)
        self.out_dim = widths[-1]

    def forward(self, x: Tensor, edge_index: Int[Tensor, "2 edges"]) -> Float[Tensor, "nodes out"]:
        """Node vectors; `x` [nodes, features] may be sparse."""
        source, target, weight = normalized_adjacency(edge_index, x.shape[0])
        if torch.compiler.is_exporting():  # other runtimes know no sparse matrices
            return self._summed(x, source, target, weight)
        # One sparse product per layer: a coalesced matrix is multiplied by threads, an index_add is not.
        a = torch.sparse_coo_tensor(
            torch.stack([target, source]), weight, x.shape[:1] * 2, check_invariants=False
        ).coalesce()
        h = x
        for layer, activation in zip(self.layers, self.activations, strict=True):
            h = activation(torch.addmm(layer.bias, a, sparse_product(h, layer.weight)))
        return h

    def _summed(self, h: Tensor, source: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The same layers edge by edge."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            sent = weight[:, None] * sparse_product(h, layer.weight)[source]
            h = activation(layer.bias + sent.new_zeros(h.shape[0], sent.shape[1]).index_add(0, target, sent))
        return h
