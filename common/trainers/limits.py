"""What the settings of a system may be, checked where they are made, so that a wrong one is named with its option."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from counterpoint.common.errors import InputError

_BOUNDS = (
    (r"(\S+) or more", lambda low: lambda v: v >= low),
    (r"above (\S+)", lambda low: lambda v: v > low),
    (r"from (\S+) to below (\S+)", lambda low, high: lambda v: low <= v < high),
    (r"from (\S+) to (\S+)", lambda low, high: lambda v: low <= v <= high),
    (r"above (\S+) and at most (\S+)", lambda low, high: lambda v: low < v <= high),
)


def require(config: Any, prefix: str = "", **allowed: str | tuple[str, ...]) -> None:
    """Refuse a setting out of its bounds or choices; to be called from the `__post_init__` of a configuration.

    Args:
        config: the dataclass.
        prefix: of its options, where it stands in another one (`data.`).
        allowed: setting -> its bounds in words (`1 or more`, `above 0`, `from 0 to 1`, `from 0 to below 1`, `above 0
            and at most 1`) or the names to choose from. Of a tuple each value is meant; None is always allowed.

    Raises:
        InputError: with the option, its value and what is allowed.

    >>> from types import SimpleNamespace
    >>> require(SimpleNamespace(ratio=1.0, views=("drop",)), ratio="from 0 to below 1", views=("drop", "mask"))
    Traceback (most recent call last):
    ...
    counterpoint.common.errors.InputError: --ratio is 1.0; it must be from 0 to below 1
    """
    for name, bounds in allowed.items():
        values = getattr(config, name)
        for value in values if isinstance(values, (tuple, list)) else (values,):
            if value is not None and not _fits(value, bounds):
                must = bounds if isinstance(bounds, str) else f"one of {', '.join(bounds)}"
                raise InputError(f"--{prefix}{name} is {value}; it must be {must}")


def _fits(value: Any, bounds: str | Iterable[str]) -> bool:
    if not isinstance(bounds, str):
        return value in bounds
    for pattern, test in _BOUNDS:
        if found := re.fullmatch(pattern, bounds):
            return math.isfinite(value) and test(*map(float, found.groups()))(value)
    raise ValueError(f"bounds {bounds!r} are in none of the known words")
