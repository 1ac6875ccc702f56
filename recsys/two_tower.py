r"""Two towers with self-supervision on the items: retrieval from catalogues most of whose items hardly anybody has met.

Yao, Yi, Cheng, Yu, Chen, Menon, Hong, Chi, Tjoa, Kang, Ettinger, "Self-supervised learning for large-scale item
recommendations", CIKM 2021; logQ correction: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
recommendations", RecSys 2019.

Unit vectors :math:`q_u` of users and :math:`x_i` of items come from towers over fields. Over a batch of interactions
(u, i), with p_j the estimated probability that item j stands in a batch, and over items k drawn uniformly from the
catalogue, with two views :math:`z, z'` of the item tower that hide one half of the fields each:

.. math::
    L_{main} &= -\frac{1}{B} \sum_i \log
        \frac{e^{q_i \cdot x_i / \tau - \log p_i}}{\sum_j e^{q_i \cdot x_j / \tau - \log p_j}} \\
    L_{self} &= -\frac{1}{B} \sum_k \log \frac{e^{z_k \cdot z'_k / \tau}}{\sum_l e^{z_k \cdot z'_l / \tau}}, \qquad
    L = L_{main} + \alpha L_{self}

Uniform items, not the training stream's, so that the rare are learnt about; correlated fields are hidden together.

Readings: one pair of masks a batch, as a pair of augmentation functions is drawn for a batch; :math:`\lfloor k/2
\rfloor` fields are hidden in the first view; fields of several values lose each with probability `value_dropout` in
both. An item's own id is one of the fields and correlated with none (it determines all of them); modalities take part
by their cluster (k-means). A batch's copies of a row's item stay its negatives, as in the paper, unless `drop_same`;
copies among the uniform items do not contrast one another.

Where its terms stand:

    corrected softmax   recsys/models/frequency.py: CorrectedSoftmax
    p                   recsys/models/frequency.py: StreamingFrequency
    masks               recsys/models/masking.py: FieldMasks, mutual_information
    towers              recsys/models/towers.py: Tower
    L_self              common/losses/infonce.py: InfoNCE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import Assets, Datasets
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.contrast_configs import TwoTowerConfig
from counterpoint.recsys.data.features import ItemFeatures
from counterpoint.recsys.data.fields import encode_fields, learn_fields
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.data.samples import TrainingPairs, mixed
from counterpoint.recsys.models.features import FeatureTables
from counterpoint.recsys.models.frequency import CorrectedSoftmax, StreamingFrequency
from counterpoint.recsys.models.masking import FieldMasks, mutual_information
from counterpoint.recsys.models.tables import grown
from counterpoint.recsys.models.towers import Tower

CHUNK, CLUSTERS, SAMPLED = 8192, 32, 20_000
CATALOGUE_DRAW = 1_000


class TowerPairs(TrainingPairs):
    """Training interactions, each with an item of the catalogue drawn uniformly."""

    def batch(self, positions: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
        rows = np.asarray(positions, dtype=np.int64)
        user, item = (torch.from_numpy(v[rows].astype(np.int64)) for v in (self.log.user, self.log.item))
        drawn = mixed(np.asarray(seeds, dtype=np.uint64), CATALOGUE_DRAW) % np.uint64(len(self.log.items))
        catalogue = torch.from_numpy(drawn.astype(np.int64))
        return {"index": torch.from_numpy(rows), "group": user, "user": user, "item": item, "catalogue": catalogue}


class TwoTower(Recommender):
    """Towers of users and items (see the module's text)."""

    Config = TwoTowerConfig
    uses_features = True
    needs_features = False

    def __init__(self, config: TwoTowerConfig, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        widths = (*config.widths, config.dim)
        features = self.feature_tables()
        known = self._known_rows()
        self.user_tower = Tower(self._codes("user"), known["user"], None, config.field_dim, widths, config.dropout)
        self.item_tower = Tower(self._codes("item"), known["item"], features, config.field_dim, widths, config.dropout)
        self.frequency = StreamingFrequency(
            config.buckets, hashes=config.hashes, rate=config.rate, first=max(self.n_items / config.train.batch_size, 1)
        )
        self.main = CorrectedSoftmax(config.temperature, drop_same=config.drop_same)
        self.contrast = InfoNCE(config.temperature, symmetric=False)
        self.masks = None
        if config.alpha and self.item_tower.size > 1:
            correlated = config.masking == "correlated"
            self.masks = FieldMasks(self.assets["information"] if correlated else None, self.item_tower.size)
        self.loss_weights = {"self": config.alpha} if self.masks is not None else {}

    # Data ------------------------------------------------------------------------------------------------------------

    @classmethod
    def derived(cls, assets: Assets, config: TwoTowerConfig, data: InteractionData) -> dict[str, Any]:
        """Every row's values in the fields of both tables. The fields themselves and the mutual information of the
        items' are learnt of the first data: a run that goes on keeps them, as its towers do."""
        if "fields" in assets:
            return _coded(assets["fields"], data)
        fields = {"user": learn_fields(data.users), "item": learn_fields(data.items)}
        codes = encode_fields(fields["item"], data.items)
        codes += [_clusters(data.feature(name), config.train.seed) for name in data.features]
        information = np.zeros((len(codes) + 1, len(codes) + 1))  # the id, the last one, determines all and tells none
        information[:-1, :-1] = mutual_information(codes)
        return {"fields": fields, **_coded(fields, data), "information": information}

    def grow_tables(self) -> None:
        known = self._known_rows()
        for kind, tower in (("user", self.user_tower), ("item", self.item_tower)):
            for field, codes in zip(tower.fields, self._codes(kind)):
                field.take(codes)
            tower.id = grown(tower.id, len(known[kind]))
            tower.known = known[kind].to(self.device)
        self.feature_table.grow(self.n_items)

    @property
    def feature_table(self) -> FeatureTables:
        """The raw features."""
        return self.item_tower.features

    def _codes(self, kind: str) -> list[sp.csr_array]:
        rows = self.n_users if kind == "user" else self.n_items
        found = []
        for n, (name, field) in enumerate(self.assets["fields"][kind].items()):
            start, code = (self.assets[f"{kind}.{n}.{part}"] for part in ("start", "code"))
            width = len(field["edges"]) + 1 if field["kind"] == "bins" else len(field["values"])
            if len(start) != rows + 1:
                raise ValueError(f"field {name} has {len(start) - 1} rows, the table has {rows}")
            found.append(sp.csr_array((np.ones(len(code)), code, start), shape=(rows, width)))
        return found

    def _known_rows(self) -> dict[str, Tensor]:
        counts = {"user": np.diff(self.assets["starts"]), "item": self.item_counts}
        return {kind: torch.from_numpy(count > 0) for kind, count in counts.items()}

    def datasets(self) -> Datasets:
        return Datasets(TowerPairs(self.data), val=self._asked("val"))

    # Method ----------------------------------------------------------------------------------------------------------

    def tables(self) -> tuple[Tensor, Tensor]:
        found = []
        for tower in (self.user_tower, self.item_tower):
            rows = torch.arange(len(tower.known), device=self.device)
            found.append(torch.cat([tower(part) for part in rows.split(CHUNK)]))
        return found[0], found[1]

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Unit vectors of users and items, and two views of the catalogue's items."""
        found = {"user": self.user_tower(batch["user"]), "item": self.item_tower(batch["item"])}
        if self.masks is not None:
            # Of the step alone: the same on all ranks and for all parts of a batch.
            step = [self.config.train.seed, self.progress.total_step]
            number = int(np.random.SeedSequence(step).generate_state(1, np.uint64)[0] >> np.uint64(2))
            hidden = self.masks.draw(torch.Generator().manual_seed(number))
            for name, mask in zip(("first", "second"), hidden):
                found[name] = self.item_tower(batch["catalogue"], mask, self.config.value_dropout)
        return found

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        items = batch["item"]
        probability = self.frequency(items) if self.config.corrected else None
        terms = {"main": self.main(embeddings["user"], embeddings["item"], items, probability)}
        if self.masks is not None:
            views = (embeddings[name] for name in ("first", "second"))
            terms["self"] = self.contrast.row_losses(*views, group=batch["catalogue"])
        return terms

    def step(self, batch: dict[str, Any]) -> Any:
        self.frequency.update(batch["item"])
        return super().step(batch)


def _coded(fields: Mapping[str, Any], data: InteractionData) -> dict[str, np.ndarray]:
    """The values of all rows, field by field, as arrays."""
    facts = {}
    for kind, table in (("user", data.users), ("item", data.items)):
        for n, codes in enumerate(encode_fields(fields[kind], table)):
            facts |= {f"{kind}.{n}.start": codes.indptr.astype(np.int64), f"{kind}.{n}.code": codes.indices}
    return facts


def _clusters(features: ItemFeatures, seed: int) -> sp.csr_array:
    """[items, clusters] the k-means cluster of every item that has the modality, learnt from some thousands of them."""
    from sklearn.cluster import KMeans

    rows = np.flatnonzero(features.known)
    rng = np.random.default_rng(seed)
    some = rng.choice(rows, min(len(rows), SAMPLED), replace=False)
    values = features.values.astype(np.float32)
    count = max(min(CLUSTERS, len(some) // 4), 1)
    model = KMeans(count, n_init=1, random_state=int(seed) % 2**31).fit(values[some])
    codes = sp.lil_array((len(values), count))
    codes[rows, model.predict(values[rows])] = 1.0
    return sp.csr_array(codes)
