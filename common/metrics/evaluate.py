"""`evaluate_features(test, train, protocols=...)`: every protocol in one call, as JSON that says what was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from counterpoint.common.metrics import protocols as _protocols  # noqa: F401  (fills the table)
from counterpoint.common.metrics.bootstrap import Interval
from counterpoint.common.metrics.classification import Scores
from counterpoint.common.metrics.fewshot import LabelEfficiency
from counterpoint.common.metrics.inputs import as_array, as_list, as_table
from counterpoint.common.metrics.labels import LabelsLike, defines_groups
from counterpoint.common.metrics.registry import NEEDS, PROTOCOLS, Context, Split
from counterpoint.common.metrics.result import Result, features, json_ready

_LABELLED = ("labels", "classes", "no regression", "train")


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
        temporary.write_text(json.dumps(json_ready(self), indent=2) + "\n")
        return temporary.replace(path)

    def markdown(self) -> str:
        """A Markdown table of every figure that has an interval."""
        lines = ["| protocol | metric | value | 95 % interval | chance |", "|---|---|---:|---|---:|"]
        for name, metric, i, chance in self.figures():
            level = "" if chance is None else f"{chance:.3g}"
            span = f"{i.low:.3f} – {i.high:.3f}" if i.known else ""
            lines.append(f"| {name} | {metric} | {i.value:.3f} | {span} | {level} |")
        return "\n".join(lines)

    def notes(self) -> list[tuple[str, str]]:
        """(protocol, what to distrust about its figures)."""
        said = ((name, note) for name, r in self.results.items() for note in (*_sentences(_scores(r)), *_sentences(r)))
        found = list(dict.fromkeys(said))
        for name, _, interval, _ in self.figures():  # classification and regression say so themselves
            silent = interval.missing and not isinstance(_scores(self.results[name]), Scores)
            if silent and (name, interval.missing) not in found:
                found.append((name, interval.missing))
        return found

    def figures(self) -> list[tuple[str, str, Interval, float | None]]:
        """(protocol, metric, interval, chance) of every figure with an interval."""
        rows: list[tuple[str, str, Interval, float | None]] = []
        for name, result in self.results.items():
            scores = _scores(result)
            intervals = getattr(scores, "intervals", None)
            if isinstance(result, LabelEfficiency):
                shares = zip(result.fractions, result.intervals)
                rows += [(name, f"{result.metric}, {100 * f:g} % of labels", i, result.chance) for f, i in shares]
            elif isinstance(intervals, dict):
                chance = getattr(scores, "chance", None)
                levels = chance if isinstance(chance, Mapping) else {}
                rows += [(name, m, i, levels.get(m)) for m, i in intervals.items() if isinstance(i, Interval)]
            elif isinstance(metrics := getattr(result, "metrics", None), dict):
                rows += [(name, m, i, None) for m, i in metrics.items() if isinstance(i, Interval)]
            elif isinstance(accuracy := getattr(result, "accuracy", None), Interval):
                rows.append((name, "accuracy", accuracy, getattr(result, "chance", None)))
        return rows


def _sentences(result: Any) -> Sequence[str]:
    """The notes of a result; a field of that name in a vertical's own may hold anything."""
    notes = getattr(result, "notes", None)
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []


def _scores(result: Result) -> Any:
    """The figures inside a result: a probe's scores, the best k of kNN, else the result itself."""
    return getattr(result, "scores", None) or getattr(result, "best", None) or result


