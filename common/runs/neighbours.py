"""Nearest neighbours among a run's stored embeddings, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import samples as truth
from counterpoint.common.data.embeddings import EmbeddingStore, check_unchanged, model_hash
from counterpoint.common.data.filters import meeting
from counterpoint.common.data.search import Hit, joined, search_store
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.metrics.voting import VOTES, count_votes, vote_shares
from counterpoint.common.output import table
from counterpoint.common.report import GalleryRow, Media, Report
from counterpoint.common.runs.embedding import embed
from counterpoint.common.runs.encode import NoSplit, open_split
from counterpoint.common.runs.queries import encode_samples, samples_of_file, samples_of_text
from counterpoint.common.runs.threshold import (
    Threshold,
    given_threshold,
    kept_threshold,
    learn_threshold,
    share_asked,
)
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import load_run
from counterpoint.common.vertical import Vertical


@dataclass(frozen=True)
class Neighbours:
    """The answer to one query: places among the stored embeddings, best first, with the values of the metric.

    Attributes:
        sample: what asked for the first answer; None where it is one of the store.
        captions: the answers in the field's words.
        windows: parts of the query, which vote; of each answer `votes` is how many of them found it, and `moments` the
            one that was nearest, in the field's words.
        elected: group -> share of the votes, each divided by the group's samples; the largest first.
        recall: share of the true answers that an approximate index finds, measured on stored samples.
        threshold: answers below it are left out, so that there may be none: nothing similar.
    """

    query: str
    source: str
    to: str
    places: list[int]
    ids: list[str]
    groups: list[str]
    scores: list[float]
    pool: int
    sample: dict[str, Any] | None = None
    synthetic: str = ""
    captions: tuple[str, ...] = ()
    windows: int = 1
    votes: tuple[int, ...] = ()
    moments: tuple[str, ...] = ()
    elected: tuple[tuple[str, float], ...] = ()
    metric: str = "cosine"
    recall: float | None = None
    threshold: Threshold | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures."""
        hits = [
            {"rank": rank, "id": name, "group": group, self.metric: score}
            for rank, (name, group, score) in enumerate(zip(self.ids, self.groups, self.scores), start=1)
        ]
        for name, values in (("windows", self.votes), ("what", self.captions), ("asked by", self.moments)):
            for hit, value in zip(hits, values):
                hit[name] = value
        asked = {"query": self.query, "source": self.source, "to": self.to, "pool": self.pool}
        if self.windows > 1:
            asked |= {"windows": self.windows, "groups by votes": dict(self.elected)}
        asked |= {} if self.recall is None else {"recall of the index": self.recall}
        if self.threshold is not None:
            asked |= {"threshold": asdict(self.threshold), "nothing similar": not hits}
        return {**asked, "synthetic": self.synthetic, "neighbours": hits}

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        hits = self.as_dict()["neighbours"]
        more = [name for name in ("windows", "what", "asked by") if name in hits[0]] if hits else []
        first = [(str(h["rank"]), f"{h[self.metric]:.4f}", h["id"], h["group"]) for h in hits]
        rows = [(*cells, *(str(h[m]) for m in more)) for cells, h in zip(first, hits)]
        voting = f"; its {self.windows} windows vote" if self.windows > 1 else ""
        head = [f"{self.source} of {self.query} -> {self.to}, pool of {self.pool}{voting}"]
        head += [f"SYNTHETIC data: {self.synthetic}"] if self.synthetic else []
        votes = ", ".join(f"{group} {100 * share:.0f} %" for group, share in self.elected)
        foot = ["", f"groups by votes: {votes}"] if votes else []
        if self.recall is not None:
            foot += ["", f"the index finds {100 * self.recall:.1f} % of what comparing with every vector finds"]
        if self.threshold is not None:
            foot += ["", f"threshold: {self.threshold.words}"]
        if not hits:
            return [*head, "", "nothing similar", *foot]
        return [*head, "", *table(("rank", self.metric, "id", "group", *more), rows), *foot]


