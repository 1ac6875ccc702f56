"""PTB-XL: `ptbxl_database.csv` with its ten folds, patients and SCP-ECG statements into a manifest."""

from __future__ import annotations

import ast
import math
import os
from functools import partial
from pathlib import Path

from counterpoint.common.data.archives import packed
from counterpoint.common.data.importing import read_files, require_file, save_manifest, unreadable
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.timeseries.importers import notes_once, recording_facts
from counterpoint.timeseries.sidecars import Sheet, read_sheet

TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "val", 10: "test"}
"""As the data set's authors recommend: fold 9 and 10 were validated by a human at least once."""
NEEDS = ("ecg_id", "patient_id", "scp_codes", "strat_fold")
FILES = {100: "filename_lr", 500: "filename_hr"}
LONGEST = 10_000


def import_database(
    source: Path, out: Path, rate: int = 100, label: str = "superclass", workers: int = 1
) -> ImportReport:
    """Every row of `ptbxl_database.csv` (or the folder that holds it) whose recording is there, as one manifest row.

    Folds 1 to 8 are `train`, 9 is `val`, 10 is `test`; a patient is in one fold. `label`: `superclass` is the one
    diagnostic class (NORM, MI, STTC, CD, HYP) of a recording, empty where it has none or several; the name of a class
    or statement (`MI`, `AFIB`) makes two classes of it, `MI` and `not MI`. The column `scp_codes` keeps all statements.

    Raises `InputError` for a table without the columns, an id that stands there twice, a patient in two splits or a
    label that is no class; a row that cannot be used is rejected with its reason.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    sheet = read_sheet(_table(source), (*NEEDS, FILES[rate]))
    classes = _classes(folder / STATEMENTS, required=label == "superclass")
    rejected: list[Rejected] = []
    seen: dict[str, tuple[str, int]] = {}
    rows: dict[Path, dict] = {}
    codes_seen = set()
    for name, i in sheet.unique("ecg_id").items():
        try:
            split, patient, codes = _row(sheet, i)
            before, first = seen.setdefault(patient, (split, i))
            if before != split:
                raise InputError(f"patient {patient} is in {before} by row {first + 1}, in {split} by this strat_fold")
            file = folder / f"{sheet.rows[i][FILES[rate]].strip()}.hea"
            if reason := unreadable(file):
                raise InputError(f"{FILES[rate]} {file.name}: {reason}")
            if file in rows:
                raise InputError(f"{FILES[rate]} {file.name} stands in the row of ecg_id {rows[file]['id']} already")
        except InputError as error:
            rejected.append(Rejected(sheet.where(i), str(error)))
            continue
        codes_seen |= set(codes)
        found = {classes[code] for code in codes if code in classes}
        rows[file] = {
            "id": name, "group": patient, "split": split, "label": _label(label, found, set(codes)),
            "scp_codes": " ".join(sorted(codes)), "superclasses": " ".join(sorted(found)),
            "strat_fold": int(sheet.number(i, "strat_fold")),
        }  # fmt: skip
    if label != "superclass" and rows and label not in codes_seen | set(classes.values()):
        some = ", ".join(sorted(codes_seen | set(classes.values()))[:12])
        raise InputError(f"{sheet.path}: no row has the statement or class {label!r} (--label); there are: {some}")
    told: dict[str, list[str]] = {}
    taken = []
    read = partial(recording_facts, patient="record", label="", fs=None)
    for file, facts in read_files(read, list(rows), rejected, description="reading recordings", workers=workers):
        for text in facts.notes:
            told.setdefault(text, []).append(rows[file]["id"])
        taken.append({**facts.columns, "file": os.path.relpath(file, out), **rows[file]})
    note = notes_once(told)
    if none := sum(row["label"] == "" for row in taken):
        words = f"{none} of {len(taken)} recordings have none or several of the diagnostic classes: no label"
        note = "\n".join(text for text in (words, note) if text)
    places = folders_of([Path(out, row["file"]) for row in taken], folder)
    return save_manifest(out, taken, rejected, note=note, outside=places)


def statements(text: str) -> dict[str, float]:
    """`scp_codes` as the table writes them, a Python dictionary of statement to likelihood; nothing in it is executed.

    >>> statements("{'NORM': 100.0, 'SR': 0.0}")
    {'NORM': 100.0, 'SR': 0.0}

    Raises `InputError` for anything else.
    """
    try:
        found = ast.literal_eval(text.strip()) if len(text) <= LONGEST else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    numbers = isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, int | float) and math.isfinite(v) for k, v in found.items()
    )
    if not numbers:
        raise InputError(f"scp_codes is {text[:60]!r}, not a dictionary of statements and numbers ({{'NORM': 100.0}})")
    return {code: float(value) for code, value in found.items()}


def _table(source: Path) -> Path:
    """The database's table, when it or its folder was named."""
    if not source.is_dir():
        return require_file(source)
    for file in sorted(source.glob(f"{TABLE}.*")):
        if not (source / TABLE).exists() and packed(file):
            raise InputError(f"{file}: {packed(file)}")
    return require_file(source / TABLE)


def _row(sheet: Sheet, i: int) -> tuple[str, str, dict[str, float]]:
    """Split, patient and statements of a row."""
    row = sheet.rows[i]
    try:
        fold = float(row["strat_fold"])
    except ValueError:
        fold = math.nan
    if fold not in SPLIT_OF_FOLD:
        raise InputError(f"strat_fold is {row['strat_fold']!r}, not a fold from 1 to 10")
    patient = row["patient_id"].strip().removesuffix(".0")
    if not patient:
        raise InputError("patient_id is empty")
    return SPLIT_OF_FOLD[int(fold)], patient, statements(row["scp_codes"])


def _classes(path: Path, required: bool) -> dict[str, str]:
    """The diagnostic class of every diagnostic statement."""
    if not path.exists() and not required:
        return {}
    sheet = read_sheet(path, ("diagnostic", "diagnostic_class"))
    code = sheet.names[0]  # which has no name in the published table
    return {
        name: sheet.rows[i]["diagnostic_class"].strip()
        for name, i in sheet.unique(code).items()
        if sheet.rows[i]["diagnostic_class"].strip()
    }


def _label(label: str, found: set[str], codes: set[str]) -> str:
    if label == "superclass":
        return next(iter(found)) if len(found) == 1 else ""
    return label if label in found | codes else f"not {label}"
