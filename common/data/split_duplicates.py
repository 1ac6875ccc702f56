"""Leakage that group names do not show: samples of different splits that are nearly the same, found by embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from counterpoint.common.errors import LeakageError
from counterpoint.common.kernels import SameLabel, topk_scores


@dataclass(frozen=True)
class NearDuplicate:
    """A sample, its nearest sample of another split, and their cosine."""

    id: str
    split: str
    other: str
    other_split: str
    cosine: float


def near_duplicates(
    embeddings: Float[Tensor, "n dim"], ids: Sequence[str], splits: Sequence[str], threshold: float = 0.95
) -> list[NearDuplicate]:
    """Samples outside the training split whose nearest neighbour in another split has a cosine of `threshold` or more.

    Embeddings of any encoder serve; one trained on the same data sees more. Scores are streamed: memory stays linear.
    Most similar first; samples with an empty split are left out.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    >>> [(d.id, d.other) for d in near_duplicates(z, ["a", "b", "c"], ["train", "test", "test"])]
    [('b', 'a')]
    """
    if not len(embeddings) == len(ids) == len(splits):
        raise ValueError(f"{len(embeddings)} embeddings, {len(ids)} ids and {len(splits)} splits: one of each a sample")
    if not bool(torch.isfinite(embeddings).all()):
        row = int((~torch.isfinite(embeddings).all(1)).nonzero()[0])
        raise ValueError(f"the embedding of {ids[row]!r} holds NaN or infinity: what it is like cannot be said")
    threshold = min(threshold, 1 - 1e-6)  # the cosine of two equal vectors is one but for rounding
    kept = [i for i, s in enumerate(splits) if s]
    names = sorted({splits[i] for i in kept})
    if len(names) < 2:
        return []
    z = normalize(embeddings[kept].float(), dim=-1)
    codes = torch.tensor([names.index(splits[i]) for i in kept], device=z.device)
    asked = torch.tensor([j for j, i in enumerate(kept) if splits[i] != "train"], device=z.device)
    values, columns = topk_scores(z[asked], z, 1, exclude=SameLabel(codes[asked], codes))
    found = []
    for row, value, column in zip(asked.tolist(), values[:, 0].tolist(), columns[:, 0].tolist()):
        if column >= 0 and value >= threshold:
            mine, other = kept[row], kept[column]
            found.append(NearDuplicate(str(ids[mine]), splits[mine], str(ids[other]), splits[other], value))
    return sorted(found, key=lambda d: -d.cosine)


def check_near_duplicates(
    embeddings: Float[Tensor, "n dim"], ids: Sequence[str], splits: Sequence[str], threshold: float = 0.95
) -> None:
    """Raise `LeakageError` when `near_duplicates` finds any."""
    found = near_duplicates(embeddings, ids, splits, threshold)
    if found:
        first = found[0]
        raise LeakageError(
            f"{len(found)} sample(s) have a near-duplicate in another split: {first.id!r} ({first.split}) and "
            f"{first.other!r} ({first.other_split}) have a cosine of {first.cosine:.3f}; give them one group"
        )
