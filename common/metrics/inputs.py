"""Whatever holds numbers or labels, converted at one place: tensors, arrays, lists, columns of pandas and Arrow, files.

Metrics are written for tensors and arrays; `accepts` names the parameters of a metric that are converted on the way in.
pandas and pyarrow are never imported for values that are not theirs.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILES = (".parquet", ".npy")


def as_matrix(z: object) -> Tensor:
    """Features as a tensor [rows, dim]: from a tensor, an array, nested lists, a table whose columns are all numbers, a
    column that holds one vector a row, or a `.parquet` or `.npy` file of these.

    A table of other columns besides must have one column of vectors, or numbered ones (e0, e1, ...).

    >>> as_matrix([[1.0, 2.0]]).shape, as_matrix(np.ones((3, 2))).shape
    (torch.Size([1, 2]), torch.Size([3, 2]))
    """
    if isinstance(z, Tensor):
        return z
    z = _opened(z)
    if _library(z) == "pyarrow":
        return torch.from_numpy(_from_table(z) if hasattr(z, "column_names") else _from_arrow(z))
    if _library(z) == "pandas" and getattr(z, "ndim", 1) == 2:
        return torch.from_numpy(_from_table(_arrow_of(z)))
    rows = z if isinstance(z, np.ndarray) and z.dtype != object else _list(z)
    try:
        array = np.asarray(rows) if isinstance(rows, np.ndarray) else _stacked(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"features must be numbers, one vector a row ({' '.join(str(error).split())})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"features must be real numbers, got {array.dtype}")
    return torch.from_numpy(np.array(array))  # a copy: what is given may be read-only


def as_features(z: object) -> Tensor:
    """`as_matrix`, with whole numbers and truth values as floats.

    >>> as_features([[1, 0]])
    tensor([[1., 0.]])
    """
    z = as_matrix(z)
    return z if z.dtype.is_floating_point else z.float()


def as_list(values: object) -> list:
    """One plain Python value a row; None where a table says that it is missing.

    >>> as_list(torch.tensor([1, 2])), as_list((np.float64(0.5), None))
    ([1, 2], [0.5, None])
    """
    values = _list(_one_column(_opened(values)))
    plain = (v.item() if isinstance(v, Tensor | np.generic) and v.ndim == 0 else v for v in values)
    return [None if type(v).__name__ in ("NAType", "NaTType") else v for v in plain]


def as_array(values: object) -> np.ndarray:
    """The same as an array, a matrix where there are several values a row; numbers stay numbers where none is missing.

    >>> as_array(["a", None]).tolist(), as_array([1, 2]).dtype.kind
    (['a', None], 'i')
    """
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        return values
    values = _opened(values)
    if (matrix := as_table(values)) is not None:
        return matrix
    plain = as_list(values)
    try:
        return np.asarray(plain)
    except ValueError:
        raise ValueError("rows of different lengths: give one value (or as many) for every row") from None


def as_numbers(values: object) -> np.ndarray:
    """One number a row in double precision, NaN where it is missing.

    >>> as_numbers([1, None, "2.5"])
    array([1. , nan, 2.5])
    """
    if isinstance(values, Tensor) or (isinstance(values, np.ndarray) and values.dtype.kind in "biuf"):
        found = as_array(values).astype(np.float64)
    else:
        try:
            found = np.array([np.nan if v is None else float(v) for v in as_list(values)])
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a number a row: {error}") from None
    return found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found


def as_table(labels: object) -> np.ndarray | None:
    """Several labels a row as a matrix; None where there is one value a row."""
    labels = _opened(labels)
    if isinstance(labels, Tensor | np.ndarray):
        return as_array(labels) if labels.ndim == 2 else None
    if _library(labels) == "pandas" and getattr(labels, "ndim", 1) == 2:
        labels = _arrow_of(labels)
    if hasattr(labels, "column_names"):
        if labels.num_columns == 1:  # type: ignore[attr-defined]
            return None
        return np.stack([as_numbers(column) for column in labels.columns], axis=1)  # type: ignore[attr-defined]
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], list | tuple | np.ndarray):
        return _stacked(labels)
    return None


def vector_columns(schema: Any) -> dict[str, list[str]]:
    """Which columns of an Arrow table hold vectors: name of the vectors -> their columns.

    Columns named `vector.<name>` (as `embed` writes them), else every column of lists of numbers, else numbered columns
    of numbers (`e0`, `e1`, ...) under their common beginning.

    >>> import pyarrow as pa
    >>> vector_columns(pa.schema({"id": pa.string(), "e1": pa.float32(), "e0": pa.float32()}))
    {'e': ['e0', 'e1']}
    """
    import pyarrow as pa

    def number(kind: Any) -> bool:
        return pa.types.is_floating(kind) or pa.types.is_integer(kind)

    lists = [f.name for f in schema if _is_list(f.type) and number(f.type.value_type)]
    if ours := [name for name in lists if name.startswith("vector.")]:
        return {name.removeprefix("vector."): [name] for name in ours}
    if lists:
        return {name: [name] for name in lists}
    numbered: dict[str, dict[int, str]] = {}
    for f in schema:
        if number(f.type) and (match := re.fullmatch(r"(.*?)[_.\-]?(\d+)", str(f.name))):
            numbered.setdefault(match[1], {})[int(match[2])] = f.name
    return {
        prefix: [columns[i] for i in sorted(columns)]
        for prefix, columns in numbered.items()
        if len(columns) > 1 and sorted(columns) == list(range(min(columns), min(columns) + len(columns)))
    }


def accepts(
    *, matrices: Sequence[str] = (), arrays: Sequence[str] = (), numbers: Sequence[str] = ()
) -> Callable[[Callable], Callable]:
    """Convert these parameters of a metric: feature matrices, columns of anything, columns of numbers. None stays None.

    A mapping is converted value by value, and so is a tuple of matrices.

    >>> @accepts(matrices=["z"])
    ... def width(z):
    ...     return z.shape[1]
    >>> width([[1, 2, 3]])
    3
    """
    kinds = {**dict.fromkeys(matrices, as_features), **dict.fromkeys(arrays, as_array)}
    kinds |= dict.fromkeys(numbers, as_numbers)

    def wrap(function: Callable) -> Callable:
        signature = inspect.signature(function)
        if unknown := set(kinds) - set(signature.parameters):
            raise TypeError(f"{function.__name__} has no parameter {', '.join(unknown)}")

        @functools.wraps(function)
        def converted(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            for name, convert in kinds.items():
                value = bound.arguments.get(name)
                if isinstance(value, Mapping):
                    bound.arguments[name] = {key: convert(one) for key, one in value.items()}
                elif isinstance(value, tuple) and value and all(getattr(one, "ndim", 0) == 2 for one in value):
                    bound.arguments[name] = tuple(convert(one) for one in value)
                elif value is not None:
                    bound.arguments[name] = convert(value)
            return function(*bound.args, **bound.kwargs)

        return converted

    return wrap


def _library(x: object) -> str:
    return type(x).__module__.partition(".")[0]


def _opened(x: object) -> object:
    """The content of a `.parquet` or `.npy` file that is named instead of values; pickled objects are never read."""
    if not (isinstance(x, Path) or (isinstance(x, str) and x.endswith(FILES))):
        return x
    path = Path(x)
    if path.suffix not in FILES:
        raise ValueError(f"{path}: values are read from {' and '.join(FILES)} files")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        import pyarrow.parquet as pq

        return pq.read_table(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:150]})") from None


def _one_column(x: object) -> object:
    """The only column of a table of one."""
    if hasattr(x, "column_names"):
        if x.num_columns != 1:  # type: ignore[attr-defined]
            raise ValueError(f"one column is needed, the table has {', '.join(x.column_names)}: name one of them")
        return x.column(0)  # type: ignore[attr-defined]
    if _library(x) == "pandas" and getattr(x, "ndim", 1) == 2:
        if x.shape[1] != 1:  # type: ignore[attr-defined]
            names = ", ".join(map(str, x.columns))  # type: ignore[attr-defined]
            raise ValueError(f"one column is needed, the table has {names}: name one of them")
        return x.iloc[:, 0]  # type: ignore[attr-defined]
    return x


def _list(x: object) -> list:
    if isinstance(x, Tensor):
        return x.detach().cpu().tolist()
    if hasattr(x, "to_pylist"):  # Arrow
        return x.to_pylist()
    return x.tolist() if hasattr(x, "tolist") else list(x)  # type: ignore[call-overload]


def _stacked(rows: Sequence) -> np.ndarray:
    """Rows of numbers as one matrix; the first odd row is named."""
    parts = [r.detach().cpu().numpy() if isinstance(r, Tensor) else np.asarray(r) for r in rows]
    if parts and parts[0].ndim == 0:
        return np.asarray(rows)
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(f"row {i} holds {part.size} numbers, row 0 holds {parts[0].size}")
        if part.dtype.kind not in "biuf":
            raise ValueError(f"row {i} holds other things than numbers")
    return np.stack(parts) if parts else np.zeros((0, 0))


def _arrow_of(frame: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.table({str(name): pa.array(frame.iloc[:, i], from_pandas=True) for i, name in enumerate(frame)})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"a column holds values of several types ({' '.join(str(error).split())[:120]})") from None


def _from_table(table: Any) -> np.ndarray:
    """The vectors of an Arrow table: its only vectors, or all its columns where all are numbers and none is an id."""
    import pyarrow as pa

    found = vector_columns(table.schema)
    plain = all(pa.types.is_floating(f.type) or pa.types.is_integer(f.type) for f in table.schema)
    if plain and not {"id", "group", "split", "label", "row", "sample"} & set(table.column_names):
        found = {"": table.column_names}
    if len(found) != 1:
        what = f"several vectors ({', '.join(found)})" if found else "no column of vectors"
        raise ValueError(f"the table holds {what}; its columns are {', '.join(table.column_names)}: give one of them")
    return from_columns(table, next(iter(found.values())))


def from_columns(table: Any, names: Sequence[str]) -> np.ndarray:
    """The matrix that one column of vectors, or several columns of numbers, hold."""
    if len(names) == 1 and _is_list(table.schema.field(names[0]).type):
        return _from_arrow(table.column(names[0]))
    columns = [table.column(name).to_numpy() for name in names]
    return np.stack(columns, axis=1) if all(c.dtype == np.float32 for c in columns) else np.stack(
        [c.astype(np.float64) for c in columns], axis=1
    )  # fmt: skip


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _from_arrow(column: Any) -> np.ndarray:
    """An Arrow column of vectors as a matrix, without a Python object a number; a column of numbers as an array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_list(column.type):
        return np.array(column.to_numpy(zero_copy_only=False)) if isinstance(column, pa.Array) else column.to_numpy()
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    if whole.null_count:
        row = whole.is_null().index(True).as_py()
        raise ValueError(f"row {row} holds no vector ({whole.null_count} of {len(whole)} do not)")
    if not len(whole):
        return np.zeros((0, 0))
    lengths = pc.list_value_length(whole).to_numpy(zero_copy_only=False)
    if (odd := np.flatnonzero(lengths != lengths[0])).size:
        raise ValueError(f"row {odd[0]} holds {lengths[odd[0]]} numbers, row 0 holds {lengths[0]}")
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return np.array(flat).reshape(len(whole), -1)
