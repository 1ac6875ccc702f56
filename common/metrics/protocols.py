"""The protocols, each a function of `Context`: what `evaluate` runs by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from counterpoint.common.metrics.clustering import cluster
from counterpoint.common.metrics.control import shuffled_control
from counterpoint.common.metrics.fewshot import few_shot, label_efficiency, simpleshot
from counterpoint.common.metrics.knn import knn
from counterpoint.common.metrics.label_free import label_free
from counterpoint.common.metrics.labels import encode_labels
from counterpoint.common.metrics.probe import logistic_probe, ridge_probe
from counterpoint.common.metrics.registry import Context, Split, protocol
from counterpoint.common.metrics.result import Result, features
from counterpoint.common.metrics.retrieval import retrieval
from counterpoint.common.metrics.robustness import missing_modality
from counterpoint.common.metrics.scores import score_named, within
from counterpoint.common.metrics.similarity import cka, mutual_knn
from counterpoint.common.metrics.zeroshot import zero_shot


def _key(name: str, modality: str) -> str:
    return f"{name} of {modality}" if modality else name


def _of(split: Split, modality: str) -> Tensor:
    """The features of a modality that the test split has."""
    if modality not in split.modalities:
        known = ", ".join(split.modalities)
        raise ValueError(f"the test split has the modality {modality!r}, the split learnt from only {known}")
    return split.modalities[modality]


def _each(c: Context, name: str, run: Callable[[str, Tensor], Result]) -> dict[str, Result]:
    return {_key(name, m): run(m, z) for m, z in c.test.modalities.items()}


@protocol("labelfree")
def _labelfree(c: Context) -> dict[str, Result]:
    """RankMe, LiDAR, alpha-ReQ, uniformity, spread of each modality."""
    views = c.test.views or {}
    labels = None
    if c.task == "classification":
        coded = encode_labels(c.test.labels)[0]
        labels = torch.as_tensor(coded.codes) if coded.present.all() else None
    own = _each(c, "labelfree", lambda m, z: label_free(z, views=views.get(m), labels=labels, seed=c.seed))
    pools = {m: z for m, z in c.test.all_modalities.items() if m in c.test.pools}
    return own | {_key("labelfree", m): label_free(z, seed=c.seed) for m, z in pools.items()}


@protocol("retrieval", "two modalities")
def _retrieval(c: Context) -> dict[str, Result]:
    """Retrieval in both directions for every pair of modalities that share a space; for every modality against all
    others together where the metric is a joint one."""
    found: dict[str, Result] = {}
    split, joint = c.test, score_named(c.test.metric).joint
    options = {"metric": split.metric, "ks": c.ks, "n_boot": c.n_boot, "seed": c.seed}
    z = split.modalities if joint else split.all_modalities
    for a, others in _ways(z, joint):
        relevant, exclude = (None, None) if joint else split.truth(a, others[0])
        both = retrieval(
            z[a], tuple(z[b] for b in others) if joint else z[others[0]],
            relevant=relevant, exclude=exclude, names=(a, " + ".join(others)),
            groups=split.groups_of(a), groups_b=split.groups_of(others[0]), **options,
        )  # fmt: skip
        found |= {f"retrieval {w.name} (pool {w.pool})": w for w in (both.a_to_b, both.b_to_a)}
    return found


def _ways(z: Mapping[str, Tensor], joint: bool) -> list[tuple[str, tuple[str, ...]]]:
    """A modality and those that a key consists of."""
    names = list(z)
    if joint and len(names) > 2:
        return [(a, tuple(b for b in names if b != a)) for a in names]
    return [(a, (b,)) for i, a in enumerate(names) for b in names[i + 1 :] if z[a].shape[1] == z[b].shape[1]]


@dataclass(frozen=True)
class AlignmentFigures(Result):
    """Likeness of two modalities' representations of the same samples."""

    cka: float
    mutual_knn: float
    k: int
    chance_mutual_knn: float


@protocol("alignment", "pairs")
def _alignment(c: Context) -> dict[str, Result]:
    """Debiased CKA and mutual nearest neighbours of every pair of modalities."""
    names, n = list(c.test.modalities), c.test.rows
    k = min(10, n - 1)
    return {
        f"alignment {a} ~ {b}": AlignmentFigures(
            cka(c.test.modalities[a], c.test.modalities[b]),
            mutual_knn(c.test.modalities[a], c.test.modalities[b], k=k),
            k,
            k / (n - 1),
        )
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    }


@protocol("knn", "labels", "no regression")
def _knn(c: Context) -> dict[str, Result]:
    """kNN by the system's metric, also of modalities with labelled rows of their own; among the other groups of the
    test split when there is no training split."""
    found = {}
    for m in c.test.all_modalities:
        part, bank = (None if split is None else split.pools.get(m, split) for split in (c.test, c.train))
        if part.labels is None:
            continue
        z = _of(part, m if part is c.test else "")
        options = {"groups": part.groups, "metric": c.test.metric, "n_boot": c.n_boot, "seed": c.seed}
        if bank is None or bank.labels is None:
            found[_key("knn", m)] = knn(z, part.labels, **options)
        else:
            learnt = _of(bank, m if bank is c.train else "")
            found[_key("knn", m)] = knn(learnt, bank.labels, z, part.labels, **options)
    return found


