"""Nearest neighbours among embeddings: exact by the engine's streaming top-k, or approximate by FAISS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.embeddings import EmbeddingStore
from counterpoint.common.errors import InputError
from counterpoint.common.kernels import topk_scores


@dataclass(frozen=True)
class Hit:
    """One neighbour: its place among the vectors, its id, its cosine."""

    row: int
    id: str
    score: float


class Index:
    """Cosine nearest neighbours over a fixed set of vectors.

    `kind="exact"` compares with every vector (memory linear in n, no building). `kind="faiss"` builds an inverted-file
    index (`nlist` cells, `nprobe` of them searched) and needs the `search` extra; what it misses is measured by
    `recall`, not assumed.

    >>> index = Index(torch.eye(3), ["a", "b", "c"])
    >>> [hit.id for hit in index.search(torch.tensor([[0.1, 1.0, 0.2]]), 2)[0]]
    ['b', 'c']
    """

    def __init__(
        self,
        vectors: Float[Tensor, "n dim"],
        ids: Sequence[str],
        *,
        kind: str = "exact",
        nlist: int | None = None,
        nprobe: int = 16,
        seed: int = 0,
    ) -> None:
        if len(vectors) != len(ids) or len(ids) == 0:
            raise ValueError(f"an index needs one id per vector and at least one, got {len(vectors)} and {len(ids)}")
        if not bool(torch.isfinite(vectors).all()):
            row = int((~torch.isfinite(vectors).all(1)).nonzero()[0])
            raise ValueError(f"the vector of {ids[row]!r} holds NaN or infinity: it would stand first or nowhere")
        self.vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        self.ids = list(ids)
        self.kind = kind
        self._rows = {name: i for i, name in enumerate(self.ids)}
        self._faiss: Any = None
        if kind == "faiss":
            self._faiss = _build_faiss(self.vectors, nlist, nprobe, seed)
        elif kind != "exact":
            raise ValueError(f'kind must be "exact" or "faiss", got {kind!r}')

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, name: str) -> int:
        """Place of an id; a near miss is suggested."""
        if name not in self._rows:
            import difflib

            close = difflib.get_close_matches(name, self.ids, 1)
            raise InputError(
                f"no sample {name!r} among the {len(self)} embedded; "
                + (f"did you mean {close[0]!r}?" if close else f"give an id of the manifest, such as {self.ids[0]!r}")
            )
        return self._rows[name]

    def search(
        self, queries: Float[Tensor, "m dim"], k: int = 10, *, leave_out: Sequence[int | None] | None = None
    ) -> list[list[Hit]]:
        """The k nearest of every query, best first; `leave_out[i]` is a row query i must not find (itself)."""
        if k < 1:
            raise InputError(f"k is a number of neighbours, at least 1, not {k}")
        if queries.shape[1] != self.vectors.shape[1]:
            raise InputError(f"the query has {queries.shape[1]} dimensions, the index {self.vectors.shape[1]}")
        if not torch.isfinite(queries).all():
            raise InputError("the query's embedding holds NaN or infinity")
        q = torch.nn.functional.normalize(queries.float(), dim=1)
        ask = min(k + (leave_out is not None), len(self))
        if self._faiss is None:
            scores, rows = topk_scores(q, self.vectors, ask)
        else:
            found = self._faiss.search(q.cpu().numpy(), ask)
            scores, rows = (torch.from_numpy(x) for x in found)
        hits = []
        for i, (score, row) in enumerate(zip(scores.tolist(), rows.tolist())):
            skip = None if leave_out is None else leave_out[i]
            kept = [Hit(r, self.ids[r], s) for r, s in zip(row, score) if r >= 0 and r != skip]
            hits.append(kept[:k])
        return hits

    def recall(self, k: int = 10, *, queries: int = 200, seed: int = 0) -> float:
        """Share of the true k nearest that a FAISS index finds, for queries drawn among its own vectors; exact is 1."""
        if self._faiss is None:
            return 1.0
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:queries]
        k = min(k, len(self))
        truth = topk_scores(self.vectors[rows], self.vectors, k)[1]
        found = torch.from_numpy(self._faiss.search(self.vectors[rows].numpy(), k)[1])
        return sum(len(set(a) & set(b)) for a, b in zip(truth.tolist(), found.tolist())) / truth.numel()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write vectors (safetensors), ids (JSON) and, for FAISS, its index file."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self.vectors.contiguous()}, folder / "vectors.safetensors")
        (folder / "index.json").write_text(json.dumps({"kind": self.kind, "ids": self.ids}), encoding="utf-8")
        if self._faiss is not None:
            _faiss().write_index(self._faiss, str(folder / "faiss.index"))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Index:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise InputError(f"{folder}: no saved index there")
        content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        vectors = load_file(folder / "vectors.safetensors")["vectors"]
        index = cls(vectors, content["ids"])
        index.vectors = vectors  # normalised when it was saved: a second time would change the last bit
        if content["kind"] == "faiss":
            index.kind, index._faiss = "faiss", _faiss().read_index(str(folder / "faiss.index"))
        return index


@dataclass(frozen=True)
class Found:
    """The neighbours of one query among the `target` modality."""

    query: str
    target: str
    hits: list[Hit]


def search(
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
) -> list[Found]:
    """Search a folder of embeddings by sample id, by the user's own files, or by vectors, across modalities.

    Args:
        target: modality searched in; the only one, or else to be named.
        ids: samples of the store used as queries by their `source` modality. A sample finds itself only across
            modalities, never within one.
        files, encode: the user's files and the function that embeds one, `(path) -> [dim]`.
        vectors: ready query embeddings.
        kind: "exact" or "faiss".
    """
    names = store.modalities
    target = target or (names[0] if len(names) == 1 else None)
    if target is None:
        raise InputError(f"several modalities are embedded; name the one to search in (--to): {', '.join(names)}")
    index = Index(store.vectors(target), store.ids, kind=kind)
    found: list[Found] = []
    if ids:
        source = source or target
        bank = store.vectors(source)
        if bank.shape[1] != index.vectors.shape[1]:
            raise InputError(
                f"{source} has {bank.shape[1]} dimensions and {target} {index.vectors.shape[1]}: not one space"
            )
        rows = [index.row(name) for name in ids]
        hits = index.search(bank[rows], k, leave_out=rows if source == target else None)
        found += [Found(name, target, h) for name, h in zip(ids, hits)]
    if files:
        if encode is None:
            raise InputError("searching by file needs the function that embeds a file")
        z = torch.stack([encode(Path(file)).reshape(-1) for file in files])
        found += [Found(str(file), target, h) for file, h in zip(files, index.search(z, k))]
    if vectors is not None:
        found += [Found(f"vector {i}", target, h) for i, h in enumerate(index.search(vectors, k))]
    if not found:
        raise InputError("nothing to search for: give ids, files or vectors")
    return found


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
