"""The short verbs: `demo`, `systems` and `losses`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.cli.vertical import Vertical
from counterpoint.common.lazy import resolve


class Rows(list):
    """A list of records; printed as an aligned table, or as JSON."""

    def as_dict(self) -> list[dict]:
        """The records themselves."""
        return list(self)

    @property
    def lines(self) -> Iterable[str]:
        """An aligned table under its column names."""
        columns = list(self[0]) if self else []
        return table(columns, [[str(row[column]) for column in columns] for row in self])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align `rows` under `columns`; the last column runs free.

    >>> table(["name", "n"], [["audio", "3"]])
    ['name   n', 'audio  3']
    """
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [columns, *rows]]


def demo(command: Call) -> int:
    """Run the vertical's demo; its options are the demo function's parameters."""
    return call(command.program, resolve(command.vertical.demo), command.argv)


def systems(command: Call) -> int:
    """List the vertical's systems."""
    return call(command.program, list_systems, command.argv, command.vertical)


def losses(command: Call) -> int:
    """List the objectives."""
    return call(command.program, list_losses, command.argv)


def list_systems(vertical: Vertical) -> Rows:
    """List the systems with their status, paper and needs."""
    return Rows(entry.as_dict() for entry in vertical.systems)


def list_losses() -> Rows:
    """List the contrastive objectives with their papers and what they need."""
    from counterpoint.common.losses import objectives

    return Rows(objectives())
