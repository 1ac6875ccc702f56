"""Class labels of any kind as codes: strings, integers, missing ones, several per sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from counterpoint.common.metrics.inputs import as_list, as_matrix, as_table

# One str, int or None a row, or a [n, classes] matrix of 0/1/NaN: in lists, tensors, arrays, columns of tables.
LabelsLike = object

# Names of the class that is not looked for, where there are two.
_NEGATIVE = {"0", "-1", "no", "not", "n", "false", "negative", "neg", "absent", "none", "normal", "healthy", "control"}
_NEGATIVE |= {"benign", "inactive", "background", "other", "rest"}


@dataclass(frozen=True)
class LabelSet:
    """Labels of one split as codes into `classes`; -1 is missing. `matrix` is [n, classes] 0/1/NaN for multi-label."""

    codes: np.ndarray
    classes: tuple[str, ...]
    matrix: np.ndarray | None = None

    @property
    def multilabel(self) -> bool:
        return self.matrix is not None

    @property
    def present(self) -> np.ndarray:
        """Rows that carry a label (multi-label: at least one entry that is not missing)."""
        return self.codes >= 0 if self.matrix is None else np.isfinite(self.matrix).any(1)


def encode_labels(*parts: LabelsLike) -> list[LabelSet]:
    """Code the labels of several splits with one list of classes: the union over ALL of them, sorted.

    A class that stands only in the test set gets its own code, so that it counts as missed instead of shifting the
    codes of the others. None, NaN and the empty string are missing; 1, 1.0 and True are one class, called "1".

    Raises:
        ValueError: a matrix holds anything but 0, 1 and NaN, or a class stands there both as a number and as text.

    >>> train, test = encode_labels(["b", "a", None], ["c", "a"])
    >>> train.classes, train.codes.tolist(), test.codes.tolist()
    (('a', 'b', 'c'), [1, 0, -1], [2, 0])
    """
    arrays = [_matrix(p) for p in parts]
    if any(a is not None for a in arrays):
        if not all(a is not None for a in arrays) or len({a.shape[1] for a in arrays if a is not None}) != 1:
            raise ValueError("multi-label splits must all be [samples, classes] matrices with the same classes")
        classes = tuple(str(c) for c in range(arrays[0].shape[1]))  # type: ignore[union-attr]
        return [LabelSet(np.full(len(a), -1), classes, a) for a in arrays if a is not None]
    lists = [_list(p) for p in parts]
    classes = sorted({x for values in lists for x in values if x is not None}, key=_order)
    index = {c: i for i, c in enumerate(classes)}
    names = tuple(str(c) for c in classes)
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"class {twice[0]} stands there as a number and as text: give all labels one type")
    return [LabelSet(np.array([-1 if x is None else index[x] for x in v], dtype=np.int64), names) for v in lists]


def positive_class(classes: Sequence[str]) -> int:
    """Which of two classes is the one looked for: the second in order, as 1 is of 0 and 1, unless by its name it is the
    negative one.

    >>> positive_class(["0", "1"]), positive_class(["afib", "normal"])
    (1, 0)
    """
    first, second = (name.strip().lower() in _NEGATIVE for name in classes)
    return 0 if second and not first else 1


def class_names(labels: LabelsLike) -> list[str]:
    """The class of every row as text, as `encode_labels` names it; missing ones are empty.

    >>> class_names([1.0, None, "b"])
    ['1', '', 'b']
    """
    return ["" if value is None else str(value) for value in _list(labels)]


def defines_groups(labels: LabelsLike, groups: object) -> bool:
    """Whether a label is a name of the groups: one value in each group, and another one in every other group.

    No sample of another group can then carry a sample's label: nothing can be learnt from some groups and scored on
    others. Rows without a label say nothing.

    >>> defines_groups(["x", "x", "y"], ["ann", "ann", "bob"]), defines_groups(["x", "y", "y"], ["a", "b", "c"])
    (True, False)
    """
    pairs = {(c, g) for c, g in zip(class_names(labels), as_list(groups)) if c}
    classes, units = {c for c, _ in pairs}, {g for _, g in pairs}
    return len(pairs) == len(classes) == len(units) > 1


def one_hot(labels: LabelSet) -> np.ndarray:
    """[n, classes] 0/1 matrix; for multi-label the matrix itself with missing entries kept as NaN."""
    if labels.matrix is not None:
        return labels.matrix
    out = np.zeros((len(labels.codes), len(labels.classes)))
    rows = np.flatnonzero(labels.present)
    out[rows, labels.codes[rows]] = 1
    return out


def _matrix(labels: LabelsLike) -> np.ndarray | None:
    array = as_table(labels)
    if array is None:
        return None
    matrix = array.astype(np.float64)
    odd = np.isfinite(matrix) & (matrix != 0) & (matrix != 1) | np.isinf(matrix)
    if odd.any():
        raise ValueError(f"a multi-label matrix holds 0, 1 and NaN (missing), not {matrix[odd][0]:g}")
    return matrix


def _list(labels: LabelsLike) -> list:
    return [None if _missing(v) else _plain(v) for v in as_list(labels)]  # compared by value, not by identity


def _missing(label: object) -> bool:
    """None, NaN, NaT, pandas' NA and the empty text say nothing."""
    return label is None or type(label).__name__ in ("NAType", "NaTType") or label == "" or label != label


def _plain(label: object) -> object:
    """Whole numbers as integers: a column with a missing label turns the class 1 into 1.0."""
    whole = isinstance(label, bool) or (isinstance(label, float) and label.is_integer())
    return int(label) if whole else label  # type: ignore[call-overload]


def _order(label: object) -> tuple:
    return (0, label, "") if isinstance(label, int | float) else (1, 0, str(label))


def take(x: Tensor, rows: np.ndarray) -> Tensor:
    """Rows of a tensor by a numpy index or mask."""
    x = as_matrix(x)
    return x[torch.as_tensor(rows, device=x.device)]
