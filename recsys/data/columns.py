"""The columns of a table by their roles, and their values as text, numbers and seconds."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such

#: Names by which a column is found where none is given.
USUAL = {
    "user": ("user", "user_id", "userid", "uid", "reviewerid", "customer_id", "session_id"),
    "item": ("item", "item_id", "itemid", "iid", "asin", "movieid", "product_id", "parent_asin"),
    "time": ("time", "timestamp", "date", "datetime", "ts", "unixreviewtime"),
    "rating": ("rating", "score", "stars", "overall", "weight"),
    "split": ("split", "x_label"),
}


def read_header(source: Path) -> tuple[list[str], str]:
    """The names in a text table's first line, and what separates them."""
    with source.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{source.name}: not UTF-8 text; save it as UTF-8") from None
    if not text.strip() or "\0" in text:
        raise InputError(f"{source.name}: its first line names no columns; write them there")
    separator = max("\t,;|", key=text.count)
    names = next(csv.reader([text], delimiter=separator))
    if all(_is_number(name) for name in names):
        raise InputError(f"{source.name}: its first line names no columns ({text[:40]!r}); write their names above it")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source.name}: column {twice!r} stands there twice; rename one of them")
    return names, separator


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_columns(names: Sequence[str], given: Mapping[str, str], file: str, typed: bool = False) -> dict[str, str]:
    """Role -> column, by the names given, else by the usual ones.

    >>> find_columns(["userId", "movieId", "rating", "timestamp"], {"rating": "none"}, "ratings.csv")
    {'user': 'userId', 'item': 'movieId', 'time': 'timestamp'}
    """
    plain = {(name.partition(":")[0] if typed else name).strip(): name for name in names}
    found = {}
    for role, usual in USUAL.items():
        wanted = given.get(role)
        if wanted == "none":
            continue
        if wanted is not None:
            if wanted not in plain and wanted not in names:
                raise InputError(f"{file}: {no_such('column', wanted, plain)}")
            found[role] = plain.get(wanted, wanted)
            continue
        by_name = {re.sub(r"\W", "", name).lower(): column for name, column in plain.items()}
        match = next((by_name[n.replace("_", "")] for n in usual if n.replace("_", "") in by_name), None)
        match = match or next((by_name[n] for n in usual if n in by_name), None)
        if match is not None:
            found[role] = match
        elif role in ("user", "item"):
            raise InputError(
                f"{file}: no column of {role}s among {', '.join(map(repr, list(plain)[:10]))}; name it with --{role}"
            )
    return found


def as_text(column: Any) -> pa.Array:
    """Ids as text: whole numbers without a fraction, whatever type a table gave them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type):
        whole = array.to_numpy(zero_copy_only=False)
        known = whole[~np.isnan(whole)]
        if np.array_equal(known, np.round(known)) and (np.abs(known) < 2**53).all():
            array = pc.cast(array, pa.int64())
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or pa.types.is_fixed_size_binary(array.type):
        raise InputError(f"ids are texts or numbers, not {array.type}")
    return pc.utf8_trim_whitespace(pc.cast(array, pa.large_string()))


def numbers_of_column(column: Any) -> np.ndarray:
    """[rows] float64, NaN where there is no number."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    if any(test(kind) for test in numeric):
        found = pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    elif pa.types.is_null(kind):
        found = np.full(len(array), np.nan)
    else:
        texts = pd.Series(as_text(array).to_pylist(), dtype=object)
        found = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def as_seconds(column: Any) -> np.ndarray:
    """[rows] float64: numbers as they are, dates and times in seconds since 1970; NaN where neither can be read.

    >>> as_seconds(pa.array(["1970-01-02", "yesterday", "7.5"])).tolist()
    [86400.0, nan, 7.5]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_date(array.type):
        array = pc.cast(array, pa.timestamp("s"))
    if pa.types.is_timestamp(array.type):
        micro = pc.cast(pc.cast(array, pa.timestamp("us", array.type.tz), safe=False), pa.int64())
        return pc.cast(micro, pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6
    found = numbers_of_column(array)
    if np.isnan(found).any() and not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        places = np.flatnonzero(np.isnan(found))
        texts = as_text(array.take(pa.array(places))).to_pylist()
        read = pd.to_datetime(pd.Series(texts, dtype=object), errors="coerce", utc=True, format="ISO8601")
        seconds = (read - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
        found = found.copy()
        found[places] = seconds.to_numpy(dtype=np.float64)
    return found
