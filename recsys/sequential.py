"""What recommenders of sequences share: a user is what an encoder makes of his items in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.trainers import Assets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.data.samples import Asked
from counterpoint.recsys.data.sequences import padded
from counterpoint.recsys.evaluation.ranking import Scorer, VectorScorer
from counterpoint.recsys.models.sasrec import SequenceEncoder
from counterpoint.recsys.models.tables import grown

CHUNK = 2048


class SequenceRecommender(Recommender):
    """A `SequenceEncoder` over histories; items are the rows of its table.

    Evaluation reads all of a user's items before those that are asked for: of the training in the validation, of
    training and validation in the test. Vectors that are embedded or served are of the training histories; for longer
    ones ask with a history (`newcomers`).
    """

    def __init__(self, config: Any, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self._contexts: dict[str, tuple[Any, Any, Tensor]] = {}
        self.encoder = SequenceEncoder(
            self.n_items, config.length, dim=config.dim, heads=config.heads, layers=config.layers,
            hidden=config.hidden, dropout=config.dropout,
        )  # fmt: skip

    def grow_tables(self) -> None:
        self.encoder.item_embedding = grown(self.encoder.item_embedding, self.n_items)

    def tables(self) -> tuple[Tensor, Tensor]:
        starts = self.assets["starts"]
        return self._encoded(self.assets["history"], starts[:-1], starts[1:]), self.encoder.item_embedding.weight

    def _encoded(self, items: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Tensor:
        """[users, dim] of items[start:end] of every user; zero where there are none."""
        table = self.encoder.item_embedding.weight
        found = table.new_zeros(len(starts), table.shape[1])
        # Of one length together: what stands behind the ends of short ones costs nothing, but is there.
        some = np.flatnonzero(ends > starts)
        some = some[np.argsort(np.minimum(ends - starts, self.encoder.length)[some], kind="stable")]
        for begin in range(0, len(some), CHUNK):
            rows = some[begin : begin + CHUNK]
            sequences, lengths = padded(items, starts[rows], ends[rows], self.encoder.length)
            to = {"device": table.device}
            found[torch.from_numpy(rows).to(**to)] = self.encoder(
                torch.from_numpy(sequences).to(**to), torch.from_numpy(lengths).to(**to)
            )
        return found

    def scorer(self, asked: Asked | None = None) -> Scorer:
        """Of the users of a split by all that they met before it; else by their training histories."""
        if asked is None or asked.split == "train":
            return super().scorer()
        state = self.weights_state()
        known = self._contexts.get(asked.split)
        if known is None or known[0] != state or known[1] is not asked.data:
            earlier = range(SPLITS.index(asked.split))
            log = asked.data.log.take(np.isin(asked.data.log.split, earlier))
            training = self.training
            self.eval()
            with torch.no_grad():
                users = self._encoded(log.item, log.starts[:-1], log.starts[1:])
            self.train(training)
            known = self._contexts[asked.split] = (state, asked.data, users)
        return VectorScorer(known[2], self.encoder.item_embedding.weight)

    def newcomers(self, histories: Sequence[Tensor]) -> Tensor:
        """What the encoder makes of a history; without an item the mean of all users."""
        ends = np.cumsum([len(history) for history in histories])
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        items = torch.cat([history.cpu() for history in histories]).numpy() if len(histories) else np.zeros(0, int)
        with torch.no_grad():
            found = self._encoded(items, starts, ends)
        empty = torch.from_numpy(ends == starts).to(found.device)
        if not bool(empty.any()):
            return found
        return torch.where(empty[:, None], super().newcomers([histories[0][:0]])[0], found)
