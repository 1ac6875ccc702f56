"""One file of a log, read in a worker process: its rows go to a Parquet file of checked columns, its bad rows are
counted and the first of each kind is named.

The columns written: `user` and `item` (text), `time` (float64), `rating` (float32), `split` (int8) as far as there are,
and `row`, the row's number in the file (the first one below the header is 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from counterpoint.common.errors import InputError
from counterpoint.recsys.data.columns import as_seconds, as_text, find_columns, numbers_of_column, read_header
from counterpoint.recsys.data.log import NO_SPLIT

CHUNK = 1 << 20
_SPLITS = {"train": 0, "training": 0, "0": 0, "val": 1, "valid": 1, "validation": 1, "1": 1, "test": 2, "2": 2}
_SPLITS |= {"": NO_SPLIT, "-1": NO_SPLIT}
#: What programs write for no value. A `none` or `NA` may be somebody's id; an empty cell is told by itself.
MISSING = pa.array(["nan", "NaN", "null", "NULL", "<NA>", "NaT"], pa.large_string())
#: What is wrong with a row, and what to do.
REMEDIES = {
    "user": "no user; give every row one",
    "item": "no item; give every row one",
    "missing": "a word for a missing value in place of an id; give the row its user and item, or take it out",
    "quote": "a line break within an id, as where a quote is opened and not closed; close it, or double it in a text",
    "time": "no readable time; write seconds, or dates such as 2024-05-31T12:00:00",
    "rating": "no rating that is a number; write one, or leave the column out (--rating none)",
    "range": "a rating out of range; mend it, or give the scale of the ratings (--lowest, --highest)",
    "split": "a split that is none of train, val and test; write one of these",
    "fields": "not as many fields as the header; quote the texts that hold the separator",
    "json": "no JSON object; write one object a line",
}


@dataclass(frozen=True)
class Wanted:
    """Which columns of a file are read, and how.

    Attributes:
        columns: role (user, item, time, rating, split) -> the column's name; a role that is missing is looked for among
            the usual names, `none` stands for no such column.
        lowest, highest: the scale of the ratings; None is open.
        form: `table` (Parquet, CSV or TSV, JSONL by the file's ending), `atomic` (RecBole's typed header), `sequences`
            (a user and its items a line).
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    lowest: float | None = None
    highest: float | None = None
    form: str = "table"


@dataclass
class LogPart:
    """What became of a file: rows written, rows seen, and of each kind of bad row how many, which first, and its value.
    """

    rows: int = 0
    seen: int = 0
    columns: tuple[str, ...] = ()
    bad: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def note(self, kind: str, rows: np.ndarray, values: Any = None) -> None:
        """Count bad rows."""
        if not len(rows):
            return
        count, first, said = self.bad.get(kind, (0, int(rows[0]), ""))
        if kind not in self.bad and values is not None:
            said = str(values)[:40]
        self.bad[kind] = (count + len(rows), first, said)

    def sentences(self) -> list[str]:
        """One sentence for each kind."""
        found = []
        for kind, (count, first, said) in self.bad.items():
            what = f" ({said!r})" if said else ""
            rows = f"row {first}{what} has" if count == 1 else f"{count} rows (the first: row {first}{what}) have"
            comma = kind in ("time", "rating") and re.fullmatch(r"\s*-?\d+,\d+\s*", said)
            point = f" (decimals have a point: {said.strip().replace(',', '.')})" if comma else ""
            found.append(f"{rows} {REMEDIES[kind]}{point}")
        return found


