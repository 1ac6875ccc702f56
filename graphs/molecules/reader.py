"""Molecules in: SMILES lists, CSV/TSV with a SMILES column, SDF. Every row is accounted for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.files import read_molecule_records
from counterpoint.graphs.molecules.rdkit_log import LogTail, quiet_rdkit
from counterpoint.graphs.molecules.smiles import oversize
from counterpoint.graphs.molecules.watch import Watch

_ATOM = r"(\[[^\]]*\]|Br?|Cl?|[NOPSFI])"
_PECULIAR = {
    "of several fragments (salts, mixtures)": re.compile(r"\."),
    "with an isolated atom": re.compile(rf"(^|\.){_ATOM}($|\.)"),
    "with an isotope": re.compile(r"\[\d+"),
    "with a dative bond": re.compile(r"->|<-"),
    "with a placeholder atom (*)": re.compile(r"\*"),
}


def inchikeys(smiles: Sequence[str]) -> list[str]:
    """The InChIKey of each molecule; empty where there is none (placeholder atoms, for example).

    >>> inchikeys(["OCC", "C*"])
    ['LFQSCWFLJHTTHZ-UHFFFAOYSA-N', '']
    """
    with quiet_rdkit():
        return [Chem.MolToInchiKey(Chem.MolFromSmiles(s)) for s in smiles]


@dataclass(frozen=True)
class Issue:
    """What happened to one row: `action` is `dropped` or `changed`, `reason` says why, `row` counts from 1 as the
    file's data rows do."""

    row: int
    smiles: str
    reason: str
    action: str


@dataclass
class MoleculeTable:
    """Molecules ready for a manifest: columns `id`, `smiles` (canonical), `row`, then one float column per task (nan
    where the label is missing). `issues` lists every row that was dropped or changed; `left_out` the columns that are
    no labels, with the reason."""

    frame: pd.DataFrame
    tasks: list[str]
    issues: list[Issue] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def peculiar(self) -> dict[str, int]:
        """How many of the molecules are of several fragments, or have isolated atoms, isotopes, dative bonds or
        placeholder atoms. They are kept: this is for the reader of the report.

        >>> MoleculeTable(pd.DataFrame({"smiles": ["[2H]C", "[Na+].[Cl-]", "CCO"]}), []).peculiar()
        {'of several fragments (salts, mixtures)': 1, 'with an isolated atom': 1, 'with an isotope': 1}
        """
        counts = {
            what: sum(bool(pattern.search(s)) for s in self.frame["smiles"]) for what, pattern in _PECULIAR.items()
        }
        return {what: n for what, n in counts.items() if n}

    def summary(self) -> str:
        """One line a person can read.

        >>> frame = pd.DataFrame({"id": ["a"], "smiles": ["CCO"]})
        >>> MoleculeTable(frame, [], [Issue(2, "C(", "cannot be parsed", "dropped")]).summary()
        '1 molecule(s); 1 row(s) dropped: 1 cannot be parsed'
        """
        parts = [f"{len(self.frame)} molecule(s)"]
        for verb in ("dropped", "changed"):
            reasons = Counter(i.reason.split(":")[0].split(";")[0] for i in self.issues if i.action == verb)
            if reasons:
                counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
                parts.append(f"{reasons.total()} row(s) {verb}: {counts}")
        peculiar = ", ".join(f"{n} {what}" for what, n in self.peculiar().items())
        if peculiar:
            parts.append(f"kept as they are: {peculiar}")
        if self.left_out:
            parts.append("no labels: " + ", ".join(f"{name} ({reason})" for name, reason in self.left_out.items()))
        return "; ".join(parts)


