"""Evaluations of a trained system beyond the common ones: probes on held-out patients at several label fractions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Result
from counterpoint.timeseries.base import SignalSystem
from counterpoint.timeseries.tasks import probe_patients


def protocols(system: SignalSystem, dataset: Any, vectors: Mapping[str, Tensor]) -> dict[str, Result]:
    """Logistic probes with 100, 10 and 1 % of the training patients' labels, scored on the test patients.

    The probe needs the training windows too, so all windows of the configuration are embedded here; `dataset` and
    `vectors` are those of the split under evaluation and are not used.
    """
    windows = system.windows
    try:
        found = probe_patients(system.embed_windows(windows), windows)
    except InputError:
        return {}  # no labels, or no test split: the common protocols say what can be said
    return {f"probe, {100 * r.fraction:g} % of labels by {r.by}": r for r in found}