def evaluate_features(
    test: Split,
    train: Split | None = None,
    val: Split | None = None,
    *,
    protocols: Sequence[str] | str = "auto",
    strict: bool = True,
    task: str = "auto",
    descriptions: Mapping[str, Tensor] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    n_boot: int = 1000,
    remedies: Mapping[str, str] | None = None,
) -> Evaluation:
    """Run evaluation protocols on frozen features.

    Args:
        test, train, val: features with labels and groups; labels and the last two are optional.
        protocols: names from `PROTOCOLS`, or "auto" for the default ones the data allow. A protocol asked for by name
            that lacks something it needs is an error; under "auto" it is listed in `skipped` with the reason.
        strict: False lists it there too where it was named.
        task: "classification", "multilabel", "regression", or "auto" (by the labels' shape; numbers with more than
            twenty different values that are not integers are regression).
        descriptions: class -> embeddings [prompts, dim] of its descriptions, for the protocol `zeroshot`.
        remedies: for what a protocol may need (`NEEDS`), how the caller gives it; said where it is missing.

    >>> import torch
    >>> z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> report = evaluate_features(Split(z, labels=[0, 1] * 30), n_boot=10)
    >>> sorted(report.results)
    ['cluster', 'fewshot', 'knn', 'labelfree']
    """
    splits = {n: s for n, s in (("test", test), ("train", train), ("val", val)) if s is not None}
    for name, split in splits.items():
        _check_split(name, split)
    task = task_of(test.labels) if task == "auto" else task
    context = Context(test, train, val, task, tuple(ks), seed, n_boot, descriptions)
    given = _given(context)
    default = [n for n in PROTOCOLS if n not in ("efficiency", "missing", "control")]
    names = default if protocols == "auto" else [protocols] if isinstance(protocols, str) else list(protocols)
    reason, strict = _no_target(context), strict and protocols != "auto"
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; there are {', '.join(PROTOCOLS)}")
        if missing := [n for n in PROTOCOLS[name].needs if n not in given]:
            needed, advice = _lacking(missing, context.task, remedies or {})
            if strict:
                raise ValueError(f"protocol {name!r} needs {needed}, which the data given lack{advice}")
            skipped[name] = f"needs {needed}{advice}"
            continue
        if reason and name != "zeroshot" and {"labels", "classes"} & set(PROTOCOLS[name].needs):
            if strict:
                raise ValueError(f"protocol {name!r}: {reason}")
            skipped[name] = reason
            continue
        try:
            results |= PROTOCOLS[name].run(context)
        except ValueError as error:
            if strict:
                raise
            skipped[name] = str(error)
    return Evaluation(
        results=results,
        skipped=skipped,
        task=task,
        samples={n: s.rows for n, s in splits.items()},
        groups={n: s.rows if s.groups is None else len(set(as_list(s.groups))) for n, s in splits.items()},
        data_hash={n: s.digest() for n, s in splits.items()},
        seed=seed,
        bootstrap=n_boot,
        dtype=str(next(iter(test.modalities.values())).dtype).removeprefix("torch."),
        versions={p: version(p) for p in ("counterpoint", "torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
    )


def _check_split(name: str, split: Split) -> None:
    """Everything of a split is of one length, and no feature is NaN: else "auto" would skip every protocol."""
    for modality, z in split.modalities.items():
        where = f"{name} {modality}".strip()
        features(where, z)
        if len(z) != split.rows:
            raise ValueError(f"{where}: {len(z)} rows, but {split.rows} in the first modality; rows belong together")
    for modality, pool in split.pools.items():
        _check_split(f"{name} {modality}", pool)
    for kind, values in (("labels", split.labels), ("groups", split.groups)):
        if values is not None and len(as_array(values)) != split.rows:
            raise ValueError(f"{name}: {len(as_list(values))} {kind} for {split.rows} samples")


def _no_target(c: Context) -> str:
    """Why nothing can be learnt of the labels; empty when something can."""
    if c.task != "classification":
        return ""
    splits = [s for s in (c.test, c.train, c.val) if s is not None and s.labels is not None]
    if any(s.groups is None for s in splits):
        return ""
    labels, groups = ([x for s in splits for x in as_list(getattr(s, what))] for what in ("labels", "groups"))
    if not defines_groups(labels, groups):
        return ""
    return "the label is another name of the groups: no sample of another group carries it, so it is no target"


def _lacking(missing: Sequence[str], task: str, remedies: Mapping[str, str]) -> tuple[str, str]:
    """What is missing in words, and how to give it; without labels these come first, whatever is made of them."""
    if task == "unlabelled":
        missing = list(dict.fromkeys("labels" if n in _LABELLED else n for n in missing))
    advice = dict.fromkeys(remedies[n] for n in missing if n in remedies)
    return ", ".join(NEEDS[n] for n in missing), "".join(f"; {said}" for said in advice)


def _given(c: Context) -> set[str]:
    given = set()
    labelled = c.test.labels is not None
    if labelled:
        given |= {"labels"} | ({"classes"} if c.task == "classification" else set())
        given |= {"no regression"} if c.task != "regression" else set()
    if c.train is not None and c.train.labels is not None and labelled:
        given |= {"train"}
    if c.descriptions is not None:
        given |= {"descriptions"}
    if len(c.test.all_modalities) > 1:
        given |= {"two modalities"}
    if len(c.test.modalities) > 1:
        given |= {"pairs"}
    return given


def task_of(labels: LabelsLike | None) -> str:
    """What labels ask for: "classification", "multilabel" (a matrix), "regression" (more than twenty different numbers
    that are not whole), or "unlabelled".

    >>> task_of(["a", None]), task_of([i / 7 for i in range(100)])
    ('classification', 'regression')
    """
    if labels is None:
        return "unlabelled"
    if as_table(labels) is not None:
        return "multilabel"
    values = as_array(labels)
    if values.dtype.kind == "O":  # numbers among which some are missing
        known = [v for v in as_list(values) if v is not None]
        values = np.asarray(known) if all(isinstance(v, int | float) for v in known) else values
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        if len(np.unique(finite)) > 20 and not np.array_equal(finite, np.round(finite)):
            return "regression"
    return "classification"
