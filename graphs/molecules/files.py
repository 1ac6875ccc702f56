"""The molecule files of the field as records: delimited tables, SMILES lists, SDF; each also gzipped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem

from counterpoint.common.data.archives import packed, packed_inside, read_gzip
from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.rdkit_log import LogTail
from counterpoint.graphs.molecules.smiles import oversize
from counterpoint.graphs.molecules.watch import Watch

SMILES_NAMES = ("smiles", "canonical_smiles", "isomeric_smiles", "smile", "mol", "structure")
ID_NAMES = ("id", "mol_id", "compound_id", "name", "num", "molecule_chembl_id")
RESERVED = ("id", "smiles", "inchikey", "row", "group", "split")
"""Columns of the manifest: no label may have their names."""
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".smi", ".smiles", ".ism", ".sdf", ".sd", ".mol")
_MISSING = ("", "nan", "na", "n/a", "none", "null")


@dataclass(frozen=True)
class MoleculeRecord:
    """One molecule of a file as it stands there; `problem` says why it cannot be used, when that is known already."""

    row: int
    id: str
    smiles: str
    labels: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Records:
    """All of a file: `tasks` are its label columns, `left_out` the other columns with the reason."""

    records: list[MoleculeRecord]
    tasks: list[str]
    left_out: dict[str, str]


def read_molecule_records(
    path: Path,
    smiles_column: str | None,
    id_column: str | None,
    tasks: Sequence[str] | None,
    log: LogTail,
    watch: Watch,
) -> Records:
    """The records of a file, by its suffix; `.gz` may follow. Raises `InputError` naming the file and the remedy."""
    suffix = path.suffix.lower()
    zipped = suffix == ".gz"
    if zipped:
        suffix = Path(path.stem).suffix.lower()
    if suffix not in SUFFIXES:
        reason = packed(path) or f"is no file of molecules by its name; give {', '.join(SUFFIXES)}, each also with .gz"
        raise InputError(f"{path}: {reason}")
    data = read_gzip(path) if zipped else path.read_bytes()
    if not data.strip():
        raise InputError(f"{path}: the file is empty; copy or export it again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if reason := packed_inside(path):
            raise InputError(f"{path}: {reason}") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    if suffix in (".sdf", ".sd", ".mol"):
        return _read_sdf(path, data, tasks, log, watch)
    delimiter = _delimiter(text, suffix)
    if delimiter is None:
        return _read_list(path, text, tasks)
    return _read_table(path, text, delimiter, smiles_column, id_column, tasks)


def _delimiter(text: str, suffix: str) -> str | None:
    """What separates the columns; None for a list of SMILES. The header decides, the suffix only where it does not."""
    header = next(line for line in text.splitlines() if line.strip())
    for delimiter in (",", "\t", ";"):
        names = [n.strip().strip('"').lower() for n in header.split(delimiter)]
        if len(names) > 1 and any(n in SMILES_NAMES for n in names):
            return delimiter
    if suffix in (".smi", ".smiles", ".ism", ".txt"):
        return None
    return "\t" if suffix in (".tsv", ".tab") else ","


def _read_list(path: Path, text: str, tasks: Sequence[str] | None) -> Records:
    """One SMILES a line, a name after it; `#` lines are comments, a CXSMILES extension `|...|` is passed over."""
    if tasks:
        raise InputError(f"{path}: a list of SMILES has no columns; --tasks {tasks[0]} needs a table with a header row")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and lines[0][0].lower() in SMILES_NAMES:
        lines = lines[1:]
    names = []
    for parts in lines:
        name = parts[1].strip() if len(parts) > 1 else ""
        if name.startswith("|") and "|" in name[1:]:
            name = name[name.index("|", 1) + 1 :].strip()
        names.append(name)
    names = _unique(path, [n or str(i) for i, n in enumerate(names, 1)], None)
    return Records([MoleculeRecord(i, n, p[0]) for i, (n, p) in enumerate(zip(names, lines, strict=True), 1)], [], {})


def _read_table(
    path: Path, text: str, delimiter: str, smiles_column: str | None, id_column: str | None, tasks: Sequence[str] | None
) -> Records:
    try:
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r]
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from None
    header, rows = [name.strip() for name in rows[0]], rows[1:]
    named = [n for n in header if n]
    twice = next((n for i, n in enumerate(named) if n in named[:i]), None)
    if twice is not None:
        raise InputError(f"{path}: column {twice!r} stands twice in the header; rename one")
    given_id = id_column
    smiles_column = _column(path, header, smiles_column, SMILES_NAMES, "smiles_column", required=True)
    id_column = _column(path, header, id_column, ID_NAMES, "id_column", required=False)
    cells = {name: [r[i].strip() if i < len(r) else "" for r in rows] for i, name in enumerate(header) if name}
    others = {name: values for name, values in cells.items() if name not in (smiles_column, id_column)}
    values, left_out = _labels(path, others, tasks)
    ids = _unique(path, cells[id_column] if id_column else [str(i) for i in range(1, len(rows) + 1)], given_id)
    records = []
    for i, row in enumerate(rows):
        extra = any(cell.strip() for cell in row[len(header) :])
        problem = f"has {len(row)} fields where the header has {len(header)}" if extra else ""
        labels = {name: v[i] for name, v in values.items()}
        records.append(MoleculeRecord(i + 1, ids[i], cells[smiles_column][i], labels, problem))
    return Records(records, list(values), left_out)


def _labels(
    path: Path, columns: dict[str, list[str]], tasks: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Numbers of the label columns, nan where missing; yes/no columns become 1 and 0. A column with anything else is no
    label: an error where it was asked for, else named in the second dictionary with what was found."""
    values: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for name in columns if tasks is None else tasks:
        if name not in columns:
            raise InputError(f"{path}: --tasks names {name!r}; its columns are: {', '.join(columns) or 'none'}")
        text = pd.Series(columns[name], dtype=object).str.lower()
        missing = text.isin(_MISSING)
        if not missing.all() and text[~missing].isin(["true", "false"]).all():
            text = text.replace({"true": "1", "false": "0"})
        number = pd.to_numeric(text.where(~missing, "nan"), errors="coerce").to_numpy(float)
        wrong = ~np.isfinite(number) & ~missing.to_numpy()
        if name.lower() in RESERVED:
            reason = "the manifest uses this name"
        elif wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            reason = f"row {row + 1} has {columns[name][row]!r}"
        else:
            values[name] = number
            continue
        if tasks is not None:
            remedy = "rename the column" if "manifest" in reason else "give numbers or leave cells empty"
            raise InputError(f"{path}: {name} cannot be a task: {reason}; {remedy}")
        left_out[name] = reason
    return values, left_out


