"""The manifest: one row per sample, the only description of a data set that training, evaluation and search read."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from counterpoint.common.data.archives import packed
from counterpoint.common.data.arrow import table_hash, table_of
from counterpoint.common.data.places import OUTSIDE, Folder, record, recorded
from counterpoint.common.errors import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Manifest:
    """A table of samples. Columns: `id` (unique text), `group` (patient, piece, scene, ...; defaults to the id),
    `split` (`train`, `val`, `test` or empty); every other column belongs to the vertical.

    The frame's index is the sample's stable number: it survives `select`. Facts about the whole table (how it was
    split, whether it is synthetic) stand in `meta`, saved beside the table as `<name>.meta.json`.

    A saved table names files of its own folder and below, of the folders `outside` (which an import records), and of
    those in COUNTERPOINT_ALLOW (`places.Folder`); one that this program has only in memory names what it likes.

    >>> table = Manifest.from_rows([{"id": "a", "audio": "a.wav"}, {"id": "b", "audio": "b.wav"}])
    >>> len(table), list(table.frame.group)
    (2, ['a', 'b'])
    """

    frame: pd.DataFrame
    root: Path = field(default_factory=Path)
    path: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    outside: tuple[Path, ...] = ()
    state: tuple[Any, ...] | None = field(default=None, init=False, repr=False, compare=False)
    """Which content of which file this is, as it was loaded; None for rows that were chosen, changed or made here."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "frame", _checked(self.frame, str(self.path or "manifest")))

    @classmethod
    def from_rows(
        cls, rows: list[dict], root: str | Path = ".", meta: dict | None = None, outside: Iterable[Path] = ()
    ) -> Manifest:
        """A manifest from dictionaries; `outside` are folders beside its own that its files may lie in once saved."""
        return cls(pd.DataFrame(rows), Path(root), meta=dict(meta or {}), outside=tuple(outside))

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read `.parquet`, `.csv` or `.jsonl`; file names in it are relative to its folder.

        The table read last is kept (until `forget_manifest`) and not read again while its file stays as it is: a data
        set, the leakage check and an evaluation ask for it one after the other.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such manifest; give a .parquet, .csv or .jsonl file")
        state = _state(path)
        if cls is Manifest and _read_last and _read_last[0].state == state:
            return _read_last[0]._again()
        try:
            if path.suffix == ".parquet":
                frame = pd.read_parquet(path)
                # Texts are decoded only when somebody looks at them; damaged ones are found here.
                pa.Table.from_pandas(frame, preserve_index=False).validate(full=True)
            elif path.suffix == ".csv":
                frame = _csv(path)
                # Names are text as it stands: a patient called NA is not a missing one.
                names = ("id", "group", "split")
                text = pd.read_csv(path, usecols=lambda c: c in names, dtype=str, keep_default_na=False)
                frame[text.columns] = text
            elif path.suffix == ".jsonl":
                # JSON has types of its own: the text "01" is not the number 1.
                frame = pd.DataFrame(_json_lines(path))
            elif unpack := packed(path):
                raise InputError(f"{path}: {unpack}")
            else:
                raise InputError(f"{path}: a manifest is a .parquet, .csv or .jsonl file, not {path.suffix or 'this'}")
        except (InputError, ImportError):
            raise
        except Exception as error:  # pyarrow's and pandas' parse errors, and whatever a damaged file makes them meet
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: cannot be read ({reason}); save or copy it again") from error
        side = _sidecar(path)
        meta = _facts(side) if side.is_file() else {}
        meta.pop(OUTSIDE, None)
        found = cls(frame.reset_index(drop=True), path.parent, path, meta, recorded(path.parent))
        if cls is not Manifest or _state(path) != state:
            return found
        object.__setattr__(found, "state", state)
        _read_last[:] = [found]
        return found._again()

    def _again(self) -> Manifest:
        """The same table for another owner, who may change its frame."""
        other = copy.copy(self)
        deep = int(pd.__version__.partition(".")[0]) < 3  # from then on frames are copied when they are written to
        object.__setattr__(other, "frame", self.frame.copy(deep=deep))
        object.__setattr__(other, "meta", copy.deepcopy(self.meta))
        object.__setattr__(other, "outside", recorded(self.root))
        return other

    def save(self, path: str | Path) -> Manifest:
        """Write the table and its meta facts; complete or not at all."""
        path = Path(path)
        writers = {
            ".parquet": lambda p: self.frame.to_parquet(p, index=False),
            ".csv": lambda p: self.frame.to_csv(p, index=False),
            ".jsonl": lambda p: p.write_text("".join(map(_json_line, self.frame.to_dict("records"))), encoding="utf-8"),
        }
        if path.suffix not in writers:
            raise InputError(f"{path}: a manifest is a .parquet, .csv or .jsonl file, not {path.suffix or 'this'}")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writers[path.suffix](temporary)
            os.replace(temporary, path)
            outside = {*self.outside, *recorded(path.parent)}  # what stands there already is not taken back
            facts = self.meta | ({OUTSIDE: record(path.parent, outside)} if outside else {})
            _sidecar(path).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return replace(self, path=path, root=self.root)

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def table(self) -> pa.Table:
        """The rows as an Arrow table: what data sets read, shared by worker processes without copies."""
        return table_of(self.frame)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: the same for every file format and column order."""
        return table_hash(self.table)

    def select(self, split: str | None = None, **equal: Any) -> Manifest:
        """The rows of one split (and with the given column values); the stable sample numbers stay."""
        frame = self.frame
        wanted = dict(equal) | ({"split": split} if split is not None else {})
        for column, value in wanted.items():
            if column not in frame:
                raise InputError(
                    f"{self.path or 'manifest'}: no column {column!r}; its columns are: {', '.join(frame.columns)}"
                )
            kept = frame[frame[column] == value]
            if kept.empty:
                have = ", ".join(sorted({str(v) or "(empty)" for v in frame[column]})[:8])
                raise InputError(f"{self.path or 'manifest'}: no row with {column} = {value!r}; there are: {have}")
            frame = kept
        return replace(self, frame=frame)

    @cached_property
    def folder(self) -> Folder:
        """Where the files named in the table lie."""
        return Folder(self.root, self.outside, free=self.path is None)

    def file(self, name: str) -> Path:
        """Where a file named in the table lies; `InputError` when that is not a folder it may name."""
        return self.folder / name

    def row(self, position: int) -> dict[str, Any]:
        """One row as a dictionary; missing values are None."""
        values = self.frame.iloc[position].to_dict()
        return {k: None if _missing(v) else v for k, v in values.items()}


def _json_line(row: dict[str, Any]) -> str:
    """Numbers in full: pandas' own writer cuts them after ten decimals."""
    plain = {str(k): None if _missing(v) else v for k, v in row.items()}
    text = json.dumps(plain, ensure_ascii=False, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    return f"{text}\n"


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}); write one object a line") from error
        if row is not None and not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a row is a JSON object, not {type(row).__name__}")
        rows += [] if row is None else [row]
    return rows


