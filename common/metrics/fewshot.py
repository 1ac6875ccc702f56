"""Few labels: nearest class means, episodes, and how figures grow with the share of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.metrics.bootstrap import Interval, numbered_groups, t_interval
from counterpoint.common.metrics.bounds import metric_bounds
from counterpoint.common.metrics.classification import Scores, score_classes
from counterpoint.common.metrics.inputs import accepts
from counterpoint.common.metrics.knn import knn
from counterpoint.common.metrics.labels import LabelsLike, encode_labels, take
from counterpoint.common.metrics.probe import logistic_probe
from counterpoint.common.metrics.result import Result, features


@accepts(matrices=["train", "test"], arrays=["groups"])
def simpleshot(
    train: Float[Tensor, "n dim"],
    train_labels: LabelsLike,
    test: Float[Tensor, "m dim"],
    test_labels: LabelsLike,
    *,
    groups: object | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scores:
    """Nearest class mean after centring by the training mean and normalising; probabilities are softmax(-distance^2).

    >>> z = torch.eye(3).repeat(4, 1)
    >>> simpleshot(z, [0, 1, 2] * 4, z, [0, 1, 2] * 4, n_boot=10).metrics["accuracy"]
    1.0

    Source: Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot learning", 2019 (CL2N).
    """
    support, query = encode_labels(train_labels, test_labels)
    if support.multilabel:
        raise ValueError("nearest class means need one class per sample; multi-label sets can use kNN or a probe")
    keep = support.present
    _check_rows("train", train, len(keep))
    if not keep.any():
        raise ValueError("no training sample carries a label: there is no class mean")
    z, z_test = take(features("train", train), keep).double(), features("test", test).double()
    codes = torch.as_tensor(support.codes[keep], device=z.device)
    negative, seen = _class_means(z, codes, z_test)
    p = np.zeros((len(z_test), len(support.classes)))
    p[:, seen.cpu().numpy()] = torch.softmax(negative, dim=1).cpu().numpy()
    groups = None if groups is None else np.asarray(groups)
    return score_classes(p, query, groups=groups, n_boot=n_boot, seed=seed, learnt=support.codes[keep])


def _class_means(z: Tensor, codes: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Minus squared distance of each query to each class mean, in the space centred by the support and normalised."""
    mean = z.mean(0)
    z, queries = (torch.nn.functional.normalize(x - mean, dim=1) for x in (z, queries))
    seen, place = codes.unique(return_inverse=True)
    sums = z.new_zeros(len(seen), z.shape[1]).index_add_(0, place, z)
    means = sums / torch.bincount(place)[:, None]
    return -(torch.cdist(queries, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2), seen


@dataclass(frozen=True)
class Episodes(Result):
    """Accuracy over few-shot episodes: mean with the interval of the mean over episodes (not over new samples)."""

    accuracy: Interval
    chance: float
    n_way: int
    k_shot: int
    n_query: int
    episodes: int
    per_episode: np.ndarray = field(metadata={"json": False})


@accepts(matrices=["z"], arrays=["groups"])
def few_shot(
    z: Float[Tensor, "n dim"],
    labels: LabelsLike,
    *,
    n_way: int | None = None,
    k_shot: int = 5,
    n_query: int = 15,
    episodes: int = 1000,
    groups: object | None = None,
    seed: int = 0,
) -> Episodes:
    """n-way k-shot episodes classified by nearest class mean.

    Each episode draws `n_way` classes (all of them when None), `k_shot` supports and `n_query` queries of each. With
    `groups`, no query shares a group (patient, recording) with a support of the episode. Classes with too few samples
    are never drawn.

    >>> z = torch.eye(4).repeat(30, 1)
    >>> few_shot(z, [0, 1, 2, 3] * 30, n_way=3, k_shot=2, episodes=20).accuracy.value
    1.0
    """
    (coded,) = encode_labels(labels)
    x = features("z", z).double()
    _check_rows("z", x, len(coded.codes))
    units, _ = numbered_groups(groups, len(x))
    rng = np.random.default_rng(seed)
    members = {c: np.flatnonzero(coded.codes == c) for c in range(len(coded.classes))}
    usable = [c for c, rows in members.items() if len(rows) >= k_shot + n_query]
    ways = len(usable) if n_way is None else n_way
    if ways < 2 or len(usable) < ways:
        raise ValueError(
            f"episodes need {max(ways, 2)} classes of at least {k_shot + n_query} samples each ({k_shot} to learn "
            f"from, {n_query} to classify); {len(usable)} have them"
        )
    figures = []
    for _ in range(episodes):
        support, query, truth = [], [], []
        chosen = rng.choice(usable, ways, replace=False)
        for c in chosen:
            support.append(rng.permutation(members[c])[:k_shot])
        taken = np.unique(units[np.concatenate(support)])
        for place, c in enumerate(chosen):
            free = members[c][~np.isin(units[members[c]], taken)]
            rows = rng.permutation(free)[:n_query]
            query.append(rows)
            truth.append(np.full(len(rows), place))
        rows, answer = np.concatenate(query), np.concatenate(truth)
        if len(rows) == 0:
            continue  # every group of these classes stands in the support
        codes = torch.arange(ways).repeat_interleave(k_shot).to(x.device)
        negative, _ = _class_means(take(x, np.concatenate(support)), codes, take(x, rows))
        figures.append(float((negative.argmax(1).cpu().numpy() == answer).mean()))
    if not figures:
        raise ValueError("no episode had a query outside its support's groups: fewer shots or more groups are needed")
    values = np.array(figures)
    return Episodes(t_interval(values, bounds=(0.0, 1.0)), 1 / ways, ways, k_shot, n_query, len(values), values)


def _check_rows(name: str, z: Tensor, labels: int) -> None:
    if len(z) != labels:
        raise ValueError(f"{name}: {len(z)} feature rows but {labels} labels")


@dataclass(frozen=True)
class LabelEfficiency(Result):
    """Test figure at growing shares of labels: rows of (fraction, labelled samples, interval over seeds).

    A share that comes to the same samples as the next larger one has no row of its own; `notes` says so.
    """

    method: str
    metric: str
    chance: float
    fractions: list[float]
    samples: list[float]
    intervals: list[Interval]
    per_seed: np.ndarray = field(metadata={"json": False})
    notes: list[str] = field(default_factory=list)


def nested_subset(
    codes: np.ndarray, groups: np.ndarray, fractions: Sequence[float], seed: int
) -> dict[float, np.ndarray]:
    """Rows of growing subsets, each inside the next, made of whole groups with every class kept in proportion.

    Groups are shuffled within their most frequent class and dealt round by share, so a prefix of the order is balanced.
    """
    rng = np.random.default_rng(seed)
    _, unit = np.unique(groups, return_inverse=True)
    count = unit.max() + 1
    pairs, rows = np.unique(np.stack([unit, codes]), axis=1, return_counts=True)
    largest = np.lexsort((pairs[1], -rows, pairs[0]))  # group by group, its most frequent class first
    majority = pairs[1, largest[np.unique(pairs[0], return_index=True)[1]]]
    place = np.empty(count)
    for c in np.unique(majority):
        mine = rng.permutation(np.flatnonzero(majority == c))
        # Evenly spread ranks: group i of n of a class stands at (i + u) / n, u in [0, 1).
        place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    holders = {c: pairs[0, pairs[1] == c] for c in np.unique(codes).tolist()}
    sizes = np.bincount(unit)
    order = np.argsort(place, kind="stable")
    reached = np.cumsum(sizes[order])
    subsets = {}
    if not all(0 < f <= 1 for f in fractions):
        raise ValueError(f"fractions of the labels lie in (0, 1], got {list(fractions)}")
    for f in sorted(fractions):
        last = int(np.searchsorted(reached, f * len(codes) - 1e-9)) + 1
        chosen = set(order[: min(last, count)].tolist())
        for c, mine in holders.items():  # never lose a class, not even one that is nowhere the most frequent
            chosen.add(int(min(mine, key=lambda g: (majority[g] != c, place[g]))))
        subsets[f] = np.flatnonzero(np.isin(unit, list(chosen)))
    return subsets


@accepts(matrices=["train", "test"], arrays=["train_groups"])
def label_efficiency(
    train: Float[Tensor, "n dim"],
    train_labels: LabelsLike,
    test: Float[Tensor, "m dim"],
    test_labels: LabelsLike,
    *,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    method: str = "logreg",
    metric: str = "balanced_accuracy",
    train_groups: object | None = None,
) -> LabelEfficiency:
    """Test figure of a probe ("logreg", "knn" or "simpleshot") trained on 1, 10, 100 % of the labelled groups.

    Subsets are nested within a seed and stratified by class; intervals are Student's t over seeds. Every class keeps at
    least one group, so the smallest share can be larger than asked: `samples` says what was used.
    """
    coded, tests = encode_labels(train_labels, test_labels)
    _check_rows("train", train, len(coded.codes))
    rows = np.flatnonzero(coded.present)
    units = np.arange(len(rows)) if train_groups is None else np.asarray(train_groups)[rows]
    y_train = coded.codes[rows]  # codes keep the order of the classes, which names as text would not
    y_test = [int(c) if c >= 0 else None for c in tests.codes]
    methods = {"logreg": logistic_probe, "knn": knn, "simpleshot": simpleshot}
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
    drawn = [nested_subset(coded.codes[rows], units, fractions, seed) for seed in seeds]
    fractions, notes = _different(drawn)
    table, samples, chance = np.zeros((len(fractions), len(seeds))), np.zeros(len(fractions)), 0.0
    for j, seed in enumerate(seeds):
        for i, f in enumerate(fractions):
            part = drawn[j][f]
            options = {"n_boot": 1}
            if method == "logreg":
                options |= {"train_groups": units[part], "c_grid": (1e-3, 1e-2, 1e-1, 1.0, 10.0), "seed": seed}
            elif method == "knn":
                options |= {"ks": (5,)}
            x, y = take(train, rows[part]), y_train[part]
            result = methods[method](x, y, test, y_test, **options)
            scores = result if isinstance(result, Scores) else getattr(result, "scores", None) or result.best
            table[i, j], chance = scores.metrics[metric], scores.chance[metric]
            samples[i] += len(part) / len(seeds)
    intervals = [t_interval(row, bounds=metric_bounds(metric)) for row in table]
    return LabelEfficiency(method, metric, chance, fractions, samples.tolist(), intervals, table, notes)


def _different(drawn: Sequence[dict[float, np.ndarray]]) -> tuple[list[float], list[str]]:
    """The shares that come to samples of their own for some seed, and in words those that do not."""
    fractions, kept, notes = sorted(drawn[0]), [], []
    for small, large in zip(fractions, [*fractions[1:], None]):
        if large is None or not all(np.array_equal(subsets[small], subsets[large]) for subsets in drawn):
            kept.append(small)
        else:
            why = "every class keeps one group"
            notes.append(f"{100 * small:g} % of the labels are the same samples as {100 * large:g} %, for {why}")
    return kept, notes
