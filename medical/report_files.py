"""Reports as text files or as rows of a table, and the volumes that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from counterpoint.common.data.importing import find_files, read_files, require_file
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Rejected
from counterpoint.medical.reading import read_report_text
from counterpoint.medical.reports import SECTIONS

KEYS = (
    "id", "volume", "series", "study", "accession", "image", "image index", "dicom_id", "file", "path", "patient",
)  # fmt: skip
"""Columns that say which volume or picture a row of a table is about; the first there counts, unless one is named."""
WHOLE = ("report", "text")
_ENDING = re.compile(r"\.(nii|nrrd|nhdr|dcm|dicom|png|jpe?g)(\.gz)?$", re.IGNORECASE)
_NOTHING = {"", "nan", "none", "n/a", "na", "not given", "not given."}


@dataclass(frozen=True)
class FoundReports:
    """A report: what it is about, its text, and where it stood."""

    key: str
    text: str
    source: str


def read_report_table(path: Path) -> pd.DataFrame:
    """A table of text cells (.csv, .tsv, .parquet, .jsonl); nothing is guessed, an id 01 stays 01."""
    path = require_file(path, (".csv", ".tsv", ".parquet", ".jsonl"))
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix == ".jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            comma = "," if path.suffix == ".csv" else "\t"
            frame = pd.read_csv(path, sep=comma, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:  # whatever a damaged table makes the parsers meet
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: cannot be read as a table ({reason})") from None
    if not len(frame):
        raise InputError(f"{path}: has no rows")
    frame.columns = [str(c) for c in frame.columns]
    return frame.fillna("").map(lambda v: v if isinstance(v, str) else f"{v:g}" if isinstance(v, float) else str(v))


def key_column(frame: pd.DataFrame, key: str, path: Path, known: Sequence[str] = KEYS) -> str:
    """The column that names volumes, whatever its case: `key`, else the first of the `known` ones."""
    lower = {c.lower(): c for c in frame.columns}
    if key:
        if key.lower() not in lower:
            raise no_such("column", key, frame.columns)
        return lower[key.lower()]
    for name in (*known, "volumename"):
        if name in lower:
            return lower[name]
    raise InputError(f"{path}: no column says which volume a row is about; one of {', '.join(known)} is expected")


def bare_report(name: str) -> str:
    """A volume's name without the endings of its file.

    >>> bare_report("train_1_a_1.nii.gz"), bare_report("p7.v2")
    ('train_1_a_1', 'p7.v2')
    """
    return _ENDING.sub("", name.strip())


def reports_of_folder(source: Path, rejected: list[Rejected]) -> list[FoundReports]:
    """Text files: `a.txt` is about volume a, so are `a__2.txt` and every file in a folder `a`."""
    found = find_files(source, (".txt",))
    rejected += found.rejected
    texts = []
    for file, text in read_files(read_report_text, found.files, rejected, description="reading reports"):
        inside = file.parent != found.root
        key = file.relative_to(found.root).parts[0] if inside else re.sub(r"__\d+$", "", file.stem)
        texts.append(FoundReports(key, text, str(file)))
    return texts


def reports_of_table(path: Path, key: str, rejected: list[Rejected]) -> list[FoundReports]:
    """One report a row: a column `report` or `text`, else columns named as sections, put under their headings."""
    frame = read_report_table(path)
    column = key_column(frame, key, path)
    lower = {c.lower(): c for c in frame.columns}
    whole = next((lower[name] for name in WHOLE if name in lower), None)
    parts = [c for c in frame.columns if _section(c)]
    if whole is None and not parts:
        raise InputError(
            f"{path}: no column holds reports; call it report or text, or have a column a section "
            f"({', '.join(SECTIONS)})"
        )
    texts = []
    for number, row in enumerate(frame.to_dict("records"), start=1):
        where = f"{path}, row {number}"
        if whole is not None:
            text = row[whole].strip()
        else:
            given = [(c, row[c].strip()) for c in parts]
            text = " ".join(f"{_section(c).capitalize()}: {t}" for c, t in given if t.lower() not in _NOTHING)
        if not row[column].strip():
            rejected.append(Rejected(where, f"its column {column} is empty, so it is about no volume"))
        elif text.lower() in _NOTHING:
            rejected.append(Rejected(where, "an empty report"))
        else:
            texts.append(FoundReports(bare_report(row[column]), text, where))
    return texts


def _section(column: str) -> str:
    """The section that a column's name says (`Findings_EN`, `Impressions`); empty where it says none."""
    plain = re.sub(r"[_\s](en|text)$", "", column.strip().lower())
    return next((name for name, words in SECTIONS.items() if re.fullmatch(words, plain)), "")


def match(
    reports: Sequence[FoundReports],
    names: Mapping[str, Sequence[str]],
    rejected: list[Rejected],
    what: str = "volume",
) -> dict[str, list[FoundReports]]:
    """Volume id -> its reports. `names` are what each volume is called; a report that is about none is rejected, one
    that several volumes answer to (a study's, a patient's) belongs to each."""
    answering: dict[str, list[str]] = defaultdict(list)
    for volume, called in names.items():
        for name in dict.fromkeys(called):
            answering[name].append(volume)
    found: dict[str, list[FoundReports]] = defaultdict(list)
    for report in reports:
        volumes = answering.get(report.key, ())
        for volume in volumes:
            found[volume].append(report)
        if not volumes:
            rejected.append(Rejected(report.source, f"a report about {report.key!r}, and no {what} is called so"))
    return dict(found)


def facts_of_table(path: Path | None, key: str) -> dict[str, dict[str, Any]]:
    """Volume name -> its row of a table of facts (patient, slope, intercept, labels)."""
    if path is None:
        return {}
    frame = read_report_table(path)
    column = key_column(frame, key, path, KEYS[:-1])  # a column patient is a fact
    facts: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(frame.to_dict("records"), start=1):
        name = bare_report(row[column])
        if name in facts and any(facts[name].get(k) != v for k, v in row.items()):
            raise InputError(f"{path}, row {number}: a second row about {name!r}, which says otherwise")
        facts[name] = row
    return facts