@dataclass(frozen=True)
class Question:
    """Where to search: a run's checkpoint and one split of its data."""

    vertical: Vertical
    run: Path
    checkpoint: str
    split: str
    manifest: Path | None
    embeddings: Path | None

    @cached_property
    def system(self) -> Any:
        """The trained system."""
        return load_run(self.run, self.checkpoint)

    @cached_property
    def store(self) -> EmbeddingStore:
        """Its embeddings of the split, complete and made with the same weights."""
        folder = self.embeddings or self.run / f"embeddings-{self.split}"
        if not (folder / "embeddings.json").is_file() or EmbeddingStore(folder).missing:
            embed(self.run, folder, self.checkpoint, self.split, self.manifest)
        store = EmbeddingStore(folder)
        if store.info.model_hash != model_hash(self.system):
            raise InputError(f"{folder} was made with other weights than the {self.checkpoint} checkpoint; delete it")
        if store.info.data_hash != self.dataset.hash:
            raise InputError(
                f"{folder} was made of other data than the {self.split} split searched in; give the --manifest that it "
                "was made of, or delete it"
            )
        check_unchanged(folder, store.info, self.dataset.written)
        return store

    @cached_property
    def dataset(self) -> Any:
        """The split itself, for its pictures."""
        return open_split(self.run, self.checkpoint, self.split, self.manifest)[1]

    def ask(
        self,
        *,
        id: str | None,
        file: Path | None,
        text: str | None,
        source: str | None,
        to: str | None,
        top: int,
        kind: str,
        where: Sequence[str] = (),
        threshold: str = "",
    ) -> Neighbours:
        """Answer one query; a sample is not its own neighbour within its modality."""
        if sum(given is not None for given in (id, file, text)) != 1:
            raise InputError("give one of --id, --file and --text")
        if top < 1:
            raise InputError(f"--top is {top}; it must be at least 1")
        store, names = self.store, self.store.modalities
        if source is None and file is not None:
            source = self.vertical.modality_of(file.name, names)
        if source is None and text is not None:
            source = next((name for name in names if self.vertical.modality(name).parse is not None), None)
        source = source or names[0]
        score = score_named(self.system.metric)
        others = [name for name in names if name != source]
        to = to or (" + ".join(others if score.joint else others[:1]) or source)
        for name in (source, *joined(to)):
            if name not in names:
                raise no_such("modality", name, names)
        least = self.least(threshold, source, to) if threshold else None
        samples, vectors = None, None
        if file is not None:
            samples = samples_of_file(self.vertical, self.system, file, source)
        elif text is not None:
            samples = samples_of_text(self.vertical, self.system, text, source)
        if samples is not None:
            vectors = encode_samples(self.system, samples, source)
        several = vectors is not None and len(vectors) > 1
        only = self._allowed(joined(to)[0], where)
        found = search_store(
            store,
            target=to,
            ids=[id] if id is not None else (),
            source=source,
            vectors=vectors,
            k=max(top, VOTES) if several else top,
            kind=kind,
            metric=score,
            leave_out=None if id is None else {id: self._excluded(id, source, to)},
            only=only,
        )
        answers = [[h for h in answer.hits if least is None or h.score >= least.value] for answer in found]
        part = store.part(joined(to)[0])
        ranked = by_votes(answers, len(part))[:top]
        hits = [one.hit for one in ranked]
        places = [hit.row for hit in hits]
        groups = part.frame["group"].tolist()
        return Neighbours(
            query=next(str(given) for given in (id, text, file and file.name) if given is not None),
            source=source,
            to=to,
            places=places,
            ids=[hit.id for hit in hits],
            groups=[groups[place] for place in places],
            scores=[hit.value for hit in hits],
            pool=_pool(len(part), only, part.row(id) if id is not None and source == to else None),
            sample=None if samples is None else samples[ranked[0].window if ranked else 0],
            synthetic=self.dataset.synthetic,
            captions=tuple(self.caption(place, to) for place in places) if self._says(to) else (),
            windows=len(answers),
            votes=tuple(one.votes for one in ranked) if several else (),
            moments=tuple(self._say(samples[one.window], source) for one in ranked)
            if several and self._says(source)
            else (),
            elected=elect(answers, groups) if several else (),
            metric=score.name,
            recall=found[0].recall,
            threshold=least,
        )

    def least(self, threshold: str, source: str, to: str) -> Threshold:
        """The score from which on an answer counts: as given, or (`auto`) learnt on the run's validation split."""
        score, share = score_named(self.system.metric), share_asked(threshold)
        if score.joint or score.tile is not None:
            raise InputError(f"--threshold is for cosine and inner products, and this run's metric is {score.name}")
        if share is None:
            return given_threshold(threshold)
        try:
            val = replace(self, split="val", manifest=None, embeddings=None)
            store = val.store
        except NoSplit as error:
            raise InputError(f"--threshold auto is learnt on validation samples: {error}; give a number") from None
        made_of = [store.info.model_hash, store.info.data_hash]
        name = f"{source} -> {to}, {share:g}"
        return kept_threshold(
            self.run, name, made_of, lambda: learn_threshold(store, val.dataset, source, to, score, share)
        )

    def _allowed(self, modality: str, where: Sequence[str]) -> np.ndarray | None:
        """[stored samples] which of them meet the conditions; None without any."""
        if not where:
            return None
        kept = meeting(truth.source(self.dataset, modality), where)
        return kept[self.store.part(modality).frame["sample"].to_numpy()]

    def _excluded(self, id: str, source: str, to: str) -> set[int]:
        """Rows of the target that the data set leaves out of a sample's pool (items seen before)."""
        one, other = self.store.part(source), self.store.part(joined(to)[0])
        links = truth.answers(self.dataset, source, joined(to)[0], "exclude")
        if links is None:
            return set()
        position = int(one.frame["sample"].iat[one.row(id)])
        return set(np.flatnonzero(other.frame["sample"].isin(links.of_query(position))).tolist())

    def caption(self, place: int, modality: str) -> str:
        """One stored sample in one line of the field's own text."""
        return self._say(self._stored(place, modality), joined(modality)[0])

    def _say(self, sample: dict[str, Any], modality: str) -> str:
        return resolve(self.vertical.modality(modality).caption)(sample, modality, self.system)

    def _says(self, modality: str) -> bool:
        return self.vertical.modality(joined(modality)[0]).caption is not None

    def picture(self, place: int, modality: str) -> Media | None:
        """One stored sample in the field's own picture."""
        modality = joined(modality)[0]
        return self.drawn(self._stored(place, modality), modality)

    def drawn(self, sample: dict[str, Any], modality: str) -> Media | None:
        """A sample in the field's own picture, where there is one."""
        draw = self.vertical.modality(modality).picture
        return None if draw is None else resolve(draw)(sample, modality, self.system)

    def _stored(self, place: int, modality: str) -> dict[str, Any]:
        modality = joined(modality)[0]
        return truth.source(self.dataset, modality)[int(self.store.part(modality).frame["sample"].iat[place])]


