"""Nearest neighbours among embeddings by a metric: exact by the streaming top-k, or approximate by FAISS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.data.embeddings import EmbeddingStore, row_named
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import topk_scores
from counterpoint.common.metrics.scores import Score, score_named

KEYS = 4096  # keys whose joint scores are in memory at a time


@dataclass(frozen=True)
class Hit:
    """One neighbour: its place among the vectors, its id, the score by which it is ranked (larger is better), and the
    value of the metric that people know (`Score.shown`)."""

    row: int
    id: str
    score: float
    value: float


class NeighbourIndex:
    """Nearest neighbours over a fixed set of vectors, by cosine unless another metric is named.

    `kind="exact"` compares with every vector (memory linear in n, no building). `kind="faiss"` builds an inverted-file
    index (`nlist` cells, `nprobe` of them searched) and needs the `search` extra; what it misses is measured by
    `recall`, not assumed. Joint metrics take one matrix for each modality of a key.

    >>> index = NeighbourIndex(torch.eye(3), ["a", "b", "c"])
    >>> [hit.id for hit in index.search(torch.tensor([[0.1, 1.0, 0.2]]), 2)[0]]
    ['b', 'c']
    """

    def __init__(
        self,
        vectors: Float[Tensor, "n dim"] | Sequence[Float[Tensor, "n dim"]],
        ids: Sequence[str],
        *,
        kind: str = "exact",
        metric: str | Score = "cosine",
        nlist: int | None = None,
        nprobe: int = 16,
        seed: int = 0,
    ) -> None:
        several = [vectors] if isinstance(vectors, Tensor) else list(vectors)
        for one in several:
            if len(one) != len(ids) or len(ids) == 0:
                raise ValueError(f"an index needs one id per vector and at least one, got {len(one)} and {len(ids)}")
            if not bool(torch.isfinite(one).all()):
                row = int((~torch.isfinite(one).all(1)).nonzero()[0])
                raise ValueError(f"the vector of {ids[row]!r} holds NaN or infinity: it would stand first or nowhere")
        self.score = score_named(metric)
        self.vectors = tuple(one.float() for one in several)
        self._keys = self.score.keys(*self.vectors)
        self.ids = list(ids)
        self.kind = kind
        self._rows = {name: i for i, name in enumerate(self.ids)}
        self._faiss: Any = None
        if kind == "faiss":
            if self.score.tile is not None:
                raise InputError(f"FAISS has no index for the metric {self.score.name}; search with --index exact")
            self._faiss = _build_faiss(self._keys[0], nlist, nprobe, seed)
        elif kind != "exact":
            raise ValueError(f'kind must be "exact" or "faiss", got {kind!r}')

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, name: str) -> int:
        """Place of an id; a near miss is suggested."""
        return row_named(name, self._rows)

    def search(
        self, queries: Float[Tensor, "m dim"], k: int = 10, *, leave_out: Sequence[Collection[int]] | None = None
    ) -> list[list[Hit]]:
        """The k nearest of every query, best first; `leave_out[i]` are rows that query i must not find (itself)."""
        if k < 1:
            raise InputError(f"k is a number of neighbours, at least 1, not {k}")
        if queries.shape[1] != self.vectors[0].shape[1]:
            raise InputError(f"the query has {queries.shape[1]} dimensions, the index {self.vectors[0].shape[1]}")
        if not torch.isfinite(queries).all():
            raise InputError("the query's embedding holds NaN or infinity")
        q = self.score.scaled(queries.float())
        ask = min(k + max((len(rows) for rows in leave_out or ()), default=0), len(self))
        scores, rows = self._nearest(q, ask) if self._faiss is None else self._approximate(q, ask)
        hits = []
        for i, (score, row) in enumerate(zip(scores.tolist(), rows.tolist())):
            skip = () if leave_out is None else set(leave_out[i])
            kept = [(r, s) for r, s in zip(row, score) if r >= 0 and r not in skip][:k]
            hits.append([Hit(r, self.ids[r], s, self.score.shown(s)) for r, s in kept])
        return hits

    def _nearest(self, q: Float[Tensor, "m dim"], k: int) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
        if self.score.tile is None:
            return topk_scores(q, self._keys[0], k)
        parts = []
        for start in range(0, len(self), KEYS):  # one part of the pool at a time, the best so far beside it
            keys = [part[start : start + KEYS] for part in self._keys]
            scores, rows = self.score.tile(q, *keys).topk(min(k, len(keys[0])), dim=1)
            parts.append((scores, rows + start))
            both = [torch.cat(x, 1) for x in zip(*parts)]
            best, order = both[0].topk(min(k, both[0].shape[1]), dim=1)
            parts = [(best, both[1].gather(1, order))]
        return parts[0]

    def _approximate(self, q: Float[Tensor, "m dim"], k: int) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
        scores, rows = self._faiss.search(q.cpu().numpy(), k)
        return torch.from_numpy(scores), torch.from_numpy(rows)

    def recall(
        self, k: int = 10, *, queries: int = 200, seed: int = 0, among: Float[Tensor, "m dim"] | None = None
    ) -> float:
        """Share of the true k nearest that a FAISS index finds, for queries drawn among its own vectors, or `among`
        those that will be asked (users, where items are indexed); exact is 1."""
        if self._faiss is None:
            return 1.0
        source = self.vectors[0] if among is None else among.float()
        rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:queries]
        asked, k = self.score.scaled(source[rows]), min(k, len(self))
        truth, found = self._nearest(asked, k)[1], self._approximate(asked, k)[1]
        return sum(len(set(a) & set(b)) for a, b in zip(truth.tolist(), found.tolist())) / truth.numel()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write vectors (safetensors), ids and metric (JSON) and, for FAISS, its index file."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"vectors.{i}": z.contiguous() for i, z in enumerate(self.vectors)}
        save_file(named, folder / "vectors.safetensors")
        said = {"kind": self.kind, "metric": self.score.name, "ids": self.ids}
        (folder / "index.json").write_text(json.dumps(said), encoding="utf-8")
        if self._faiss is not None:
            _faiss().write_index(self._faiss, str(folder / "faiss.index"))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> NeighbourIndex:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise InputError(f"{folder}: no saved index there")
        content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        named = load_file(folder / "vectors.safetensors")
        if "metric" not in content:
            raise InputError(f"{folder}: was saved by an older version; build the index again")
        index = cls([named[name] for name in sorted(named)], content["ids"], metric=content["metric"])
        if content["kind"] == "faiss":
            index.kind, index._faiss = "faiss", _faiss().read_index(str(folder / "faiss.index"))
        return index


@dataclass(frozen=True)
class FoundNeighbours:
    """The neighbours of one query among the `target` modality."""

    query: str
    target: str
    hits: list[Hit]
    recall: float | None = None
    """Share of the true neighbours that an approximate index finds, measured; None where it is exact."""


def search_store(
    store: EmbeddingStore,
    *,
    target: str | None = None,
    ids: Sequence[str] = (),
    source: str | None = None,
    files: Sequence[str | os.PathLike[str]] = (),
    encode: Callable[[Path], Tensor] | None = None,
    vectors: Float[Tensor, "m dim"] | None = None,
    k: int = 10,
    kind: str = "exact",
    metric: str | Score = "cosine",
    leave_out: Mapping[str, Collection[int]] | None = None,
    only: np.ndarray | None = None,
) -> list[FoundNeighbours]:
    """Search a folder of embeddings by sample id, by the user's own files, or by vectors, across modalities.

    Args:
        target: modality searched in; the only one, or else to be named. A joint metric searches in several, as in
            "video + audio".
        ids: samples of the store used as queries by their `source` modality. A sample finds itself only across
            modalities, never within one.
        files, encode: the user's files and the function that embeds one, `(path) -> [dim]`.
        vectors: ready query embeddings.
        kind: "exact" or "faiss".
        metric: the score that ranks, see `SCORES`.
        leave_out: rows of the target that a sample of `ids` must not find, besides itself.
        only: [rows of the target] bool, which rows may be found at all.
    """
    names = store.modalities
    target = target or (names[0] if len(names) == 1 else None)
    if target is None:
        raise InputError(f"several modalities are embedded; name the one to search in: {', '.join(names)}")
    several = joined(target)
    names = store.part(several[0]).ids
    rows_kept = np.arange(len(names)) if only is None else np.flatnonzero(only)
    index = NeighbourIndex(
        [store.vectors(name)[rows_kept] for name in several],
        [names[row] for row in rows_kept.tolist()],
        kind=kind,
        metric=metric,
    )
    asked = vectors if not ids else store.vectors(source or several[0])
    recall = index.recall(k, among=asked) if kind == "faiss" else None

    def of_store(hits: list[Hit]) -> list[Hit]:
        return [replace(hit, row=int(rows_kept[hit.row])) for hit in hits]

    def in_index(rows: Collection[int]) -> set[int]:
        places = np.searchsorted(rows_kept, sorted(rows))
        return {int(p) for p, row in zip(places, sorted(rows)) if p < len(rows_kept) and rows_kept[p] == row}

    found: list[FoundNeighbours] = []
    if ids:
        source, bank = source or several[0], asked
        if bank.shape[1] != index.vectors[0].shape[1]:
            raise InputError(
                f"{source} has {bank.shape[1]} dimensions and {target} {index.vectors[0].shape[1]}: not one space"
            )
        rows = [store.part(source).row(name) for name in ids]
        itself = [{row} if several == (source,) else set() for row in rows]
        more = leave_out or {}
        left_out = [in_index(own | {*more.get(i, ())}) for i, own in zip(ids, itself)]
        hits = index.search(bank[rows], k, leave_out=left_out)
        found += [FoundNeighbours(name, target, of_store(h), recall) for name, h in zip(ids, hits)]
    if files:
        if encode is None:
            raise InputError("searching by file needs the function that embeds a file")
        z = torch.stack([encode(Path(file)).reshape(-1) for file in files])
        found += [FoundNeighbours(str(file), target, of_store(h), recall) for file, h in zip(files, index.search(z, k))]
    if vectors is not None:
        hits = index.search(vectors, k)
        found += [FoundNeighbours(f"vector {i}", target, of_store(h), recall) for i, h in enumerate(hits)]
    if not found:
        raise InputError("nothing to search for: give ids, files or vectors")
    return found


def joined(target: str) -> tuple[str, ...]:
    """The modalities that a key of a joint metric consists of.

    >>> joined("video + audio"), joined("sheet")
    (('video', 'audio'), ('sheet',))
    """
    return tuple(name.strip() for name in target.split("+"))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError("an approximate index needs faiss: pip install 'counterpoint[search]'") from error
    return faiss


def _build_faiss(vectors: Tensor, nlist: int | None, nprobe: int, seed: int) -> Any:
    faiss = _faiss()
    n, dim = vectors.shape
    cells = nlist or max(1, min(int(4 * n**0.5), n // 39))  # faiss wants 39 training vectors a cell
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    array = vectors.cpu().contiguous().numpy()
    index.train(array)
    index.add(array)
    index.nprobe = min(nprobe, cells)
    return index
