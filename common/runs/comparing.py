"""`compare SYSTEM --objectives a,b`: one system on the same data, batches and seeds under several objectives."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor

from counterpoint.common.data.names import file_name
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.losses.choice import chosen_objective
from counterpoint.common.metrics import Evaluation, Interval, LabelFree, json_ready, seeds_and_groups, t_interval
from counterpoint.common.metrics.compare import lower_is_better, sample_values
from counterpoint.common.output import table, write_json
from counterpoint.common.progress import note
from counterpoint.common.runs.measure import examine
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import create_system, empty_system, fit, override, to_dict
from counterpoint.common.trainers.config_files import load_yaml
from counterpoint.common.vertical import Outcome, SystemEntry, Vertical

PUBLISHED = "published"


@dataclass(frozen=True)
class Arm:
    """One objective: its evaluations and costs by seed."""

    objective: str
    evaluations: list[Evaluation]
    seconds: list[float]
    megabytes: list[float]

    def values(self, figure: str) -> list[float]:
        """The figure of every seed."""
        return [figures_of(e)[figure] for e in self.evaluations]

    def rows(self, figure: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Which samples a figure was measured on one by one, and [seeds, rows] its values; None for other figures."""
        protocol, _, metric = figure.rpartition(": ")
        found = []
        for evaluation in self.evaluations:
            known = {m: (r, v) for m, r, _, v in sample_values(evaluation.results[protocol])}
            if metric not in known:
                return None
            found.append(known[metric])
        same = all(np.array_equal(rows, found[0][0]) for rows, _ in found)
        return (found[0][0], np.stack([values for _, values in found])) if same else None

    @property
    def rankme(self) -> float:
        """Mean effective rank over modalities and seeds."""
        return float(np.mean([r.rankme for r in self._label_free]))

    @property
    def collapsed(self) -> bool:
        return any(r.collapsed for r in self._label_free)

    @property
    def _label_free(self) -> list[LabelFree]:
        return [r for e in self.evaluations for r in e.results.values() if isinstance(r, LabelFree)]


