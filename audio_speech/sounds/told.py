"""What is known of recordings beside their sound: from their names, their folders, and tables beside them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from counterpoint.common.data.archives import packed
from counterpoint.common.data.importing import require_file
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such

FILE_COLUMNS = ("file", "file_name", "filename", "path", "audio", "audio_filepath", "wav", "clip", "fname")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SIDE_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that the `audiofolder` of Hugging Face's datasets keeps beside the recordings."""
SPEAKERS = ("speaker", "speaker_id", "spk", "client_id", "artist", "track", "composer")
"""Columns by which recordings are kept together in a split, in this order, unless `--group` says another."""
TIMES = re.compile(r"(start|begin|end|stop|onset)[ _-]?(time|ms|msec|s|sec|seconds|frame|sample)?s?")
CAPTIONS = re.compile(r"captions?_?\d*")
SPLITS = {"train": "train", "training": "train", "dev": "val", "val": "val", "valid": "val", "validation": "val",
          "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}  # fmt: skip


class NamePattern:
    """Facts written into file names: `{label}_{speaker}_{take}` reads `7_nicolas_3.wav`.

    >>> NamePattern("{digit}_{speaker}_{take}").facts(Path("a/7_nicolas_3.wav"))
    {'digit': '7', 'speaker': 'nicolas', 'take': '3'}
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        names = re.findall(r"\{([^{}]*)\}", pattern)
        if not names or not all(n.isidentifier() for n in names) or len(set(names)) < len(names):
            raise InputError(f"--pattern {pattern!r}: write names in braces, each once, as in {{label}}_{{speaker}}")
        if re.search(r"\}\{", pattern):
            raise InputError(f"--pattern {pattern!r}: two names stand side by side; what parts them?")
        parts = re.split(r"\{[^{}]*\}", pattern)
        groups = [f"(?P<{name}>.+?)" for name in names]
        self.expression = re.compile("".join(a + b for a, b in zip(map(re.escape, parts), [*groups, ""])))

    def facts(self, file: Path) -> dict[str, str]:
        """Raises `InputError` for a name of another form."""
        found = self.expression.fullmatch(file.stem)
        if found is None:
            raise InputError(f"its name does not fit --pattern {self.pattern}")
        return found.groupdict()


def folder_facts(file: Path, root: Path, names: Sequence[str]) -> dict[str, str]:
    """Facts that folders stand for: `("speaker", "chapter")` reads `root/84/121123/a.flac`.

    >>> folder_facts(Path("d/84/121123/a.flac"), Path("d"), ("speaker", "chapter"))
    {'speaker': '84', 'chapter': '121123'}
    """
    parts = file.relative_to(root).parts[:-1]
    if len(parts) < len(names):
        raise InputError(f"lies in {len(parts)} folder(s) below the source; --folders names {len(names)}")
    return dict(zip(names, parts))


def read_told(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a table as text and numbers, `None` where nothing stands; with the number of each row as `row`.

    Raises:
        InputError: it cannot be read, is empty, or has two columns of one name.
    """
    path = require_file(path, TABLES)
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").splitlines()
            frame = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        else:
            frame = _read_cells(path)
    except InputError:
        raise
    except UnicodeError:
        raise InputError(f"{path.name}: is no UTF-8 text; save it as UTF-8") from None
    except (ValueError, OSError, TypeError, csv.Error) as error:
        raise InputError(f"{path.name}: cannot be read as a table ({' '.join(str(error).split())[:150]})") from None
    if frame.empty:
        raise InputError(f"{path.name}: an empty table")
    frame.columns = [str(name).strip() for name in frame.columns]
    if twice := [name for name in frame.columns if list(frame.columns).count(name) > 1]:
        raise InputError(f"{path.name}: two columns are called {twice[0]!r}")
    frame.columns = _known_names(list(frame.columns), path.name)
    rows = frame.to_dict("records")
    return [{"row": i + 1, **{k: _value(v) for k, v in row.items()}} for i, row in enumerate(rows)]


def _known_names(columns: list[str], table: str) -> list[str]:
    """Columns that mean something to the import in lower case, however they are written.

    Raises `InputError` for times under names whose unit or meaning would be a guess.
    """
    known = {"id", "group", "split", "start", "end", "onset", "offset", "duration", *FILE_COLUMNS, *SPEAKERS}
    named = [c.lower() if c.lower() in known or CAPTIONS.fullmatch(c.lower()) else c for c in columns]
    if twice := [name for name in named if named.count(name) > 1]:
        raise InputError(f"{table}: two columns are called {twice[0]!r}, but for capitals")
    if "start" not in named and "end" not in named:
        if "onset" in named and "offset" in named:
            named = [{"onset": "start", "offset": "end"}.get(name, name) for name in named]
        elif odd := [name for name in named if TIMES.fullmatch(name.lower())]:
            raise InputError(
                f"{table}: column {odd[0]!r} looks like a segment's time; call the columns `start` and `end`, in "
                "seconds, or give it another name"
            )
    return named


def _read_cells(path: Path) -> pd.DataFrame:
    """A table of text, its separator (comma, semicolon or tab) the one that its header has most of."""
    text = path.read_text(encoding="utf-8-sig")
    if "\0" in text:
        raise InputError(f"{path.name}: is no text; it is damaged, or of another kind than its name says")
    head = text.partition("\n")[0]
    separator = max("\t" if path.suffix.lower() == ".tsv" else ",", ";", "\t", key=head.count)
    lines = [line for line in csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True) if line]
    if not lines:
        raise InputError(f"{path.name}: an empty table")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(lines[0]):
            raise InputError(
                f"{path.name}, row {number}: {len(line)} cells where the header has {len(lines[0])}; is a text with a "
                "separator in it not quoted?"
            )
    return pd.DataFrame(lines[1:], columns=lines[0], dtype=object)


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        return "\n".join(str(v) for v in value)
    if isinstance(value, dict):
        return value.get("path")
    text = value.strip() if isinstance(value, str) else value
    return None if text is None or text == "" or text != text else text


