"""UCR/UEA archive files: `.ts`, `.arff` (univariate and relational) and the tables `.txt`, `.tsv`, `.csv`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from counterpoint.common.errors import InputError
from counterpoint.timeseries.readers.text import read_text


@dataclass(frozen=True)
class Collection:
    """A labelled set of series: `x` [series, time, channels] padded with NaN to the longest, and one label each.

    `notes` say what a user must know (infinite values, classes without a series). Class labels are strings as
    the file writes them; regression targets (`@targetlabel`) stand in `target`.
    """

    x: Float32[np.ndarray, "series time channels"]
    lengths: Int[np.ndarray, " series"]
    labels: tuple[str, ...]
    name: str
    target: Float32[np.ndarray, " series"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Distinct labels, sorted."""
        return tuple(sorted(set(self.labels)))


def read_ucr(path: Path | str) -> Collection:
    """Read one archive file; `?`, `NaN` and an empty field are missing values.

    Raises `InputError` naming file and line for a value that is no number, a row whose channels differ in number from
    the others', channels of different lengths in one series (another rate? a cut line?), a label that the header does
    not declare, or a file without data. Infinite values count as missing.
    """
    path = Path(path)
    parsers = {".ts": _parse_ts, ".arff": _parse_arff, ".txt": _parse_table, ".tsv": _parse_table, ".csv": _parse_table}
    parser = parsers.get(path.suffix.lower())
    if parser is None:
        raise InputError(f"{path}: not a UCR/UEA file by its suffix; use one of {', '.join(parsers)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check its name")
    # Some archive headers were written on Windows with accented authors' names; the data rows are ASCII.
    lines = read_text(path)[0].lstrip("\ufeff").splitlines()
    name, rows, labels, regression, notes = parser(path, lines)
    if not rows:
        raise InputError(f"{path}: no data rows; the file ends after its header (was the download cut?)")
    lengths = np.array([max(len(channel) for channel in row) for row in rows])
    x = np.full((len(rows), lengths.max(), len(rows[0])), np.nan, np.float32)
    for i, row in enumerate(rows):
        for j, channel in enumerate(row):
            x[i, : len(channel), j] = channel
    infinite = int(np.isinf(x).sum())
    if infinite:
        x = np.where(np.isinf(x), np.float32(np.nan), x)
        notes = [*notes, f"{infinite} infinite values, taken as missing"]
    target = np.array([float(label) for label in labels], np.float32) if regression else None
    labels = tuple("" if regression else label for label in labels)
    return Collection(x, lengths, labels, name, target, tuple(f"{path.name}: {text}" for text in notes))


