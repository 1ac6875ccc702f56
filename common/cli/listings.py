"""Verbs that list what there is: the systems of a vertical, the objectives."""

from __future__ import annotations

from dataclasses import asdict

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.output import Rows
from counterpoint.common.vertical import Vertical


def systems(command: Call) -> int:
    """List the vertical's systems."""
    return call(command.program, list_systems, command.argv, vertical=command.vertical)


def losses(command: Call) -> int:
    """List the objectives."""
    return call(command.program, list_losses, command.argv)


def list_systems(vertical: Vertical) -> Rows:
    """List the systems with their status, paper and needs, and the module that holds each: its text gives the paper's
    equations and the file of each of their terms."""
    return Rows((entry.as_dict() for entry in vertical.systems), ("name", "status", "module", "paper", "summary"))


def list_losses() -> Rows:
    """List the contrastive objectives with their papers, what they need and what they rest on: the official code's
    numbers, the paper's equation, or our reading of it."""
    from counterpoint.common.losses import objectives

    return Rows(map(asdict, objectives()), ("name", "status", "paper", "needs"))