def read_molecules(
    path: str | Path,
    *,
    smiles_column: str | None = None,
    id_column: str | None = None,
    tasks: Sequence[str] | None = None,
    salts: str = "keep",
    standardize: bool = False,
    duplicates: str = "first",
    on_error: str = "skip",
    watch: Watch | None = None,
) -> MoleculeTable:
    """Read molecules and their labels.

    Args:
        path: a table with a header row (`.csv`, `.tsv`, `.txt`; comma, tab or semicolon), a list (`.smi`, `.txt`: one
            SMILES a line, an optional name after it) or `.sdf`/`.mol`; each may be gzipped.
        smiles_column, id_column: column names; found by their usual names when not given.
        tasks: label columns; every column of numbers (or of true and false) that is not the id when not given. Empty
            cells are missing labels. Columns with anything else are named in `left_out`.
        salts: `"keep"` all fragments or `"largest"` fragment by heavy atoms.
        standardize: RDKit's clean-up (groups in one notation, metals off organic parts, charges where acids and bases
            have them), then neutral where a proton can make it so. Tautomers stay as drawn.
        duplicates: of one canonical SMILES keep the `"first"` row, the `"mean"` of the labels, or `"keep"` all.
        on_error: `"skip"` lists an unusable row in `issues`; `"raise"` stops at it.
        watch: is told every row before RDKit sees it, and knows which to pass over (`watch.read_watched`).

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
            raise InputError(f"{name} {value!r} is unknown; use one of {', '.join(allowed)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .csv, .tsv, .smi or .sdf file of molecules")
    watch = watch or Watch()
    with quiet_rdkit() as log:
        raw = read_molecule_records(path, smiles_column, id_column, tasks, log, watch)
        issues: list[Issue] = []
        rows = []
        for record in raw.records:
            problem = record.problem or watch(record.row)
            molecule, problem = (None, problem) if problem else parsed(record.smiles, log)
            if molecule is None:
                if on_error == "raise":
                    raise InputError(f"{path}, row {record.row}: {short_smiles(record.smiles)!r} {problem}")
                issues.append(Issue(record.row, short_smiles(record.smiles), problem, "dropped"))
                continue
            if salts == "largest" and "." in record.smiles:
                fragments = Chem.GetMolFrags(molecule, asMols=True)
                molecule = max(fragments, key=lambda m: m.GetNumHeavyAtoms())
                reason = f"reduced to its largest of {len(fragments)} fragments"
                issues.append(Issue(record.row, record.smiles, reason, "changed"))
            smiles = Chem.MolToSmiles(molecule)
            if standardize:
                before, smiles = smiles, Chem.MolToSmiles(_standard(molecule))
                if smiles != before:
                    issues.append(Issue(record.row, record.smiles, "standardized", "changed"))
            rows.append({"id": record.id, "smiles": smiles, "row": record.row, **record.labels})
    if not rows:
        first = f"; row {issues[0].row}: {issues[0].smiles!r} {issues[0].reason}" if issues else ""
        raise InputError(f"{path}: none of its {len(issues)} row(s) holds a molecule that can be parsed{first}")
    frame = _merge_duplicates(pd.DataFrame(rows), raw.tasks, duplicates, issues)
    issues.sort(key=lambda i: i.row)
    return MoleculeTable(frame.reset_index(drop=True), raw.tasks, issues, raw.left_out)


def short_smiles(text: str) -> str:
    """A SMILES as it is named in a message."""
    return text if len(text) <= 200 else f"{text[:200]}..."


def parsed(smiles: str, log: LogTail) -> tuple[Chem.Mol | None, str]:
    """The molecule of a SMILES as people write it, or None and what is wrong with it (`log` is `quiet_rdkit`'s)."""
    if not smiles or smiles.lower() == "nan":
        return None, "has no SMILES"
    if problem := oversize(smiles):
        return None, problem
    log.clear()
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        reason = log.reason()
        return None, f"cannot be parsed: {reason}" if reason else "cannot be parsed"
    if molecule.GetNumAtoms() == 0:
        return None, "has no atoms"
    return molecule, ""


def _standard(molecule: Chem.Mol) -> Chem.Mol:
    return rdMolStandardize.Uncharger().uncharge(rdMolStandardize.Cleanup(molecule))


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