def _numbers(path: Path, line: int, text: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            return np.array(
                [field if field.strip() not in ("?", "") else "nan" for field in text.split(",")], np.float64
            ).astype(np.float32)
    except ValueError as error:
        bad = next((field for field in text.split(",") if not _is_number(field)), text[:40])
        raise InputError(f"{path}, line {line}: {bad.strip()!r} is not a number; write ? where missing") from error


def _is_number(field: str) -> bool:
    try:
        float(field if field.strip() not in ("?", "") else "nan")
    except ValueError:
        return False
    return True


def _check_row(path: Path, line: int, row: list[np.ndarray], first: list[np.ndarray] | None) -> None:
    if first is not None and len(row) != len(first):
        raise InputError(
            f"{path}, line {line}: {len(row)} channel(s) where the rows before have {len(first)}; "
            "the line is cut or joins two rows"
        )
    lengths = [len(channel) for channel in row]
    if len(set(lengths)) > 1:
        odd = next(j for j, length in enumerate(lengths) if length != lengths[0])
        raise InputError(
            f"{path}, line {line}: channel {odd + 1} has {lengths[odd]} values where channel 1 has {lengths[0]}; "
            "resample the channels of a series to one rate, or write ? where one was not recorded"
        )


def _parse_ts(path: Path, lines: list[str]):
    header: dict[str, str] = {}
    rows, labels = [], []
    declared: list[str] = []
    in_data = regression = labelled = equal = False
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if not in_data:
            key, _, value = line.lstrip("@").partition(" ")
            key = key.lower()
            header[key] = value.strip()
            if key == "classlabel":
                words = value.split()
                labelled = bool(words) and words[0].lower() == "true"
                declared = words[1:]
            elif key == "targetlabel":
                regression = labelled = value.strip().lower().startswith("true")
            elif key == "timestamps" and value.strip().lower() == "true":
                raise InputError(
                    f"{path}, line {number}: series with time stamps are not read; resample to a regular "
                    "grid and write @timestamps false"
                )
            elif key == "data":
                in_data = True
                equal = header.get("equallength", "").lower().startswith("true")
            continue
        fields = line.split(":")
        label = fields.pop().strip() if labelled else ""
        if declared and label not in declared:
            known = " ".join(declared)
            raise InputError(f"{path}, line {number}: label {label[:30]!r} is not among @classLabel {known}")
        if regression and not (_is_number(label) and np.isfinite(float(label if label not in ("?", "") else "nan"))):
            raise InputError(f"{path}, line {number}: target {label[:30]!r} is not a number; write one")
        row = [_numbers(path, number, field) for field in fields]
        if not row:
            raise InputError(f"{path}, line {number}: a label but no series; write dimension values before the colon")
        _check_row(path, number, row, rows[0] if rows else None)
        if rows and equal and len(row[0]) != len(rows[0][0]):
            raise InputError(
                f"{path}, line {number}: {len(row[0])} values where the rows before have {len(rows[0][0])} and "
                "@equalLength is true; the line is cut, or write @equalLength false"
            )
        rows.append(row)
        labels.append(label)
    if not in_data:
        raise InputError(f"{path}: no @data line; not a .ts file, or cut within its header")
    absent = [name for name in declared if name not in labels]
    notes = [f"no series of class {' or '.join(absent)}, which @classLabel declares"] if absent and rows else []
    return header.get("problemname", path.stem), rows, labels, regression, notes


_RELATIONAL = re.compile(r"""^\s*(["'])(.*?)\1\s*,\s*(.*)$""", re.DOTALL)


def _parse_arff(path: Path, lines: list[str]):
    name, in_data = path.stem, False
    rows, labels = [], []
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("%"):
            continue
        if not in_data:
            lower = stripped.lower()
            if lower.startswith("@relation"):
                name = stripped.split(None, 1)[-1].strip("'\"")
            in_data = lower.startswith("@data")
            continue
        found = _RELATIONAL.match(stripped)
        if found:
            channels, label = found.group(2).split("\\n"), found.group(3)
        elif stripped[0] in "\"'":
            raise InputError(f"{path}, line {number}: the quoted series is not closed; the line is cut")
        else:
            body, comma, label = stripped.rpartition(",")
            if not comma:
                raise InputError(f"{path}, line {number}: no comma between series and label; the line is cut")
            channels = [body]
        row = [_numbers(path, number, channel) for channel in channels]
        _check_row(path, number, row, rows[0] if rows else None)
        rows.append(row)
        labels.append(label.strip().strip("'\""))
    if not in_data:
        raise InputError(f"{path}: no @data line; not an .arff file, or cut within its header")
    return name, rows, labels, False, []


def _fields(line: str) -> Iterator[str]:
    return iter(re.split(r"[,\t]|\s+", line.strip()))


def _parse_table(path: Path, lines: list[str]):
    """Label first, then the values, split by commas, tabs or blanks. `1.0000000e+00` and `1` are one label."""
    rows, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        label, *values = _fields(line)
        if not values:
            raise InputError(f"{path}, line {number}: a label but no values; the line is cut")
        if label != "?" and _is_number(label) and float(label or "nan").is_integer():
            label = str(int(float(label)))
        values = _numbers(path, number, ",".join(values))
        # The 2018 archive pads short series with NaN at the end; padding is not part of the series.
        keep = np.flatnonzero(np.isfinite(values))
        rows.append([values[: keep[-1] + 1] if len(keep) else values])
        labels.append(label)
    return re.sub(r"_(TRAIN|TEST)$", "", path.stem, flags=re.IGNORECASE), rows, labels, False, []