class _StepCost(Callback):
    """Seconds of every training step but the first, and what the first keeps in memory for its backward pass."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.megabytes = float("nan")
        self._start = 0.0
        self._kept: dict[int, int] = {}
        self._hooks: Any = None

    def _keep(self, tensor: Tensor) -> Tensor:
        parts = [tensor] if tensor.layout == torch.strided else []
        if tensor.layout == torch.sparse_coo:
            parts = [tensor._indices(), tensor._values()]
        for part in parts:  # views of one storage count once
            storage = part.untyped_storage()
            self._kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        if self.megabytes != self.megabytes:
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
            self._hooks.__enter__()
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        seconds = time.perf_counter() - self._start
        if self._hooks is None:
            self.seconds.append(seconds)
            return
        self._hooks.__exit__(None, None, None)
        self._hooks, self.megabytes = None, sum(self._kept.values()) / 1e6
        self._kept.clear()


def compare(
    vertical: Vertical,
    entry: SystemEntry,
    config: Any,
    objectives: Sequence[str],
    seeds: Sequence[int],
    *,
    out: Path | None = None,
    label: str | None = None,
    split: str = "test",
    figure: str | None = None,
    bootstrap: int = 1000,
) -> Outcome:
    """Train `entry`'s system under every objective and seed, and compare a figure with that of the first objective.

    Every run has the same data, initial encoder, batches and views for a seed; runs that are there already go on or are
    taken as they are. Differences are paired by seed and sample; their intervals draw seeds and groups.

    Raises `InputError`, before anything is trained, for an objective that does not exist or that this system cannot
    serve, and for a folder with runs of other settings.
    """
    if not hasattr(config, "objective"):
        raise InputError(f"the objective of {entry.name} is part of its method: it takes no other one")
    if len(set(objectives)) < 2 or len(set(objectives)) != len(objectives):
        raise InputError(
            f"--objectives: give two or more different ones, the first to compare with, as in {PUBLISHED},DCL"
        )
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError("--seeds: give different seeds, as in 0,1,2, or how many, as in 5")
    for text in objectives:
        if text != PUBLISHED:
            chosen_objective(text)
    folder = out or Path(f"runs/{entry.name}-objectives")
    arms = {text: Arm(text, [], [], []) for text in objectives}
    groups: list[str] = []
    for seed in seeds:
        for text in objectives:
            run = folder / file_name(text) / f"seed-{seed}"
            changes = {"objective": "" if text == PUBLISHED else text, "train.seed": seed, "train.out": str(run)}
            note(f"{text}, seed {seed}: {run}")
            seconds, megabytes = _trained(entry, override(config, changes), run)
            seen = examine(vertical, run, "best", split, label=label, n_boot=1)
            arms[text].evaluations.append(seen.evaluation)
            arms[text].seconds.append(seconds)
            arms[text].megabytes.append(megabytes)
            groups = seen.encoded.groups
    chosen = _figure(arms[objectives[0]].evaluations[0], figure, label)
    found = _Comparison(list(arms.values()), chosen, list(seeds), groups, bootstrap)
    figures = {"system": entry.name, "split": split, "label": label, "config": to_dict(config), **found.as_dict()}
    target = folder / "comparison.json"
    write_json(figures, target)
    return Outcome(figures, (*found.lines, f"wrote {target}"), {"comparison": target})


def _trained(entry: SystemEntry, config: Any, run: Path) -> tuple[float, float]:
    """Train a run, go on with it, or take it as it is; the seconds of a step, and the megabytes kept for its backward
    pass."""
    step, cost = _StepCost(), run / "cost.json"
    config = override(config, {"train.overwrite": True})  # a run that stopped before its first checkpoint starts over
    if (run / "config.yaml").is_file() and any((run / "checkpoints").glob("*")):
        if load_yaml(run / "config.yaml").get("config") != to_dict(config):
            raise InputError(f"{run}: holds a run of other settings; choose another --out, or remove it")
        if cost.is_file():
            known = json.loads(cost.read_text(encoding="utf-8"))
            return tuple(
                float("nan") if known.get(k) is None else known[k] for k in ("seconds_per_step", "megabytes_per_step")
            )
        fit(empty_system(run), resume=run, callbacks=[step])
    else:
        fit(create_system(resolve(entry.system), config), callbacks=[step])
    seconds = float(np.median(step.seconds)) if step.seconds else float("nan")
    found = {"seconds_per_step": seconds, "megabytes_per_step": step.megabytes, "steps_timed": len(step.seconds)}
    write_json(found, cost)
    return seconds, step.megabytes


def figures_of(evaluation: Evaluation) -> dict[str, float]:
    """Every figure by `protocol: metric`, those measured sample by sample among them."""
    found = {f"{name}: {metric}": i.value for name, metric, i, _ in evaluation.figures()}
    for name, result in evaluation.results.items():
        found |= {f"{name}: {metric}": float(values.mean()) for metric, _, _, values in sample_values(result)}
    return found


def _figure(evaluation: Evaluation, wanted: str | None, label: str | None) -> str:
    """The figure to compare: the one asked for, else kNN where there are labels, else retrieval."""
    known = figures_of(evaluation)
    if wanted is not None:
        if wanted not in known:
            raise no_such("figure", wanted, known)
        return wanted
    order = ("knn", "retrieval") if label is not None else ("retrieval",)
    for start in order:
        for name in known:
            protocol, _, metric = name.rpartition(": ")
            if protocol.startswith(start) and (metric.startswith("accuracy (k") or metric == "MRR"):
                return name
    raise InputError(
        "these data have no figure to compare by themselves: give --label, or --figure with one of "
        f"{', '.join(sorted(known)) or 'none'}"
    )


@dataclass(frozen=True)
class _Comparison:
    arms: list[Arm]
    figure: str
    seeds: list[int]
    groups: list[str]
    n_boot: int

    def difference(self, arm: Arm) -> Interval:
        """Of an arm from the first one."""
        first, other = self.arms[0].rows(self.figure), arm.rows(self.figure)
        if first is not None and other is not None and np.array_equal(first[0], other[0]):
            groups = [self.groups[row] for row in first[0].tolist()]
            return seeds_and_groups(other[1] - first[1], groups, n=self.n_boot)
        return t_interval([b - a for a, b in zip(self.arms[0].values(self.figure), arm.values(self.figure))])

    def verdict(self, difference: Interval) -> str:
        if not (difference.low > 0 or difference.high < 0):
            return "undecided"
        return "better" if (difference.value < 0) == lower_is_better(self.figure) else "worse"

    def as_dict(self) -> dict[str, Any]:
        rows = []
        for arm in self.arms:
            difference = None if arm is self.arms[0] else self.difference(arm)
            rows.append(
                {
                    "objective": arm.objective,
                    "values": arm.values(self.figure),
                    "difference": None if difference is None else json_ready(difference),
                    "verdict": None if difference is None else self.verdict(difference),
                    "seconds_per_step": arm.seconds,
                    "megabytes_per_step": arm.megabytes,
                    "rankme": arm.rankme,
                    "collapsed": arm.collapsed,
                    "figures": [figures_of(e) for e in arm.evaluations],
                }
            )
        return {"figure": self.figure, "seeds": self.seeds, "objectives": rows}

    @property
    def lines(self) -> list[str]:
        """One table."""
        rows = []
        for arm in self.arms:
            values = arm.values(self.figure)
            said = ("", "", "")
            if arm is not self.arms[0]:
                d = self.difference(arm)
                spread = f"{d.low:+.3g} .. {d.high:+.3g}" if np.isfinite([d.low, d.high]).all() else "one seed or group"
                said = (f"{d.value:+.3g}", spread, self.verdict(d))
            cost = float(np.median(arm.seconds))
            rows.append(
                (arm.objective, f"{np.mean(values):.3g}", *said, f"{1000 * cost:.3g} ms",
                 f"{np.median(arm.megabytes):.3g} MB", f"{arm.rankme:.1f}", "COLLAPSED" if arm.collapsed else "")
            )  # fmt: skip
        head = ("objective", "mean", "difference", "95 % interval", "verdict", "step", "kept", "RankMe", "")
        what = f"{self.figure}; seeds {', '.join(map(str, self.seeds))}; differences from {self.arms[0].objective}"
        return [what, "", *table(head, rows), ""]
