"""Verbs that list what there is: the systems of a vertical, the objectives."""

from __future__ import annotations

from dataclasses import asdict

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.fidelity import records_of, standing, system_of_check
from counterpoint.common.output import Rows
from counterpoint.common.vertical import Vertical


def systems(command: Call) -> int:
    """List the vertical's systems."""
    return call(command.program, list_systems, command.argv, vertical=command.vertical)


def losses(command: Call) -> int:
    """List the objectives."""
    return call(command.program, list_losses, command.argv)


def list_systems(vertical: Vertical) -> Rows:
    """List the systems with their status, the verdict of their checks, paper and needs, and the module that holds each:
    its text gives the paper's equations and the file of each of their terms.

    A system is ready when its objective and architecture are the paper's, it works through every verb, and a check of a
    claim was run with power on the code as it is, whatever the verdict; beside an experimental one stands what it
    lacks.
    """
    records = records_of(vertical.package)
    names = [entry.name for entry in vertical.systems]
    rows = []
    for entry in vertical.systems:
        own = [r for r in records if system_of_check(r.check, names) == entry.name]
        rows.append(entry.as_dict() | asdict(standing(entry.status, entry.missing, own)))
    return Rows(rows, ("name", "status", "verdict", "missing", "module", "paper", "summary"))


def list_losses() -> Rows:
    """List the contrastive objectives with their papers, what they need and what they rest on: the official code's
    numbers, the paper's equation, or our reading of it."""
    from counterpoint.common.losses import objectives

    return Rows(map(asdict, objectives()), ("name", "status", "paper", "needs"))
