"""Names of the classes of land cover: the user's, the simulator's, or the bare codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterpoint.common.errors import InputError

SIMULATED = ("water", "trees", "grass", "crop", "built", "bare", "snow", "wetland")
"""The simulator's classes; code = place here + 1, 0 is no data."""
COLOURS = {
    "water": "#2b6cb0", "trees": "#2f6f3e", "grass": "#9bbf5d", "crop": "#e0b84c", "built": "#b8433a",
    "bare": "#b9a48a", "snow": "#eef4f8", "wetland": "#5b9a9a",
}  # fmt: skip
PALETTE = ("#2b6cb0", "#2f6f3e", "#e0b84c", "#b8433a", "#9bbf5d", "#5b9a9a", "#b9a48a", "#7d5ba6", "#eef4f8", "#444444")


def read_legend(text: str) -> dict[int, str]:
    """`1=water,2=trees` as a table.

    >>> read_legend("1=water, 2=trees")
    {1: 'water', 2: 'trees'}
    """
    found: dict[int, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        code, _, name = part.partition("=")
        if not code.strip().isdigit() or not name.strip():
            raise InputError(f"--legend {part!r}: write CODE=NAME, as in 1=water,2=trees")
        found[int(code)] = name.strip()
    return found


def legend_of(meta: Mapping[str, Any]) -> dict[int, str]:
    """The legend that a manifest states."""
    said = meta.get("legend")
    return {int(code): str(name) for code, name in said.items()} if isinstance(said, Mapping) else {}


def class_name(code: int, legend: Mapping[int, str]) -> str:
    """The name of a class; `class 3` where nobody named it."""
    return legend.get(code, f"class {code}")


def colour_of(code: int, legend: Mapping[int, str]) -> str:
    """The colour that a class is drawn in."""
    return COLOURS.get(legend.get(code, ""), PALETTE[code % len(PALETTE)])
