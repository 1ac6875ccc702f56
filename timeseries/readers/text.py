"""Text files as people have them: UTF-8 with or without a mark, UTF-16, Latin-1; tables with device lines on top."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from counterpoint.common.errors import InputError

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SEPARATORS = (",", ";", "\t", "|", " ")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)|na|null|\?|-", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_TIME = re.compile(
    r"\d{1,4}([-/.]\d{1,2}[-/.]\d{1,4})?([T ]?\d{1,2}(:\d{1,2})+([.,:]\d+)?)?\s*(Z|[AP]M|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)
HEAD = 400


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file and its encoding, found from its first bytes; what is not UTF-8 is read as Latin-1."""
    data = path.read_bytes()
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(name), name
            except UnicodeDecodeError as error:
                raise InputError(f"{path}: not readable as {name} ({error.reason}); save it as UTF-8") from error
    if b"\0" in data[:4096]:
        for name, zeros in (("utf-16-le", data[1:4096:2]), ("utf-16-be", data[0:4096:2])):
            if zeros.count(0) > 0.8 * len(zeros):
                try:
                    return data.decode(name), name
                except UnicodeDecodeError:
                    break
        raise InputError(f"{path}: not a text file, it holds zero bytes; save it as UTF-8 text")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


@dataclass(frozen=True)
class Layout:
    """How a text table is laid out: its separator, decimal mark, names, and the number of lines before the data."""

    separator: str
    decimal: str
    names: tuple[str, ...]
    skip: int
    preamble: tuple[str, ...]
    units: tuple[str, ...] = ()
    named: bool = True


def _fields(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return [field.strip() for field in line.split(separator)]


def _is_value(field: str, comma: bool) -> bool:
    field = field.strip().strip("'\"")
    if not field or _NUMBER.fullmatch(field) or _TIME.fullmatch(field):
        return True
    return comma and bool(_COMMA_NUMBER.fullmatch(field))


def layout(path: Path, text: str) -> Layout:
    """Find the separator under which most fields are numbers or times, the line of the names, and what precedes it."""
    lines = text[: 1 << 18].splitlines()[:HEAD]
    if len(text) > 1 << 18 and len(lines) < HEAD:
        lines = lines[:-1]
    filled = [i for i, line in enumerate(lines) if line.strip()]
    if not filled:
        raise InputError(f"{path}: the table has no rows; the file is empty")
    body = filled[len(filled) // 2 :]
    best, separator, width = (-1.0, 0), ",", 1
    for candidate in _SEPARATORS:
        rows = [_fields(lines[i], candidate) for i in body]
        count = Counter(map(len, rows)).most_common(1)[0][0]
        rows = [row for row in rows if len(row) == count]
        good = sum(_is_value(f, candidate != ",") for row in rows for f in row)
        share = len(rows) / len(body) * good / max(sum(map(len, rows)), 1)
        texts = candidate in (",", ";", "\t") and count > 1  # columns of text are allowed, wide tables preferred
        score = (share + 0.25 * texts, count)
        if score > best:
            best, separator, width = score, candidate, count
    first = body[0]
    for i in reversed(filled[: filled.index(body[0])]):
        if len(_fields(lines[i], separator)) != width or lines[i].lstrip().startswith(("#", "%", "//")):
            break
        first = i
    comma = separator != ","
    head = [f.strip("'\"").strip() for f in _fields(lines[first].lstrip("\ufeff"), separator)]
    values = [f for f in head if f]
    named = not values or not all(_is_value(f, comma) for f in values)
    units: tuple[str, ...] = ()
    skip = first + 1 if named else first
    after = [i for i in filled if i >= skip]
    if named and len(after) > 1:
        second = [f.strip("'\"").strip() for f in _fields(lines[after[0]], separator)]
        third = _fields(lines[after[1]], separator)
        # Under the names some devices write a line of units.
        if not any(_is_value(f, comma) for f in second if f) and any(_is_value(f, comma) for f in third if f):
            units, skip = tuple(second), after[0] + 1
    sample = [f.strip("'\"") for i in body for f in _fields(lines[i], separator)] if comma else []
    decimal = "," if any(_COMMA_NUMBER.fullmatch(f) for f in sample) else "."
    names = tuple(head) if named else tuple(f"column{j + 1}" for j in range(width))
    return Layout(separator, decimal, names, skip, tuple(lines[i] for i in filled if i < first), units, named)
