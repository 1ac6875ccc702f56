"""Tables of a manifest as Arrow: columns that workers share, and a content hash that no file format changes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def table_of(frame: pd.DataFrame) -> pa.Table:
    """An Arrow table of a frame without its index; a column of several types (as JSON allows) becomes text of JSON."""
    return pa.table({str(name): _array(frame[name]) for name in frame.columns})


def _array(column: pd.Series) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if _missing(v) else json.dumps(v, default=str) for v in column], pa.large_string())


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def table_hash(table: pa.Table) -> str:
    """sha256 over the columns in the order of their names: text as it stands, numbers as double precision, missing
    values as missing, whatever types and chunks a file format gave them.

    >>> one, two = pa.table({"a": [1, 2], "b": ["x", None]}), pa.table({"b": ["x", None], "a": [1.0, 2.0]})
    >>> table_hash(one) == table_hash(two)
    True
    """
    seen = hashlib.sha256(str(table.num_rows).encode())
    for name in sorted(table.column_names):
        seen.update(f"|{name}:".encode())
        column = table.column(name)
        if pa.types.is_boolean(column.type):
            column = pc.cast(column, pa.large_string())
        if _numeric(column.type):
            _hash_numbers(seen, column)
        elif column.null_count == len(column):  # a column without a value has no type of its own
            seen.update(b"missing")
        else:
            _hash_text(seen, column)
    return seen.hexdigest()


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _hash_numbers(seen: Any, column: pa.ChunkedArray) -> None:
    if pa.types.is_integer(column.type) and len(column) > column.null_count:
        largest = pc.max(pc.abs(pc.cast(column, pa.float64(), safe=False))).as_py()
        if largest >= 2**53:  # beyond what a double holds exactly
            _hash_text(seen, pc.cast(column, pa.large_string()))
            return
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    missing = np.isnan(values)
    if missing.all():
        seen.update(b"missing")
        return
    values = np.where(missing, np.nan, values) + 0.0  # one NaN, one zero
    seen.update(b"number")
    seen.update(np.ascontiguousarray(values).tobytes())


def _hash_text(seen: Any, column: pa.ChunkedArray) -> None:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        texts = [None if v is None else json.dumps(v, default=str, sort_keys=True) for v in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.large_string())])
    seen.update(b"text")
    lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False)
    seen.update(np.ascontiguousarray(lengths, dtype=np.int64).tobytes())
    for chunk in pc.cast(column, pa.large_string()).chunks:
        whole = pc.fill_null(chunk, "")
        _, offsets, data = whole.buffers()
        ends = np.frombuffer(offsets, np.int64, len(whole) + 1, 8 * whole.offset)
        if data is not None and len(whole):
            seen.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
