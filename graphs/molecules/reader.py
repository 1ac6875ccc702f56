"""Molecules in: SMILES lists, CSV/TSV with a SMILES column, SDF. Every row is accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem, RDLogger, rdBase
from rdkit.Chem import SDMolSupplier

from counterpoint.common.errors import InputError

SMILES_NAMES = ("smiles", "canonical_smiles", "smile", "mol", "structure")
ID_NAMES = ("id", "mol_id", "compound_id", "name", "num", "molecule_chembl_id")


def parse_smiles(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES that has been read before; `InputError` when RDKit cannot parse it."""
    with rdBase.BlockLogs():  # the reader has listed what RDKit warns of
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise InputError(f"{smiles!r} is no SMILES that RDKit parses; read molecules with read_molecules first")
    return molecule


@dataclass(frozen=True)
class Issue:
    """What happened to one row: `action` is `dropped` or `kept`, `reason` says why, `row` counts from 1 as the file's
    data rows do."""

    row: int
    smiles: str
    reason: str
    action: str


@dataclass
class MoleculeTable:
    """Molecules ready for a manifest: columns `id`, `smiles` (canonical), `row`, then one float column per task (nan
    where the label is missing). `issues` lists every row that was dropped or changed."""

    frame: pd.DataFrame
    tasks: list[str]
    issues: list[Issue] = field(default_factory=list)

    def summary(self) -> str:
        """One line a person can read.

        >>> MoleculeTable(pd.DataFrame({"id": ["a"]}), [], [Issue(2, "C(", "cannot be parsed", "dropped")]).summary()
        '1 molecule(s); 1 row(s) dropped: 1 cannot be parsed'
        """
        dropped = pd.Series([i.reason.split(":")[0].split(";")[0] for i in self.issues if i.action == "dropped"])
        kept = pd.Series([i.reason.split(":")[0].split(";")[0] for i in self.issues if i.action == "kept"])
        parts = [f"{len(self.frame)} molecule(s)"]
        for verb, reasons in (("dropped", dropped), ("changed", kept)):
            if len(reasons):
                counts = ", ".join(f"{n} {reason}" for reason, n in reasons.value_counts().items())
                parts.append(f"{len(reasons)} row(s) {verb}: {counts}")
        return "; ".join(parts)


def read_molecules(
    path: str | Path,
    *,
    smiles_column: str | None = None,
    id_column: str | None = None,
    tasks: Sequence[str] | None = None,
    salts: str = "keep",
    duplicates: str = "first",
    on_error: str = "skip",
) -> MoleculeTable:
    """Read molecules and their labels.

    Args:
        path: `.csv`, `.tsv`, `.txt`/`.smi` (one SMILES a line, an optional name after it) or `.sdf`.
        smiles_column, id_column: column names; found by their usual names when not given.
        tasks: label columns; every numeric column that is not the id when not given. Empty cells are missing labels.
        salts: `"keep"` all fragments or `"largest"` fragment by heavy atoms.
        duplicates: of one canonical SMILES keep the `"first"` row, the `"mean"` of the labels, or `"keep"` all.
        on_error: `"skip"` lists an unusable row in `issues`; `"raise"` stops at it.

    Isolated atoms, isotopes and dative bonds are kept as they are. Raises `InputError` naming the file, and the row
    with `on_error="raise"`.
    """
    path = Path(path)
    for name, value, allowed in (
        ("salts", salts, ("keep", "largest")),
        ("duplicates", duplicates, ("first", "mean", "keep")),
        ("on_error", on_error, ("skip", "raise")),
    ):
        if value not in allowed:
            raise InputError(f"{name}={value!r} is unknown; use one of {', '.join(allowed)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .csv, .tsv, .smi or .sdf file of molecules")
    raw, tasks = _read_sdf(path, tasks) if path.suffix.lower() == ".sdf" else _read_text(
        path, smiles_column, id_column, tasks
    )  # fmt: skip
    issues: list[Issue] = []
    rows = []
    with quiet_rdkit() as log:
        for row, identifier, smiles, labels in raw:
            molecule, problem = _parse(smiles, log)
            if molecule is None:
                if on_error == "raise":
                    raise InputError(f"{path}, row {row}: {smiles!r} {problem}")
                issues.append(Issue(row, smiles, problem, "dropped"))
                continue
            if salts == "largest" and "." in smiles:
                fragments = Chem.GetMolFrags(molecule, asMols=True)
                molecule = max(fragments, key=lambda m: m.GetNumHeavyAtoms())
                issues.append(Issue(row, smiles, f"reduced to its largest of {len(fragments)} fragments", "kept"))
            rows.append({"id": identifier, "smiles": Chem.MolToSmiles(molecule), "row": row, **labels})
    if not rows:
        raise InputError(f"{path}: none of its {len(issues)} row(s) holds a molecule that can be parsed")
    frame = pd.DataFrame(rows)
    frame = _merge_duplicates(frame, tasks, duplicates, issues)
    return MoleculeTable(frame.reset_index(drop=True), tasks, sorted(issues, key=lambda i: i.row))


def _parse(smiles: str, log: _LogTail) -> tuple[Chem.Mol | None, str]:
    if not smiles or smiles.lower() == "nan":
        return None, "has no SMILES"
    log.clear()
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        reason = log.last()
        return None, f"cannot be parsed: {reason}" if reason else "cannot be parsed"
    if molecule.GetNumAtoms() == 0:
        return None, "has no atoms"
    return molecule, ""


