"""Evaluations of a trained system beyond the common ones: few labels, similar windows, events, anomalies.

`evaluate` and `report` run them; all score the split under evaluation with held-out patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.data.samples import facts
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.metrics import NotRun, Result, class_names, defines_groups, task_of
from counterpoint.common.runs.opened import OpenRun
from counterpoint.timeseries.detection import anomalies, window_events
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.rocket import minirocket_features
from counterpoint.timeseries.tasks import PatientProbe, names_patients, probe_patients, similar_beats
from counterpoint.timeseries.windows import WindowSet

MOST_QUERIES = 4000
MOST_ROCKET = 4000
FRACTIONS = (1.0, 0.1, 0.01)


def protocols(run: OpenRun) -> dict[str, Result]:
    """Everything the data allow; what they do not allow stands there as `NotRun`, with its reason.

    - Logistic probes with 100, 10 and 1 % of the labels, learnt from the training windows.
    - Where recordings have several windows of one class, the same per recording: mean probability of its windows.
    - The same probes on MiniRocket features, which nobody has trained: the floor that an encoder must rise above.
    - Similar windows (beats): how often the nearest others carry the same label.
    - With `data.events`: events found by a probe on windows, and TS2Vec's anomaly scores where the system can hide a
      step. Both say how many recordings and steps they saw.

    `run.label` is the field or column that holds the class of a window; `label` unless given.
    """
    system, split = run.system, run.split
    windows, z = _windows(run)
    encoded = run.encoded()
    seen = run.samples().windows.subset(encoded.positions)
    draws = {"n_boot": run.n_boot, "seed": run.seed}
    kept = run.samples().measured
    results = _labelled(z, windows, seen, encoded.vectors["signal"], split, run.label or "label", draws, kept)
    if windows.steps is not None:
        results["events, probe on windows"] = _try(lambda: window_events(z, windows, split, **draws))
        steps = getattr(system.config, "anomaly_steps", 0)
        if steps:
            options = {"context": system.config.anomaly_context, "delay": system.config.anomaly_delay, **draws}
            name = f"anomaly scores, {system.config.anomaly_delay} steps of delay credited"
            results[name] = _try(lambda: anomalies(system, windows, split, steps, **options))
    return results


def _windows(run: OpenRun) -> tuple[WindowSet, Tensor]:
    """The windows of all splits that were encoded, with their embeddings."""
    whole, rows, vectors = run.system.windows, [], []
    for split in run.splits:
        encoded = run.encoded(split)
        rows.append(np.flatnonzero(whole.frame["split"] == split)[encoded.positions])
        vectors.append(encoded.vectors["signal"])
    return whole.subset(np.concatenate(rows)), torch.cat(vectors)


def _labelled(
    z: Tensor,
    windows: WindowSet,
    seen: WindowSet,
    signal: Tensor,
    split: str,
    label: str,
    draws: dict[str, int],
    kept: dict[Any, Any],
) -> dict[str, Result]:
    """The rows that need the class of a window."""
    by = "patient" if names_patients(windows) else "recording"
    probe, similar = f"probe by {by}", "similar windows"
    values = facts(WindowDataset(windows), label)
    reason = ""
    if task_of(values) != "classification":
        reason = f"needs classes, and {label} holds numbers"
    elif defines_groups(values, windows.frame["group"].tolist()):
        reason = f"{label} is another name of the {by}s: no other one can carry it"
    if reason:
        return {probe: NotRun(reason), similar: NotRun(reason)}
    windows = _relabelled(windows, values)
    seen = _relabelled(seen, facts(WindowDataset(seen), label))
    results: dict[str, Result] = {}
    found = _try(lambda: probe_patients(z, windows, FRACTIONS, split=split, **draws))
    if isinstance(found, NotRun):
        results[probe] = found
    else:
        results |= _rows("probe", found, by)
        fewest = 100 * found[-1].fraction
        for fraction in FRACTIONS:
            if fraction not in {r.fraction for r in found}:
                reason = f"comes to the same {by}s as {fewest:g} %, for every class keeps one"
                results[f"probe, {100 * fraction:g} % of labels by {by}"] = NotRun(reason)
    results |= _rocket(windows, by, split, draws, kept)
    results[similar] = _try(lambda: _similar(signal, seen, label, draws))
    return results


def _rocket(windows: WindowSet, by: str, split: str, draws: dict[str, int], kept: dict[Any, Any]) -> dict[str, Result]:
    """Probes on MiniRocket features with the same labels; `kept` for the untrained network that is measured beside."""
    name = "MiniRocket probe"
    if len(windows) > MOST_ROCKET:
        return {name: NotRun(f"{len(windows)} windows, and it is measured for {MOST_ROCKET} at most")}
    key = (by, split, tuple(windows.frame["label"]), tuple(windows.frame["id"]), *draws.values())
    if key in kept:
        return kept[key]
    train = np.flatnonzero((windows.frame["split"] == "train").to_numpy())

    def measured() -> list[PatientProbe]:
        features = minirocket_features(windows, train, draws["seed"])
        return probe_patients(features, windows, FRACTIONS, split=split, **draws)

    found = _try(measured)
    told = {name: found}
    if not isinstance(found, NotRun):
        told = _rows(name, found, by)
    kept[key] = told
    return told


def _rows(name: str, found: list[PatientProbe], by: str) -> dict[str, Result]:
    """The probes by name, each with the row of its figures per recording below it, where there are some."""
    rows: dict[str, Result] = {}
    for result in found:
        told = f"{name}, {100 * result.fraction:g} % of labels by {by}"
        rows[told] = result
        if result.series is not None:
            rows[f"{told}, per recording"] = result.series
    return rows


def _relabelled(windows: WindowSet, values: list[Any]) -> WindowSet:
    return replace(windows, frame=windows.frame.assign(label=class_names(values)))


def _similar(z: Tensor, windows: WindowSet, label: str, draws: dict[str, int]) -> Result:
    """Of many windows a part is drawn: all others are searched for each."""
    rows = np.flatnonzero((windows.frame["label"] != "").to_numpy()[: len(z)])
    if len(set(windows.frame["label"].to_numpy()[rows])) < 2:
        raise InputError(f"needs labels of two classes in the split (column {label})")
    if len(rows) > MOST_QUERIES:
        rows = np.sort(np.random.default_rng(draws["seed"]).permutation(rows)[:MOST_QUERIES])
    found = similar_beats(z[rows], windows.subset(rows), name="window -> windows of its class", **draws)
    return replace(found, rows=torch.from_numpy(rows)[found.rows])


def _try(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except LeakageError:
        raise
    except InputError as error:
        return NotRun(str(error))
