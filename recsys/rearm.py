r"""REARM: four graphs among users and among items, attention between modalities, and what both say in common.

Wang, Xing, Lyu, Liu, Ma, "Refining contrastive learning and homography relations for multi-modal recommendation", MM
2025.

Items: id, image and text vectors, projected to d each, are passed along a graph of items (co-occurrence in histories,
weight a, and nearest neighbours by features, weight 1 - a) and brought to length one over all three; each modality
attends to itself and then to the other one, **its d numbers as a sequence of d tokens of width one**. Users: the mean
features of what they met, passed along a graph of users in the same way. Then LightGCN on users and items, for the two
modalities [v | t] and for the ids e. What both modalities say, m = W [v | t] without gradient, makes two low-rank
matrices of every node that turn its id vector into its shared part:

.. math::
    s = (e^T \mathrm{softmax}(M_1 + \bar M_1))\, \mathrm{softmax}(M_2 + \bar M_2), \qquad
    r = [\mathrm{p}(v) + e \;|\; \mathrm{p}(t) + e \;|\; \mathrm{p}(s) + e]

with p one PReLU for all; the score is the inner product of r. Over triples (u, i, j):

.. math::
    L = -\frac1B \sum \log\sigma(r_u \cdot r_i - r_u \cdot r_j) + w_{cl} \sum_{users, items} \mathrm{NCE}(v, t)
        + w_{diff} \sum_{users, items} \frac{1}{d^2} \lVert \tilde V^T \tilde T \rVert_F^2

NCE runs one way over the different users (items, negatives among them) of the batch; :math:`\tilde V, \tilde T` are the
batch's rows, centred, at length one (the length without gradient).

Departures: the official code draws negatives that are neither validation nor test items, and finds the most active
users with their counts (both are leaks); here negatives are any item not met in training. Co-occurrence is a sparse
product (`shared_graph`), where the official code intersects sets over all pairs. Missing vectors are zero.

Where its terms stand:

    graphs among users and items   recsys/models/homogeneous.py: shared_graph, neighbour_graph
    propagation                    recsys/models/propagation.py: propagate
    attention, the shared part     recsys/rearm.py: ScalarAttention, SharedKnowledge
    BPR                            recsys/models/bpr.py: bpr_rows
    NCE                            common/losses/infonce.py: InfoNCE
    last term                      recsys/rearm.py: orthogonality
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE, Shared, unshared
from counterpoint.common.trainers import Assets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.contrast_configs import REARMConfig
from counterpoint.recsys.data.features import standardized
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.models.bpr import bpr_rows
from counterpoint.recsys.models.features import FeatureTables
from counterpoint.recsys.models.homogeneous import neighbour_graph, shared_graph
from counterpoint.recsys.models.propagation import SparseMatrix, interaction_matrix, propagate
from counterpoint.recsys.models.tables import grown


class ScalarAttention(nn.Module):
    """Attention over the numbers of a vector, each a token of width one: `MultiheadAttention(1, 1)`.

    >>> ScalarAttention(0.0)(torch.ones(2, 4), torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.inward = nn.Parameter(torch.empty(3))
        self.shift = nn.Parameter(torch.zeros(3))
        self.outward, self.out_shift = nn.Parameter(torch.empty(())), nn.Parameter(torch.zeros(()))
        # As PyTorch begins its own: Xavier over a [3, 1] matrix, and a linear layer of width one.
        nn.init.uniform_(self.inward, -((6 / 4) ** 0.5), (6 / 4) ** 0.5)
        nn.init.uniform_(self.outward, -1.0, 1.0)

    def forward(self, asking: Float[Tensor, "rows dim"], asked: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        query, key, value = (
            (self.inward[n] * x + self.shift[n])[:, None, :, None] for n, x in enumerate((asking, asked, asked))
        )
        rate = self.dropout if self.training else 0.0
        found = scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return self.outward * found[:, 0, :, 0] + self.out_shift


class SharedKnowledge(nn.Module):
    """The shared part s of one kind of nodes. What compresses the modalities stays as it was drawn: no gradient reaches
    it in the official code either.

    Args:
        dim: d.
        rank: inner width of the two matrices of a node.
    """

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.dim, self.rank = dim, rank
        self.compress = nn.Linear(2 * dim, dim).requires_grad_(False)
        self.first, self.second = (_Perceptron(dim, dim * rank) for _ in range(2))

    def forward(
        self, ids: Float[Tensor, "nodes dim"], modalities: Float[Tensor, "nodes both"]
    ) -> Float[Tensor, "nodes dim"]:
        said = self.compress(modalities.detach())
        first = self.first(said).view(-1, self.dim, self.rank)
        second = self.second(said).view(-1, self.rank, self.dim)
        first = (first + first.mean(0)).softmax(1)
        second = (second + second.mean(0)).softmax(1)
        return torch.einsum("nd,ndr,nre->ne", ids, first, second)


class _Perceptron(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inward, self.outward, self.activation = nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.PReLU()

    def forward(self, x: Float[Tensor, "nodes dim"]) -> Float[Tensor, "nodes hidden"]:
        return normalize(self.outward(self.activation(self.inward(x))), dim=-1)


class REARMNetwork(nn.Module):
    """From ids and projected features of all users and items to their representations.

    Args:
        adjacency: of users followed by items.
        item_graph, user_graph: the strengthened graphs.
        widths: of the raw features of image and text (in this order: the first one is v).
        dim, layers, rank: width, layers of LightGCN, rank of the shared part.
        item_layers, user_layers: propagations among items and among users.
        self_dropout, cross_dropout: of attention within and between modalities.
    """

    def __init__(
        self,
        adjacency: SparseMatrix,
        item_graph: SparseMatrix,
        user_graph: SparseMatrix,
        widths: Sequence[int],
        *,
        dim: int = 64,
        layers: int = 4,
        rank: int = 3,
        item_layers: int = 1,
        user_layers: int = 1,
        self_dropout: float = 0.4,
        cross_dropout: float = 0.6,
    ) -> None:
        super().__init__()
        if len(widths) != 2:
            raise ValueError(f"REARM sets two modalities against one another; there are {len(widths)}")
        self.adjacency, self.item_graph, self.user_graph = adjacency, item_graph, user_graph
        self.dim, self.layers, self.item_layers, self.user_layers = dim, layers, item_layers, user_layers
        self.user_embedding = nn.Embedding(user_graph.shape[0], dim)
        self.item_embedding = nn.Embedding(item_graph.shape[0], dim)
        self.project_items = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.project_users = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.attend_self = nn.ModuleList(ScalarAttention(self_dropout) for _ in widths)
        self.attend_other = nn.ModuleList(ScalarAttention(cross_dropout) for _ in widths)
        self.norm, self.activation = nn.LayerNorm(dim), nn.PReLU()
        self.user_knowledge, self.item_knowledge = SharedKnowledge(dim, rank), SharedKnowledge(dim, rank)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.normal_(table.weight, std=0.1)
        for layer in (*self.project_items, *self.project_users):
            nn.init.xavier_normal_(layer.weight)

    def forward(
        self, items: Sequence[Float[Tensor, "items _"]], users: Sequence[Float[Tensor, "users _"]]
    ) -> tuple[Float[Tensor, "nodes three"], Float[Tensor, "nodes both"]]:
        """Representations r of all nodes, and their modalities [v | t] before the last PReLU, of which the contrast is.

        `items`, `users`: raw features of every item, and the interests of every user, by modality.
        """
        of_items = [self.item_embedding.weight, *(layer(x) for layer, x in zip(self.project_items, items))]
        of_users = [self.user_embedding.weight, *(layer(x) for layer, x in zip(self.project_users, users))]
        item_id, *item_parts = self._among(of_items, self.item_graph, self.item_layers)
        user_id, *user_parts = self._among(of_users, self.user_graph, self.user_layers)
        own = [self._seen(x, attend(x, x)) for x, attend in zip(item_parts, self.attend_self)]
        crossed = [
            self._seen(own[0], self.attend_other[0](own[1], own[0])),
            self._seen(own[1], self.attend_other[1](own[0], own[1])),
        ]
        users_first = torch.cat([self.activation(torch.cat(user_parts, 1)), torch.cat(crossed, 1)])
        modalities = propagate(self.adjacency, users_first, self.layers)
        ids = propagate(self.adjacency, torch.cat([user_id, item_id]), self.layers)
        n = len(user_id)
        shared = torch.cat(
            [self.user_knowledge(ids[:n], modalities[:n]), self.item_knowledge(ids[n:], modalities[n:])]
        )
        parts = (modalities[:, : self.dim], modalities[:, self.dim :], shared)
        return torch.cat([self.activation(part) + ids for part in parts], 1), modalities

    def _among(self, parts: Sequence[Tensor], graph: SparseMatrix, layers: int) -> Sequence[Tensor]:
        """Passed along a graph of one kind of nodes, at length one over all parts."""
        return normalize(propagate(graph, torch.cat(list(parts), 1), layers, last=True), dim=1).split(self.dim, 1)

    def _seen(self, x: Tensor, attended: Tensor) -> Float[Tensor, "rows dim"]:
        return self.activation(self.norm(x + attended))


def orthogonality(v: Float[Tensor, "batch dim"], t: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Mean squared inner product of the centred columns of two modalities, rows at length one.

    >>> orthogonality(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [-1.0]])).round(decimals=3)
    tensor(4.)
    """
    unit = []
    for x in (v, t):
        centred = x - x.mean(0)
        unit.append(centred / (centred.norm(dim=1, keepdim=True).detach() + 1e-6))
    return (unit[0].T @ unit[1]).square().mean()


class REARM(Recommender):
    """The network on the training split's graphs (see the module's text)."""

    Config = REARMConfig
    uses_features = True

    def __init__(self, config: REARMConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        widths = [fact["width"] for fact in self.assets["features"].values()]
        if len(widths) != 2:
            raise InputError(
                f"REARM sets two modalities against one another, and the items have {len(widths)} "
                f"({', '.join(self.assets['features'])}); name two (--data.features image,text)"
            )
        self.feature_table = self.feature_tables(trainable=config.train_features)
        self.interests = FeatureTables(self.feature_table.widths, self.n_users, trainable=config.train_features)
        self.network = REARMNetwork(
            self.adjacency(), *self._graphs(), widths, dim=config.dim, layers=config.layers, rank=config.rank,
            item_layers=config.item_layers, user_layers=config.user_layers, self_dropout=config.self_dropout,
            cross_dropout=config.cross_dropout,
        )  # fmt: skip
        self.nce = InfoNCE(config.temperature, symmetric=False)
        self.loss_weights = {"contrast": config.contrast, "orthogonality": config.orthogonality}
        self._both: Tensor | None = None

    @classmethod
    def derived(cls, assets: Assets, config: REARMConfig, data: InteractionData) -> dict[str, Any]:
        """The strengthened graphs of items and users; when a run goes on, by the features that the new data bring."""
        return _strengthened(assets, config, data)

    def _graphs(self) -> tuple[SparseMatrix, SparseMatrix]:
        found = []
        for kind, size in (("items", self.n_items), ("users", self.n_users)):
            start, column, value = (self.assets[f"{kind}_graph.{part}"] for part in ("start", "column", "value"))
            found.append(SparseMatrix(sp.csr_array((value, column, start), shape=(size, size))))
        return found[0], found[1]

    def grow_tables(self) -> None:
        net, like = self.network, self.network.user_embedding.weight
        net.adjacency = self.adjacency().to(like)
        net.item_graph, net.user_graph = (graph.to(like) for graph in self._graphs())
        net.user_embedding = grown(net.user_embedding, self.n_users)
        net.item_embedding = grown(net.item_embedding, self.n_items)
        self.feature_table.grow(self.n_items)
        self.interests.grow(self.n_users)

    def load_features(self) -> None:
        """Also every user's interests: the mean of what he met of each modality."""
        super().load_features()
        met = interaction_matrix(self.histories.queries, self.histories.keys, self.n_users, self.n_items)
        for name in self.interests.widths:
            table, known = self.interests.table(name), self.interests.known(name)
            raw = self.feature_table.table(name).detach().double().cpu().numpy()
            mean = torch.from_numpy(met @ raw / np.maximum(met.sum(1), 1)[:, None]).to(table)
            kept = known if self.continued is not None else torch.zeros_like(known)
            self.interests.load(name, torch.where(kept[:, None], table.detach(), mean), torch.ones_like(known))

    def _all(self) -> tuple[Tensor, Tensor]:
        names = self.interests.widths
        items, users = ([t.table(name) for name in names] for t in (self.feature_table, self.interests))
        return self.network(items, users)

    def tables(self) -> tuple[Tensor, Tensor]:
        users, items = self._all()[0].split([self.n_users, self.n_items])
        return users, items

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        nodes, self._both = self._all()
        rows = {"user": batch["user"], **{name: batch[name] + self.n_users for name in ("item", "negative")}}
        return {name: nodes[row] for name, row in rows.items()}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        user, item, other = (embeddings[name] for name in ("user", "item", "negative"))
        both, self._both = self._both, None
        if both is None or both.requires_grad != torch.is_grad_enabled():
            both = self._all()[1]  # `embed` had no graph (micro-batches)
        # Different nodes of the batch of all ranks: each holds all of them and works out the same terms.
        shared = Shared()
        users, items, others = (shared.union(batch[name]) for name in ("user", "item", "negative"))
        items, others = items + self.n_users, others + self.n_users
        v, t = both.split(self.config.dim, 1)
        with unshared():
            contrast = sum(self.nce(v[n], t[n]) for n in (users.unique(), torch.cat([items, others]).unique()))
        apart = orthogonality(v[users], t[users]) + orthogonality(v[items], t[items])
        bpr = bpr_rows((user * item).sum(1), (user * other).sum(1))
        return {"bpr": bpr, "contrast": contrast, "orthogonality": apart}


def _strengthened(assets: Assets, config: REARMConfig, data: InteractionData) -> dict[str, np.ndarray]:
    """a x co-occurrence + (1 - a) x nearest neighbours of both modalities, of items and of users."""
    starts, history, n_items = assets["starts"], assets["history"], int(assets["n_items"])
    users = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    met = interaction_matrix(users, history, len(starts) - 1, n_items)
    raw = []
    for name, fact in assets["features"].items():
        if name not in data.features:
            raise InputError(f"the data have no item features {name!r}, which this model was trained with")
        scale = (assets[f"{what}.{fact['place']}"] for what in ("mean", "deviation"))
        raw.append(standardized(data.feature(name), *scale).values.astype(np.float64))
    interests = [met @ x / np.maximum(met.sum(1), 1)[:, None] for x in raw]
    facts: dict[str, np.ndarray] = {}
    for kind, vectors, r, k, first, shared in (
        ("items", raw, sp.csr_array(met.T), config.item_neighbours, config.item_first, config.item_shared),
        ("users", interests, met, config.user_neighbours, config.user_first, config.user_shared),
    ):
        k = min(k, r.shape[0])
        weights = (first, 1.0 - first)
        near = sum(w * neighbour_graph(x, k) for w, x in zip(weights, vectors) if w)
        graph = sp.csr_array(shared * shared_graph(r, k) + (1.0 - shared) * near)
        graph.sort_indices()
        facts |= {f"{kind}_graph.start": graph.indptr.astype(np.int64), f"{kind}_graph.column": graph.indices,
                  f"{kind}_graph.value": graph.data}  # fmt: skip
    return facts