class _LogTail:
    """RDKit explains a failed parse in its log only."""

    def __init__(self):
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def clear(self) -> None:
        self.lines.clear()

    def last(self) -> str:
        text = " ".join("".join(self.lines).split())
        if "Explicit valence" in text:
            return text[text.index("Explicit valence") :].split(" [")[0]
        if "kekulize" in text:
            return "its aromatic rings cannot be kekulized"
        if "ring closure" in text.lower() or "unclosed ring" in text.lower():
            return "a ring is not closed"
        return "syntax error" if "syntax error" in text else ""


class quiet_rdkit:
    """Route RDKit's log to a `_LogTail` while rows are parsed."""

    def __enter__(self) -> _LogTail:
        import logging

        self._logger = logging.getLogger("rdkit")
        self._tail = _LogTail()
        self._handler = logging.StreamHandler(self._tail)
        rdBase.LogToPythonLogger()
        self._old = (self._logger.handlers[:], self._logger.propagate)
        self._logger.handlers, self._logger.propagate = [self._handler], False
        return self._tail

    def __exit__(self, *_) -> None:
        self._logger.handlers, self._logger.propagate = self._old
        rdBase.LogToCppStreams()
        RDLogger.EnableLog("rdApp.error")


def _read_text(path: Path, smiles_column, id_column, tasks) -> tuple[Iterator, list[str]]:
    if path.suffix.lower() in (".smi", ".txt"):
        lines = [line.split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if lines and lines[0][0].lower() in SMILES_NAMES:
            lines = lines[1:]
        rows = [(i, p[1].strip() if len(p) > 1 else str(i), p[0], {}) for i, p in enumerate(lines, 1)]
        return iter(rows), []
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); give CSV with a header row") from None
    smiles_column = _column(path, table, smiles_column, SMILES_NAMES, "smiles_column", required=True)
    given_id = id_column
    id_column = _column(path, table, id_column, ID_NAMES, "id_column", required=False)
    values: dict[str, np.ndarray] = {}
    for name in tasks if tasks is not None else [c for c in table.columns if c not in (smiles_column, id_column)]:
        if name not in table.columns:
            raise InputError(f"{path}: no task column {name!r}; its columns are: {', '.join(table.columns)}")
        text = table[name].str.strip()
        numeric = pd.to_numeric(text.where(text != "", "nan"), errors="coerce")
        wrong = numeric.isna() & ~text.str.lower().isin(["", "nan", "na", "none", "null"])
        if wrong.any():
            if tasks is None:
                continue  # a text column is no label
            row = int(np.flatnonzero(wrong)[0])
            found = text.iloc[row]
            raise InputError(f"{path}, row {row + 1}: task {name} has {found!r}; give a number or leave it empty")
        values[name] = numeric.to_numpy(float)
    ids = _unique(path, table[id_column].tolist() if id_column else [], len(table), given_id)
    rows = (
        (i + 1, str(ids[i]), table[smiles_column][i].strip(), {name: v[i] for name, v in values.items()})
        for i in range(len(table))
    )
    return rows, list(values)


def _unique(path: Path, names: list[str], n: int, asked_for: str | None) -> list[str]:
    """The names when they are unique; row numbers when a column that was only guessed to hold ids is not."""
    if names and len(set(names)) == n:
        return names
    if asked_for is not None:
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{path}: id {twice!r} stands twice in column {asked_for!r}; ids must be unique")
    return [str(i) for i in range(1, n + 1)]


def _column(path, table, given, usual, argument: str, required: bool) -> str | None:
    if given is not None:
        if given not in table.columns:
            raise InputError(f"{path}: no column {given!r}; its columns are: {', '.join(table.columns)}")
        return given
    by_lower = {c.lower(): c for c in table.columns}
    found = next((by_lower[name] for name in usual if name in by_lower), None)
    if found is None and required:
        raise InputError(
            f"{path}: no column is named like a SMILES column ({', '.join(usual)}); name it with {argument}=; "
            f"its columns are: {', '.join(table.columns)}"
        )
    return found


def _read_sdf(path: Path, tasks) -> tuple[Iterator, list[str]]:
    supplier = SDMolSupplier(str(path), sanitize=True)
    records = []
    for row, molecule in enumerate(supplier, 1):
        if molecule is None:
            records.append((row, str(row), "", {}))
            continue
        name = molecule.GetProp("_Name").strip() if molecule.HasProp("_Name") else ""
        records.append((row, name or str(row), Chem.MolToSmiles(molecule), molecule.GetPropsAsDict()))
    ids = _unique(path, [r[1] for r in records], len(records), None)
    numeric = {key for *_, p in records for key, value in p.items() if isinstance(value, (int, float))}
    names = list(tasks) if tasks is not None else sorted(numeric)
    rows = [
        (row, ids[row - 1], s, {n: float(p[n]) if isinstance(p.get(n), (int, float)) else float("nan") for n in names})
        for row, _, s, p in records
    ]
    return iter(rows), names


def _merge_duplicates(frame: pd.DataFrame, tasks: list[str], how: str, issues: list[Issue]) -> pd.DataFrame:
    if how == "keep" or not frame["smiles"].duplicated().any():
        return frame
    first = ~frame["smiles"].duplicated()
    groups = frame.groupby("smiles", sort=False)
    spread = (groups[tasks].max() - groups[tasks].min()).max(axis=1) if tasks else None
    row_of_first = frame[first].set_index("smiles")["row"]
    for _, entry in frame[~first].iterrows():
        conflict = spread is not None and spread[entry["smiles"]] > 0
        reason = f"duplicate; of row {row_of_first[entry['smiles']]}" + (", with other labels" if conflict else "")
        issues.append(Issue(int(entry["row"]), entry["smiles"], reason, "dropped"))
    kept = frame[first].copy()
    if how == "mean" and tasks:
        kept[tasks] = groups[tasks].mean().loc[kept["smiles"]].to_numpy()
    return kept
