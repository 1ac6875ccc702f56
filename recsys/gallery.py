"""Users and items in words, and histories of one's own as queries."""

from __future__ import annotations

from typing import Any

import torch

from counterpoint.common.data import ListSamples, Samples
from counterpoint.common.errors import InputError
from counterpoint.recsys.base import ITEMS
from counterpoint.recsys.data.ids import IdMap, listed_ids


def parse(text: str, modality: str, system: Any) -> Samples:
    """The items that somebody met, by their ids with commas between or as a JSON list, as a user; the id of an item as
    an item."""
    items = IdMap.from_bytes(system.assets[ITEMS])
    alone = modality == "item" and items.rows([text.strip()])[0] >= 0  # its id may hold a comma
    rows = [items.row(name, "item") for name in ([text.strip()] if alone else listed_ids(text))]
    if modality == "user":
        return ListSamples([{"history": torch.tensor(rows, dtype=torch.int64), "words": text}])
    if len(rows) != 1:
        raise InputError(f"{text!r}: give the id of one item")
    return ListSamples([{"item": rows[0], "words": text}])


def caption(sample: dict[str, Any], modality: str, system: Any) -> str:
    """An item by its title; a user by the last items that he met in training."""
    if modality == "item" or "user" not in sample:
        return str(sample["words"])
    titles = system.catalogue
    met = system.sequence(int(sample["user"]))[-3:]
    return "met " + ", ".join(titles.words(int(row)) or system.items[int(row)] for row in met) if len(met) else "new"
