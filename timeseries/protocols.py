"""Evaluations of a trained system beyond the common ones: few labels, similar windows, events, anomalies.

`evaluate` and `report` run them; all score the split under evaluation with held-out patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.metrics import Result
from counterpoint.common.progress import note
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.detection import anomalies, window_events
from counterpoint.timeseries.tasks import probe_patients, similar_beats

MOST_QUERIES = 4000


def protocols(system: SignalSystem, dataset: Any, vectors: Mapping[str, Tensor]) -> dict[str, Result]:
    """Everything the data allow; what they do not allow is told on stderr with its reason.

    - Logistic probes with 100, 10 and 1 % of the labels: the training windows are needed too, so all windows of the
      configuration are embedded here.
    - Similar windows (beats): how often the nearest others carry the same label.
    - With `data.events`: events found by a probe on windows, and TS2Vec's anomaly scores where the system can hide a
      step. Both say how many recordings and steps they saw.
    """
    windows, seen = system.windows, dataset.windows
    split = str(seen.frame["split"].iloc[0])
    z = system.embed_windows(windows)
    results: dict[str, Result] = {}
    for r in _try(lambda: probe_patients(z, windows, split=split)) or ():
        results[f"probe, {100 * r.fraction:g} % of labels by {r.by}"] = r
    found = _try(lambda: _similar(vectors["signal"], seen))
    results |= {} if found is None else {"similar windows": found}
    if windows.steps is not None:
        found = _try(lambda: window_events(z, windows, split))
        results |= {} if found is None else {"events, probe on windows": found}
        steps = getattr(system.config, "anomaly_steps", 0)
        if steps:
            options = {"context": system.config.anomaly_context, "delay": system.config.anomaly_delay}
            found = _try(lambda: anomalies(system, windows, split, steps, **options))
            name = f"anomaly scores, {system.config.anomaly_delay} steps of delay credited"
            results |= {} if found is None else {name: found}
    return results


def _similar(z: Tensor, windows: Any) -> Result:
    """Of many windows a part is drawn: all others are searched for each."""
    rows = np.flatnonzero((windows.frame["label"] != "").to_numpy()[: len(z)])
    if len(set(windows.frame["label"].to_numpy()[rows])) < 2:
        raise InputError("similar windows: needs labels of two classes in the split (column label)")
    if len(rows) > MOST_QUERIES:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_QUERIES])
    return similar_beats(z[rows], windows.subset(rows))


def _try(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except LeakageError:
        raise
    except InputError as error:
        note(f"not run: {error}")
        return None
