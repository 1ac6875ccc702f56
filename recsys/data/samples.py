"""What a recommender trains on (interactions) and is asked about (users, with the catalogue as the pool of answers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from counterpoint.common.data import Links, Samples
from counterpoint.common.data.dataset import TextColumn
from counterpoint.common.data.samples import collate, joined_values, options_hash
from counterpoint.common.suggest import no_such
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.data.ids import IdMap

TRIES = 64


def mixed(seeds: np.ndarray, draw: int) -> np.ndarray:
    """[n] uint64 random numbers, one of each seed, by splitmix64; another draw gives others.

    Vigna's mixing of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        x = seeds.astype(np.uint64) + np.uint64(draw + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class TrainingPairs(Samples):
    """Training interactions: user, item, and an item that the user has not met in training, drawn uniformly.

    Validation and test items are drawn like any other: to leave them out would tell the training which they are.
    """

    def __init__(self, data: InteractionData) -> None:
        self.data, self.log = data, data.log.of("train")
        self.synthetic = data.synthetic
        self.met = np.sort(self.log.pairs)

    def __len__(self) -> int:
        return len(self.log)

    def __getitem__(self, position: int) -> dict[str, Any]:
        seed = int(torch.randint(2**62, ()))
        batch = self.batch([position], [seed])
        row = {name: values[0] for name, values in batch.items()}
        return {**row, "index": position, "id": self.ids[position], "group": self.groups[position]}

    def batch(self, positions: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
        rows = np.asarray(positions, dtype=np.int64)
        user, item = (torch.from_numpy(v[rows].astype(np.int64)) for v in (self.log.user, self.log.item))
        other = torch.from_numpy(self.others(user.numpy(), np.asarray(seeds, dtype=np.uint64)))
        return {"index": torch.from_numpy(rows), "group": user, "user": user, "item": item, "negative": other}

    def others(self, users: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """An item for every user, none of those met in training; one that has met nearly all may get one of them."""
        n = len(self.log.items)
        found = (mixed(seeds, 0) % np.uint64(n)).astype(np.int64)
        for draw in range(1, TRIES):
            bad = np.flatnonzero(self._met(users * n + found))
            if not len(bad):
                break
            found[bad] = (mixed(seeds[bad], draw) % np.uint64(n)).astype(np.int64)
        return found

    def _met(self, pairs: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(self.met, pairs), len(self.met) - 1)  # `met` is sorted, once
        return self.met[place] == pairs

    @property
    def ids(self) -> Sequence[str]:
        return PairNames(self.log.users, self.log.items, self.log.user, self.log.item)

    @property
    def groups(self) -> Sequence[str]:
        return TextColumn(pa.chunked_array([self.log.users.names.take(pa.array(self.log.user))]))

    @cached_property
    def hash(self) -> str:
        return options_hash(self.log.hash, negatives="uniform")

    def remembered(self) -> dict[str, Sequence[str]]:
        """Nothing: users stand in every split by intent, and interactions have no names elsewhere."""
        return {"ids": (), "groups": ()}


class PairNames(Sequence):
    """`user > item` of every interaction, made when it is asked for."""

    def __init__(self, users: IdMap, items: IdMap, user: np.ndarray, item: np.ndarray) -> None:
        self.users, self.items, self.user, self.item = users, items, user, item

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return f"{self.users[self.user[place]]} > {self.items[self.item[place]]}"


class Table(Samples):
    """Rows of a table of users or items as samples: `{kind: row}`; its columns are those of the data set."""

    def __init__(self, kind: str, names: IdMap, rows: np.ndarray, table: pa.Table, synthetic: str, known: str) -> None:
        self.kind, self.names, self.rows, self.table, self.synthetic = kind, names, rows, table, synthetic
        self.columns = tuple(name for name in table.column_names if name not in ("id", "group", "split"))
        self.known = known  # the hash of the data that the rows are of

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        name = self.ids[position]
        row = int(self.rows[position])
        return {self.kind: row, "index": position, "id": name, "group": name, "words": self.words(row)}

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return collate(samples)

    @cached_property
    def title(self) -> str:
        """The column that names the rows for people; empty where there is none."""
        usual = ("title", "name", "movie_title", "item_name")
        return next((name for name in usual if name in self.columns), "")

    @cached_property
    def sort(self) -> str:
        """The column of categories, genres or tags; empty where there is none, or where all are alike."""
        usual = ("category", "main_category", "genre", "genres", "tag", "tags", "type", "brand")
        found = (name for name in usual if name in self.columns)
        values = {name: self.table.column(name).to_pylist() for name in found}
        return next((name for name, said in values.items() if len(set(map(joined_values, said))) > 1), "")

    def words(self, row: int) -> str:
        """A row of the table in words: its title; empty where there is none."""
        return joined_values(self.table.column(self.title)[int(row)].as_py()) if self.title else ""

    @cached_property
    def ids(self) -> list[str]:
        return self.names.names.take(pa.array(self.rows, pa.int64())).to_pylist()

    @property
    def groups(self) -> list[str]:
        return self.ids

    def column(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise no_such("column", name, self.columns)
        return self.table.column(name).take(pa.array(self.rows, pa.int64())).to_pylist()

    @cached_property
    def hash(self) -> str:
        return options_hash(self.known, kind=self.kind, rows=self.rows.tolist())

    def row_of(self, position: int) -> int:
        return int(self.rows[position])


class Asked(Table):
    """The users of a split with what they met there; the catalogue is the pool of answers.

    Attributes:
        split: `val` or `test`; `train` asks every user for what he has met.
        mask: the splits whose items are not ranked for a user.
    """

    def __init__(self, data: InteractionData, split: str, mask: Sequence[str]) -> None:
        held = data.log.of(split)
        rows = np.flatnonzero(held.user_counts)
        super().__init__("user", data.log.users, rows, data.users, data.synthetic, held.hash)
        self.data, self.split, self.mask, self.held = data, split, tuple(mask), held
        self.manifest = data.manifest
        everything = np.arange(len(data.log.items))
        catalogue = Table("item", data.log.items, everything, data.items, data.synthetic, data.log.items.hash)
        self.pools = {"item": catalogue}

    @cached_property
    def hash(self) -> str:
        return options_hash(self.data.log.hash, split=self.split, mask=self.mask)

    @cached_property
    def manifest_rows(self) -> np.ndarray:
        """[users of the split] their rows in the manifest, which may know more users than the model."""
        return self.rows if self.manifest is None else IdMap(self.manifest.table.column("id")).rows(self.ids)

    def row_of(self, position: int) -> int:
        return int(self.manifest_rows[position])

    @cached_property
    def truth(self) -> Links:
        """[users of the split, items] what they met there."""
        return self.links_of([self.split])

    @cached_property
    def left_out_items(self) -> Links:
        """[users of the split, items] what is not ranked for them: items of the masked splits that are no answers."""
        links = self.links_of(self.mask)
        answers = self.truth.has(links)  # with repeated interactions an item may be both; it is asked for
        return Links(links.queries[~answers], links.keys[~answers], links.shape)

    def links_of(self, splits: Sequence[str]) -> Links:
        """[users of this split, items] what they met in some splits."""
        place = np.full(len(self.data.log.users), -1, dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        logs = [self.data.log.of(split) for split in splits]
        users = place[np.concatenate([log.user for log in logs])]
        items = np.concatenate([log.item for log in logs]).astype(np.int64)
        return Links(users[users >= 0], items[users >= 0], (len(self.rows), len(self.data.log.items)))

    def relevant(self, query: str, key: str) -> Links | None:
        return self.truth if (query, key) == ("user", "item") else None

    def exclude(self, query: str, key: str) -> Links | None:
        return self.left_out_items if (query, key) == ("user", "item") else None
