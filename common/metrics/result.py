"""What every metric returns: a frozen dataclass that can be written as JSON."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.metrics.inputs import as_matrix


class Result:
    """Mixin for result dataclasses: `as_dict()` gives plain numbers, without fields marked `metadata={"json": False}`.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Score(Result):
    ...     accuracy: float
    ...     per_class: Tensor = dataclasses.field(metadata={"json": False})
    >>> Score(0.5, torch.ones(3)).as_dict()
    {'accuracy': 0.5}
    """

    def as_dict(self) -> dict[str, object]:
        return {
            f.name: json_ready(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.metadata.get("json", True)
        }


class PerQuery(Result):
    """Mixin for a vertical's results that were measured query by query: two runs are compared on them.

    Attributes:
        per_query: metric -> [queries] values whose mean is the metric.
        rows: [queries] which samples of the split these are.
        groups: [queries] their groups, None where every query is its own.
    """

    per_query: dict[str, np.ndarray]
    rows: np.ndarray
    groups: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class NotRun(Result):
    """Stands where a protocol's figures would stand: why they are not there, in words."""

    reason: str


def json_ready(value: object) -> object:
    """Turn results, tensors and arrays into what `json.dumps` accepts; not-a-number becomes None.

    >>> json_ready({"a": torch.tensor([1.0, float("nan")]), 2: (np.float64(3.0),)})
    {'a': [1.0, None], '2': [3.0]}
    """
    if isinstance(value, Result):
        return value.as_dict()
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, Tensor):
        return json_ready(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def features(name: str, z: object, *, normalize: bool = False) -> Tensor:
    """Check one feature matrix and bring it to at least float32; `normalize` scales its rows to length one.

    Metrics refuse NaN and infinity outright: comparisons with NaN are false, so a broken encoder would rank first.
    """
    z = as_matrix(z)
    if z.ndim != 2 or z.shape[0] == 0:
        raise ValueError(f"{name} must be a non-empty [samples, dim] matrix, got shape {tuple(z.shape)}")
    z = z.detach()
    if z.dtype not in (torch.float32, torch.float64):
        z = z.float()
    bad = ~torch.isfinite(z).all(dim=1)
    if bool(bad.any()):
        rows = bad.nonzero().flatten().tolist()
        raise ValueError(f"{name} holds NaN or infinity in {len(rows)} of {len(z)} rows (first: row {rows[0]})")
    return torch.nn.functional.normalize(z, dim=1, eps=1e-12) if normalize else z
