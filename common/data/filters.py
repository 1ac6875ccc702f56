"""Conditions on columns of samples, as in `category=jazz` or `released>=2019`: which ones may be found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterpoint.common.data.samples import Samples, joined_values, plain
from counterpoint.common.errors import InputError

_FORM = re.compile(r"\s*([^=<>!~\s][^=<>!~]*?)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*")
_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True)
class Condition:
    """A column, how it is compared, and with what. A missing value meets no condition but `!=`; several values of one
    row meet it where one of them does, or all of them as they are read, and `!=` where they do not meet `=`.

    >>> year = Condition.parse("released>=2019")
    >>> year.holds(2020.0), year.holds(None), Condition.parse("genres~Jazz").holds("Folk|Jazz")
    (True, False, True)
    >>> [Condition.parse(f"title{end}").holds(["Toy", "Story"]) for end in ("=Toy", "=Toy Story", "~y st", "!=Toy")]
    [True, True, True, False]
    """

    column: str
    comparison: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises `InputError` for what is no condition."""
        found = _FORM.fullmatch(text)
        if found is None or not found[3]:
            raise InputError(
                f"--where {text!r} is no condition; give COLUMN=VALUE, or with !=, >=, <=, >, <, ~ (contains)"
            )
        if found[2] in _NUMBERS:
            _number(found[3], text)
        return cls(*found.groups())

    def holds(self, value: Any) -> bool:
        """Whether a value meets it."""
        if isinstance(value, list | tuple):
            return self._several(value)
        value = plain(value)
        if self.comparison == "!=":
            return not self._equal(value)
        if value is None:
            return False
        if self.comparison == "=":
            return self._equal(value)
        if self.comparison == "~":
            return self.value.casefold() in str(value).casefold()
        try:
            return _NUMBERS[self.comparison](float(value), float(self.value))
        except ValueError:
            return False

    def _several(self, values: Sequence[Any]) -> bool:
        if self.comparison == "!=":
            return not Condition(self.column, "=", self.value)._several(values)
        return any(self.holds(one) for one in (*values, joined_values(values)))

    def _equal(self, value: Any) -> bool:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value) == float(self.value)
            except ValueError:
                return False
        return value is not None and str(value) == self.value


def _number(value: str, text: str) -> None:
    try:
        float(value)
    except ValueError:
        raise InputError(f"--where {text!r}: {value!r} is no number to compare with") from None


def meeting(samples: Samples, conditions: Sequence[str]) -> np.ndarray:
    """[samples] bool: which samples meet all conditions. Raises `InputError` for a column that is not there, and where
    none of them is left."""
    kept = np.ones(len(samples), dtype=bool)
    for text in conditions:
        condition = Condition.parse(text)
        values = samples.column(condition.column)
        kept &= np.fromiter((condition.holds(value) for value in values), dtype=bool, count=len(samples))
    if not kept.any():
        raise InputError(f"nothing meets {' and '.join(conditions)} (--where); ask for less")
    return kept
