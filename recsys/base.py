"""What every recommender shares: its data and tables of names, BPR batches, the ranking it is chosen by, newcomers.

A system says what its vectors are (`tables`: the score is their inner product), or how it scores (`scorer`). Facts of
the training split that its shape or its scores depend on are assets: the names of users and items (`users.jsonl`,
`items.jsonl`), every user's items in the order of time (`starts`, `history`), names, widths and scale of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.data import Links
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.progress import note
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.recsys.data.features import ItemFeatures, scale_of, standardized
from counterpoint.recsys.data.folder import InteractionData, open_dataset, prepared
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions, stands_in
from counterpoint.recsys.data.samples import Asked, Table, TrainingPairs
from counterpoint.recsys.evaluation.measures import accuracy, hits_of
from counterpoint.recsys.evaluation.protocol import convention_of, validation_figures
from counterpoint.recsys.evaluation.ranking import Scorer, VectorScorer, top_items
from counterpoint.recsys.models.bpr import bpr_rows, squared_length
from counterpoint.recsys.models.features import FeatureTables
from counterpoint.recsys.models.propagation import EPSILON, SparseMatrix, bipartite_adjacency, interaction_matrix

USERS, ITEMS = "users.jsonl", "items.jsonl"


class Recommender(ContrastiveSystem):
    """Base of the vertical's systems. A subclass defines `tables`, and how it grows (`grow_tables`); one that trains by
    other batches than BPR's also `datasets`, `embed` and `losses`.

    Attributes:
        uses_features: whether the items' vectors are read.
        needs_features: whether it cannot do without.
    """

    modalities = ("user", "item")
    metric = "dot"
    uses_features: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def __init__(self, config: Any, assets: Assets | None = None) -> None:
        super().__init__(config, assets)
        self._known: tuple[Any, tuple[Tensor, Tensor]] | None = None

    # Data ------------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> InteractionData:
        """The data set of `data.manifest` (or the generator's), filtered and split; with assets in the model's rows."""
        if config.data.manifest:
            data = open_dataset(config.data.manifest)
        else:
            from counterpoint.recsys.simulate import simulated_interactions

            data = simulated_interactions(config.data.users, config.data.items, config.data.seed)
        data = prepared(data, config.data)
        if cls.uses_features and cls.needs_features and not data.features:
            raise InputError(
                f"{cls.__name__} needs vectors of the items, and {config.data.manifest or 'the generator'} has none; "
                "give them to the import (--features NAME=FILE)"
            )
        return data if assets is None else data.renamed(*id_maps(assets))

    @classmethod
    def learn(cls, config: Any, data: InteractionData) -> Assets:
        """Names, histories, and the scale of the features by the items of the training split."""
        if len(data.log.items) < 2:
            raise InputError(
                f"{config.data.manifest or 'the generator'}: its log has {len(data.log.items)} item(s); a recommender "
                "needs two, to tell one from another"
            )
        train = data.log.of("train")
        facts: dict[str, Any] = {USERS: train.users.to_bytes(), ITEMS: train.items.to_bytes(), **_histories(train)}
        facts["features"] = {}
        if cls.uses_features:
            for place, name in enumerate(data.features):
                found = data.feature(name)
                mean, deviation = scale_of(found, train.item_counts > 0)
                if not config.data.standardize:
                    mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
                else:
                    note(
                        f"features {name}: standardised, {found.values.shape[1]} columns of mean {mean.mean():.3g} and "
                        f"deviation {deviation.mean():.3g} on average"
                    )
                facts["features"][name] = {"place": place, "width": int(found.values.shape[1])}
                facts |= {f"mean.{place}": mean, f"deviation.{place}": deviation}
        assets = Assets(**facts)
        return assets.replace(**cls.derived(assets, config, data))

    @classmethod
    def extend(cls, assets: Assets, config: Any, data: InteractionData) -> Assets:
        """Rows for the new users and items; histories go on with the new training interactions.

        Raises:
            LeakageError: what is held out now was trained on before.
        """
        users, items = id_maps(assets)
        users, items = users.extended(data.log.users), items.extended(data.log.items)
        new, _ = data.log.renamed(users, items)
        old = _known_log(assets, users, items)
        held = new.take(new.split > 0)
        seen = stands_in(held.pairs, old.pairs)
        if seen.any():
            row = held.take(np.array([int(seen.argmax())]))
            raise LeakageError(
                f"user {users[row.user[0]]!r} and item {items[row.item[0]]!r} are held out here and were trained on "
                f"before ({int(seen.sum())} such pairs): figures would be those of known data. Split by time "
                "(--data.split time) where what is held out is later than all that was trained on, or keep the split "
                "of the earlier data"
            )
        train = new.of("train")
        kept = old.take(~stands_in(old.pairs, train.pairs))
        user, item = np.concatenate([kept.user, train.user]), np.concatenate([kept.item, train.item])
        log = Interactions(users, items, user, item).ordered()
        wider = assets.replace(**{USERS: users.to_bytes(), ITEMS: items.to_bytes(), **_histories(log)})
        return wider.replace(**cls.derived(wider, config, data.renamed(*id_maps(wider))))

    @classmethod
    def derived(cls, assets: Assets, config: Any, data: InteractionData) -> dict[str, Any]:
        """Further facts, made of the histories and of the data's features; made anew when a run goes on."""
        return {}

    def grow(self, assets: Assets) -> None:
        """Tables for the new users and items; the old rows keep their bits."""
        old, self.assets = self.assets, assets
        self._forget()
        try:
            self.grow_tables()
        except BaseException:
            self.assets = old
            self._forget()
            raise

    def grow_tables(self) -> None:
        """Take `n_users` and `n_items` rows and the graph of the new histories."""
        raise TypeError(f"{type(self).__name__} does not define grow_tables()")

    def _forget(self) -> None:
        for name in ("users", "items", "histories"):
            self.__dict__.pop(name, None)
        self._known = None

    @cached_property
    def users(self) -> IdMap:
        """The users' names."""
        return IdMap.from_bytes(self.assets[USERS])

    @cached_property
    def items(self) -> IdMap:
        """The items' names."""
        return IdMap.from_bytes(self.assets[ITEMS])

    @property
    def n_users(self) -> int:
        return len(self.assets["starts"]) - 1

    @property
    def n_items(self) -> int:
        return int(self.assets["n_items"])

    @cached_property
    def histories(self) -> Links:
        """[users, items] what every user met in training, each item once."""
        starts, history = self.assets["starts"], self.assets["history"]
        return Links(np.repeat(np.arange(self.n_users), np.diff(starts)), history, (self.n_users, self.n_items))

    def sequence(self, user: int) -> np.ndarray:
        """The training items of a user in the order of time."""
        starts = self.assets["starts"]
        return self.assets["history"][starts[user] : starts[user + 1]]

    @property
    def item_counts(self) -> np.ndarray:
        """[items] training users of every item."""
        return np.bincount(self.histories.keys, minlength=self.n_items)

    def adjacency(self, epsilon: float = EPSILON) -> SparseMatrix:
        """The normalised graph of users, then items, its degrees raised by `epsilon`."""
        links = self.histories
        return SparseMatrix(bipartite_adjacency(interaction_matrix(links.queries, links.keys, *links.shape), epsilon))

    def feature_tables(self, trainable: bool = False) -> FeatureTables:
        """Empty tables of the features' widths, to be filled by `load_features`."""
        widths = {name: fact["width"] for name, fact in self.assets["features"].items()}
        return FeatureTables(widths, self.n_items, trainable=trainable)

    @property
    def catalogue(self) -> Table:
        """The items of the data with what is known of them, in the model's rows."""
        data = self.data
        return Table("item", self.items, np.arange(self.n_items), data.items, data.synthetic, self.items.hash)

    def features_of(self, name: str) -> Iterator[tuple[int, ItemFeatures]]:
        """The vectors of a modality in the data, on the scale of the training data: (first row, some rows of items);
        never all of them a second time. InputError for another width."""
        if name not in self.data.features:
            raise InputError(f"the data have no item features {name!r}, which this model was trained with")
        fact, found = self.assets["features"][name], self.data.feature(name)
        if found.values.shape[1] != fact["width"]:
            raise InputError(
                f"item features {name} have {found.values.shape[1]} columns, and the model was trained with "
                f"{fact['width']}"
            )
        scale = [self.assets[f"{what}.{fact['place']}"] for what in ("mean", "deviation")]
        for start, some in found.parts():
            yield start, standardized(some, *scale)

    def load_features(self) -> None:
        """Fill the tables of features that are not known yet; what was trained stays."""
        tables = getattr(self, "feature_table", None)
        if tables is None:
            return
        for name in self.assets["features"]:
            for start, found in self.features_of(name):
                part = slice(start, start + len(found.values))
                table, old = tables.table(name)[part].detach(), tables.known(name)[part]
                new = torch.from_numpy(found.known).to(old.device)
                values = torch.from_numpy(found.values).to(table)
                if self.continued is not None:  # rows of the earlier run are kept as they were trained
                    new, values = new | old, torch.where(old[:, None], table, values)
                tables.load(name, values, new, start)

    def initialize(self) -> None:
        self.load_features()

    def on_stage_start(self, stage: Any) -> None:
        if self.continued is not None and self.progress.total_step == 0:
            self.load_features()

    def datasets(self) -> Datasets:
        """Training interactions; validation users."""
        return Datasets(TrainingPairs(self.data), val=self._asked("val"))

    def evaluation_datasets(self) -> Datasets:
        """The users of every split."""
        train = self._asked("train")
        if train is None:
            raise InputError("the data have no training interaction of a user and an item that the model knows")
        return Datasets(train, self._asked("val"), self._asked("test"))

    def _asked(self, split: str) -> Asked | None:
        masks = {"train": (), "val": ("train",), "test": convention_of(self.config.ranking).mask}
        found = Asked(self.data, split, masks[split])
        return found if len(found) else None

    # Method ----------------------------------------------------------------------------------------------------------

    def tables(self) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Vectors of all users and all items, whose inner product is the score."""
        raise TypeError(f"{type(self).__name__} does not define tables()")

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        users, items = self.tables()
        return {"user": users[batch["user"]], "item": items[batch["item"]], "negative": items[batch["negative"]]}

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        user, item, other = (embeddings[name] for name in ("user", "item", "negative"))
        terms = {"bpr": bpr_rows((user * item).sum(1), (user * other).sum(1))}
        return terms | {"reg": self.config.reg * squared_length(*self.regularized(batch))}

    def regularized(self, batch: Mapping[str, Any]) -> Sequence[Tensor]:
        """The vectors of a batch whose length is held down."""
        raise TypeError(f"{type(self).__name__} does not define regularized()")

    # Use -------------------------------------------------------------------------------------------------------------

    def served(self) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """`tables` for evaluation and service, computed once for the weights as they are. A user without a history is
        the mean of those that have one: he is offered what suits most."""
        state = self.weights_state()
        if self._known is None or self._known[0] != state:
            training = self.training
            self.eval()
            with torch.no_grad():
                users, items = (table.detach() for table in self.tables())
            self.train(training)
            lengths = torch.from_numpy(np.diff(self.assets["starts"])).to(users.device)
            if bool((lengths == 0).any()) and bool((lengths > 0).any()):
                users = torch.where((lengths > 0)[:, None], users, users[lengths > 0].mean(0))
            self._known = (state, (users, self.newly_out(items)))
        return self._known[1]

    def newly_out(self, items: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """The items' vectors as they are served. Systems that know items by their features override it: an item that
        nobody met in training has been nothing but a negative there, and what was learnt of its id speaks against it.
        """
        return items

    def newcomers(self, histories: Sequence[Int[Tensor, some]]) -> Float[Tensor, "batch dim"]:
        """Vectors of users that are in no table, from the items they met: the mean of the items' vectors, at the mean
        length of a user's; without an item the mean of all users."""
        users, items = self.served()
        known = torch.from_numpy(np.diff(self.assets["starts"]) > 0)
        length = users[known].norm(dim=1).mean() if bool(known.any()) else users.norm(dim=1).mean()
        rows = []
        for history in histories:
            if not len(history):
                rows.append(users[known].mean(0) if bool(known.any()) else users.mean(0))
                continue
            mean = items[history.to(items.device)].mean(0)
            rows.append(mean / mean.norm().clamp_min(1e-12) * length)
        return torch.stack(rows)

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Vectors of the batch's users or items, as they are compared."""
        users, items = self.served()
        found = {}
        if "user" in batch:
            found["user"] = users[batch["user"].to(users.device)]
        elif "history" in batch:
            found["user"] = self.newcomers(list(batch["history"]))
        if "item" in batch:
            found["item"] = items[batch["item"].to(items.device)]
        return found if modality is None else {modality: found[modality]}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.encode(batch)

    def scorer(self, asked: Asked | None = None) -> Scorer:
        """How all items are scored for users; `asked` says of which split, where users are what they met before it."""
        return VectorScorer(*self.served())

    def before_finetune(self) -> None:
        raise InputError(
            "the users of a recommender stand in every split, so that a head on them would be tested on what it has "
            "learnt; embed them and use --embeddings with a split of users"
        )

    # Validation ------------------------------------------------------------------------------------------------------

    def validated(self, batch: dict[str, Any]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The figures of the batch's validation users over the whole catalogue."""
        asked = self._validating()
        users = batch["user"].cpu().numpy()
        places = np.searchsorted(asked.rows, users)
        truth, exclude = (links.of_queries(places) for links in (asked.truth, asked.left_out_items))
        cuts = sorted({*self.config.ranking.cuts, *_named_cuts(self.config.train.monitor)})
        lists = top_items(self.scorer(asked), users, exclude, max(cuts), self.config.train.seed)
        found = accuracy(hits_of(lists, truth), truth.counts, cuts)
        counted = np.diff(self.assets["starts"])[users] > 0
        if convention_of(self.config.ranking).strangers:
            counted[:] = True
        return {}, {name: torch.from_numpy(values[counted]) for name, values in found.items()}

    def _validating(self) -> Asked:
        found = self.__dict__.get("_val")
        if found is None or found.data is not self.data:
            found = self.__dict__["_val"] = self._asked("val")
        return found

    def validation_metrics(self, embeddings: Mapping[str, Tensor]) -> dict[str, float]:
        return validation_figures(embeddings, self.config.ranking)


def id_maps(assets: Assets) -> tuple[IdMap, IdMap]:
    return IdMap.from_bytes(assets[USERS]), IdMap.from_bytes(assets[ITEMS])


def _histories(train: Interactions) -> dict[str, Any]:
    return {"starts": train.starts.astype(np.int64), "history": train.item, "n_items": len(train.items)}


def _known_log(assets: Assets, users: IdMap, items: IdMap) -> Interactions:
    """The training interactions of a run, in the rows of longer tables."""
    starts = assets["starts"]
    return Interactions(users, items, np.repeat(np.arange(len(starts) - 1), np.diff(starts)), assets["history"])


def _named_cuts(metric: str) -> list[int]:
    cut = metric.rpartition("@")[2]
    return [int(cut)] if cut.isdigit() else []
