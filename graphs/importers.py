"""Field formats to manifests: molecules (CSV, SMILES, SDF), circuits (SPICE with SPEF or DSPF), and synthetic ones."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.archives import inner_suffix, packed
from counterpoint.common.data.importing import (
    find_files,
    name_files,
    plain_reason,
    read_files,
    require_file,
    save_manifest,
)
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.names import file_name
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected

NETLISTS = (".sp", ".spice", ".cdl", ".cir", ".ckt")
READING_SECONDS = 3600.0
"""Processor time for a whole file of molecules, which may hold millions."""
PARASITICS = (".spef", ".dspf", ".spf")


def molecules_to_manifest(
    source: Path,
    out: Path,
    *,
    smiles_column: str = "",
    id_column: str = "",
    tasks: Sequence[str] = (),
    salts: str = "keep",
    standardize: bool = False,
    duplicates: str = "first",
    split: str = "scaffold",
    seed: int = 0,
) -> ImportReport:
    """Write `out/manifest.parquet` of one molecule file: `smiles`, `inchikey`, `group` (scaffold), `split`, one column
    per task."""
    from counterpoint.graphs.molecules.splits import check_scaffold_leakage, scaffold_split
    from counterpoint.graphs.molecules.watch import read_watched

    if split not in ("scaffold", "balanced-scaffold", "random", "none"):
        raise InputError(f"split {split!r} is unknown; use scaffold, balanced-scaffold, random or none")
    require_file(source)
    read = partial(
        read_with_scaffolds,
        source=source,
        smiles_column=smiles_column or None,
        id_column=id_column or None,
        tasks=list(tasks) or None,
        salts=salts,
        standardize=standardize,
        duplicates=duplicates,
    )
    try:
        table, keys, groups = read_watched(read, READING_SECONDS)
    except InputError as error:
        raise InputError(f"{source}: {plain_reason(str(error), Path(source))}") from None
    frame = table.frame.drop(columns="row")
    frame.insert(2, "inchikey", keys)
    frame["group"] = groups
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    if split == "random":
        order = np.random.default_rng(seed).permutation(len(frame))
        names = np.empty(len(frame), dtype=object)
        cut = [int(0.8 * len(frame)), int(0.9 * len(frame))]
        for name, rows in zip(fractions, np.split(order, cut), strict=True):
            names[rows] = name
        frame["split"] = names
        frame["group"] = frame["id"]  # a random split parts scaffolds on purpose
    elif split != "none":
        groups = frame["group"].tolist()
        try:
            frame["split"] = scaffold_split(groups, fractions, balanced=split == "balanced-scaffold", seed=seed)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        check_scaffold_leakage(frame["smiles"].tolist(), frame["split"].tolist(), groups)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.parquet"
    meta = {"source": str(source), "split": split, "tasks": table.tasks, "seed": seed}
    Manifest(frame, out, meta=meta).save(path)
    rejected = tuple(
        Rejected(f"{source}, row {i.row}", f"{i.smiles}: {i.reason}") for i in table.issues if i.action == "dropped"
    )
    notes = [table.summary(), f"split: {split}", f"tasks: {', '.join(table.tasks) or 'none'}"]
    return ImportReport(path, len(frame), rejected, "; ".join(notes))


def read_with_scaffolds(watch: Any, source: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A file's molecules, their InChIKeys and scaffolds: all that RDKit has to do with a row."""
    from counterpoint.graphs.molecules.reader import inchikeys, read_molecules
    from counterpoint.graphs.molecules.splits import scaffold_groups

    table = read_molecules(source, watch=watch, **options)
    keys, groups = [], []
    for row, smiles in zip(table.frame["row"].tolist(), table.frame["smiles"].tolist(), strict=True):
        watch(int(row))
        keys += inchikeys([smiles])
        groups += scaffold_groups([smiles])
    return table, keys, groups


