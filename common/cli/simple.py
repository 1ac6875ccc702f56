"""Verbs whose command line is the signature of one function: lists, the demo, and what is done with a finished run."""

from __future__ import annotations

from dataclasses import asdict

from counterpoint.common import runs
from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.lazy import resolve
from counterpoint.common.output import Rows
from counterpoint.common.vertical import Vertical


def demo(command: Call) -> int:
    """Run the vertical's demo; its options are the demo function's parameters."""
    return call(command.program, resolve(command.vertical.demo), command.argv)


def systems(command: Call) -> int:
    """List the vertical's systems."""
    return call(command.program, list_systems, command.argv, vertical=command.vertical)


def losses(command: Call) -> int:
    """List the objectives."""
    return call(command.program, list_losses, command.argv)


def list_systems(vertical: Vertical) -> Rows:
    """List the systems with their status, paper and needs."""
    return Rows((entry.as_dict() for entry in vertical.systems), ("name", "status", "paper", "summary"))


def list_losses() -> Rows:
    """List the contrastive objectives with their papers, what they need and what they are checked against."""
    from counterpoint.common.losses import objectives

    records = ({**asdict(entry), "status": "ready"} for entry in objectives())
    return Rows(records, ("name", "paper", "needs"))


def evaluate(command: Call) -> int:
    """The figures of a checkpoint."""
    return call(command.program, runs.evaluate, command.argv, vertical=command.vertical)


def embed(command: Call) -> int:
    """Embeddings of a split as Parquet."""
    return call(command.program, runs.embed, command.argv)


def search(command: Call) -> int:
    """Nearest neighbours of a sample, a file or a text."""
    return call(command.program, runs.search, command.argv, vertical=command.vertical)


def report(command: Call) -> int:
    """One HTML file that shows a run."""
    return call(command.program, runs.report, command.argv, vertical=command.vertical)


def export(command: Call) -> int:
    """The encoder for others."""
    return call(command.program, runs.export, command.argv)