def read_part(task: tuple[str, str, Wanted]) -> LogPart:
    """Read a file (first) into checked columns (second: the Parquet file to write)."""
    source, target, wanted = Path(task[0]), Path(task[1]), task[2]
    part, writer = LogPart(), None
    try:
        for table in _batches(source, wanted, part):
            checked = _checked(table, wanted, part)
            if writer is None:
                part.columns = tuple(checked.column_names)
                writer = pq.ParquetWriter(target, checked.schema, use_dictionary=["user", "item"])
            if checked.num_rows:
                writer.write_table(checked, row_group_size=CHUNK)
            part.rows += checked.num_rows
    except (pa.ArrowException, UnicodeError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file's content
            raise
        reason = " ".join(str(error).split())[:150]
        remedy = "save it as UTF-8" if isinstance(error, UnicodeError) or "UTF8" in reason else "save or copy it again"
        raise InputError(f"{source.name}: cannot be read ({reason}); {remedy}") from error
    finally:
        if writer is not None:
            writer.close()
    if not part.seen:
        raise InputError(f"{source.name}: holds no interaction")
    return part


def _batches(source: Path, wanted: Wanted, part: LogPart) -> Iterator[pa.Table]:
    """Tables with the columns named by their roles, and `row`."""
    if wanted.form == "sequences":
        return _sequences(source, part)
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        return _parquet(source, wanted, part)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _jsonl(source, wanted, part)
    return _text(source, wanted, part)


def _parquet(source: Path, wanted: Wanted, part: LogPart) -> Iterator[pa.Table]:
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{source.name}: not a readable Parquet file ({reason}); copy it again") from error
    roles = find_columns(file.schema_arrow.names, wanted.columns, source.name)
    for batch in file.iter_batches(batch_size=CHUNK, columns=list(roles.values())):
        table = pa.Table.from_batches([batch])
        table.validate(full=True)
        yield _numbered({role: table.column(name) for role, name in roles.items()}, table.num_rows, part)


def _text(source: Path, wanted: Wanted, part: LogPart) -> Iterator[pa.Table]:
    names, separator = read_header(source)
    roles = find_columns(names, wanted.columns, source.name, typed=wanted.form == "atomic")
    quoted = wanted.form != "atomic"
    if quoted:
        _close_quotes(source, separator)
    odd: list[int] = []

    def skip(row: Any) -> str:
        odd.append(int(row.number or 0) - 1)
        return "skip"

    reader = pv.open_csv(
        source,
        read_options=pv.ReadOptions(use_threads=False, block_size=1 << 24),
        parse_options=pv.ParseOptions(
            delimiter=separator, invalid_row_handler=skip, quote_char='"' if quoted else False
        ),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=list(roles.values()),
            strings_can_be_null=False,
        ),
    )  # fmt: skip
    for batch in reader:
        columns = {role: batch.column(batch.schema.get_field_index(name)) for role, name in roles.items()}
        yield _numbered(columns, batch.num_rows, part, odd)
    part.note("fields", np.array(odd))
    part.seen += len(odd)


def _close_quotes(source: Path, separator: str) -> None:
    """Raise `InputError` where a quote is opened and never closed: it would swallow all lines behind it. A quote opens
    at the beginning of a field alone, so that 12" within a text is none."""
    opened = 0
    with source.open("rb") as file:
        while part := file.read(1 << 24):
            opened += part.count(b'"')
    if opened % 2 == 0:
        return
    inside, row, begins = False, 0, re.compile(rb'(?:^|[%s])"' % re.escape(separator).encode())
    with source.open("rb") as file:
        for number, line in enumerate(file):
            rest = line
            while b'"' in rest:
                if inside:
                    rest = rest[rest.index(b'"') + 1 :]
                    inside = rest.startswith(b'"')  # doubled: a quote of the text
                    rest = rest[1:] if inside else rest
                elif found := begins.search(rest if rest is line else b"\0" + rest):
                    inside, row = True, number
                    rest = rest[found.end() - (rest is not line) :]
                else:
                    break
    if inside:
        raise InputError(
            f"{source.name}: row {row} opens a quote that is never closed: it would swallow the lines behind it; close "
            'it, or double it within a text ("")'
        )


