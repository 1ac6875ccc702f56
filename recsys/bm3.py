r"""BM3: users and items learn to predict one another's dropped-out vectors; no negatives, no second network.

Zhou, Zhou, Liu, Zeng, Miao, Wang, You, Jiang, "Bootstrap Latent Representations for Multi-modal Recommendation", WWW
2023.

With :math:`\bar E` LightGCN's mean over layers of the id tables, :math:`h_u = \bar e_u`, :math:`h_i = \bar e_i + e_i`
(items keep their id vector as a residual), :math:`h_i^m = W_m x_i^m + b_m` of each modality, one predictor
:math:`\tilde h = P h + b` for all of them, :math:`\dot h` the dropped-out vector without gradient, and
:math:`C(a, b) = 1 - \cos(a, b)` averaged over the batch's pairs (u, i):

.. math::
    L_{rec} &= C(\tilde h_u, \dot h_i) + C(\tilde h_i, \dot h_u) \\
    L_{align} &= \sum_m C(\tilde h_i^m, \dot h_i), \qquad L_{mask} = \sum_m C(\tilde h_i^m, \dot h_i^m) \\
    L &= L_{rec} + \lambda\, (\lVert H_U \rVert_F + \lVert H_I \rVert_F) / |I| + w\, (L_{align} + L_{mask})

The norms are of whole tables and not squared, as in the official code. The score is the inner product of predictions
:math:`\tilde h_u \cdot \tilde h_i`, lengths included. Raw features are trained, as published
(`train_features=True`), or stay as they are read, at a fraction of the time.

An item without a modality adds nothing to that modality's terms; it keeps its place in the mean.

Where its terms stand:

    mean over layers   recsys/models/propagation.py: propagate
    raw features       recsys/models/features.py: FeatureTables
    dropped vectors    recsys/models/tables.py: dropped_by_id
    the rest           recsys/bm3.py: BM3Network
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from counterpoint.recsys.models.features import FeatureTables
from counterpoint.recsys.models.propagation import SparseMatrix, propagate
from counterpoint.recsys.models.tables import dropped_by_id, grown


class BM3Network(nn.Module):
    """Tables, propagation, projections and the predictor.

    Args:
        adjacency: normalised, of the users followed by the items (`bipartite_adjacency`).
        n_users: how many of its nodes are users.
        features: raw features of the items.
        dim: width of all vectors.
        layers: of the propagation.
        dropout: share of a target vector that is dropped.
    """

    def __init__(
        self, adjacency: SparseMatrix, n_users: int, features: FeatureTables, dim: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.adjacency, self.features = adjacency, features
        self.layers, self.dropout = layers, dropout
        self.user_embedding = nn.Embedding(n_users, dim)
        self.item_embedding = nn.Embedding(adjacency.shape[0] - n_users, dim)
        self.predictor = nn.Linear(dim, dim)
        self.project = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in features.widths.items()})
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.weight)
        for layer in (self.predictor, *self.project.values()):
            nn.init.xavier_normal_(layer.weight)

    def tables(self) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """h of all users and of all items."""
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        users, items = propagate(self.adjacency, ids, self.layers).split([len(t.weight) for t in self.id_tables])
        return users, items + self.item_embedding.weight

    @property
    def id_tables(self) -> tuple[nn.Embedding, nn.Embedding]:
        """The tables of users and of items."""
        return self.user_embedding, self.item_embedding

    def modalities(self, items: Int[Tensor, "batch"]) -> dict[str, Float[Tensor, "batch dim"]]:
        """h^m of a batch's items; each item is projected once, however often it stands there."""
        own, place = items.unique(return_inverse=True)
        return {name: layer(self.features.rows(name, own))[place] for name, layer in self.project.items()}

    def terms(
        self,
        h: Mapping[str, Float[Tensor, "batch dim"]],
        users: Int[Tensor, "batch"],
        items: Int[Tensor, "batch"],
    ) -> dict[str, Float[Tensor, "batch"]]:
        """`rec`, `align` and `mask` of every pair; h holds `user`, `item` and the modalities, row by row."""
        ids = {name: users if name == "user" else items for name in h}
        goal = {name: self.dropped(name, v.detach(), ids[name]) for name, v in h.items()}
        said = {name: self.predictor(v) for name, v in h.items()}
        found = {"rec": _apart(said["user"], goal["item"]) + _apart(said["item"], goal["user"])}
        for name in self.project:
            known = self.features.known(name)[items]
            for term, target in (("align", goal["item"]), ("mask", goal[name])):
                rows = torch.where(known, _apart(said[name], target), 0.0)
                found[term] = found[term] + rows if term in found else rows
        return found

    def dropped(self, name: str, x: Float[Tensor, "batch dim"], ids: Int[Tensor, "batch"]) -> Tensor:
        """The target: what `F.dropout` leaves of the table `name`, whose rows `ids` these are. In evaluation too, as in
        the official code: a validation loss is of the same kind."""
        return dropped_by_id(x, ids, self.dropout)

    def regularizer(self, users: Float[Tensor, "users dim"], items: Float[Tensor, "items dim"]) -> Float[Tensor, ""]:
        """Frobenius norms of the tables over the number of items."""
        return (users.norm() + items.norm()) / len(items)

    def grow(self, adjacency: SparseMatrix, n_users: int) -> None:
        """Take a graph with more users and items."""
        self.adjacency = adjacency.to(self.predictor.weight)
        self.user_embedding = grown(self.user_embedding, n_users)
        self.item_embedding = grown(self.item_embedding, adjacency.shape[0] - n_users)
        self.features.grow(adjacency.shape[0] - n_users)


def _apart(a: Float[Tensor, "batch dim"], b: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
    """1 - cos, row by row."""
    return 1.0 - cosine_similarity(a, b, dim=-1)
