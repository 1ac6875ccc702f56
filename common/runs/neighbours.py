"""Nearest neighbours among a run's stored embeddings, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from counterpoint.common.data.embeddings import EmbeddingStore, model_hash
from counterpoint.common.data.search import Hit
from counterpoint.common.data.search import search as search_store
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.output import table
from counterpoint.common.report import GalleryRow, Media, Report
from counterpoint.common.runs.embedding import embed
from counterpoint.common.runs.encode import open_split
from counterpoint.common.runs.queries import encode_samples, samples_of_file, samples_of_text
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import load_run
from counterpoint.common.vertical import Vertical


@dataclass(frozen=True)
class Neighbours:
    """The answer to one query: places among the stored embeddings, best first, with cosine similarities."""

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

    def as_dict(self) -> dict[str, Any]:
        """The figures."""
        hits = [
            {"rank": rank, "id": name, "group": group, "cosine": score}
            for rank, (name, group, score) in enumerate(zip(self.ids, self.groups, self.scores), start=1)
        ]
        for hit, caption in zip(hits, self.captions):
            hit["what"] = caption
        asked = {"query": self.query, "source": self.source, "to": self.to, "pool": self.pool}
        return {**asked, "synthetic": self.synthetic, "neighbours": hits}

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        hits = self.as_dict()["neighbours"]
        more = ("what",) if self.captions else ()
        rows = [(str(h["rank"]), f"{h['cosine']:.4f}", h["id"], h["group"], *(h[m] for m in more)) for h in hits]
        head = [f"{self.source} of {self.query} -> {self.to}, pool of {self.pool}"]
        head += [f"SYNTHETIC data: {self.synthetic}"] if self.synthetic else []
        return [*head, "", *table(("rank", "cosine", "id", "group", *more), rows)]


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
    ) -> Neighbours:
        """Answer one query; a sample is not its own neighbour within its modality."""
        if sum(given is not None for given in (id, file, text)) != 1:
            raise InputError("give one of --id, --file and --text")
        if top < 1:
            raise InputError(f"--top is {top}; it must be at least 1")
        store, names = self.store, self.store.modalities
        if source is None and file is not None and self.vertical.modality_of is not None:
            source = resolve(self.vertical.modality_of)(file)
        source = source or names[0]
        to = to or next((name for name in names if name != source), source)
        for name in (source, to):
            if name not in names:
                raise no_such("modality", name, names)
        samples, vectors = None, None
        if file is not None:
            samples = samples_of_file(self.vertical, self.system, file, source)
        elif text is not None:
            samples = samples_of_text(self.vertical, self.system, text, source)
        if samples is not None:
            vectors = encode_samples(self.system, samples, source)
        found = search_store(
            store, target=to, ids=[id] if id is not None else (), source=source, vectors=vectors, k=top, kind=kind
        )
        hits = by_votes([answer.hits for answer in found])[:top]
        places = [hit.row for hit in hits]
        groups = store.frame["group"].tolist()
        return Neighbours(
            query=next(str(given) for given in (id, text, file and file.name) if given is not None),
            source=source,
            to=to,
            places=places,
            ids=[hit.id for hit in hits],
            groups=[groups[place] for place in places],
            scores=[hit.score for hit in hits],
            pool=len(store) - (id is not None and source == to),
            sample=None if samples is None else samples[len(samples) // 2],
            synthetic=self.dataset.synthetic,
            captions=tuple(self.caption(place, to) for place in places) if self.vertical.caption else (),
        )

    def caption(self, place: int, modality: str) -> str:
        """One stored sample in one line of the field's own text."""
        return resolve(self.vertical.caption)(self._stored(place), modality)

    def picture(self, place: int, modality: str) -> Media:
        """One stored sample in the field's own picture."""
        return resolve(self.vertical.gallery)(self._stored(place), modality)

    def _stored(self, place: int) -> dict[str, Any]:
        return self.dataset[int(self.store.frame["sample"].iat[place])]


def by_votes(answers: Sequence[Sequence[Hit]]) -> list[Hit]:
    """The hits of all windows of a query, each place once: most windows first, then by the best cosine."""
    votes: dict[int, int] = {}
    best: dict[int, Hit] = {}
    for hit in (hit for hits in answers for hit in hits):
        votes[hit.row] = votes.get(hit.row, 0) + 1
        if hit.row not in best or hit.score > best[hit.row].score:
            best[hit.row] = hit
    return sorted(best.values(), key=lambda hit: (-votes[hit.row], -hit.score))


def neighbours_page(question: Question, found: Neighbours, path: Path) -> Path:
    """The query and its neighbours as pictures in one HTML file."""
    if question.vertical.gallery is None:
        raise InputError(f"{question.vertical.name} has no pictures of its samples; leave --html out")
    if found.sample is not None:
        query = resolve(question.vertical.gallery)(found.sample, found.source)
    else:
        query = question.picture(question.store.ids.index(found.query), found.source)
    what = f"{found.source} of {found.query} among {found.pool} of {found.to}"
    if query is None:
        raise InputError(f"there are no pictures of the samples of {type(question.system).__name__}; leave --html out")
    page = Report("Search", what, synthetic=found.synthetic)
    return page.gallery(
        "Nearest first", [GalleryRow(query, [question.picture(place, found.to) for place in found.places])]
    ).write(path)