def _jsonl(source: Path, wanted: Wanted, part: LogPart) -> Iterator[pa.Table]:
    roles: dict[str, str] = {}
    rows: list[dict] = []

    def table() -> pa.Table:
        columns = {}
        for role, name in roles.items():
            values = [row.get(name) for row in rows]
            said = [v if v is None or isinstance(v, str) else json.dumps(_whole(v)) for v in values]
            columns[role] = pa.array(said, pa.string())
        numbers = pa.array([row[""] for row in rows], pa.int64())
        return pa.table(columns | {"row": numbers})

    with source.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if not line.strip():
                continue
            part.seen += 1
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                part.note("json", np.array([part.seen]), line.strip())
                continue
            roles = roles or find_columns(list(row), wanted.columns, source.name)
            rows.append({**row, "": part.seen})
            if len(rows) == CHUNK // 8:
                yield table()
                rows.clear()
    if rows:
        yield table()
    elif not roles and part.seen:
        raise InputError(f"{source.name}: not one of its {part.seen} lines is a JSON object; write one object a line")


def _whole(value: Any) -> Any:
    """2.0 as 2: an id is the same one in every format."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _sequences(source: Path, part: LogPart) -> Iterator[pa.Table]:
    """Lines of a user and its items in the order of time."""
    users: list[str] = []
    items: list[str] = []
    for number, line in enumerate(source.read_text(encoding="utf-8").split("\n"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            part.note("item", np.array([number]), words[0])
            part.seen += 1
            continue
        users += [words[0]] * (len(words) - 1)
        items += words[1:]
    if users:
        yield _numbered({"user": pa.array(users), "item": pa.array(items)}, len(users), part)


def _numbered(columns: dict[str, Any], rows: int, part: LogPart, odd: list[int] | None = None) -> pa.Table:
    """Columns with the numbers of their rows, which pass over the odd ones that the parser has left out (in order)."""
    left_out: list[int] = []
    while odd and odd[0] <= part.seen + rows + len(left_out):
        left_out.append(odd.pop(0))
    numbers = np.arange(part.seen + 1, part.seen + rows + len(left_out) + 1)
    part.note("fields", np.array(left_out))
    part.seen += len(numbers)
    return pa.table({**columns, "row": pa.array(np.setdiff1d(numbers, left_out))})


def _checked(table: pa.Table, wanted: Wanted, part: LogPart) -> pa.Table:
    """The rows that can be used, in the types they are kept in."""
    rows = table.column("row").to_numpy()
    good = np.ones(len(rows), dtype=bool)
    columns: dict[str, pa.Array] = {}

    def refuse(kind: str, bad: np.ndarray, column: Any) -> None:
        new = bad & good
        if new.any():
            place = int(new.argmax())
            part.note(kind, rows[new], column[place].as_py())
            good[new] = False

    for role in ("user", "item"):
        texts = as_text(table.column(role))
        refuse(role, pc.equal(pc.fill_null(texts, ""), "").to_numpy(zero_copy_only=False), texts)
        refuse("missing", pc.is_in(texts, value_set=MISSING).to_numpy(zero_copy_only=False), texts)
        broken = pc.fill_null(pc.match_substring(texts, "\n"), False)
        refuse("quote", broken.to_numpy(zero_copy_only=False), texts)
        columns[role] = texts
    if "time" in table.column_names:
        column = table.column("time")
        values = as_seconds(column)
        refuse("time", ~np.isfinite(values), column)
        columns["time"] = pa.array(values)
    if "rating" in table.column_names:
        column = table.column("rating")
        values = numbers_of_column(column)
        refuse("rating", ~np.isfinite(values), column)
        low = -np.inf if wanted.lowest is None else wanted.lowest
        high = np.inf if wanted.highest is None else wanted.highest
        with np.errstate(invalid="ignore"):
            refuse("range", (values < low) | (values > high) | (np.abs(values) > 3e38), column)
        columns["rating"] = pa.array(np.nan_to_num(values).clip(-3e38, 3e38).astype(np.float32))
    if "split" in table.column_names:
        column = as_text(table.column("split"))
        said = pc.fill_null(column, "")
        names = pc.dictionary_encode(said)
        places = [_SPLITS.get(str(name).strip().lower(), 99) for name in names.dictionary.to_pylist()]
        values = np.array([*places, 99], dtype=np.int8)[names.indices.to_numpy()]
        refuse("split", values == 99, column)
        columns["split"] = pa.array(values)
    columns["row"] = pa.array(rows)
    found = pa.table(columns)
    return found if good.all() else found.filter(pa.array(good))
