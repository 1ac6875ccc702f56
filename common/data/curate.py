"""Better data by looking at embeddings: keep pairs that match, drop near-duplicates, pick subsets by query.

Nothing leaves in silence: every step returns the manifest kept and a table of what went and why. (The workflow of
LAION: score the pairs with a reference dual encoder, filter, deduplicate, search for subsets.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from counterpoint.common.data.links import Links
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import LeakageError
from counterpoint.common.kernels import Self, topk_scores
from counterpoint.common.metrics.ranking import Scoring
from counterpoint.common.metrics.scores import Score, within


@dataclass(frozen=True)
class Curated:
    """The manifest kept, and one row (id, reason, score) for each sample that left."""

    manifest: Manifest
    dropped: pd.DataFrame

    def __str__(self) -> str:
        reasons = self.dropped["reason"].str.split(":").str[0].value_counts().to_dict() if len(self.dropped) else {}
        return f"{len(self.manifest)} kept, {len(self.dropped)} dropped {reasons or ''}".strip()


def pair_scores(
    za: Float[Tensor, "n dim"],
    *others: Float[Tensor, "m dim"],
    metric: str | Score = "cosine",
    relevant: Links | None = None,
) -> Float[Tensor, n]:
    """How well the modalities of each sample match in the eyes of the encoder: the score of its pair, larger is better.

    Args:
        others: the other modality, or several where the metric is a joint one.
        relevant: which rows of the other modality belong to each row; a row's score is the mean over them. Row i
            belongs to row i unless given.

    Raises `ValueError` where a row has nothing that belongs to it.
    """
    if relevant is None and any(za.shape != zb.shape for zb in others):
        shapes = " and ".join(str(tuple(z.shape)) for z in (za, *others))
        raise ValueError(f"paired embeddings must have one shape, got {shapes}")
    if relevant is None:
        return Scoring(za.float(), *(z.float() for z in others), metric=metric).of_pairs(torch.arange(len(za)))
    rows, keys = torch.as_tensor(relevant.queries), torch.as_tensor(relevant.keys)
    counts = torch.bincount(rows, minlength=len(za))
    if not bool(counts.all()):
        raise ValueError(f"{int((counts == 0).sum())} rows have no other modality (first: row {int(counts.argmin())})")
    (zb,) = others
    found = Scoring(za[rows].float(), zb[keys].float(), metric=metric).of_pairs(torch.arange(len(rows)))
    return torch.zeros(len(za), dtype=found.dtype).index_add_(0, rows, found) / counts


def filter_pairs(
    manifest: Manifest, scores: Float[Tensor, n], *, min_score: float | None = None, keep: float | None = None
) -> Curated:
    """Keep pairs scoring at least `min_score`, or the best share `keep` (0..1); exactly one of the two.

    Pairs that score like the last of the share stay too, so that the order of the rows decides nothing.
    """
    _same_length(manifest, scores)
    _finite("scores", scores)
    if (min_score is None) == (keep is None):
        raise ValueError("give either min_score or keep")
    if min_score is None:
        if not 0 < keep <= 1:  # type: ignore[operator]
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        count = max(1, round(keep * len(scores)))  # type: ignore[operator]
        min_score = float(scores.topk(count).values[-1])
    stays = (scores >= min_score).cpu().numpy()
    return _split(manifest, stays, scores.cpu().numpy(), f"low score: below {min_score:.4g}")


def near_duplicate_groups(
    z: Float[Tensor, "n dim"], *, threshold: float = 0.95, neighbours: int = 16, metric: str | Score = "cosine"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Groups of samples linked by cosines of at least `threshold`: (group number of each row, table of links).

    Where the `metric` counts lengths, a cosine is multiplied by the ratio of the shorter length to the longer one: one
    for equal vectors alone.

    Links are found among each row's nearest neighbours; where even the last of them is a duplicate, more are asked for,
    so that no link that decides a group is missed.
    """
    _finite("embeddings", z)
    threshold = min(threshold, 1 - 1e-6)  # the cosine of two equal vectors is one but for rounding
    size = torch.ones(len(z)) if within(metric).unit else z.float().norm(dim=1).clamp_min(1e-12)
    z = torch.nn.functional.normalize(z.float(), dim=1)
    n = len(z)
    k = min(neighbours, n - 1)
    if n < 2:
        return np.zeros(n, dtype=np.int64), pd.DataFrame(columns=["a", "b", "score"])
    rows = torch.arange(n)
    links: dict[tuple[int, int], float] = {}
    while True:
        exclude = Self() if len(rows) == n else None
        scores, index = topk_scores(z[rows], z, k if exclude else min(k + 1, n), exclude=exclude)
        for i, (score, near) in enumerate(zip(scores.tolist(), index.tolist())):
            a = int(rows[i])
            for s, b in zip(score, near):
                if b < 0 or b == a:
                    continue
                alike = s * float(torch.minimum(size[a], size[b]) / torch.maximum(size[a], size[b]))
                if alike >= threshold:
                    links[min(a, b), max(a, b)] = alike
        full = scores[:, -1] >= threshold
        if not bool(full.any()) or k >= n - 1:
            break
        rows, k = rows[full], min(4 * k, n - 1)
    a, b = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n))
    groups = connected_components(graph, directed=False)[1].astype(np.int64)
    table = pd.DataFrame([(a, b, s) for (a, b), s in links.items()], columns=["a", "b", "score"])
    return groups, table