def _csv(path: Path) -> pd.DataFrame:
    """pandas would take the first of too many columns as row names, and drop the last with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, index_col=False)
        except pd.errors.ParserWarning as error:
            raise InputError(
                f"{path}: rows have more fields than the header names; quote the texts that hold a comma"
            ) from error
    if "id" not in frame and len(frame.columns) == 1 and any(c in str(frame.columns[0]) for c in ";\t|"):
        raise InputError(f"{path}: its columns are not split by commas ({frame.columns[0]!r}); save it with commas")
    return frame


def _facts(side: Path) -> dict[str, Any]:
    """The facts about the table that stand beside it."""
    try:
        meta = json.loads(side.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(
            f"{side}: not readable as JSON ({reason}); repair or remove it (it says whether data are synthetic and "
            "how they were split)"
        ) from error
    if not isinstance(meta, dict):
        raise InputError(
            f"{side}: facts about a manifest are one JSON object, not {type(meta).__name__}; repair or remove it"
        )
    return meta


def as_number(value: Any, column: str, wanted: str = "a number") -> float | None:
    """A manifest cell as a finite number, None where it is empty.

    >>> as_number("128.0", "fs"), as_number(None, "fs")
    (128.0, None)

    Raises `InputError` naming the column, the value and what is wanted.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{column} is {str(value)[:40]!r}; give {wanted}, or leave the cell empty")
    return number


_read_last: list[Manifest] = []


def forget_manifest() -> None:
    """Give the memory of the table that was read last back."""
    _read_last.clear()


def _state(path: Path) -> tuple[Any, ...]:
    """What tells whether a manifest, or the facts beside it, changed since they were read."""
    found: list[Any] = [str(path), os.path.abspath(path)]
    for file in (path, _sidecar(path)):
        try:
            about = file.stat()
            found.append((about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".meta.json")


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(f"{name}: column {twice[0]!r} stands there twice; rename one of them")
    if "id" not in frame:
        raise InputError(
            f"{name}: has no column 'id' (its columns: {', '.join(map(str, frame.columns)) or 'none'}); give every row "
            "a name of its own there, or make the manifest from the field's files with `data import`"
        )
    frame = frame.copy(deep=False)
    empty = frame["id"].isna() | (frame["id"].astype(str) == "")
    if empty.any():
        raise InputError(f"{name}, row {_row(frame, empty)}: empty id; every sample needs its own")
    frame["id"] = frame["id"].astype(str)
    # Counted by Arrow, with half the memory that finding the place of one takes.
    if len(frame) and pc.count_distinct(pa.array(frame["id"], from_pandas=True)).as_py() < len(frame):
        twice = frame["id"].duplicated()
        raise InputError(
            f"{name}, row {_row(frame, twice)}: id {frame['id'][twice].iloc[0]!r} stands there a second time; every "
            "row needs its own"
        )
    if "group" not in frame:
        frame["group"] = frame["id"]
    named = frame["group"].notna() & (frame["group"].astype(str) != "")
    frame["group"] = frame["group"].astype(str).where(named, frame["id"])
    if "split" not in frame:
        frame["split"] = ""
    frame["split"] = frame["split"].astype(str).where(frame["split"].notna(), "")
    wrong = ~frame["split"].isin((*SPLITS, ""))
    if wrong.any():
        value = frame["split"][wrong].iloc[0]
        raise InputError(f"{name}, row {_row(frame, wrong)}: split {value!r} is not train, val, test or empty")
    return frame


def _row(frame: pd.DataFrame, mask: pd.Series) -> int:
    return int(mask.to_numpy().argmax()) + 1
