"""Weighted nearest-neighbour classification of frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from counterpoint.common.kernels import SameLabel, topk_scores
from counterpoint.common.metrics.bootstrap import numbered_groups
from counterpoint.common.metrics.classification import Scores, score_classes, score_multilabel
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.labels import LabelsLike, encode_labels, one_hot, take
from counterpoint.common.metrics.result import Result, features
from counterpoint.common.metrics.scores import Score, score_named, usual_size, within

BLOCK = 8192  # queries whose neighbours are held at a time
AT_ONCE = 32_000_000  # neighbours of all rows of a set that may be held together (12 bytes each)


@dataclass(frozen=True)
class KNN(Result):
    """kNN at several k: `by_k[k]` are the figures; `k` is the one with the best accuracy on the samples scored.

    `k` is chosen on the very samples scored, so its figure flatters a little: quote a fixed k when comparing encoders.
    `metric` is the score by which neighbours are near.
    """

    k: int
    by_k: dict[int, Scores]
    temperature: float
    train: int
    leave_one_out: bool
    metric: str = "cosine"
    notes: tuple[str, ...] = ()
    probabilities: dict[int, np.ndarray] = field(default_factory=dict, metadata={"json": False})

    @property
    def best(self) -> Scores:
        return self.by_k[self.k]


@accepts(matrices=["train", "test"], arrays=["groups"])
def knn(
    train: Float[Tensor, "n dim"],
    train_labels: LabelsLike,
    test: Float[Tensor, "m dim"] | None = None,
    test_labels: LabelsLike | None = None,
    *,
    ks: Sequence[int] = (1, 5, 20, 200),
    temperature: float = 0.07,
    leave_one_out: bool | None = None,
    groups: object | None = None,
    metric: str | Score = "cosine",
    n_boot: int = 1000,
    seed: int = 0,
) -> KNN:
    r"""kNN with weights :math:`e^{s/\tau}` renormalised over the first k neighbours of every k.

    The score s is the cosine, or another `metric` of two samples (see `SCORES`); one whose vectors have lengths is
    divided by their root mean squares, so that :math:`\tau` does not depend on the vectors' unit. Joint metrics compare
    the modalities of a sample, not two samples of one: neighbours are then found by cosine, and `notes` say so.

    Without a test set every training sample is classified by the others; `leave_one_out=True` says the same of a test
    set whose row i is another picture of training row i. With `groups` (patient, recording) it is classified by those
    of other groups: a patient's other slices would name the patient, and with it the label. Classes are those of train
    and test together. Every k is capped at the number of neighbours there are. Multi-label matrices average neighbours'
    labels with the same weights. Neighbours come from the engine's streaming top-k: no score matrix is kept.

    Official scripts take one softmax over the largest k and cut it, so that probabilities of smaller k do not sum to
    one; here every k has its own.

    >>> z = torch.eye(3).repeat(4, 1)
    >>> knn(z, [0, 1, 2] * 4, ks=(1, 3)).by_k[3].metrics["accuracy"]
    1.0

    Source: the protocol of Wu et al. (instance discrimination, 2018) and Caron et al. (DINO, 2021).
    """
    leave_one_out = test is None if leave_one_out is None else leave_one_out
    if test is None:
        bank_labels, query_labels = encode_labels(train_labels, train_labels)
    else:
        bank_labels, query_labels = encode_labels(train_labels, test_labels)
    score = within(metric)
    bank = score.scaled(features("train", train))
    queries = bank if test is None else score.scaled(features("test", test).to(bank.dtype))
    temperature_of_unit, temperature = temperature, temperature * usual_size(score, queries, bank)
    for name, z, labels in (("train", bank, bank_labels), ("test", queries, query_labels)):
        if len(z) != len(labels.codes):
            raise ValueError(f"{name}: {len(z)} feature rows but {len(labels.codes)} labels")
    if leave_one_out and len(queries) != len(bank):
        raise ValueError(f"leaving one out pairs the rows, but there are {len(bank)} and {len(queries)}")
    known = bank_labels.present
    labelled = int(known.sum())
    array = None if groups is None else np.asarray(groups)
    unit = numbered_groups(groups, len(queries))[0] if leave_one_out and groups is not None else None
    available = labelled - (int(leave_one_out) if unit is None else int(np.bincount(unit[known]).max(initial=0)))
    if available < 1:
        raise ValueError(f"kNN needs at least one labelled neighbour{'' if unit is None else ' of another group'}")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks are numbers of neighbours, at least 1, got {list(ks)}")
    ks = sorted({min(k, available) for k in ks})
    # Where each query itself stands in the bank, so that leaving one out can take it from its neighbours.
    own = torch.as_tensor(np.where(known, np.cumsum(known) - 1, -1)) if leave_one_out and unit is None else None
    bank = take(bank, known)
    multilabel = query_labels.multilabel
    truth = one_hot(bank_labels)[known] if multilabel else bank_labels.codes[known]
    truth = torch.as_tensor(truth, device=bank.device)
    probabilities = {k: np.zeros((len(queries), len(bank_labels.classes))) for k in ks}
    held = ks[-1] + int(own is not None)
    # One call over a whole set against itself takes half the products: a tile serves its rows and its columns.
    itself = test is None and bool(known.all()) and len(bank) * held <= AT_ONCE
    block = len(bank) if itself else BLOCK
    for start in range(0, len(queries), block):
        rows = slice(start, min(start + block, len(queries)))
        owners = None
        if unit is not None:
            owners = tuple(torch.as_tensor(u, device=bank.device) for u in (unit[rows], unit[known]))
        scores, neighbours = _nearest(score, bank if itself else queries[rows], bank, held, owners)
        if own is not None:
            scores, neighbours = _without(own[rows].to(bank.device), scores, neighbours)
        for k in ks:
            weight = torch.softmax(scores[:, :k].double() / temperature, dim=1)
            vote = multilabel_vote if multilabel else class_vote
            probabilities[k][rows] = vote(weight, neighbours[:, :k], truth, len(bank_labels.classes)).cpu().numpy()
    scored = score_multilabel if query_labels.multilabel else score_classes
    options = {"groups": array, "n_boot": n_boot, "seed": seed}
    options |= {} if multilabel else {"learnt": bank_labels.codes[known]}
    by_k = {k: scored(p, query_labels, **options) for k, p in probabilities.items()}
    key = "auprc" if query_labels.multilabel else "accuracy"
    best = max(ks, key=lambda k: by_k[k].metrics.get(key, 0.0))
    asked = score_named(metric).name
    notes = () if asked == score.name else (
        f"neighbours are those by {score.name}: {asked} compares the modalities of a sample, not samples of one",
    )
    return KNN(best, by_k, temperature_of_unit, labelled, leave_one_out, score.name, notes, probabilities)


def _nearest(
    score: Score,
    queries: Float[Tensor, "m dim"],
    bank: Float[Tensor, "n dim"],
    k: int,
    owners: tuple[Int[Tensor, m], Int[Tensor, n]] | None,
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """The best k of the bank for every query, none of its own owner's."""
    if score.tile is None:
        return topk_scores(queries, bank, k, exclude=None if owners is None else SameLabel(*owners))
    prepared, best = score.keys(bank), None
    for start in range(0, len(bank), BLOCK):
        part = slice(start, start + BLOCK)
        scores = score.tile(queries, *(keys[part] for keys in prepared))
        if owners is not None:
            scores = scores.masked_fill(owners[0][:, None] == owners[1][None, part], -torch.inf)
        places = torch.arange(start, start + scores.shape[1], device=scores.device).expand_as(scores)
        if best is not None:
            scores, places = torch.cat([best[0], scores], 1), torch.cat([best[1], places], 1)
        scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
        best = scores, places.gather(1, order)
    return best


