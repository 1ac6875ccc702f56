r"""MEOW's network: features of every type, contexts along meta-paths, one graph encoder for all views, attention.

    h_t  = ELU(W_t x_t + b_t)                                          t a node type
    h^P  = ELU(h_target + sum over types t on the way of P of  V_Pt mean of h_t over what P's walks reach)
    z^P  = G(h^P, A_P),  and of the masked features and walks alike;   coarse: G(h_target, mean of the A_P)
    z    = sum_v beta_v z^v,  beta = softmax(a . mean_i tanh(B z^v_i + c)),  v over both views of every P, unit length
    G    = two graph convolutions without bias, PReLU between, normalised over the whole matrix

Dropout stands on every product with W, V and G's weights, and on a. Contrast reads tanh(D z + e) at unit length.

Source: jianxiangyu/MEOW at 6a072d7, code_meow/module/meow.py and encoder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import elu, layer_norm, normalize

from counterpoint.graphs.hetero.views import HeteroViews, MetaPathPropagation
from counterpoint.graphs.nodes.encoders import sparse_product


class PathEncoder(nn.Module):
    """G."""

    def __init__(self, hidden: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(hidden, dim, bias=False), nn.Linear(dim, dim, bias=False)
        for layer in (self.first, self.second):
            nn.init.uniform_(layer.weight, -(dim**-0.5), dim**-0.5)
        self.activation, self.dropout = nn.PReLU(), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "nodes hidden"], walks: MetaPathPropagation) -> Float[Tensor, "nodes dim"]:
        x = self.activation(walks(self.dropout(self.first(x))))
        x = walks(self.dropout(self.second(x)))
        return layer_norm(x, x.shape)


class ViewAttention(nn.Module):
    """z of the views."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.key, self.query, self.dropout = nn.Linear(dim, dim), nn.Parameter(torch.empty(1, dim)), nn.Dropout(dropout)
        nn.init.xavier_normal_(self.key.weight, gain=1.414)
        nn.init.xavier_normal_(self.query, gain=1.414)

    def forward(self, views: Sequence[Float[Tensor, "nodes dim"]]) -> Float[Tensor, "nodes dim"]:
        query = self.dropout(self.query)[0]
        weights = torch.stack([query @ torch.tanh(self.key(z)).mean(0) for z in views]).softmax(0)
        return sum(w * z for w, z in zip(weights, views, strict=True))  # type: ignore[return-value]


class PathContexts(nn.Module):
    """h of the types, and h^P of every meta-path.

    `widths` is the number of features of each type, or of its nodes where they stand for themselves; `ways` names the
    types that each meta-path leads over.
    """

    def __init__(
        self, target: str, widths: Mapping[str, int], ways: Sequence[Sequence[str]], hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.target, self.names = target, list(widths)
        self.inputs = nn.ModuleList(nn.Linear(width, hidden) for width in widths.values())
        self.merges = nn.ModuleList(nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in way) for way in ways)
        self.dropout = nn.Dropout(dropout)

    def forward(self, views: HeteroViews) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """h of the target, h^P of the plain and of the masked features."""
        h = {kind: self._typed(kind, views.features.get(kind)) for kind in self.names}
        masked_target = self._typed(self.target, views.masked_features)
        plain, masked = [], []
        for merges, context in zip(self.merges, views.contexts, strict=True):
            met = torch.stack([m(mean(h[kind])) for m, (kind, mean) in zip(merges, context, strict=True)])
            # Two draws of dropout, as in the released code for ACM and IMDB; for DBLP it takes one for both copies.
            plain.append(elu(h[self.target] + self.dropout(met).sum(0)))
            masked.append(elu(masked_target + self.dropout(met).sum(0)))
        return h[self.target], plain, masked

    def _typed(self, kind: str, x: Tensor | None) -> Tensor:
        layer = self.inputs[self.names.index(kind)]
        product = layer.weight.T if x is None else sparse_product(x, layer.weight)
        return elu(self.dropout(product + layer.bias))


class MeowNetwork(nn.Module):
    """Vectors of the target's nodes, and what contrast reads of both views."""

    def __init__(
        self, target: str, widths: Mapping[str, int], ways: Sequence[Sequence[str]],
        hidden: int, dim: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.contexts = PathContexts(target, widths, ways, hidden, dropout)
        self.encoder, self.attention = PathEncoder(hidden, dim, dropout), ViewAttention(dim, dropout)
        self.projector = nn.Linear(dim, dim)

    def forward(self, views: HeteroViews) -> tuple[Tensor, Tensor]:
        """(h of the target, z)."""
        h, plain, masked = self.contexts(views)
        encoded = []
        for a, b, walks, fewer in zip(plain, masked, views.plain, views.masked, strict=True):
            encoded += [self.encoder(a, walks), self.encoder(b, fewer)]
        return h, self.attention([normalize(z, dim=1) for z in encoded])

    def contrasted(self, views: HeteroViews) -> tuple[Tensor, Tensor]:
        """The coarse and the fine view, projected, at unit length."""
        h, fine = self(views)
        coarse = self.encoder(h, views.coarse)
        projected = (normalize(torch.tanh(self.projector(z)), dim=1) for z in (coarse, fine))
        return next(projected), next(projected)
