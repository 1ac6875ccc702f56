"""Folders of radiographs (PNG, JPEG, DICOM) with reports and a table of facts into a manifest.

Columns of its rows: `image` (file), `modality` (`xr`), `view`, `laterality`, `orientation`, `sex`, `age`, `reports`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.common.data.importing import find_files, name_files, read_files
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.medical.deidentify import SALT_FILE, Salt, travelling
from counterpoint.medical.importers import NOT_CERTIFIED, finish, patient_pattern, told_once
from counterpoint.medical.readers.radiograph import PICTURES, Radiograph, is_dicom, read_radiograph, write_grey
from counterpoint.medical.wanted import ScansWanted

FACTS = {
    "patient": ("patient", "patient id", "patientid", "patient_id", "subject_id"),
    "view": ("view", "view position", "viewposition", "ap/pa"),
    "laterality": ("laterality",),
    "sex": ("sex", "patient gender", "gender"),
    "age": ("age", "patient age"),
}
"""Column of the manifest -> what tables call it."""
FINDINGS_CELL = "finding labels"
"""NIH's column of all findings of a picture with | between; `No Finding` where there is none."""


def import_pictures(
    source: Path, out: Path, wanted: ScansWanted, *, patient: str = "", workers: int = 1
) -> ImportReport:
    """Every radiograph below `source` as a row. PNG and JPEG files stay where they are; DICOM ones are written as PNG
    of 16 bits into `out/images`, under hashed names and without a header."""
    out, pattern = Path(out), patient_pattern(patient)
    found = find_files(source, folders=(*PICTURES, ".dcm"))
    files = [file for file in found.files if file.suffix.lower() in PICTURES or is_dicom(file)]
    other = Counter(file.suffix.lower() or "no ending" for file in found.files if file not in set(files))
    if not files and not found.rejected:
        raise InputError(f"{source}: no PNG, JPEG or DICOM file in it")
    names, rejected = name_files(files, found.root), list(found.rejected)
    salt = Salt.of(wanted.salt or out / SALT_FILE)
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows, called, secrets, told, seen = [], {}, {}, {}, {}
    take = partial(_take, out=out, salt=salt)
    for file, facts in read_files(take, files, rejected, description="reading radiographs", workers=workers):
        if (first := seen.setdefault(facts.pop("digest"), file)) != file:
            rejected.append(Rejected(str(file), f"the same picture as {first}"))
            if facts["written"] and Path(facts["written"]).stem not in called:
                (out / facts["written"]).unlink()
            continue
        header, notes, written = facts.pop("header"), facts.pop("notes"), facts.pop("written")
        name = Path(written).stem if written else names[file]
        called[name] = _called(file, names[file], found.root, header)
        group = _fact(wanted, called[name], "patient") or header.get("PatientID", "")
        if group:
            group = salt.name("patient", group)
        elif pattern is not None:
            hit = pattern.search(names[file])
            if hit is None:
                rejected.append(Rejected(str(file), f"--patient {patient} finds no patient in its name"))
                continue
            group = hit.group(1) if pattern.groups else hit.group(0)
        elif header.get("StudyInstanceUID"):
            group = salt.name("study", header["StudyInstanceUID"])
            notes.append("its header names no patient; its study counts as one")
        for text in notes:
            told.setdefault(text, []).append(name)
        given = {column: _fact(wanted, called[name], column) for column in list(FACTS)[1:]}
        secrets[name] = _secrets(header)
        image = written or os.path.relpath(file, out)
        row = {"id": name, "group": group or name, "image": image, "modality": "xr", **facts}
        rows.append(row | {k: v for k, v in given.items() if v} | wanted.label_cells(called[name]))
    _part_findings(rows, wanted)
    notes = told_once(told)
    if other:
        kinds = ", ".join(f"{n} {ending}" for ending, n in sorted(other.items()))
        notes.append(f"Files of other kinds were not looked at: {kinds}.")
    alone = sum(row["group"] == row["id"] for row in rows)
    if alone:
        notes.append(
            f"{alone} of {len(rows)} radiographs count as a patient of their own. Where patients have several, say "
            "whose they are (a column patient in --table, or --patient with a pattern of the names), or a split may "
            "part a patient's."
        )
    if any(secrets.values()):
        notes.append(NOT_CERTIFIED)
    outside = folders_of((Path(out, row["image"]) for row in rows), found.root)
    taken = [name for names in FACTS.values() for name in names]
    return finish(out, rows, called, rejected, wanted, notes, outside, secrets, taken)


def _take(file: Path, out: Path, salt: Salt) -> dict[str, Any]:
    """In a worker: read a file, write it as a PNG where it was DICOM, and say what it is."""
    found = read_radiograph(file)
    written = ""
    digest = hashlib.blake2b(found.data.tobytes() + str(found.data.shape).encode(), digest_size=16).hexdigest()
    if found.header:  # by its pixels, too: files of other pixels under one UID are two pictures
        name = salt.name("image", f"{found.header['SOPInstanceUID']}#{digest}")
        written = f"images/{name}.png"
        write_grey(out / written, found.data)
    return {
        **_columns(found), "header": dict(found.header), "notes": list(found.notes), "written": written,
        "digest": digest,
    }  # fmt: skip


def _columns(found: Radiograph) -> dict[str, Any]:
    known = travelling(found.header) if found.header else {}
    kept = {k: v for k, v in known.items() if k not in ("modality", "contrast")}
    kept |= {"detector": found.header["Modality"]} if found.header else {}
    rows, columns = found.data.shape
    return kept | dict(found.facts) | {"size": f"{columns}x{rows}", "bits": found.bits}


def _called(file: Path, name: str, root: Path, header: Mapping[str, Any]) -> list[str]:
    """What a table may call a picture: its name, its place from up to three folders above, a header's identifiers."""
    below = file.resolve().with_suffix("").parts
    depth = len(file.relative_to(root).parts)
    places = ["/".join(below[-n:]) for n in range(depth, min(depth + 4, len(below)))]
    fields = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
    return list(dict.fromkeys([name, *places, file.stem, *(header[f] for f in fields if header.get(f))]))


def _secrets(header: Mapping[str, Any]) -> list[str]:
    """Words of a header that must not stand in its reports."""
    fields = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
    name = str(header.get("PatientName", "")).replace("^", " ").replace("=", " ")
    return [*(header[f] for f in fields if header.get(f)), *name.split()]


def _fact(wanted: ScansWanted, names: Sequence[str], column: str) -> str:
    return next((text for alias in FACTS[column] if (text := wanted.fact(names, alias))), "")


def _part_findings(rows: list[dict[str, Any]], wanted: ScansWanted) -> None:
    """Part a column `Finding Labels` (`A|B`, `No Finding`) into a column a finding: 1, 0, missing where no cell is."""
    for column in (c for c in wanted.labels if c.lower() == FINDINGS_CELL):
        cells = [row.pop(column, None) for row in rows]
        said = [None if cell is None else {part.strip() for part in str(cell).split("|")} for cell in cells]
        every = sorted({part for parts in said if parts for part in parts} - {"No Finding", ""})
        for row, parts in zip(rows, said):
            row |= {name: None if parts is None else float(name in parts) for name in every}