def _pool(size: int, only: np.ndarray | None, itself: int | None) -> int:
    """How many stored samples can be found."""
    size = size if only is None else int(only.sum())
    return size - (itself is not None and (only is None or bool(only[itself])))


@dataclass(frozen=True)
class Voted:
    """A place among the answers: how many windows of the query found it, and which of them was nearest."""

    hit: Hit
    votes: int
    window: int


def by_votes(answers: Sequence[Sequence[Hit]], n: int) -> list[Voted]:
    """The hits of all windows of a query among `n` places, each once: most windows first, then by the best score."""
    votes = count_votes(_rows(answers), n)
    best: dict[int, Voted] = {}
    for window, hits in enumerate(answers):
        for hit in hits:
            if hit.row not in best or hit.score > best[hit.row].hit.score:
                best[hit.row] = Voted(hit, int(votes[hit.row]), window)
    return sorted(best.values(), key=lambda one: (-one.votes, -one.hit.score))


def elect(answers: Sequence[Sequence[Hit]], groups: Sequence[str], most: int = 5) -> tuple[tuple[str, float], ...]:
    """The groups that the windows of a query vote for, with their shares of the votes; large groups have no advantage.
    """
    names, owners = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares = vote_shares(_rows(answers), owners, len(names))
    order = np.argsort(-shares, kind="stable")[:most]
    return tuple((str(names[i]), float(shares[i] / shares.sum())) for i in order if shares[i] > 0)


def _rows(answers: Sequence[Sequence[Hit]]) -> np.ndarray:
    return np.array([hit.row for hits in answers for hit in hits], dtype=np.int64)


def neighbours_page(question: Question, found: Neighbours, path: Path) -> Path:
    """The query and its neighbours as pictures in one HTML file."""
    if all(m.picture is None for m in question.vertical.modalities):
        raise InputError(f"{question.vertical.name} has no pictures of its samples; leave --html out")
    if found.sample is not None:
        query = question.drawn(found.sample, found.source)
    else:
        query = question.picture(question.store.part(found.source).row(found.query), found.source)
    if query is None:
        raise InputError(f"there are no pictures of the samples of {type(question.system).__name__}; leave --html out")
    across = f" by {found.source}, found in {found.to}" if found.source != found.to else f" by {found.source}"
    what = f"The nearest of {found.pool:,} stored samples{across}; run {question.run}, {question.split} split"
    page = Report(f"Nearest to {found.query}", what, synthetic=found.synthetic)
    several = f"All {found.windows} windows vote; shown is the one that is nearest to the first answer"
    note = several if found.windows > 1 else ""
    results = []
    for i, (place, name, score) in enumerate(zip(found.places, found.ids, found.scores)):
        shown = question.picture(place, found.to)
        said = [f"{found.votes[i]} of {found.windows} windows"] if found.votes else []
        said += [f"{found.metric} {score:.3f}", shown.caption, "" if name in shown.label else name]
        results.append(replace(shown, caption=", ".join(word for word in said if word)))
    return page.gallery("Nearest first", [GalleryRow(query, results, note)]).write(path)
