"""Finds the installed verticals through the entry-point group `counterpoint.verticals`, ours and other packages'."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from counterpoint.common.cli.vertical import Vertical

GROUP = "counterpoint.verticals"


def find_verticals() -> dict[str, Callable[[], Vertical]]:
    """Loaders of the registered verticals by their command-line name, in alphabetical order.

    >>> all(callable(load) for load in find_verticals().values())
    True
    """
    return {entry.name: _loader(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def _loader(entry: EntryPoint) -> Callable[[], Vertical]:
    def load() -> Vertical:
        vertical = entry.load()
        if not isinstance(vertical, Vertical):
            raise TypeError(f"entry point {entry.name} = {entry.value} of group {GROUP} is not a Vertical")
        return vertical

    return load
