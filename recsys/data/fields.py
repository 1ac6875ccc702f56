"""What is said of items and users in their tables, as numbers: categories, sets of categories, binned quantities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

BINS = 10
ID_LIKE = 0.5
"""A text column with so many different values, as a share of the rows, is a name and no field."""


def learn_fields(table: pa.Table, rows: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
    """The fields of a table and their vocabularies, from all rows or the given ones.

    Text and truth values are categories; whole numbers with few values too; other numbers are cut at their deciles;
    lists are sets of categories, without the values of one row alone: these tell of no other row (most words of a title
    are such). Columns `id`, `group` and `split`, and names (nearly all values different) are none.

    >>> learn_fields(pa.table({"id": ["a", "b", "c", "d"], "tags": [["x"], ["x", "y"], ["y", "z"], None]}))
    {'tags': {'kind': 'set', 'values': ['x', 'y']}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name in table.column_names:
        if name in ("id", "group", "split"):
            continue
        values = table.column(name).to_pylist()
        values = values if rows is None else [values[i] for i in rows]
        field = _learn(table.schema.field(name).type, values)
        if field is not None:
            found[name] = field
    return found


def _learn(kind: pa.DataType, values: Sequence[Any]) -> dict[str, Any] | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        counts = Counter(word for several in known for word in {str(v) for v in several if v is not None} if word)
        words = sorted(word for word, rows in counts.items() if rows > 1)
        return {"kind": "set", "values": words} if words else None
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and len(set(known)) > 4 * BINS):
        numbers = np.array([v for v in known if np.isfinite(v)], dtype=np.float64)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])) if len(numbers) else []
        return {"kind": "bins", "edges": [float(e) for e in edges]} if len(edges) else None
    words = sorted({str(v) for v in known if str(v)})
    if len(words) < 2 or len(words) > max(ID_LIKE * len(known), 2):
        return None
    return {"kind": "category", "values": words}


def encode_field(field: Mapping[str, Any], values: Sequence[Any]) -> sp.csr_array:
    """[rows, values] 1 where a row has a value; what the vocabulary does not know, and what is missing, is nowhere.

    >>> encode_field({"kind": "bins", "edges": [1.0, 2.0]}, [0.5, 3.0, None]).toarray().tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    rows, columns = [], []
    if field["kind"] == "bins":
        width = len(field["edges"]) + 1
        for row, value in enumerate(values):
            if value is not None and np.isfinite(value):
                rows.append(row)
                columns.append(int(np.searchsorted(field["edges"], value, side="right")))
    else:
        places = {word: i for i, word in enumerate(field["values"])}
        width = len(places)
        for row, value in enumerate(values):
            several = value if isinstance(value, (list, tuple)) else [value]
            own = {places[str(v)] for v in several or () if v is not None and str(v) in places}
            rows += [row] * len(own)
            columns += sorted(own)
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(values), width))


def encode_fields(fields: Mapping[str, Mapping[str, Any]], table: pa.Table) -> list[sp.csr_array]:
    """Every field of a table; one that the table lacks is missing of all rows."""
    return [
        encode_field(field, table.column(name).to_pylist() if name in table.column_names else [None] * len(table))
        for name, field in fields.items()
    ]
