"""Signals in tables: CSV and its relatives, and Parquet; one row a time step, one numeric column a channel."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers.clock import clock_rate, clock_unit
from counterpoint.timeseries.readers.text import Layout, layout, read_text
from counterpoint.timeseries.record import NO_EVENTS, Annotations, Channel, Record

_UNIT = re.compile(r"^(.*?)\s*[\[(]([^\])]*)[\])]\s*$")
_CLASSES = re.compile(
    r"(activity|label|class|target|annotation|event|events|state|stage|sleep_stage|marker|condition|gesture|y)(_?(id|name|code))?"
)
_WHO = re.compile(
    r"(subject|user|participant|patient|person|pid|uid|id|session|trial|run|recording|record|device|sensor|gender|sex|age|"
    r"group|split|fold|file)(_?(id|name|code|number|no))?"
)
_COUNTERS = re.compile(r"(unnamed.*|index|sample|sample_?(index|number|no)|row|frame|packet|counter|no|nr|#|id|)")
FEW_CODES = 20


def read_table(path: Path | str, fs: float | None = None, row: int | None = None) -> Record:
    """Read a CSV or Parquet table, one row a time step and one numeric column a channel.

    A column called `time` (or t, timestamp, datetime, seconds ...) gives the rate: seconds, an epoch in s, ms, us or
    ns, dates, times of day; without one `fs` is needed. A unit may follow a name in brackets: `II [mV]`. Separators,
    decimal commas, encodings and device lines before the table are found out. What is no signal is not taken for one:

    - a column of classes (activity, label, ...; text or few codes) becomes a header field where it is constant, and
      annotations where it changes;
    - a column that says who or which (subject, session, ...) becomes a header field; where it changes the file holds
      several recordings and is refused;
    - other text and code columns are left out. A unit in brackets makes any numeric column a channel.

    Every such choice stands in the record's `notes`. Raises `InputError` naming the file, row and remedy.
    """
    path = Path(path)
    if row is not None:
        raise InputError(f"{path}: a table holds one recording; leave the manifest's row column empty for it")
    notes: list[str] = []
    parquet = path.suffix.lower() == ".parquet"
    frame, decimal, first, preamble = _parquet(path) if parquet else _csv(path, notes)
    if not len(frame):
        raise InputError(f"{path}: the table has no rows; export it again")
    rows = np.arange(len(frame)) + first
    fs = _clock(path, frame, fs, rows, decimal, preamble, notes)
    frame = frame.dropna(axis="columns", how="all") if len(frame.columns) > 1 else frame
    channels, meta, events = [], {}, NO_EVENTS
    for name, column in frame.items():
        found = _UNIT.match(str(name))
        label, unit = found.groups() if found else (str(name), "")
        values = _numbers(path, name, column, rows)
        kind = "" if found and values is not None else _kind(str(name), values, len(frame.columns))
        if kind == "counter":
            notes.append(f"column {name} counts rows, left out")
        elif kind:
            constant = column.nunique(dropna=True) <= 1
            shown = ", ".join(dict.fromkeys(_said(v) for v in column.dropna().iloc[:5000])) or "nothing"
            if constant and kind in ("class", "who"):
                meta[label.casefold()] = shown
                field = label.casefold()
                notes.append(f"column {name} is no signal: kept as the header field {field!r} ({shown[:40]})")
            elif kind == "who":
                at = int(np.flatnonzero((column != column.iloc[0]).to_numpy())[0])
                raise InputError(
                    f"{path}, row {rows[at]}: column {name} changes, so the file holds several recordings; split it by "
                    f"{name}, or write a unit into the name ({name} [1]) if it is a signal"
                )
            elif kind == "class" and not len(events):
                events = _stretches(column, fs)
                notes.append(f"column {name} is no signal: kept as annotations ({shown[:60]}; data.events reads them)")
            else:
                notes.append(
                    f"column {name} holds {'text' if values is None else 'codes'} ({shown[:40]}), left out; "
                    f"to read it as a signal write a unit into its name ({name} [1])"
                )
        else:
            channels.append(Channel(label, unit, float(fs), values))
    if not channels:
        raise InputError(f"{path}: no signal columns beside the time; one numeric column per channel is expected")
    return Record(path.stem, tuple(channels), events, meta, path, notes=tuple(notes))


def _parquet(path: Path) -> tuple[Any, str, int, tuple[str, ...]]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises its own kinds, OSError and ValueError among them
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{path}: not a readable table ({reason[:160]})") from error
    if isinstance(frame.index, pd.DatetimeIndex) or frame.index.name is not None:
        frame = frame.reset_index(names=frame.index.name or "time")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{path}: column {twice!r} stands there twice; rename it")
    return frame, ".", 1, ()


def _csv(path: Path, notes: list[str]) -> tuple[Any, str, int, tuple[str, ...]]:
    import pandas as pd

    text, encoding = read_text(path)
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"read as {encoding.upper()}")
    found = layout(path, text)
    names = _unique(path, found, notes)
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=r"\s+" if found.separator == " " else found.separator, decimal=found.decimal,
            names=names, header=None, skiprows=found.skip, index_col=False, na_values=["?", "-"], low_memory=False,
            skipinitialspace=True, on_bad_lines="error",
        )  # fmt: skip
    except (ValueError, OSError, OverflowError, RecursionError) as error:  # pandas' own derive from ValueError
        if isinstance(error, pd.errors.EmptyDataError):
            raise InputError(f"{path}: the table has no rows; export it again") from error
        raise InputError(f"{path}: not a readable table ({next(iter(str(error).splitlines()), '')[:160]})") from error
    word = {"\t": "tabs", " ": "blanks"}.get(found.separator, f"'{found.separator}'")
    if found.separator != ",":
        notes.append(f"columns are split by {word}" + (", numbers have decimal commas" if found.decimal == "," else ""))
    if found.preamble:
        top = found.preamble[0].strip()[:50]
        notes.append(f"{len(found.preamble)} lines before the table were passed over ({top})")
    if not found.named:
        notes.append("no line of names; columns are called column1, column2, ...")
        frame = _headless(path, frame, found)
    _check_cut(path, text, frame, found)
    return frame, found.decimal, found.skip + 1, found.preamble


def _unique(path: Path, found: Layout, notes: list[str]) -> list[str]:
    names, said = [], set()
    for j, name in enumerate(found.names):
        if j < len(found.units) and found.units[j] and not _UNIT.match(name):
            clock = clock_unit(name) is not None
            name = name if clock and clock_unit(f"{name} [{found.units[j]}]") == "" else f"{name} [{found.units[j]}]"
        name = name or f"unnamed{j + 1}"
        if name in names:
            said.add(name)
            name = f"{name}.{names.count(name) + sum(n.startswith(f'{name}.') for n in names)}"
        names.append(name)
    if said:
        notes.append(f"names that stand there several times were numbered: {', '.join(sorted(said))}")
    return names


def _headless(path: Path, frame: Any, found: Layout) -> Any:
    """Without names the first column may be the clock; numbers that merely rise could be either, so it is asked."""
    import pandas as pd

    head = frame.iloc[:, 0]
    if not pd.api.types.is_numeric_dtype(head):
        return frame.rename(columns={frame.columns[0]: "time"})
    steps = np.diff(head.to_numpy(float))
    if len(steps) > 2 and (steps > 0).all() and len(frame.columns) > 1:
        if head.iloc[0] > 1e8:
            return frame.rename(columns={frame.columns[0]: "time"})
        raise InputError(
            f"{path}: no line of names, and its first column rises like a clock; add a first line such as "
            f"{found.separator.join(['time', *(f'x{j}' for j in range(1, len(frame.columns)))])}"
        )
    return frame


def _check_cut(path: Path, text: str, frame: Any, found: Layout) -> None:
    """pandas fills rows that have too few fields; such a row is cut."""
    if found.separator == " " or not frame.iloc[:, -1].isna().any():
        return
    for number, line in enumerate(text.splitlines(), 1):
        if number > found.skip and line.strip() and '"' not in line:
            have = line.count(found.separator) + 1
            if have < len(found.names):
                raise InputError(
                    f"{path}, row {number}: {have} fields where the table has {len(found.names)}; the line is cut: "
                    "copy the file again or remove the line"
                )


def _clock(
    path: Path, frame: Any, fs: float | None, rows: np.ndarray, decimal: str, preamble: Sequence[str], notes: list[str]
) -> float:
    """Take the time columns out of the table; the first that is filled gives the rate, `date` and `time` are joined."""
    times = [name for name in frame.columns if clock_unit(name) is not None]
    plain = {str(name).casefold(): name for name in times}
    if {"date", "time"} <= set(plain) and frame[plain["date"]].dtype == frame[plain["time"]].dtype == object:
        frame[plain["time"]] = frame[plain["date"]].astype(str) + " " + frame[plain["time"]].astype(str)
        del frame[plain["date"]]
        times.remove(plain["date"])
    if times:
        chosen = next((name for name in times if frame[name].nunique() > 1), times[0])
        column = frame[chosen]
        for name in times:
            del frame[name]
            if name != chosen:
                notes.append(f"column {name} is another clock, left out")
        rate, said = clock_rate(path, str(chosen), column, fs, rows, decimal)
        notes += said
        return rate
    if fs is None:
        for line in preamble:
            found = re.search(r"(\d+(?:[.,]\d+)?)\s*Hz\b", line, re.IGNORECASE)
            if found and float(found.group(1).replace(",", ".")) > 0:
                notes.append(f"{found.group(1)} Hz is taken from the line {line.strip()[:60]!r}")
                return float(found.group(1).replace(",", "."))
        raise InputError(
            f"{path}: no time column and no rate; add a column time (seconds), or give --fs (in a manifest, the "
            "column fs)"
        )
    return fs


def _numbers(path: Path, name: Any, column: Any, rows: np.ndarray) -> np.ndarray | None:
    """A column as float32; None for text. A text among numbers is an error."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return None
    if not pd.api.types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce") if column.dtype == object or str(column.dtype) in (
            "string", "str") else column.isna().map(lambda _: np.nan)  # fmt: skip
        bad = np.flatnonzero((numbers.isna() & column.notna()).to_numpy())
        if numbers.notna().any() and len(bad):
            raise InputError(
                f"{path}, column {name}, row {rows[bad[0]]}: {column.iloc[bad[0]]!r} is not numeric; drop the column "
                "or mark gaps as empty"
            )
        if len(bad) or not numbers.notna().any():
            return None
        column = numbers
    if np.iscomplexobj(column.to_numpy()):
        raise InputError(f"{path}, column {name}: complex numbers; write real and imaginary parts as two columns")
    with np.errstate(over="ignore"):
        return column.to_numpy(float, na_value=np.nan).astype(np.float32)


