"""Weighted nearest-neighbour classification of frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import Self, topk_scores
from counterpoint.common.metrics.classification import Scores, score_classes, score_multilabel
from counterpoint.common.metrics.labels import LabelsLike, encode_labels, one_hot, take
from counterpoint.common.metrics.result import Result, features


@dataclass(frozen=True)
class KNN(Result):
    """kNN at several k: `by_k[k]` are the figures; `k` is the one with the best accuracy on the samples scored.

    `k` is chosen on the very samples scored, so its figure flatters a little: quote a fixed k when comparing encoders.
    """

    k: int
    by_k: dict[int, Scores]
    temperature: float
    train: int
    leave_one_out: bool
    probabilities: dict[int, np.ndarray] = field(default_factory=dict, metadata={"json": False})

    @property
    def best(self) -> Scores:
        return self.by_k[self.k]


def knn(
    train: Float[Tensor, "n dim"],
    train_labels: LabelsLike,
    test: Float[Tensor, "m dim"] | None = None,
    test_labels: LabelsLike | None = None,
    *,
    ks: Sequence[int] = (1, 5, 20, 200),
    temperature: float = 0.07,
    groups: object | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> KNN:
    r"""Cosine kNN with weights :math:`e^{s/\tau}` renormalised over the first k neighbours of every k.

    Without a test set every training sample is classified by the others (leave one out). Classes are those of train and
    test together. Every k is capped at the number of neighbours there are. Multi-label matrices average neighbours'
    labels with the same weights. Neighbours come from the engine's streaming top-k: no score matrix is kept.

    Official scripts take one softmax over the largest k and cut it, so that probabilities of smaller k do not sum to
    one; here every k has its own.

    >>> z = torch.eye(3).repeat(4, 1)
    >>> knn(z, [0, 1, 2] * 4, ks=(1, 3)).by_k[3].metrics["accuracy"]
    1.0

    Source: the protocol of Wu et al. (instance discrimination, 2018) and Caron et al. (DINO, 2021).
    """
    leave_one_out = test is None
    if leave_one_out:
        bank_labels, query_labels = encode_labels(train_labels, train_labels)
    else:
        bank_labels, query_labels = encode_labels(train_labels, test_labels)
    bank = features("train", train, normalize=True)
    queries = bank if test is None else features("test", test, normalize=True).to(bank.dtype)
    for name, z, labels in (("train", bank, bank_labels), ("test", queries, query_labels)):
        if len(z) != len(labels.codes):
            raise ValueError(f"{name}: {len(z)} feature rows but {len(labels.codes)} labels")
    known = bank_labels.present
    labelled = int(known.sum())
    available = labelled - int(leave_one_out)
    if available < 1:
        raise ValueError("kNN needs at least one labelled neighbour")
    ks = sorted({min(k, available) for k in ks})
    if leave_one_out:
        columns = torch.as_tensor(known, device=bank.device)
        scores, neighbours = topk_scores(bank, bank, ks[-1], exclude=Self(), valid_cols=columns)
        known = np.ones_like(known)  # unlabelled columns are never neighbours, but keep their place
    else:
        scores, neighbours = topk_scores(queries, take(bank, known), ks[-1])
    if query_labels.multilabel:
        targets = torch.as_tensor(one_hot(bank_labels)[known], device=bank.device)
        probabilities = multilabel_vote(scores, neighbours, targets, ks, temperature)
    else:
        codes = torch.as_tensor(bank_labels.codes[known], device=bank.device)
        probabilities = class_vote(scores, neighbours, codes, len(bank_labels.classes), ks, temperature)
    score = score_multilabel if query_labels.multilabel else score_classes
    array = None if groups is None else np.asarray(groups)
    by_k = {k: score(p, query_labels, groups=array, n_boot=n_boot, seed=seed) for k, p in probabilities.items()}
    key = "auprc" if query_labels.multilabel else "accuracy"
    best = max(ks, key=lambda k: by_k[k].metrics.get(key, 0.0))
    return KNN(best, by_k, temperature, labelled, leave_one_out, probabilities)


def class_vote(
    scores: Float[Tensor, "m k"], neighbours: Tensor, codes: Tensor, classes: int, ks: Sequence[int], temperature: float
) -> dict[int, np.ndarray]:
    """Class probabilities [m, classes] for every k from neighbours sorted best first."""
    names = codes[neighbours.clamp_min(0)].clamp_min(0)
    out = {}
    for k in ks:
        weight = torch.softmax(scores[:, :k].double() / temperature, dim=1)
        vote = weight.new_zeros(len(scores), classes).scatter_add_(1, names[:, :k], weight)
        out[k] = vote.cpu().numpy()
    return out


def multilabel_vote(
    scores: Float[Tensor, "m k"],
    neighbours: Tensor,
    targets: Float[Tensor, "n classes"],
    ks: Sequence[int],
    temperature: float,
) -> dict[int, np.ndarray]:
    """Weighted mean of the neighbours' labels; a missing label (NaN) of a neighbour leaves its weight to the others."""
    out = {k: np.zeros((len(scores), targets.shape[1])) for k in ks}
    known, values = torch.isfinite(targets).double(), torch.nan_to_num(targets)
    block = max(1, 4_000_000 // (scores.shape[1] * targets.shape[1]))
    for start in range(0, len(scores), block):
        rows = slice(start, start + block)
        index = neighbours[rows].clamp_min(0)
        for k in ks:
            weight = torch.softmax(scores[rows, :k].double() / temperature, dim=1)[:, None]
            vote, mass = (weight @ table[index[:, :k]] for table in (values, known))
            out[k][rows] = (vote / mass.clamp_min(1e-12)).squeeze(1).cpu().numpy()
    return out
