"""Tables of users and items: an id, and what else is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from counterpoint.common.data.importing import require_file
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.recsys.data.columns import as_text, numbers_of_column, read_header
from counterpoint.recsys.data.ids import IdMap


def side_table(ids: IdMap, table: pa.Table | None) -> pa.Table:
    """A row for every id, with the columns of a table that knows some of them."""
    if table is None:
        return pa.table({"id": ids.names})
    rows = IdMap(table.column("id")).rows(ids)
    places = pa.array(np.where(rows < 0, 0, rows), pa.int64(), mask=rows < 0)
    rest = {name: table.column(name).combine_chunks().take(places) for name in table.column_names if name != "id"}
    return pa.table({"id": ids.names, **rest})


def read_sidetable(source: Path, key: str | None, form: str = "table") -> pa.Table:
    """A table of users or items: `id` and its other columns, numbers as numbers and lists of texts or of whole numbers
    as lists; read in a worker. Of an atomic file, what its header calls `token_seq` is a list, parted at blanks.

    `key` names the column of ids; its first column unless given.
    """
    require_file(source)
    with Isolated() as worker:
        try:
            return worker.call(_sidetable, str(source), key, form)
        except InputError as error:
            said = str(error)
            raise InputError(said if source.name in said else f"{source}: {said}") from None


def _sidetable(source: str, key: str | None, form: str) -> pa.Table:
    path = Path(source)
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, page_checksum_verification=True)
            table.validate(full=True)
        elif path.suffix in (".jsonl", ".ndjson"):
            table = pa.Table.from_pandas(pd.read_json(path, lines=True, dtype=False), preserve_index=False)
        else:
            _, separator = read_header(path)
            quoting = 3 if form == "atomic" else 0
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, quoting=quoting, index_col=False)
            table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name}: cannot be read ({' '.join(str(error).split())[:150]})") from error
    if not table.num_columns or not table.num_rows:
        raise InputError(f"{path.name}: an empty table")
    kinds = {n.partition(":")[0]: n.partition(":")[2] for n in table.column_names} if form == "atomic" else {}
    table = table.rename_columns([n.partition(":")[0] for n in table.column_names]) if kinds else table
    key = key or table.column_names[0]
    if key not in table.column_names:
        raise no_such("column", key, table.column_names)
    ids = as_text(table.column(key))
    empty = pc.fill_null(pc.equal(ids, ""), True)
    kept = {"id": ids}
    for name in table.column_names:
        if name == key or name in ("id", "group", "split"):
            continue
        kept[name] = _plain(table.column(name), kinds.get(name, ""))
    found = pa.table(kept).filter(pc.invert(empty))
    if pc.count_distinct(found.column("id")).as_py() < found.num_rows:
        counts = pc.value_counts(found.column("id").combine_chunks())
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise InputError(f"{path.name}: id {twice!r} stands there twice; give every user and item one row")
    return found


def _plain(column: pa.ChunkedArray, kind: str) -> pa.Array:
    """Numbers as float64 where the header says so or every value is one, several values of a row as a list of texts;
    all else, vectors among it, as text."""
    array = column.combine_chunks()
    if pa.types.is_nested(array.type):
        if _lists_words(array.type):
            several = [None if v is None else [str(w) for w in v if w is not None] for v in array.to_pylist()]
            return pa.array(several, pa.list_(pa.large_string()))
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in array.to_pylist()])
    texts = pc.cast(array, pa.large_string()) if not pa.types.is_dictionary(array.type) else array.dictionary_decode()
    if kind == "token_seq":
        several = [[word for word in v.split(" ") if word] if v else None for v in texts.to_pylist()]
        return pa.array(several, pa.list_(pa.large_string()))
    if kind in ("token", "float_seq"):
        return texts
    numbers = numbers_of_column(array)
    some = pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
    if some.any() and np.isfinite(numbers[some]).all():
        return pa.array(numbers, mask=~some)
    return texts


def _lists_words(kind: pa.DataType) -> bool:
    """Whether a type is a list of what can be a category: texts or whole numbers (an empty list of no type, too)."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
             pa.types.is_large_list_view)  # fmt: skip
    if not any(test(kind) for test in lists):
        return False
    value = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    return any(
        test(value)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer,
                     pa.types.is_null)
    )  # fmt: skip
