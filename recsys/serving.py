"""Recommendations of a run: for one user in words, for a newcomer by what he met, for everybody as a Parquet file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from counterpoint.common.data import Links
from counterpoint.common.data.filters import meeting
from counterpoint.common.data.search import NeighbourIndex
from counterpoint.common.errors import InputError
from counterpoint.common.output import table
from counterpoint.common.progress import track
from counterpoint.common.trainers import from_pretrained, load_run, override
from counterpoint.common.trainers.pretrained import CONFIG as MODEL_CONFIG
from counterpoint.common.trainers.run_folder import CONFIG as RUN_CONFIG
from counterpoint.common.vertical import Outcome
from counterpoint.recsys.base import Recommender
from counterpoint.recsys.data.ids import listed_ids
from counterpoint.recsys.data.samples import Table
from counterpoint.recsys.evaluation.ranking import FunctionScorer, Scorer, VectorScorer, top_items

USERS_AT_ONCE = 4096
MEASURED = 200  # users whose lists say what an index misses
EVERYBODY = "*"


@dataclass(frozen=True)
class Server:
    """A model, what its users have seen, and which items may be offered.

    Attributes:
        system: the trained model.
        seen: [users, items] what is not offered again.
        items: the catalogue with its columns, None where the run's data are not at hand.
        offered: rows of the items that may be offered. A system that knows items by their ids alone (no features)
            offers none that nobody met in training: what it has of them was not learnt from anybody who liked them.
        unmet: how many items are not offered for that reason.
    """

    system: Recommender
    seen: Links
    items: Table | None
    offered: np.ndarray
    unmet: int = 0

    @classmethod
    def of(cls, system: Recommender, where: Sequence[str] = (), again: bool = False) -> Server:
        """A server of a system; `where` are conditions on the items' columns, with `again` what was seen is offered
        too. Everything in the log was seen, whatever its split; without the run's data what was trained on."""
        try:
            data = system.data
        except InputError:
            if where:
                raise
            data = None
        links, items = system.histories, None
        if data is not None:
            pairs = [np.concatenate(x) for x in ((links.queries, data.log.user), (links.keys, data.log.item))]
            links = Links(*pairs, links.shape)
            items = system.catalogue
        if again:
            links = Links([], [], links.shape)
        kept = np.arange(system.n_items) if items is None else np.flatnonzero(meeting(items, where))
        known = kept if system.uses_features else kept[system.item_counts[kept] > 0]
        if not len(known):
            raise InputError(
                f"nobody met {'any of' if where else ''} these {len(kept)} items in training, and "
                f"{type(system).__name__} knows an item by who met it; ask for others, or take a system that reads "
                "features"
            )
        return cls(system, links, items, known, len(kept) - len(known))

    @cached_property
    def scorer(self) -> Scorer:
        """Scores of the items that may be offered, in their order."""
        whole = self.system.scorer()
        if len(self.offered) == whole.n_items:
            return whole
        if isinstance(whole, VectorScorer):
            return VectorScorer(whole.users, whole.items[torch.from_numpy(self.offered)])
        columns = torch.from_numpy(self.offered)
        return FunctionScorer(lambda users: whole.scores(users)[:, columns], len(columns))

    def lists(self, users: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """([users, n] items, -1 behind the last; [users, n] their scores), exact."""
        places = top_items(self.scorer, users, self._excluded(users), n)
        scores = _scores_at(self.scorer, users, places)
        return np.where(places < 0, -1, self.offered[places]), scores

    def _excluded(self, users: np.ndarray) -> Links:
        """[users, items offered] what they have seen of it."""
        links = self.seen.of_queries(users)
        place = np.full(self.system.n_items, -1, dtype=np.int64)
        place[self.offered] = np.arange(len(self.offered))
        keys = place[links.keys]
        return Links(links.queries[keys >= 0], keys[keys >= 0], (len(users), len(self.offered)))

    def newcomer(self, history: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
        """(items, scores) for somebody who is in no table and has met these items (none: what suits most)."""
        met = torch.tensor(list(history), dtype=torch.int64)
        if hasattr(self.system, "scores_of_history"):
            scores = self.system.scores_of_history(met)
        else:
            scores = self.system.newcomers([met])[0].cpu() @ self.system.served()[1].cpu().T
        scores = scores[torch.from_numpy(self.offered)].clone()
        scores[torch.from_numpy(np.isin(self.offered, met.numpy()))] = -torch.inf
        value, place = scores.topk(min(n, len(scores)))
        kept = value > -torch.inf
        return self.offered[place[kept].numpy()], value[kept].numpy()

    @cached_property
    def index(self) -> NeighbourIndex:
        """A FAISS index of the items that may be offered."""
        if not isinstance(self.scorer, VectorScorer):
            raise InputError(f"{type(self.system).__name__} has no vectors to index; leave out --index faiss")
        names = [self.system.items[row] for row in self.offered.tolist()]
        return NeighbourIndex(self.scorer.items, names, kind="faiss", metric="dot")

    def approximate(self, users: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """As `lists`, through the index."""
        exclude, index = self._excluded(users), self.index
        left_out = [set(exclude.of_query(row).tolist()) for row in range(len(users))]
        found = index.search(self.scorer.users[torch.from_numpy(users)], n, leave_out=left_out)
        items, scores = np.full((len(users), n), -1, dtype=np.int64), np.full((len(users), n), -np.inf)
        for row, hits in enumerate(found):
            items[row, : len(hits)] = self.offered[[hit.row for hit in hits]]
            scores[row, : len(hits)] = [hit.score for hit in hits]
        return items, scores

    def recall(self, n: int, seed: int = 0) -> float:
        """Share of the exact lists of some users that the index finds."""
        users = np.sort(np.random.default_rng(seed).permutation(self.system.n_users)[:MEASURED])
        exact, found = self.lists(users, n)[0], self.approximate(users, n)[0]
        shared = sum(len(set(a[a >= 0]) & set(b[b >= 0])) for a, b in zip(found, exact))
        return shared / max(int((exact >= 0).sum()), 1)

    def words(self, item: int) -> str:
        """An item by its title, where it has one."""
        return "" if self.items is None else self.items.words(item)


def _scores_at(scorer: Scorer, users: np.ndarray, places: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(np.maximum(places, 0))
    asked = torch.from_numpy(users.astype(np.int64))
    if isinstance(scorer, VectorScorer):
        scores = torch.einsum("ud,und->un", scorer.users[asked], scorer.items[rows])
    else:
        scores = scorer.scores(asked).gather(1, rows)
    return np.where(places < 0, -np.inf, scores.numpy())


def recommend(
    run: Path, user: str, history: str, top: int, where: tuple[str, ...], again: bool, index: str,
    checkpoint: str, manifest: Path | None, out: Path | None,
) -> Outcome:  # fmt: skip
    """See `commands.recommend`."""
    if user != EVERYBODY and history != EVERYBODY:
        raise InputError("--user is somebody in the model's table, --history somebody else; give one of them")
    if top < 1:
        raise InputError(f"--top is {top}; it must be at least 1")
    system = _opened(run, checkpoint)
    if not isinstance(system, Recommender):
        raise InputError(f"{run}: a run of {type(system).__name__}, which recommends nothing")
    if manifest is not None:
        system.config = override(system.config, {"data.manifest": str(manifest)})
    server = Server.of(system, where, again)
    if user == history == EVERYBODY:
        return _export(server, run, top, index, out)
    begin = time.perf_counter()
    notes = [] if server.items is not None else ["the run's data are not at hand: only what was trained on is left out"]
    if user != EVERYBODY:
        row = system.users.row(user, "user")
        rows = np.array([row])
        items, scores = server.approximate(rows, top) if index == "faiss" else server.lists(rows, top)
        items, scores = items[0][items[0] >= 0], scores[0][items[0] >= 0]
        met = system.sequence(row)
    else:
        met = [system.items.row(name, "item") for name in listed_ids(history, nobody="none")]
        if index == "faiss":
            raise InputError("--index faiss goes with --user; a newcomer is compared with every item")
        items, scores = server.newcomer(met, top)
    if server.unmet:
        notes.append(_unmet(server))
    if not len(met):
        notes.append("without a history: what suits most users")
    milliseconds = 1000 * (time.perf_counter() - begin)
    recall = server.recall(top) if index == "faiss" else None
    offers = [
        {"rank": rank, "id": system.items[item], "score": float(score), "what": server.words(item)}
        for rank, (item, score) in enumerate(zip(items.tolist(), scores.tolist()), 1)
    ]
    who = user if user != EVERYBODY else "a newcomer"
    said = server.items.synthetic if server.items is not None else ""
    known = [server.words(int(item)) or system.items[int(item)] for item in list(met)[-5:]]
    lines = [f"{who}: {len(met)} items met" + (f", the last: {', '.join(known)}" if known else "")]
    lines += [f"SYNTHETIC data: {said}"] if said else []
    rows = [(str(o["rank"]), f"{o['score']:.4f}", str(o["id"]), str(o["what"])) for o in offers]
    lines += ["", *table(("rank", "score", "id", "what"), rows), ""]
    lines += [f"among {len(server.offered)} items, in {milliseconds:.1f} ms"]
    if recall is not None:
        lines.append(f"the index finds {100 * recall:.1f} % of the exact lists of {MEASURED} users")
    lines += [f"note: {note}" for note in notes]
    figures = {"user": user if user != EVERYBODY else None, "history": [system.items[int(i)] for i in met],
               "offers": offers, "synthetic": said, "pool": len(server.offered),
               "milliseconds": milliseconds, "recall": recall, "notes": notes}  # fmt: skip
    return Outcome(figures, tuple(lines))


def _opened(folder: Path, checkpoint: str) -> Any:
    """A run, or a folder of weights (`export`, `save_pretrained`)."""
    if (folder / MODEL_CONFIG).is_file() and not (folder / RUN_CONFIG).is_file():
        return from_pretrained(folder)
    return load_run(folder, checkpoint)


def _unmet(server: Server) -> str:
    name = type(server.system).__name__
    return f"{server.unmet} items that nobody met in training are not offered: {name} knows an item by who met it"


def _export(server: Server, run: Path, top: int, index: str, out: Path | None) -> Outcome:
    """The lists of all users as one Parquet file: user, rank, item, score."""
    target = out or run / "recommendations.parquet"
    begin, rows = time.perf_counter(), 0
    users = np.arange(server.system.n_users)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    metadata = {"metric": server.system.metric, "items": "those that a user has not met", "run": str(run)}
    schema = pa.schema(
        [("user", pa.large_string()), ("rank", pa.int32()), ("item", pa.large_string()), ("score", pa.float32())],
        metadata=metadata,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema) as writer:
            for part in _parts(users):
                items, scores = server.approximate(part, top) if index == "faiss" else server.lists(part, top)
                there = items >= 0
                who = pa.array(part).take(pa.array(np.nonzero(there)[0]))
                ranks = np.broadcast_to(np.arange(1, top + 1), items.shape)[there]
                columns = [server.system.users.names.take(who), pa.array(ranks, pa.int32()),
                           server.system.items.names.take(pa.array(items[there])),
                           pa.array(scores[there].astype(np.float32))]  # fmt: skip
                writer.write_table(pa.table(columns, schema=schema))
                rows += int(there.sum())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    seconds = time.perf_counter() - begin
    figures = {"users": len(users), "rows": rows, "top": top, "seconds": seconds, "pool": len(server.offered)}
    pool = f"among {len(server.offered):,} items"
    lines = [f"{rows:,} recommendations for {len(users):,} users {pool} in {seconds:.1f} s"]
    if index == "faiss":
        figures["recall"] = server.recall(top)
        lines.append(f"the index finds {100 * figures['recall']:.1f} % of the exact lists of {MEASURED} users")
    lines += [f"note: {_unmet(server)}"] if server.unmet else []
    return Outcome(figures, (*lines, f"wrote {target}"), {"recommendations": target})


def _parts(users: np.ndarray) -> Iterator[np.ndarray]:
    starts = range(0, len(users), USERS_AT_ONCE)
    for start in track(starts, "recommending", len(starts)):
        yield users[start : start + USERS_AT_ONCE]

