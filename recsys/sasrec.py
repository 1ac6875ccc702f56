r"""SASRec: a causal transformer over a user's items; at every place the next item is told from others.

Kang, McAuley, "Self-attentive sequential recommendation", ICDM 2018.

.. math::
    L_{softmax} = -\frac{1}{T} \sum_t \log \mathrm{softmax}_j(h_t \cdot e_j)_{s_{t+1}}, \qquad
    L_{binary} = -\frac{1}{T} \sum_t \log \sigma(h_t \cdot e_{s_{t+1}}) + \log(1 - \sigma(h_t \cdot e_{j_t}))

over the T places of a batch, :math:`j_t` an item that the user has not met, drawn for each place. The softmax over all
items is the default: it is much stronger than the paper's loss, and what later systems should be compared with.
Evaluation ranks all items; the paper ranks one against 100 drawn ones. The encoder is RecBole's form (norm behind the
residual, GELU), not the authors' (norm before attention, ReLU, item vectors times the root of the width).

Where its terms stand:

    encoder          recsys/models/sasrec.py: SequenceEncoder
    softmax, binary  recsys/models/objectives.py: next_item_loss, binary_loss
    samples          recsys/data/sequences.py: Histories
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.losses import Shared
from counterpoint.common.trainers import Datasets
from counterpoint.recsys.contrast_configs import SASRecConfig
from counterpoint.recsys.data.sequences import Histories
from counterpoint.recsys.models.objectives import binary_loss, next_item_loss
from counterpoint.recsys.sequential import SequenceRecommender


class SASRec(SequenceRecommender):
    """The next item at every place (see the module's text)."""

    Config = SASRecConfig

    def datasets(self) -> Datasets:
        return Datasets(Histories(self.data, self.config.length), val=self._asked("val"))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`places` [batch, length, dim], zero behind the ends."""
        found, inside = self.encoder.every_place(batch["sequence"], batch["lengths"])
        whole = found.new_zeros(*batch["sequence"].shape, found.shape[1])
        whole[:, : inside.shape[1]][inside] = found
        return {"places": whole}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inside = torch.arange(batch["sequence"].shape[1], device=self.device) < batch["lengths"][:, None]
        h, target = embeddings["places"][inside], batch["next"][inside]
        table = self.encoder.item_embedding
        if self.config.loss == "softmax":
            rows = next_item_loss(h, table.weight, target)
        else:
            scores = ((h * table(items)).sum(1) for items in (target, batch["negative"][inside]))
            rows = binary_loss(*scores)
        return {"next_item": Shared().mean(rows)}