def _read_sdf(path: Path, data: bytes, tasks: Sequence[str] | None, log: LogTail, watch: Watch) -> Records:
    names: list[str] = []
    properties: list[dict[str, str]] = []
    smiles: list[str] = []
    problems: list[str] = []
    for molecule, fatal in _molecules_of(data, log, watch):
        if molecule is None:
            found, name, text = {}, "", ""
            problem = fatal or (f"cannot be read: {log.reason()}" if log.reason() else "cannot be read")
        else:
            found = {key: molecule.GetProp(key).strip() for key in molecule.GetPropNames()}
            name = molecule.GetProp("_Name").strip() if molecule.HasProp("_Name") else ""
            text, problem = Chem.MolToSmiles(molecule), ""
        by_lower = {key.lower(): value for key, value in found.items() if key not in (tasks or ())}
        named = next((n for n in ID_NAMES if by_lower.get(n)), None)
        names.append(name or (by_lower[named] if named else ""))
        properties.append(found)
        smiles.append(text)
        problems.append(problem)
        log.clear()
    keys = [k for k in dict.fromkeys(k for found in properties for k in found) if tasks or k.lower() not in ID_NAMES]
    values, left_out = _labels(path, {k: [p.get(k, "") for p in properties] for k in keys}, tasks)
    ids = _unique(path, [n or str(i) for i, n in enumerate(names, 1)], None)
    return Records(
        [
            MoleculeRecord(i + 1, name, smiles[i], {n: v[i] for n, v in values.items()}, problems[i])
            for i, name in enumerate(ids)
        ],
        list(values),
        left_out,
    )


def _molecules_of(data: bytes, log: LogTail, watch: Watch) -> Iterator[tuple[Chem.Mol | None, str]]:
    """One molecule or None for each record, with what `watch` says of it. Records are parted here, so that a broken one
    cannot swallow the next."""
    *whole, rest = re.split(rb"^\$\$\$\$.*\n?", data, flags=re.MULTILINE)
    records = (*(r + b"$$$$\n" for r in whole), *([rest] if rest.strip() else []))
    for number, record in enumerate(records, 1):
        log.clear()
        fatal = watch(number)
        try:
            found = None if fatal else next(Chem.ForwardSDMolSupplier(io.BytesIO(record), sanitize=True), None)
        except (RuntimeError, SystemError, UnicodeError, ValueError):  # what RDKit says of the record is no text
            found = None
        yield found, fatal


def _unique(path: Path, names: list[str], asked_for: str | None) -> list[str]:
    """The names when they are unique; row numbers when a column that was only guessed to hold ids is not."""
    if all(names) and len(set(names)) == len(names):
        return names
    if asked_for is not None:
        twice = next(name for i, name in enumerate(names) if not name or name in names[:i])
        what = f"id {twice!r} stands twice" if twice else "an id is missing"
        raise InputError(
            f"{path}: {what} in column {asked_for!r}; choose another --id_column, or leave it out for row "
            "numbers"
        )
    return [str(i) for i in range(1, len(names) + 1)]


def _column(
    path: Path, header: list[str], given: str | None, usual: Sequence[str], argument: str, required: bool
) -> str | None:
    columns = ", ".join(n for n in header if n)
    if given is not None:
        if given not in header:
            raise InputError(f"{path}: no column {given!r}; its columns are: {columns}")
        return given
    by_lower = {c.lower(): c for c in header}
    found = next((by_lower[name] for name in usual if name in by_lower), None)
    if found is not None or not required:
        return found
    molecule = next((c for c in header if len(c) > 1 and not oversize(c) and Chem.MolFromSmiles(c) is not None), None)
    if molecule is not None:
        raise InputError(
            f"{path}: its first row holds a molecule ({molecule}), not column names; put a header row such as "
            f"'smiles,activity' on top"
        )
    raise InputError(
        f"{path}: no column is named like a SMILES column ({', '.join(SMILES_NAMES)}); name it with --{argument}; "
        f"its columns are: {columns}"
    )
