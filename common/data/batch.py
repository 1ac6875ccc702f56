"""What may be asked of a batch, whatever it is made of: where it lies, how many samples it holds, some of them.

A batch is a dictionary of tensors, lists and objects, or one object that knows itself: with `.to(device)`,
`.cut(start, stop)` and a length it is moved and cut by its own methods, alone or as a part of a dictionary. What the
core asks for by name (`index`, `id`, `group`, `label`) is an entry of the dictionary, or an attribute of the object;
masks and integers travel as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device | str) -> Any:
    """A batch on a device: tensors and objects with `.to` inside dictionaries, lists and tuples; the rest as it is.

    >>> to_device({"x": torch.zeros(2), "id": ["a", "b"]}, "cpu")["id"]
    ['a', 'b']
    """
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def rows(batch: Any) -> int:
    """Samples in a batch: the length of `index`, else of the first tensor or object with a length.

    >>> rows({"name": "x", "audio": torch.zeros(3, 2)})
    3
    """
    if not isinstance(batch, Mapping):
        return len(batch)
    first = batch.get("index", next((v for v in batch.values() if _has_rows(v)), None))
    if first is None:
        raise ValueError("the batch holds no tensor")
    return len(first)


def entry(batch: Any, name: str, default: Any = None) -> Any:
    """What a batch holds under a name: the entry of a dictionary, the attribute of an object.

    >>> entry({"index": 3}, "index"), entry([4], "index")
    (3, None)
    """
    if isinstance(batch, Mapping):
        return batch.get(name, default)
    found = getattr(batch, name, default)
    return default if callable(found) else found  # a sequence's method, say


def beside(batch: Any, **more: Any) -> Any:
    """A batch with more entries of its samples: in the dictionary, or beside an object (see `bare`)."""
    return {**batch, **more} if isinstance(batch, Mapping) else Beside(batch, more)


def bare(batch: Any) -> Any:
    """The batch as the data set made it, without what `beside` put beside an object."""
    return batch.batch if isinstance(batch, Beside) else batch


class Beside:
    """An object that is a batch, and further entries of the same samples."""

    def __init__(self, batch: Any, more: Mapping[str, Any]) -> None:
        self.batch, self.more = batch, dict(more)

    def __len__(self) -> int:
        return len(self.batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("batch", "more"):  # not there yet, while a copy is made
            raise AttributeError(name)
        return self.more[name] if name in self.more else getattr(self.batch, name)

    def to(self, device: torch.device | str) -> Beside:
        return Beside(to_device(self.batch, device), to_device(self.more, device))

    def cut(self, start: int, stop: int) -> Beside:
        n = len(self)
        return Beside(self.batch.cut(start, stop), {k: _part(v, start, stop, n) for k, v in self.more.items()})


def cut(batch: Any, start: int, stop: int) -> Any:
    """Samples start..stop of a batch; entries that are not per sample stay whole.

    >>> cut({"index": torch.arange(4), "id": list("abcd"), "rate": 8000}, 1, 3)
    {'index': tensor([1, 2]), 'id': ['b', 'c'], 'rate': 8000}
    """
    if not isinstance(batch, Mapping):
        return batch.cut(start, stop)
    n = rows(batch)
    return {name: _part(value, start, stop, n) for name, value in batch.items()}


def _part(value: Any, start: int, stop: int, n: int) -> Any:
    """The share of an entry of a batch of `n` samples that belongs to samples start..stop."""
    if isinstance(value, Mapping):
        return {name: _part(inner, start, stop, n) for name, inner in value.items()}
    if hasattr(value, "cut"):
        return value.cut(start, stop)
    per_sample = (isinstance(value, Tensor) and value.ndim) or isinstance(value, (list, tuple))
    return value[start:stop] if per_sample and len(value) == n else value


def _has_rows(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.ndim > 0) or (hasattr(value, "cut") and hasattr(value, "__len__"))
