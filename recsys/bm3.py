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

Another objective of users and items may stand in the place of :math:`L_{rec}`, on the predictions of a batch's pairs:
`--objective 'InfoNCE(temperature=0.2)'`, or DirectAU's two terms as `--objective Alignment --uniformity 1`.

An item without a modality adds nothing to that modality's terms; it keeps its place in the mean. An item that nobody
met in training is served by its modalities (our choice): the mean of their predictions, at the length of the others'.

Where its terms stand:

    mean over layers   recsys/models/propagation.py: propagate
    raw features       recsys/models/features.py: FeatureTables
    dropped vectors    recsys/models/tables.py: dropped_by_id
    the rest           recsys/bm3.py: BM3Network
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from counterpoint.common.losses import Alignment, Uniformity
from counterpoint.common.trainers import Assets
from counterpoint.common.trainers.contrast import contrast_of, contrast_terms
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.contrast_configs import BM3Config
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


class BM3(Recommender):
    """BM3's network under its objective (see the module's text)."""

    Config = BM3Config
    uses_features = True

    def __init__(self, config: BM3Config, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        features = self.feature_tables(trainable=config.train_features)
        self.network = BM3Network(
            self.adjacency(), self.n_users, features, config.dim, config.layers, config.dropout
        )
        self.loss = contrast_of(config, Alignment()) if config.objective else None
        self.uniformity = Uniformity() if config.uniformity else None
        self.loss_weights = {"reg": config.reg, "align": config.contrast, "mask": config.contrast}
        self.loss_weights |= {"uniformity": config.uniformity} if config.uniformity else {}
        self._whole: tuple[Tensor, Tensor] | None = None

    @property
    def feature_table(self) -> FeatureTables:
        """The raw features."""
        return self.network.features

    def grow_tables(self) -> None:
        self.network.grow(self.adjacency(), self.n_users)

    def tables(self) -> tuple[Tensor, Tensor]:
        users, items = (self.network.predictor(h) for h in self.network.tables())
        return users, items

    @torch.no_grad()
    def newly_out(self, items: Tensor) -> Tensor:
        """Items that nobody met are what their modalities say; without any, the mean of the others."""
        met = torch.from_numpy(self.item_counts > 0).to(items.device)
        new = (~met).nonzero().flatten()
        if not len(new) or not bool(met.any()):
            return items
        said = self.network.modalities(new)
        known = {name: self.feature_table.known(name)[new].to(items.dtype)[:, None] for name in said}
        total = sum(known[name] * self.network.predictor(h) for name, h in said.items())
        total = torch.where(sum(known.values()) > 0, total, items[met].mean(0))
        found = items.clone()
        found[new] = nn.functional.normalize(total, dim=1) * items[met].norm(dim=1).mean()
        return found

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """h of the batch's users, items and modalities, before the predictor."""
        self._whole = users, items = self.network.tables()
        return {"user": users[batch["user"]], "item": items[batch["item"]], **self.network.modalities(batch["item"])}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = self.network.terms(embeddings, batch["user"], batch["item"])
        pair = {name: self.network.predictor(embeddings[name]) for name in ("user", "item")}
        if self.loss is not None:
            del terms["rec"]
            terms |= contrast_terms(self.loss, "rec", pair, batch, group=batch["item"])
        if self.uniformity is not None:
            terms["uniformity"] = (self.uniformity(pair["user"]) + self.uniformity(pair["item"])) / 2
        return terms | {"reg": self.network.regularizer(*self._taken())}

    def _taken(self) -> tuple[Tensor, Tensor]:
        """The whole tables that `embed` has just propagated, once: they are in the graph of this step. Where it had no
        graph (micro-batches) they are propagated anew."""
        whole, self._whole = self._whole, None
        if whole is None or whole[0].requires_grad != torch.is_grad_enabled():
            return self.network.tables()
        return whole

    def step(self, batch: dict[str, Any]) -> Any:
        if self.trainer.world_size == 1 and self.device.type == "cpu":
            self.network.features.keep_gradients()
        return super().step(batch)
