r"""Item-kNN: items like those that a user met.

With U_i the training users of item i, the k most similar items j of every i are kept:

.. math::
    w_{ij} = \frac{|U_i \cap U_j|}{\sqrt{|U_i|\,|U_j|} + \lambda}, \qquad
    s_{uj} = \sum_{i \in H_u} w_{ij}

Who has met nothing is the mean of all users: :math:`s_j \propto \sum_i |U_i| w_{ij}`.

Sarwar, Karypis, Konstan, Riedl, "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; Deshpande and
Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004. The product of the sparse matrices is taken in blocks
of items, so that memory stays with the pairs kept. A user's score is a sum over what he met: there are no vectors.

Where its terms stand:

    U_i and H_u   recsys/base.py: Recommender.histories
    w_ij          recsys/item_knn.py: ItemKNN.count
    s_uj          recsys/item_knn.py: ItemKNN.scores_of
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from counterpoint.common.trainers import Assets
from counterpoint.recsys.baselines import Counted
from counterpoint.recsys.configs import ItemKNNConfig
from counterpoint.recsys.evaluation.ranking import FunctionScorer, Scorer
from counterpoint.recsys.models.propagation import interaction_matrix

BLOCK = 1024


class ItemKNN(Counted):
    """The k most similar items of every item."""

    Config = ItemKNNConfig
    modalities = ()

    def __init__(self, config: ItemKNNConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self.register_buffer("similar", torch.full((self.n_items, config.neighbours), -1, dtype=torch.int64))
        self.register_buffer("weight", torch.zeros(self.n_items, config.neighbours))

    def count(self) -> None:
        links = self.histories
        r = interaction_matrix(links.queries, links.keys, *links.shape)
        by_item = sp.csr_array(r.T)
        size = np.diff(by_item.indptr).astype(np.float64)
        k = self.config.neighbours
        for start in range(0, self.n_items, BLOCK):
            part = sp.csr_array(by_item[start : start + BLOCK] @ r)
            part.sort_indices()
            for row in range(part.shape[0]):
                item = start + row
                found = slice(part.indptr[row], part.indptr[row + 1])
                others, both = part.indices[found], part.data[found]
                weights = both / (np.sqrt(size[item] * size[others]) + self.config.shrink)
                weights[others == item] = 0.0
                best = np.lexsort((others, -weights))[:k]
                best = best[weights[best] > 0]
                self.similar[item, : len(best)] = torch.from_numpy(others[best].astype(np.int64))
                self.weight[item, : len(best)] = torch.from_numpy(weights[best]).to(self.weight)

    def grow_tables(self) -> None:
        new = self.n_items - len(self.similar)
        self.similar = torch.cat([self.similar, self.similar.new_full((new, self.similar.shape[1]), -1)])
        self.weight = torch.cat([self.weight, self.weight.new_zeros(new, self.weight.shape[1])])

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Nothing: there are no vectors."""
        return {}

    def scorer(self, asked: Any = None) -> Scorer:
        return FunctionScorer(self.scores_of, self.n_items)

    def scores_of(self, users: Tensor) -> Tensor:
        """[batch, items] sums of the similarities to what each user met."""
        links = self.histories.of_queries(users.cpu().numpy())
        met = sp.csr_array((np.ones(len(links)), links.keys, links.starts), shape=links.shape)
        scores = (met @ self._matrix).toarray()
        if not links.counts.all():
            scores[links.counts == 0] = self._mean_scores()
        return torch.from_numpy(scores.astype(np.float32))

    def _mean_scores(self) -> np.ndarray:
        """[items] the mean scores of the users that have met something."""
        users = max(int((self.histories.counts > 0).sum()), 1)
        return (self.item_counts / users) @ self._matrix

    def scores_of_history(self, history: Tensor) -> Tensor:
        """[items] the same for a user that is in no table."""
        if not len(history):
            return torch.from_numpy(self._mean_scores().astype(np.float32))
        met = sp.csr_array((np.ones(len(history)), (np.zeros(len(history), int), history.numpy())),
                           shape=(1, self.n_items))  # fmt: skip
        return torch.from_numpy((met @ self._matrix).toarray()[0].astype(np.float32))

    @property
    def _matrix(self) -> sp.csr_array:
        """[items, items] row i the items similar to i."""
        state = (self.similar.data_ptr(), self.similar._version, self.weight._version)
        known = self.__dict__.get("_similarities")
        if known is None or known[0] != state:
            row, place = (self.similar >= 0).cpu().nonzero(as_tuple=True)
            column, value = self.similar.cpu()[row, place], self.weight.cpu()[row, place]
            matrix = sp.csr_array(
                (value.double().numpy(), (row.numpy(), column.numpy())), shape=(self.n_items, self.n_items)
            )
            known = self.__dict__["_similarities"] = (state, matrix)
        return known[1]