def _kind(name: str, values: np.ndarray | None, columns: int) -> str:
    """What a column is instead of a signal: `class`, `who`, `counter`, `code`; empty for a signal."""
    plain = re.sub(r"[\s.\-]+", "_", name.strip().casefold())
    finite = values[np.isfinite(values)] if values is not None else np.zeros(0)
    whole = bool(len(finite)) and bool((finite == np.rint(finite)).all())
    if values is not None and whole and len(finite) > 2 and _COUNTERS.fullmatch(plain) and (np.diff(finite) == 1).all():
        return "counter"
    few = whole and len(np.unique(finite)) <= max(FEW_CODES, 2)
    if _CLASSES.fullmatch(plain) and plain != "y" and (values is None or few):
        return "class"
    if _WHO.fullmatch(plain) and (values is None or whole):
        return "who"
    if values is None:
        return "code"
    if columns > 1 and few and len(finite) >= 40 and len(finite) == len(values):
        changes = np.count_nonzero(np.diff(finite))
        if 1 <= changes <= 0.05 * len(finite) and finite.min() >= 0 and len(np.unique(finite)) <= len(finite) / 10:
            return "code"
    return ""


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _stretches(column: Any, fs: float) -> Annotations:
    """Every run of one class as an annotation."""
    text = np.array(["" if v is None or v != v else _said(v) for v in column.astype(object)], object)
    begin = np.flatnonzero(np.concatenate([[True], text[1:] != text[:-1]]))
    end = np.concatenate([begin[1:], [len(text)]])
    keep = np.array([text[b] != "" for b in begin], bool)
    return Annotations.of(begin[keep] / fs, [str(text[b]) for b in begin[keep]], ((end - begin)[keep] / fs).tolist())
