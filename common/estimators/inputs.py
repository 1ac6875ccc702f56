"""X, groups and splits as scikit-learn's users bring them, in the form that a vertical's `samples_from` takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from counterpoint.common.errors import InputError


def rows_of(estimator: BaseEstimator, X: Any, reset: bool) -> Any:
    """X as an array of numbers, checked as scikit-learn checks it (missing values may stand in it), or as a list where
    it holds texts or objects, one a row. With `reset` its width and columns become the estimator's own."""
    things = _things(X)
    if things is None:
        return validate_data(
            estimator, X, reset=reset, dtype="numeric", allow_nd=True, ensure_all_finite=False, ensure_min_features=1
        )
    if reset:  # such rows have no width, and one column may be called anything
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    return things


def _things(X: Any) -> list | None:
    """The rows of a list, a Series or a single column that are no numbers; None for everything else."""
    if isinstance(X, (str, bytes)):
        raise InputError(f"X is one text ({X[:40]!r}); give a list of them, one a row")
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        if X.shape[1] != 1 or all(getattr(kind, "kind", "O") in "biufc" for kind in X.dtypes):
            return None
        X = np.asarray(X, dtype=object)
    if hasattr(X, "dtype") and getattr(X.dtype, "kind", "O") in "biufc":
        return None
    if isinstance(X, np.ndarray):
        if X.ndim != 1 and (X.ndim != 2 or X.shape[1] != 1):
            return None
        X = X.ravel()
    elif not isinstance(X, (list, tuple)) and not hasattr(X, "dtype"):
        return None
    from counterpoint.common.data.samples import plain

    rows = list(X)
    return rows if any(_is_thing(row) for row in rows if plain(row) is not None) else None


def _is_thing(row: Any) -> bool:
    if isinstance(row, (str, bytes, os.PathLike)):
        return True
    return not (isinstance(row, (Number, np.generic)) or hasattr(row, "__len__") or hasattr(row, "__array__"))


def groups_of(groups: Any, count: int) -> list[str]:
    """The group of every row, as text; each row its own where none are given."""
    if groups is None:
        return [str(i) for i in range(count)]
    from counterpoint.common.data.samples import plain

    names = [plain(name) for name in groups]
    if len(names) != count:
        raise InputError(f"groups holds {len(names)} values and X {count} rows; give one a row")
    for row, name in enumerate(names):
        if name is None:
            raise InputError(f"groups[{row}] is missing; give every row a group")
    return [str(name) for name in names]


def split_at_random(groups: Sequence[str], fraction: float, seed: int) -> list[str]:
    """`train` or `val` for every row: whole groups for validation, about a `fraction` of the rows.

    >>> split_at_random(["a", "a", "b", "c"], 0.25, seed=0).count("val") in (1, 2)
    True
    """
    if not isinstance(fraction, Number) or not 0 <= fraction < 1:
        raise InputError(f"validation_fraction is {fraction!r}; give a share from 0 up to, not including, 1")
    if not fraction:
        return ["train"] * len(groups)
    from counterpoint.common.data import Manifest, split_by_group

    table = Manifest.from_rows([{"id": str(i), "group": group} for i, group in enumerate(groups)])
    return split_by_group(table, {"train": 1 - fraction, "val": fraction}, seed).frame["split"].tolist()
