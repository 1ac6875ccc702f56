"""What may be asked of a batch, whatever it is made of: where it lies, how many samples it holds, some of them.

A batch is a dictionary of tensors, lists and objects. An object that knows itself, with `.to(device)` and
`.cut(start, stop)`, is moved and cut by its own methods; masks and integers travel as they are.
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


def cut(batch: Any, start: int, stop: int) -> Any:
    """Samples start..stop of a batch; entries that are not per sample stay whole.

    >>> cut({"index": torch.arange(4), "id": list("abcd"), "rate": 8000}, 1, 3)
    {'index': tensor([1, 2]), 'id': ['b', 'c'], 'rate': 8000}
    """
    if not isinstance(batch, Mapping):
        return batch.cut(start, stop)
    n = rows(batch)

    def part(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: part(inner) for name, inner in value.items()}
        if hasattr(value, "cut"):
            return value.cut(start, stop)
        per_sample = (isinstance(value, Tensor) and value.ndim) or isinstance(value, (list, tuple))
        return value[start:stop] if per_sample and len(value) == n else value

    return {name: part(value) for name, value in batch.items()}


def _has_rows(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.ndim > 0) or (hasattr(value, "cut") and hasattr(value, "__len__"))
