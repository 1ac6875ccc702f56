"""Finds the installed verticals through the entry-point group `counterpoint.verticals`, ours and other packages'."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Vertical

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


def vertical_of(*systems: str) -> Vertical:
    """The installed vertical that lists one of these systems (`"module:Class"`).

    Raises:
        InputError: none does.
    """
    for load in find_verticals().values():
        vertical = load()
        if any(entry.system in systems for entry in vertical.systems):
            return vertical
    raise InputError(f"no installed vertical has the system {systems[0]}; give vertical=...")
