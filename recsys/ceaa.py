r"""Semantic item graphs enhanced by what is met together; views by noise as large as a vector; behaviour as the anchor.

After Zhang, Zhou, Zeng, Niyato, Shen, "Semantic item graph enhancement for multimodal recommendation", arXiv
2508.06154, 2025 (SIGER; a summary calls it CEAA). There is no public code, and no text at hand gives all of its
equations: the graphs are what two notes on the paper say, **the rest is our formulation of its abstract** and no copy
of its method.

With :math:`\hat A` the normalised graph of users and items, E the id tables, :math:`k(\cdot)` the k nearest items, all
weights 1 / k:

.. math::
    S_m &= (1 - a)\, k(\text{features of } m) + a\, k(\text{co-occurrence } R^T R), \qquad
    b = \frac{1}{L + 1} \sum_l \hat A^l E, \qquad s^m = S_m E_I, \quad s = \frac1M \sum_m s^m \\
    e' &= e + \epsilon\, \frac{\lVert e \rVert}{\mathrm{mean} \lVert e \rVert}\; \mathrm{sign}(e) \odot
        \frac{n}{\lVert n \rVert}, \qquad n \sim U(0, 1)^d

An item is :math:`b_i + s_i`, a user :math:`b_u`, the score their inner product. Over triples (u, i, j), and over the
different users and items of the batch with cosines at temperature :math:`\tau`:

.. math::
    L = L_{BPR} + w_v \,(\mathrm{NCE}(e'_u, e''_u) + \mathrm{NCE}(e'_i, e''_i)) + w_a L_{anchor}
        + w_f\, \mathrm{NCE}(b_i, s_i) + \frac{\lambda}{2} \lVert \cdot \rVert^2, \qquad
    L_{anchor} = -\frac1M \sum_m \log \frac{e^{b_i \cdot s_i^m / \tau}}
        {e^{b_i \cdot s_i^m / \tau} + \sum_{m'} \sum_{j \ne i} e^{b_i \cdot s_j^{m'} / \tau}}

Where its terms stand:

    nearest items, co-occurrence   recsys/models/homogeneous.py: neighbour_graph, co_occurrence
    propagation                    recsys/models/propagation.py: propagate
    BPR, length                    recsys/models/bpr.py: bpr_rows, squared_length
    NCE                            common/losses/infonce.py: InfoNCE
    views, anchor                  recsys/ceaa.py: perturbed, AnchorContrast
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from counterpoint.common.kernels import Index, contrast_stats
from counterpoint.common.losses import InfoNCE, Shared, unshared
from counterpoint.common.trainers import Assets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.contrast_configs import CEAAConfig
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.models.homogeneous import co_occurrence, neighbour_graph
from counterpoint.recsys.models.propagation import SparseMatrix, interaction_matrix, propagate
from counterpoint.recsys.models.tables import grown


def perturbed(e: Float[Tensor, "rows dim"], size: float) -> Float[Tensor, "rows dim"]:
    """A view: noise within the vector's own orthant, as large as the vector is long against the others.

    >>> e = torch.tensor([[3.0, -4.0], [0.3, 0.4]])
    >>> moved = perturbed(e, 0.1) - e
    >>> share = moved.norm(dim=1) / e.norm(dim=1)       # 0.1 over the mean length, 2.75
    >>> bool((share - 0.03636).abs().max() < 1e-4), bool((moved * e >= 0).all())
    (True, True)
    """
    length = e.detach().norm(dim=1, keepdim=True)
    noise = normalize(torch.rand_like(e), dim=1)
    return e + size * length / length.mean().clamp_min(1e-12) * e.detach().sign() * noise


class AnchorContrast(nn.Module):
    """L_anchor: every modality's vector of an item is told from all vectors of the others.

    Args:
        temperature: tau.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self, anchor: Float[Tensor, "items dim"], semantic: Sequence[Float[Tensor, "items dim"]]
    ) -> Float[Tensor, ""]:
        n = len(anchor)
        b, keys = normalize(anchor, dim=1), normalize(torch.cat(list(semantic)), dim=1)
        own = torch.arange(n, device=b.device)[:, None] + n * torch.arange(len(semantic), device=b.device)
        others = contrast_stats(b, keys, scale=1.0 / self.temperature, exclude=Index(own)).lse
        positive = (b[:, None] * keys[own]).sum(-1) / self.temperature
        return softplus(others[:, None] - positive).mean()