@protocol("probe", "labels", "train")
def _probe(c: Context) -> dict[str, Result]:
    """Logistic probe (ridge for regression) that chooses its own penalty."""
    assert c.train is not None
    train, fit = c.train, ridge_probe if c.task == "regression" else logistic_probe
    target = "val_targets" if c.task == "regression" else "val_labels"

    def run(m: str, z: Tensor) -> Result:
        extra = {} if c.val is None or c.val.labels is None else {"val": _of(c.val, m), target: c.val.labels}
        return fit(
            _of(train, m), train.labels, z, c.test.labels,
            groups=c.test.groups, train_groups=train.groups, n_boot=c.n_boot, seed=c.seed, **extra,
        )  # fmt: skip

    return _each(c, "ridge" if c.task == "regression" else "logreg", run)


@protocol("simpleshot", "classes", "train")
def _simpleshot(c: Context) -> dict[str, Result]:
    """Nearest class mean after centring."""
    train, options = c.train, {"groups": c.test.groups, "n_boot": c.n_boot, "seed": c.seed}
    assert train is not None
    return _each(c, "simpleshot", lambda m, z: simpleshot(_of(train, m), train.labels, z, c.test.labels, **options))


@protocol("zeroshot", "classes", "descriptions")
def _zeroshot(c: Context) -> dict[str, Result]:
    """Nearest class description, for every modality that shares the descriptions' space."""
    assert c.descriptions is not None
    width = next(iter(c.descriptions.values())).shape[1]
    options = {"groups": c.test.groups, "metric": c.test.metric, "n_boot": c.n_boot, "seed": c.seed}
    found: dict[str, Result] = {
        _key("zeroshot", m): zero_shot(z, c.test.labels, c.descriptions, **options)
        for m, z in c.test.modalities.items()
        if z.shape[1] == width
    }
    if not found:
        widths = ", ".join(f"{m} {z.shape[1]}" for m, z in c.test.modalities.items())
        raise ValueError(f"descriptions have {width} dimensions, which no modality has ({widths})")
    return found


@protocol("fewshot", "classes")
def _fewshot(c: Context) -> dict[str, Result]:
    """5-shot episodes over all classes of the test split."""
    options = {"episodes": 200, "seed": c.seed, "groups": c.test.groups}
    return _each(c, "fewshot", lambda m, z: few_shot(z, c.test.labels, n_query=10, **options))


@protocol("cluster", "classes")
def _cluster(c: Context) -> dict[str, Result]:
    """k-means against the classes."""
    seeds = (c.seed, c.seed + 1, c.seed + 2)
    return _each(c, "cluster", lambda m, z: cluster(z, c.test.labels, seeds=seeds))


@protocol("efficiency", "classes", "train")
def _efficiency(c: Context) -> dict[str, Result]:
    """Balanced accuracy of a probe at 1, 10 and 100 % of the labels."""
    train = c.train
    assert train is not None
    return _each(
        c, "efficiency",
        lambda m, z: label_efficiency(_of(train, m), train.labels, z, c.test.labels, train_groups=train.groups),
    )  # fmt: skip


@protocol("missing", "pairs", "classes")
def _missing(c: Context) -> dict[str, Result]:
    """kNN over all modalities together when some are missing at test time."""
    bank = c.test if c.train is None or c.train.labels is None else c.train
    names = [m for m in c.test.modalities if m in bank.modalities]

    def joined(split: Split, kept: frozenset[str]) -> Tensor:
        """The modalities side by side, each as the metric takes it, zeros where one is missing."""
        parts = [within(c.test.metric).scaled(features(m, split.modalities[m])) for m in names]
        return torch.cat([z if m in kept else torch.zeros_like(z) for m, z in zip(names, parts)], dim=1)

    def score(kept: frozenset[str]) -> float:
        known = joined(bank, frozenset(names))
        if bank is c.test:
            # Every sample, with what is left of it, among those of other groups, which are whole.
            options = {"groups": c.test.groups, "leave_one_out": True}
        else:
            options = {}
        options |= {"ks": (5,), "n_boot": 1, "metric": c.test.metric}
        found = knn(known, bank.labels, joined(c.test, kept), c.test.labels, **options)
        return found.best.metrics["balanced_accuracy"]

    return {f"missing of {', '.join(names)}": missing_modality(score, names)}


@protocol("control", "classes")
def _control(c: Context) -> dict[str, Result]:
    """kNN among the other groups on shuffled labels: chance, or there is a leak."""
    chance = 1 / len(encode_labels(c.test.labels)[0].classes)

    def run(_: str, z: Tensor) -> Result:
        def score(labels: list) -> float:
            options = {"groups": c.test.groups, "metric": c.test.metric, "n_boot": 1}
            return knn(z, labels, ks=(5,), **options).best.metrics["balanced_accuracy"]

        return shuffled_control(score, c.test.labels, chance=chance, groups=c.test.groups, seed=c.seed)

    return _each(c, "control", run)