def circuits_to_manifest(
    source: Path, out: Path, *, train: Sequence[str] = (), top: str = "", allow_outside: bool = False
) -> ImportReport:
    """Copy netlists (with what they include) and the parasitics files of the same name into `out`, and write
    `out/manifest.parquet`, one row per circuit: `netlist`, `parasitics`, `top`, counts, `notes`, `split`. A DSPF file
    without a netlist of its name holds its own devices. Circuits named in `train` train, the others test; without names
    the one with the most coupling pairs trains. A netlist may include files of its own folder and below; with
    `allow_outside` any."""
    source, out = Path(source), Path(out)
    if source.is_dir():
        found = find_files(source, folders=(*NETLISTS, *PARASITICS))
        files = _circuit_files(found.files)
        kinds = (*NETLISTS, *PARASITICS)
        rejected = [r for r in found.rejected if {Path(r.source).suffix.lower(), inner_suffix(r.source)} & {*kinds}]
    else:
        found = find_files(source, (*NETLISTS, *PARASITICS[1:]))
        files, rejected = found.files, []
    if not files and rejected:
        raise InputError(f"{rejected[0].source}: {rejected[0].reason}")
    if not files:
        raise InputError(
            f"{source}: holds no netlist ({', '.join(NETLISTS)}) and no DSPF ({', '.join(PARASITICS[1:])})"
        )
    ids, beside = name_files(files, found.root), {file: _parasitics_of(file) for file in files}
    rejected = [r for r in rejected if Path(r.source) not in beside.values()]  # is told with its netlist
    rows: list[dict[str, Any]] = []
    read = partial(_circuit_facts, ids=ids, beside=beside, top=top, allow_outside=allow_outside)
    for file, (counts, text) in read_files(read, files, rejected, description="reading netlists"):
        folder = out / "netlists" / file_name(ids[file])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_text(text, encoding="utf-8")
        extra = beside[file]
        if extra is not None and extra != file:
            shutil.copyfile(extra, folder / extra.name)
        place = folder.relative_to(out).as_posix()
        row = {"id": ids[file], "netlist": f"{place}/{file.name}"}
        row |= {"parasitics": f"{place}/{extra.name}" if extra else None, "top": top or None}
        rows.append({**row, "group": ids[file], **counts})
    if not rows:
        first = f"{rejected[0].source}: {rejected[0].reason}"
        raise InputError(f"{source}: none of its {len(files)} netlists can be used; the first: {first}")
    names = [r["id"] for r in rows]
    unknown = [t for t in train if t not in names]
    if unknown:
        raise InputError(f"--train names {unknown[0]!r}, which is no circuit here; they are: {', '.join(names)}")
    chosen = set(train) or {max(rows, key=lambda r: r["couplings"])["id"]}
    for row in rows:
        row["split"] = "train" if row["id"] in chosen else "test"
    notes = [f"{row['id']}: {row['notes']}" for row in rows if row["notes"]]
    if source.is_dir():
        used = set(beside.values())
        extras = [p for p in found.files if p.suffix.lower() in PARASITICS and p not in used]
        notes += [f"{extra.relative_to(source)}: not used; give it the name of its netlist" for extra in extras]
    notes.append(f"train: {', '.join(sorted(chosen))}; split by circuit")
    return save_manifest(out, rows, rejected, meta={"source": str(source)}, note="\n".join(notes))


def _circuit_facts(
    file: Path, ids: dict[Path, str], beside: dict[Path, Path | None], top: str, allow_outside: bool
) -> tuple[dict[str, Any], str]:
    """A circuit's counts and notes, and its netlist with what it includes in one text."""
    from counterpoint.graphs.circuits.data import load_circuit
    from counterpoint.graphs.circuits.spice import self_contained

    extra = beside[file]
    row = {"id": ids[file], "netlist": file.name, "parasitics": extra.name if extra else None, "top": top or None}
    graph = load_circuit(row, file.parent, allow_outside=allow_outside)
    counts = {**graph.n_nodes, "couplings": len(graph.coupling_farad), "notes": "; ".join(graph.notes)}
    return counts, self_contained(file, allow_outside=allow_outside)


def _parasitics_of(file: Path) -> Path | None:
    """What stands beside a netlist under its name, whether or not it can be read: its reader says what it is."""
    candidates = (file, *map(file.with_suffix, PARASITICS))
    found = next((p for p in candidates if p.suffix.lower() in PARASITICS and os.path.lexists(p)), None)
    pressed = (p for suffix in PARASITICS for p in file.parent.glob(f"{glob.escape(file.stem)}{suffix}.*") if packed(p))
    return found or next(pressed, None)


def _circuit_files(files: list[Path]) -> list[Path]:
    """The netlists among files, and the DSPF files that have no netlist of their name."""
    netlists = [p for p in files if p.suffix.lower() in NETLISTS]
    named = {p.with_suffix("") for p in netlists}
    return netlists + [p for p in files if p.suffix.lower() in PARASITICS[1:] and p.with_suffix("") not in named]


def simulate_to_manifest(out: Path, kind: str, n: int, seed: int) -> ImportReport:
    """Synthetic molecules (CSV and manifest) or circuits (netlists and manifest)."""
    from counterpoint.graphs import simulate

    out.mkdir(parents=True, exist_ok=True)
    if kind == "molecules":
        import pandas as pd

        csv = out / "synthetic_molecules.csv"
        pd.DataFrame(simulate.molecules(n, seed)).to_csv(csv, index=False)
        report = molecules_to_manifest(csv, out)
        what = "molecules; their labels are computed by RDKit, not measured"
    elif kind == "circuits":
        folder = out / "synthetic_netlists"
        folder.mkdir(exist_ok=True)
        for i in range(n):
            text = simulate.netlist(f"block{i}", seed * 1000 + i)
            (folder / f"block{i}.spice").write_text(text, encoding="utf-8")
        report = circuits_to_manifest(folder, out)
        what = "circuits; their capacitances follow a rule with noise"
    else:
        raise InputError(f"kind {kind!r} is unknown; use molecules or circuits")
    made = Manifest.load(report.manifest)
    replace(made, meta={**made.meta, "synthetic": what}).save(report.manifest)
    return ImportReport(report.manifest, report.rows, report.rejected, f"synthetic {what}; {report.note}")


def check_row(row: dict[str, Any], root: Path | Folder) -> None:
    """Raise with the reason when a manifest row's molecule, netlist or node cannot be used."""
    if row.get("smiles"):
        from counterpoint.graphs.molecules.featurize import molecule_graph

        molecule_graph(str(row["smiles"]))
    elif row.get("netlist"):
        from counterpoint.graphs.circuits.data import load_circuit

        load_circuit(row, root)
    elif row.get("node") is not None:
        from counterpoint.graphs.hetero.importing import check_node

        check_node(row, root)
    else:
        raise InputError("has neither a smiles, a netlist nor a node; fill one of these columns")
