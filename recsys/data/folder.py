"""A data set's folder, opened: the log with its split, the tables of users and items, the items' features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from counterpoint.common.data import Manifest
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.suggest import no_such
from counterpoint.recsys.data.features import ItemFeatures, load_features
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import NO_SPLIT, Interactions, read_log_table
from counterpoint.recsys.data.splits import check_split, k_core, split_log

MANIFEST, ITEMS, INTERACTIONS = "manifest.parquet", "items.parquet", "interactions.parquet"
SPLIT = "interactions_split"
"""The fact beside the manifest that says how interactions were split: its rows are users, who stand in every split."""


@dataclass(frozen=True, eq=False)
class InteractionData:
    """What a recommender is trained and evaluated on.

    Attributes:
        log: split interactions.
        users, items: tables of columns, a row a user or an item in the log's rows.
        features: modality -> a function that reads its vectors.
        split: the kind of split, in words.
        synthetic: what of the data a generator made.
        manifest: where the users stand; None for data that were made in memory.
    """

    log: Interactions
    users: pa.Table
    items: pa.Table
    features: Mapping[str, Callable[[], ItemFeatures]] = field(default_factory=dict)
    split: str = ""
    synthetic: str = ""
    manifest: Manifest | None = None

    def feature(self, name: str) -> ItemFeatures:
        """The vectors of a modality."""
        return self.features[name]()

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Short hashes by which results on other data are told apart: of the pairs, and of their split."""
        return {"data": self.log.pair_hash[:16], "split": f"{self.split} {self.log.hash[:16]}"}

    def renamed(self, users: IdMap, items: IdMap) -> InteractionData:
        """The same in the rows of a model's tables; what these do not know is left out and told."""
        if self.log.users == users and self.log.items == items:
            return self
        log, known = self.log.renamed(users, items)
        if not known.all():
            place = int((~known).argmax())
            row = self.log.take(np.array([place]))
            first = f"{self.log.users[row.user[0]]!r} and {self.log.items[row.item[0]]!r}"
            note(
                f"{int((~known).sum())} of {len(known)} interactions name a user or an item that the model has no row "
                f"for (the first: {first}); they are left out. pretrain --continue_from makes rows for them"
            )
        where = self.log.items.rows(items)
        features = {name: _Taken(read, where) for name, read in self.features.items()}
        tables = [_rows(t, old.rows(new)) for t, old, new in ((self.users, self.log.users, users),
                                                               (self.items, self.log.items, items))]  # fmt: skip
        return replace(self, log=log, users=tables[0], items=tables[1], features=features)


@dataclass(frozen=True)
class _Taken:
    read: Callable[[], ItemFeatures]
    rows: np.ndarray

    def __call__(self) -> ItemFeatures:
        return self.read().take(self.rows)


def _rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    return table.take(pa.array(np.where(rows < 0, 0, rows), pa.int64(), mask=rows < 0))


def open_dataset(path: str | Path) -> InteractionData:
    """Read the folder of a data set by its manifest; the split is the recorded one, or none.

    Raises:
        InputError: the manifest is of other data, or a file is missing or damaged.
    """
    manifest = Manifest.load(path)
    facts = manifest.meta
    if "interactions" not in facts or "items" not in facts:
        raise InputError(
            f"{path}: says nothing of interactions; make it with `counterpoint recsys data import`, and keep its "
            ".meta.json beside it"
        )
    items = read_log_table(manifest.file(facts["items"]))
    if "id" not in items.column_names or items.column("id").null_count:
        raise InputError(f"{manifest.file(facts['items'])}: has no column id; import the data again")
    names = IdMap(items.column("id"))
    log = Interactions.load(manifest.file(facts["interactions"]), IdMap(manifest.table.column("id")), names)
    said = facts.get(SPLIT)
    kind = str(said.get("kind", "")) if isinstance(said, Mapping) else ""
    files = facts.get("features", {})
    if not isinstance(files, Mapping):
        raise InputError(f"{path}.meta.json: features map names to files; import the data again")
    features = load_features(manifest.folder, files, (), len(names))
    return InteractionData(log, manifest.table, items, features, kind, synthetic_part(manifest), manifest)


def prepared(data: InteractionData, config: Any) -> InteractionData:
    """The data as a configuration (`InteractionsConfig`) wants them: ratings from a threshold on, k-core, a split."""
    log, kind = data.log, data.split
    if config.at_least is not None:
        if log.rating is None:
            raise InputError("--data.at_least is a rating, and the log has none; leave it out")
        kept = log.rating >= config.at_least
        note(f"{int((~kept).sum())} of {len(log)} interactions are rated below {config.at_least:g} and left out")
        log = log.take(kept)
    data = replace(data, log=log)
    if config.core:
        data = _shrunk(replace(data, log=k_core(log, config.core)))
        note(
            f"{config.core}-core: {len(data.log)} of {len(log)} interactions are kept, of {len(data.log.users)} users "
            f"with {len(data.log.items)} items"
        )
        log = data.log
    if config.split or log.split is None or (log.split == NO_SPLIT).all():
        kind = config.split or "random"
        log = split_log(log, kind, config.fractions, config.split_seed)
    for name in config.features:
        if name not in data.features:
            raise no_such("item feature", name, data.features)
    features = {n: read for n, read in data.features.items() if not config.features or n in config.features}
    check_split(log, kind)
    if not len(log.of("train")):
        raise InputError("no interaction is left to train on; look at --data.core, --data.at_least and the split")
    return replace(data, log=log, split=kind, features=features)


def _shrunk(data: InteractionData) -> InteractionData:
    """Without the users and items that the log no longer mentions: they are no part of a k-core's catalogue."""
    users, items = (np.flatnonzero(counts) for counts in (data.log.user_counts, data.log.item_counts))
    return data.renamed(data.log.users.take(users), data.log.items.take(items))
