"""Texts of a table that hold several values each, as MovieLens writes `Adventure|Animation|Comedy`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such

WORDS = {"comma": ",", "space": " ", "tab": "\t"}
SEPARATOR = "|"


def separators(sets: Sequence[str]) -> dict[str, str]:
    """`COLUMN=SEPARATOR` as a mapping; the separators `comma`, `space` and `tab` are written in words.

    >>> separators(["genres=|", "tags=comma"])
    {'genres': '|', 'tags': ','}
    """
    found = {}
    for text in sets:
        name, equals, separator = text.partition("=")
        if not equals or not name.strip() or not separator:
            raise InputError(f"--sets {text}: give COLUMN=SEPARATOR, as in 'genres=|' or tags=comma")
        found[name.strip()] = WORDS.get(separator.strip(), separator)
    return found


def check_columns(wanted: Mapping[str, str], tables: Sequence[pa.Table | None]) -> None:
    """Raise `InputError` for a column that stands in none of the tables."""
    known = [name for table in tables if table is not None for name in table.column_names if name != "id"]
    for name in wanted:
        if name not in known:
            raise InputError(f"--sets: {no_such('column', name, known)}")


def split_sets(table: pa.Table | None, wanted: Mapping[str, str]) -> pa.Table | None:
    """The table with its columns of texts parted at their separators: lists of what stands between, blanks around it
    and empty parts left out; a row without a text stays without a value.

    >>> films = pa.table({"id": ["1", "2"], "genres": ["Comedy| Drama", None]})
    >>> split_sets(films, {"genres": "|"})["genres"].to_pylist()
    [['Comedy', 'Drama'], None]
    """
    for name, separator in wanted.items() if table is not None else ():
        if name not in table.column_names:
            continue
        column = table.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise InputError(f"--sets {name}: the column holds {column.type}, not texts")
        values = [
            None if not text else [part.strip() for part in text.split(separator) if part.strip()]
            for text in column.to_pylist()
        ]
        lists = pa.array(values, pa.list_(pa.large_string()))
        table = table.set_column(table.column_names.index(name), name, lists)
    return table


def looks_like_sets(tables: Sequence[pa.Table | None]) -> Iterator[str]:
    """A sentence for every column of texts a tenth of which hold a `|`, which is seldom part of one value.

    >>> list(looks_like_sets([pa.table({"id": ["1", "2"], "genres": ["Comedy|Drama", "Drama"]})]))
    ["1 of 2 texts of genres hold '|' and are read as one value each; --sets 'genres=|' reads several"]
    """
    for table in tables:
        for name in () if table is None else table.column_names:
            column = table.column(name)
            if name == "id" or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                continue
            holds = pc.sum(pc.match_substring(column, SEPARATOR)).as_py() or 0
            texts = pc.sum(pc.greater(pc.utf8_length(column), 0)).as_py() or 0
            if texts and holds * 10 >= texts:
                yield (
                    f"{holds:,} of {texts:,} texts of {name} hold '{SEPARATOR}' and are read as one value each; "
                    f"--sets '{name}={SEPARATOR}' reads several"
                )
