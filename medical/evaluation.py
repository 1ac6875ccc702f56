"""What `evaluate` measures of systems over scans and reports beyond the common protocols."""

from __future__ import annotations

from counterpoint.common.metrics.result import Result
from counterpoint.common.runs.opened import OpenRun
from counterpoint.medical import findings, grounding, reliability


def protocols(run: OpenRun) -> dict[str, Result]:
    """Zero-shot findings and attributes, their calibration and subgroups, and phrase grounding."""
    return {**findings.protocols(run), **reliability.protocols(run), **grounding.protocols(run)}


def flat_protocols(run: OpenRun) -> dict[str, Result]:
    """Of radiographs: zero-shot findings and attributes, their calibration and subgroups."""
    return {**findings.protocols(run), **reliability.protocols(run)}