def _without(
    own: Int[Tensor, m], scores: Float[Tensor, "m k_plus_one"], neighbours: Int[Tensor, "m k_plus_one"]
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Take every row's own place out of its neighbours, or the farthest one where it is not among them."""
    drop = neighbours == own[:, None]
    drop[:, -1] |= ~drop.any(1)
    shape = len(scores), scores.shape[1] - 1
    return scores[~drop].view(shape), neighbours[~drop].view(shape)


def class_vote(
    weight: Float[Tensor, "m k"], neighbours: Int[Tensor, "m k"], codes: Int[Tensor, n], classes: int
) -> Float[Tensor, "m classes"]:
    """Class probabilities from the weights and codes of the neighbours."""
    return weight.new_zeros(len(weight), classes).scatter_add_(1, codes[neighbours], weight)


def multilabel_vote(
    weight: Float[Tensor, "m k"], neighbours: Int[Tensor, "m k"], targets: Float[Tensor, "n classes"], classes: int
) -> Float[Tensor, "m classes"]:
    """Weighted mean of the neighbours' labels; a missing label (NaN) of a neighbour leaves its weight to the others."""
    out = weight.new_zeros(len(weight), classes)
    known, values = torch.isfinite(targets).double(), torch.nan_to_num(targets)
    block = max(1, 4_000_000 // (weight.shape[1] * classes))
    for start in range(0, len(weight), block):
        rows = slice(start, start + block)
        vote, mass = (weight[rows, None] @ table[neighbours[rows]] for table in (values, known))
        out[rows] = (vote / mass.clamp_min(1e-12)).squeeze(1)
    return out
