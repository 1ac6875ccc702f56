"""Check every row of a manifest, in parallel; nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.progress import track
from counterpoint.common.vertical import Rejected


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its number in the table (first = 1), its id, the file, the reason."""

    row: int
    id: str
    file: str
    reason: str


@dataclass(frozen=True)
class ValidationReport:
    """What `validate_manifest` found."""

    rows: int
    bad: list[BadRow] = field(default_factory=list)
    notes: list[tuple[int, str, str]] = field(default_factory=list)
    """What is to be known of rows that can be used: number, id, sentence."""

    @property
    def ok(self) -> bool:
        """Every row can be used."""
        return not self.bad

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        notes = [{"row": number, "id": name, "note": text} for number, name, text in self.notes]
        return {"rows": self.rows, "bad": [vars(b) for b in self.bad], "notes": notes}


def validate_manifest(
    manifest: Manifest,
    check: Callable[[dict], Sequence[str] | None],
    workers: int = 4,
    progress: bool = True,
    isolate: bool = False,
) -> ValidationReport:
    """Call `check(row)` for every row; an exception makes the row bad, with the exception's text as the reason.

    What `check` returns, sentences about a row that can be used, stands in the report's `notes`.

    `check` runs in threads: decoders release the interpreter lock, and nothing has to be pickled. With `isolate` it
    runs in worker processes (`isolation.isolated_map`; it must be importable from a module): a file that ends or blocks
    its parser is a bad row like another. The file reported is
    the exception's attribute `filename` (every OSError has it), else the first column whose value names a file.

    >>> table = Manifest.from_rows([{"id": "a", "rate": 8000}, {"id": "b", "rate": -1}])
    >>> def check(row):
    ...     if row["rate"] <= 0:
    ...         raise ValueError(f"rate {row['rate']} is not positive")
    >>> validate_manifest(table, check, progress=False).bad[0].reason
    'rate -1 is not positive'
    """
    rows = [manifest.row(i) for i in range(len(manifest))]

    attempt = partial(_attempt, check)
    bad, notes = [], []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = (
            ((_file_of(row), found.reason) if isinstance(found, Rejected) else found)
            for row, found in isolated_map(attempt, rows, workers=workers, chunk=16)
        ) if isolate else pool.map(attempt, rows)
        if progress:
            results = track(results, "checking", len(rows))
        for number, (row, found) in enumerate(zip(rows, results), start=1):
            if isinstance(found, tuple):
                bad.append(BadRow(number, str(row["id"]), *found))
            else:
                notes += [(number, str(row["id"]), text) for text in found]
    return ValidationReport(len(rows), bad, notes)


def _attempt(check: Callable[[dict], Sequence[str] | None], row: dict) -> tuple[str, str] | list[str]:
    try:
        return list(check(row) or ())
    except ImportError:
        raise  # of the installation, not of the row
    except Exception as error:  # any failure of a reader is a finding about the row
        text = " ".join(str(error).split()) or type(error).__name__
        return str(getattr(error, "filename", None) or _file_of(row)), text


def _file_of(row: dict) -> str:
    for name, value in row.items():
        if name not in ("id", "group", "split") and isinstance(value, str) and "." in value:
            return value
    return ""
