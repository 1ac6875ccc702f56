"""What an objective says about itself, and the registry from which the tables are made."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Literal

__all__ = ["ObjectiveCard", "ObjectiveEntry", "objectives", "objectives_table"]


@dataclass(frozen=True)
class ObjectiveCard:
    """Facts about one objective, written beside its class.

    `paper`: method and year. `needs`: what a caller must bring besides embeddings (labels, index, queue, teacher).
    `engine`: the calls of the contrast engine it is made of. `status`: what it rests on, `official numbers` (frozen
    outputs of the named code, compared in the tests), `equation` (the paper's, written out) or `our reading` (no public
    code or text settles it). `checked`: what its value and gradient are tested against, in full.
    """

    paper: str
    needs: str
    engine: str
    status: Literal["official numbers", "equation", "our reading"]
    checked: str


@dataclass(frozen=True)
class ObjectiveEntry:
    """One line of `counterpoint losses`."""

    name: str
    module: str
    paper: str
    needs: str
    engine: str
    status: str
    checked: str
    summary: str


def objectives() -> list[ObjectiveEntry]:
    """Every published objective of this package, in alphabetical order.

    >>> [entry.name for entry in objectives() if entry.module.endswith(".infonce")]
    ['InfoNCE']
    """
    package = importlib.import_module("counterpoint.common.losses")
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__ and "card" in vars(value):
                card = value.card
                summary = (value.__doc__ or "").strip().split("\n")[0].rstrip(".")
                found[name] = ObjectiveEntry(
                    name, module.__name__, card.paper, card.needs, card.engine, card.status, card.checked, summary
                )
    return [found[name] for name in sorted(found, key=str.lower)]


def objectives_table() -> str:
    """The Markdown table of the README, one row per objective."""
    head = "| objective | paper | needs | engine | status | checked against |\n|---|---|---|---|---|---|\n"
    rows = (f"| `{e.name}` | {e.paper} | {e.needs} | {e.engine} | {e.status} | {e.checked} |\n" for e in objectives())
    return head + "".join(rows)