class CEAA(Recommender):
    """Behaviour and semantics of items (see the module's text)."""

    Config = CEAAConfig
    uses_features = True

    def __init__(self, config: CEAAConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.user_embedding = nn.Embedding(self.n_users, config.dim)
        self.item_embedding = nn.Embedding(self.n_items, config.dim)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.weight)
        self.graph, self.semantic = self.adjacency(), self._semantic_graphs()
        self.nce = InfoNCE(config.temperature, symmetric=False)
        self.anchor = AnchorContrast(config.temperature)
        self.loss_weights = {"views": config.views, "anchor": config.anchored, "fused": config.aligned}
        self._whole: tuple[Tensor, ...] | None = None

    @classmethod
    def derived(cls, assets: Assets, config: CEAAConfig, data: InteractionData) -> dict[str, Any]:
        """The semantic graph of every modality."""
        return _enhanced(assets, config, data)

    def _semantic_graphs(self) -> nn.ModuleList:
        found = []
        for fact in self.assets["features"].values():
            parts = (self.assets[f"semantic.{fact['place']}.{part}"] for part in ("value", "column", "start"))
            found.append(SparseMatrix(sp.csr_array(tuple(parts), shape=(self.n_items, self.n_items))))
        return nn.ModuleList(found)

    def grow_tables(self) -> None:
        like = self.user_embedding.weight
        self.user_embedding = grown(self.user_embedding, self.n_users)
        self.item_embedding = grown(self.item_embedding, self.n_items)
        self.graph, self.semantic = self.adjacency().to(like), self._semantic_graphs().to(like)

    def _parts(self) -> tuple[Tensor, ...]:
        """b of all nodes, and s^m of all items for each modality."""
        items = self.item_embedding.weight
        nodes = propagate(self.graph, torch.cat([self.user_embedding.weight, items]), self.config.layers)
        return nodes, *(graph(items) for graph in self.semantic)

    def tables(self) -> tuple[Tensor, Tensor]:
        nodes, *semantic = self._parts()
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items + torch.stack(semantic).mean(0)

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        self._whole = nodes, *semantic = self._parts()
        items = nodes[self.n_users :] + torch.stack(semantic).mean(0)
        found = {name: items[batch[name]] for name in ("item", "negative")}
        return {"user": nodes[batch["user"]], **found}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = super().losses(batch, embeddings)
        whole, self._whole = self._whole, None
        if whole is None or whole[0].requires_grad != torch.is_grad_enabled():
            whole = self._parts()  # `embed` had no graph (micro-batches)
        nodes, *semantic = whole
        # Different users and items of the batch of all ranks: each holds all of them and works out the same terms.
        users, items = (Shared().union(batch[name]).unique() for name in ("user", "item"))
        behaviour, own = nodes[self.n_users :][items], [s[items] for s in semantic]
        fused, size = torch.stack(own).mean(0), self.config.noise
        with unshared():
            pairs = ((perturbed(e, size), perturbed(e, size)) for e in (nodes[users], behaviour + fused))
            terms["views"] = sum(self.nce(*pair) for pair in pairs)
            terms["anchor"] = self.anchor(behaviour, own)
            terms["fused"] = self.nce(behaviour, fused)
        return terms

    def regularized(self, batch: Mapping[str, Any]) -> Sequence[Tensor]:
        items = self.item_embedding
        return self.user_embedding(batch["user"]), items(batch["item"]), items(batch["negative"])


def _enhanced(assets: Assets, config: CEAAConfig, data: InteractionData) -> dict[str, np.ndarray]:
    """(1 - a) nearest by features + a nearest by co-occurrence, of each modality."""
    starts, history, n_items = assets["starts"], assets["history"], int(assets["n_items"])
    users = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    met = interaction_matrix(users, history, len(starts) - 1, n_items)
    k = min(config.neighbours, n_items)
    together = co_occurrence(sp.csr_array(met.T), keep=k)
    together.data[:] = 1.0 / k
    facts: dict[str, np.ndarray] = {}
    for name, fact in assets["features"].items():
        found = data.feature(name)
        values = np.where(found.known[:, None], found.values - assets[f"mean.{fact['place']}"], 0.0)
        near = neighbour_graph(values / assets[f"deviation.{fact['place']}"], k, binary=True)
        graph = sp.csr_array((1.0 - config.shared) * near + config.shared * together)
        graph.sort_indices()
        parts = {"start": graph.indptr.astype(np.int64), "column": graph.indices, "value": graph.data}
        facts |= {f"semantic.{fact['place']}.{part}": values for part, values in parts.items()}
    return facts
