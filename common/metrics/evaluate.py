"""`evaluate(test, train, protocols=...)`: every protocol in one call, as JSON that says what was measured on what."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.metrics.clustering import cluster
from counterpoint.common.metrics.control import shuffled_control
from counterpoint.common.metrics.fewshot import few_shot, label_efficiency, simpleshot
from counterpoint.common.metrics.knn import knn
from counterpoint.common.metrics.label_free import label_free
from counterpoint.common.metrics.labels import LabelsLike, encode_labels
from counterpoint.common.metrics.probe import logistic_probe, ridge_probe
from counterpoint.common.metrics.result import Result, plain
from counterpoint.common.metrics.retrieval import retrieval
from counterpoint.common.metrics.similarity import cka, mutual_knn


@dataclass(frozen=True)
class Split:
    """Features of one split: one matrix, or one per modality with rows belonging together.

    Attributes:
        features: [n, dim] or {modality: [n, dim]}.
        labels: class per row, or [n, classes] 0/1/NaN matrix, or numbers when the task is regression; None without.
        groups: resampling unit of each row (patient, scene, piece).
        views: {modality: [n, views, dim]} for LiDAR.
    """

    features: Tensor | Mapping[str, Tensor]
    labels: LabelsLike | None = None
    groups: object | None = None
    views: Mapping[str, Tensor] | None = None

    @property
    def modalities(self) -> dict[str, Tensor]:
        return dict(self.features) if isinstance(self.features, Mapping) else {"": self.features}

    @property
    def rows(self) -> int:
        return len(next(iter(self.modalities.values())))

    def digest(self) -> str:
        """sha256 over shapes, float32 features, labels and groups: two equal digests mean the same evaluation data."""
        seen = hashlib.sha256()
        for name, z in sorted(self.modalities.items()):
            seen.update(f"{name}{tuple(z.shape)}".encode())
            seen.update(np.ascontiguousarray(z.detach().cpu().float().numpy()).tobytes())
        for extra in (self.labels, self.groups):
            values = extra.tolist() if hasattr(extra, "tolist") else extra
            seen.update(json.dumps(values, default=str).encode())
        return seen.hexdigest()


@dataclass(frozen=True)
class Context:
    """What a protocol gets: the splits, the task and the seed."""

    test: Split
    train: Split | None
    val: Split | None
    task: str
    ks: tuple[int, ...]
    seed: int
    n_boot: int


Run = Callable[[Context], Mapping[str, Result]]


@dataclass(frozen=True)
class Protocol:
    """A registered way to evaluate: what it needs and the function that runs it."""

    name: str
    needs: tuple[str, ...]  # of: labels, train, pairs, classes
    summary: str
    run: Run


PROTOCOLS: dict[str, Protocol] = {}


def protocol(name: str, *needs: str) -> Callable[[Run], Run]:
    """Register a function of `Context` that returns {result name: Result}; its first docstring line is the summary."""

    def register(run: Run) -> Run:
        PROTOCOLS[name] = Protocol(name, needs, (run.__doc__ or "").strip().splitlines()[0], run)
        return run

    return register


@dataclass(frozen=True)
class Evaluation(Result):
    """Results of all protocols with what is needed to compare them later."""

    results: dict[str, Result]
    skipped: dict[str, str]
    task: str
    samples: dict[str, int]
    groups: dict[str, int]
    data_hash: dict[str, str]
    seed: int
    bootstrap: int
    dtype: str
    versions: dict[str, str] = field(default_factory=dict)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Write as JSON (to a temporary name, then renamed)."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(plain(self), indent=2) + "\n")
        return temporary.replace(path)

    def markdown(self) -> str:
        """A Markdown table of every figure that has an interval."""
        lines = ["| protocol | metric | value | 95 % interval | chance |", "|---|---|---:|---|---:|"]
        for name, metric, i, chance in self.figures():
            level = "" if chance is None else f"{chance:.3g}"
            lines.append(f"| {name} | {metric} | {i.value:.3f} | {i.low:.3f} – {i.high:.3f} | {level} |")
        return "\n".join(lines)

    def figures(self) -> list[tuple[str, str, object, float | None]]:
        """(protocol, metric, interval, chance) of every figure with an interval."""
        rows = []
        for name, result in self.results.items():
            scores = getattr(result, "scores", None) or getattr(result, "best", None) or result
            intervals = getattr(scores, "intervals", None)
            if isinstance(intervals, dict):
                rows += [(name, m, i, scores.chance.get(m)) for m, i in intervals.items()]
            elif isinstance(metrics := getattr(result, "metrics", None), dict):
                rows += [(name, m, i, None) for m, i in metrics.items()]
            elif (accuracy := getattr(result, "accuracy", None)) is not None:
                rows.append((name, "accuracy", accuracy, result.chance))  # type: ignore[attr-defined]
        return rows


def evaluate(
    test: Split,
    train: Split | None = None,
    val: Split | None = None,
    *,
    protocols: Sequence[str] | str = "auto",
    task: str = "auto",
    ks: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    n_boot: int = 1000,
) -> Evaluation:
    """Run evaluation protocols on frozen features.

    Args:
        test, train, val: features with labels and groups; labels and the last two are optional.
        protocols: names from `PROTOCOLS`, or "auto" for the default ones the data allow. A protocol asked for by name
            that lacks something it needs is an error; under "auto" it is listed in `skipped` with the reason.
        task: "classification", "multilabel", "regression", or "auto" (by the labels' shape; numbers with more than
            twenty different values that are not integers are regression).

    >>> z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> report = evaluate(Split(z, labels=[0, 1] * 30), n_boot=10)
    >>> sorted(report.results)
    ['cluster', 'fewshot', 'knn', 'labelfree']
    """
    task = _task(test.labels) if task == "auto" else task
    context = Context(test, train, val, task, tuple(ks), seed, n_boot)
    given = _given(context)
    default = [n for n in PROTOCOLS if n not in ("efficiency", "control")]
    names = default if protocols == "auto" else [protocols] if isinstance(protocols, str) else list(protocols)
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; there are {', '.join(PROTOCOLS)}")
        if missing := [n for n in PROTOCOLS[name].needs if n not in given]:
            if protocols != "auto":
                raise ValueError(f"protocol {name!r} needs {', '.join(missing)}, which the data given lack")
            skipped[name] = f"needs {', '.join(missing)}"
            continue
        try:
            results |= PROTOCOLS[name].run(context)
        except ValueError as error:
            if protocols != "auto":
                raise
            skipped[name] = str(error)
    splits = {n: s for n, s in (("test", test), ("train", train), ("val", val)) if s is not None}
    return Evaluation(
        results=results,
        skipped=skipped,
        task=task,
        samples={n: s.rows for n, s in splits.items()},
        groups={n: s.rows if s.groups is None else len(set(_names(s.groups))) for n, s in splits.items()},
        data_hash={n: s.digest() for n, s in splits.items()},
        seed=seed,
        bootstrap=n_boot,
        dtype=str(next(iter(test.modalities.values())).dtype).removeprefix("torch."),
        versions={p: version(p) for p in ("counterpoint", "torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
    )


def _given(c: Context) -> set[str]:
    given = set()
    labelled = c.test.labels is not None
    if labelled:
        given |= {"labels"} | ({"classes"} if c.task == "classification" else set())
        given |= {"no regression"} if c.task != "regression" else set()
    if c.train is not None and c.train.labels is not None and labelled:
        given |= {"train"}
    if len(c.test.modalities) > 1:
        given |= {"pairs"}
    return given


def _task(labels: LabelsLike | None) -> str:
    if labels is None:
        return "unlabelled"
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if isinstance(array, np.ndarray) and array.ndim == 2:
        return "multilabel"
    values = np.asarray(array)
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        if len(np.unique(finite)) > 20 and not np.array_equal(finite, np.round(finite)):
            return "regression"
    return "classification"


def _names(values: object) -> list:
    return values.tolist() if hasattr(values, "tolist") else list(values)  # type: ignore[call-overload]


def _key(name: str, modality: str) -> str:
    return f"{name} of {modality}" if modality else name


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
    return _each(c, "labelfree", lambda m, z: label_free(z, views=views.get(m), labels=labels, seed=c.seed))


@protocol("retrieval", "pairs")
def _retrieval(c: Context) -> dict[str, Result]:
    """Cross-modal retrieval in both directions for every pair of modalities."""
    found: dict[str, Result] = {}
    names = list(c.test.modalities)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            x, y = c.test.modalities[a], c.test.modalities[b]
            if x.shape[1] != y.shape[1]:
                continue  # not one space
            options = {"ks": c.ks, "groups": c.test.groups, "n_boot": c.n_boot, "seed": c.seed}
            both = retrieval(x, y, names=(a, b), **options)
            found |= {f"retrieval {w.name} (pool {w.pool})": w for w in (both.a_to_b, both.b_to_a)}
    return found


@dataclass(frozen=True)
class Alignment(Result):
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
        f"alignment {a} ~ {b}": Alignment(
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
    """Cosine kNN; leave-one-out on the test split when there is no training split."""
    options = {"groups": c.test.groups, "n_boot": c.n_boot, "seed": c.seed}
    if c.train is None or c.train.labels is None:
        return _each(c, "knn", lambda m, z: knn(z, c.test.labels, **options))
    bank = c.train
    return _each(c, "knn", lambda m, z: knn(bank.modalities[m], bank.labels, z, c.test.labels, **options))


@protocol("probe", "labels", "train")
def _probe(c: Context) -> dict[str, Result]:
    """Logistic probe (ridge for regression) that chooses its own penalty."""
    assert c.train is not None
    train, fit = c.train, ridge_probe if c.task == "regression" else logistic_probe
    target = "val_targets" if c.task == "regression" else "val_labels"

    def run(m: str, z: Tensor) -> Result:
        extra = {} if c.val is None or c.val.labels is None else {"val": c.val.modalities[m], target: c.val.labels}
        return fit(
            train.modalities[m], train.labels, z, c.test.labels,
            groups=c.test.groups, train_groups=train.groups, n_boot=c.n_boot, seed=c.seed, **extra,
        )  # fmt: skip

    return _each(c, "ridge" if c.task == "regression" else "logreg", run)


@protocol("simpleshot", "classes", "train")
def _simpleshot(c: Context) -> dict[str, Result]:
    """Nearest class mean after centring."""
    train, options = c.train, {"groups": c.test.groups, "n_boot": c.n_boot, "seed": c.seed}
    assert train is not None
    return _each(
        c, "simpleshot", lambda m, z: simpleshot(train.modalities[m], train.labels, z, c.test.labels, **options)
    )


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
        lambda m, z: label_efficiency(train.modalities[m], train.labels, z, c.test.labels, train_groups=train.groups),
    )  # fmt: skip


@protocol("control", "classes")
def _control(c: Context) -> dict[str, Result]:
    """Leave-one-out kNN on shuffled labels: chance, or there is a leak."""
    chance = 1 / len(encode_labels(c.test.labels)[0].classes)

    def run(_: str, z: Tensor) -> Result:
        def score(labels: list) -> float:
            return knn(z, labels, ks=(5,), n_boot=1).best.metrics["balanced_accuracy"]

        return shuffled_control(score, c.test.labels, chance=chance, groups=c.test.groups, seed=c.seed)

    return _each(c, "control", run)