def file_column(rows: Sequence[Mapping[str, Any]], table: str, wanted: str = "") -> str:
    """The column that names the recordings."""
    there = list(rows[0])
    if wanted:
        same = [name for name in there if name == wanted or name == wanted.lower()]
        if not same:
            raise no_such("column", wanted, there)
        return same[0]
    found = [name for name in FILE_COLUMNS if name in there]
    if not found:
        raise InputError(f"{table}: no column names the recordings ({', '.join(FILE_COLUMNS)}); say which (--file)")
    return found[0]


def seconds_of(row: Mapping[str, Any], name: str) -> float | None:
    """A time of a segment, as a number of seconds."""
    value = row.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        raise InputError(f"{name} {value!r} is no number of seconds") from None
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{name} {value!r} is no time in a recording")
    return seconds


def segment_of(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Start and end of a row's segment in seconds; NeMo's `offset` and `duration` are its start and length."""
    if "offset" in row and "duration" in row and row.get("offset") is not None:
        start, length = seconds_of(row, "offset"), seconds_of(row, "duration")
        return start, None if length is None else start + length
    return seconds_of(row, "start"), seconds_of(row, "end")


def captions_of(row: Mapping[str, Any]) -> list[str]:
    """All that is said of a recording in a row's columns `caption`, `captions`, `caption_1` ..."""
    texts = (str(row[name]) for name in row if CAPTIONS.fullmatch(name) and row[name] is not None)
    return list(dict.fromkeys(line.strip() for text in texts for line in text.split("\n") if line.strip()))


def split_named(value: Any) -> str:
    """`train`, `val` or `test` for what tables call them.

    >>> split_named("validation"), split_named(None)
    ('val', '')
    """
    if value is None:
        return ""
    if str(value).strip().lower() not in SPLITS:
        raise InputError(f"split {value!r} is none of {', '.join(SPLITS)}")
    return SPLITS[str(value).strip().lower()]


def read_kaldi(folder: Path) -> list[dict[str, Any]]:
    """The utterances of a Kaldi data folder: wav.scp, with segments, text and utt2spk where they are there.

    Raises:
        InputError: a line of another form, a command in wav.scp (nothing is executed), an id twice or unknown.
    """
    waves = _pairs(folder / "wav.scp")
    for name, path in waves.items():
        if path.rstrip().endswith("|"):
            raise InputError(f"{folder / 'wav.scp'}: {name} is a command, not a file; run it and name what it writes")
    rows = {name: {"id": name, "file": path} for name, path in waves.items()}
    if (folder / "segments").is_file():
        rows = {}
        for name, rest in _pairs(folder / "segments").items():
            parts = rest.split()
            if len(parts) != 3 or parts[0] not in waves:
                raise InputError(f"{folder / 'segments'}: {name} {rest!r} is not: recording of wav.scp, start, end")
            rows[name] = {"id": name, "file": waves[parts[0]], "start": parts[1], "end": parts[2]}
    for file, column in (("text", "transcript"), ("utt2spk", "speaker"), ("utt2lang", "language")):
        if not (folder / file).is_file():
            continue
        known = "segments" if (folder / "segments").is_file() else "wav.scp"
        for name, value in _pairs(folder / file, empty=file == "text").items():
            if name not in rows:
                raise InputError(f"{folder / file}: {name} is no utterance of {known}")
            rows[name][column] = value or None
    return list(rows.values())


def _pairs(path: Path, empty: bool = False) -> dict[str, str]:
    found: dict[str, str] = {}
    packed_file = path.with_name(f"{path.name}.gz")
    if not path.exists() and packed_file.exists():
        raise InputError(f"{packed_file}: {packed(packed_file)}")
    try:
        text = require_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no UTF-8 text") from None
    if "\0" in text:
        raise InputError(f"{path}: is no text; it is damaged, or of another kind than its name says")
    for number, line in enumerate(text.splitlines(), 1):
        name, _, value = line.strip().partition(" ")
        if not name:
            continue
        if not value.strip() and not empty:
            raise InputError(f"{path}, line {number}: nothing follows {name}")
        if name in found:
            raise InputError(f"{path}, line {number}: {name} stands there twice")
        found[name] = value.strip()
    return found
