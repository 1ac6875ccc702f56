"""Zero-shot classification: samples against descriptions of the classes, several descriptions averaged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.classification import Scores, score_classes
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.labels import LabelSet, LabelsLike, encode_labels
from counterpoint.common.metrics.result import features
from counterpoint.common.metrics.scores import Score, score_named, usual_size


@accepts(matrices=["prompts"])
def prompt_ensemble(prompts: Float[Tensor, "prompts dim"], metric: str | Score = "cosine") -> Float[Tensor, dim]:
    """One class vector: every description normalised, averaged, normalised again; where the `metric` counts lengths,
    the plain mean, whose inner product is the mean of theirs.

    >>> prompt_ensemble(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    tensor([0.7071, 0.7071])
    """
    if not score_named(metric).unit:
        return features("prompts", prompts).mean(0)
    mean = features("prompts", prompts, normalize=True).mean(0)
    if float(mean.norm()) < 1e-6:
        raise ValueError("the descriptions of a class cancel out: their mean has no direction")
    return torch.nn.functional.normalize(mean, dim=0)


@accepts(matrices=["z", "descriptions"], arrays=["groups"])
def zero_shot(
    z: Float[Tensor, "n dim"],
    labels: LabelsLike,
    descriptions: Mapping[str, Float[Tensor, "prompts dim"]],
    *,
    temperature: float = 0.01,
    groups: object | None = None,
    metric: str | Score = "cosine",
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """Classify embeddings by the nearest class description (text, molecule, tag: anything the other tower encodes).

    Args:
        descriptions: class name -> embeddings of one or several descriptions of it. Every label must be among them.
        temperature: of the softmax that turns scores into probabilities; ranks do not depend on it. Scores of a metric
            that counts lengths are divided by their root mean squares.
        metric: how descriptions answer samples, see `SCORES`.

    >>> words = {"cat": torch.eye(2)[:1], "dog": torch.eye(2)[1:]}
    >>> zero_shot(torch.eye(2), ["cat", "dog"], words, n_boot=5).metrics["accuracy"]
    1.0
    """
    names = list(map(str, descriptions))
    (given,) = encode_labels(labels)
    unknown = sorted(set(given.classes) - set(names))
    if unknown:
        raise ValueError(f"no description of class {unknown[0]!r}; there are descriptions of {', '.join(names[:10])}")
    place = np.array([names.index(c) for c in given.classes], dtype=np.int64)
    codes = np.where(given.codes >= 0, place[np.maximum(given.codes, 0)] if len(place) else -1, -1)
    score = score_named(metric)
    w = torch.stack([prompt_ensemble(p, score) for p in descriptions.values()])
    z = score.scaled(features("z", z)).to(w.dtype)
    (keys, *more) = score.keys(w)
    scores = z @ keys.T if score.tile is None else score.tile(z, keys, *more)
    p = torch.softmax(scores.double() / (temperature * usual_size(score, z, w)), dim=1).cpu().numpy()
    coded = LabelSet(codes, tuple(names))
    return score_classes(p, coded, groups=None if groups is None else np.asarray(groups), n_boot=n_boot, seed=seed)