def remove_near_duplicates(
    manifest: Manifest,
    z: Float[Tensor, "n dim"],
    *,
    threshold: float = 0.95,
    scores: Float[Tensor, n] | None = None,
    metric: str | Score = "cosine",
) -> Curated:
    """Keep one sample of every group of near-duplicates: the best by `scores` (pair match), else the first."""
    _same_length(manifest, z)
    if scores is not None:
        _same_length(manifest, scores)
        _finite("scores", scores)
    groups, links = near_duplicate_groups(z, threshold=threshold, metric=metric)
    value = np.zeros(len(z)) if scores is None else scores.cpu().numpy()
    order = np.lexsort((np.arange(len(z)), -value))
    first: dict[int, int] = {}
    for i in order.tolist():
        first.setdefault(int(groups[i]), i)
    chosen = np.array([first[int(g)] for g in groups])
    stays = chosen == np.arange(len(z))
    ids = manifest.frame["id"].tolist()
    nearest = np.full(len(z), np.nan)
    for a, b, s in links.itertuples(index=False):
        nearest[[a, b]] = np.fmax(nearest[[a, b]], s)
    dropped = pd.DataFrame(
        [(ids[i], f"near-duplicate: of {ids[chosen[i]]}", nearest[i]) for i in np.flatnonzero(~stays)],
        columns=["id", "reason", "score"],
    )
    return Curated(replace(manifest, frame=manifest.frame[stays]), dropped)


def subset_by_query(
    manifest: Manifest,
    z: Float[Tensor, "n dim"],
    queries: Float[Tensor, "m dim"],
    *,
    k: int | None = None,
    min_score: float | None = None,
    metric: str | Score = "cosine",
) -> Curated:
    """The samples nearest to any of the queries (descriptions, example files): the best `k`, those above a score.

    Joint metrics compare the modalities of a sample, not two samples: nearness is then the cosine.
    """
    _same_length(manifest, z)
    if k is None and min_score is None:
        raise ValueError("give k, min_score or both")
    _finite("embeddings", z)
    _finite("queries", queries)
    best = torch.full((len(z),), -torch.inf)
    scoring = Scoring(queries.float(), z.float(), metric=within(metric))
    for row in range(len(queries)):
        best = torch.maximum(best, scoring.of_query(row).to(best))
    stays = torch.ones(len(z), dtype=torch.bool) if min_score is None else best >= min_score
    if k is not None:
        top = torch.zeros(len(z), dtype=torch.bool)
        top[torch.where(stays, best, -torch.inf).topk(min(k, len(z))).indices] = True
        stays &= top
    return _split(manifest, stays.numpy(), best.numpy(), "far from the query: not among the nearest")


def check_near_duplicates_across_splits(
    manifest: Manifest, z: Float[Tensor, "n dim"], *, threshold: float = 0.98
) -> None:
    """Raise when a sample has a near-duplicate in another split: leakage that group names did not show.

    Raises:
        LeakageError: naming two such samples, their splits and their cosine.
    """
    _same_length(manifest, z)
    _, links = near_duplicate_groups(z, threshold=threshold)
    split, ids = manifest.frame["split"].tolist(), manifest.frame["id"].tolist()
    bad = [(a, b, s) for a, b, s in links.itertuples(index=False) if split[a] and split[b] and split[a] != split[b]]
    if bad:
        a, b, s = max(bad, key=lambda x: x[2])
        raise LeakageError(
            f"{len(bad)} near-duplicate pairs stand in two splits: {ids[a]!r} ({split[a]}) and {ids[b]!r} ({split[b]}) "
            f"have cosine {s:.4f}; give duplicates one group and split again"
        )


def _split(manifest: Manifest, stays: np.ndarray, scores: np.ndarray, reason: str) -> Curated:
    ids: Sequence[str] = manifest.frame["id"].tolist()
    dropped = pd.DataFrame(
        [(ids[i], reason, float(scores[i])) for i in np.flatnonzero(~stays)], columns=["id", "reason", "score"]
    )
    return Curated(replace(manifest, frame=manifest.frame[stays]), dropped)


def _same_length(manifest: Manifest, values: Tensor) -> None:
    if len(manifest) != len(values):
        raise ValueError(f"the manifest has {len(manifest)} rows, the embeddings {len(values)}: they must correspond")


def _finite(name: str, values: Tensor) -> None:
    bad = ~torch.isfinite(values.reshape(len(values), -1)).all(1)
    if bool(bad.any()):  # NaN compares as false: such rows would be kept or left out by accident
        raise ValueError(f"{name} hold NaN or infinity in {int(bad.sum())} rows (first: row {int(bad.nonzero()[0])})")
