"""Folders of NIfTI, NRRD and DICOM, with reports and a table of facts, into a manifest. What is left out is listed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.common.data.importing import find_files, name_files, read_files, save_manifest
from counterpoint.common.data.manifest import as_number
from counterpoint.common.data.places import folders_of
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.medical.deidentify import SALT_FILE, Salt
from counterpoint.medical.reading import read_volume
from counterpoint.medical.report_files import (
    match,
    reports_of_folder,
    reports_of_table,
)
from counterpoint.medical.scrub_audit import AUDIT, STAYS, write_reports
from counterpoint.medical.wanted import ScansWanted, left_columns, one_kind

SHOWN = 12
NOT_CERTIFIED = (
    "Reports were scrubbed by rules and DICOM fields kept by an allow-list; this is no certified de-identification. "
    f"Look at {AUDIT} and at a sample of the reports. Identity in the pixels (burned-in text, faces) is not removed."
)


def import_files(
    source: Path,
    out: Path,
    wanted: ScansWanted,
    *,
    modality: str = "ct",
    hu: str = "header",
    patient: str = "",
    masks: Path | None = None,
    workers: int = 1,
) -> ImportReport:
    """Every NIfTI and NRRD file below `source` as a row; volumes stay where they are, reports are copied to `out`."""
    from counterpoint.medical.readers.nifti import GZIPPED, SUFFIXES

    out = Path(out)
    pattern = patient_pattern(patient)
    found = find_files(source, SUFFIXES, gzipped=GZIPPED)
    names, rejected = name_files(found.files, found.root, GZIPPED), list(found.rejected)
    table = {file: _slope(wanted, [names[file], file.name.split(".")[0]]) for file in found.files}
    take = partial(_take_file, modality=modality, hu=hu, table=table if hu == "table" else {})
    rows, called, told = [], {}, {}
    for file, facts in read_files(take, found.files, rejected, description="reading volumes", workers=workers):
        name = names[file]
        called[name] = [name, file.name.split(".")[0]]
        group = wanted.fact(called[name], "patient")
        if not group and pattern is not None:
            hit = pattern.search(name)
            if hit is None:
                rejected.append(Rejected(str(file), f"--patient {patient} finds no patient in its name {name!r}"))
                continue
            group = hit.group(1) if pattern.groups else hit.group(0)
        for text in facts.pop("notes"):
            told.setdefault(text, []).append(name)
        rows.append(
            {"id": name, "group": group or name, "volume": os.path.relpath(file, out), **facts}
            | wanted.label_cells(called[name])
        )
    if wanted.facts and any(wanted.fact(n, "patient") for n in called.values()):
        salt = Salt.of(wanted.salt or out / SALT_FILE)
        for row in rows:
            if wanted.fact(called[row["id"]], "patient"):
                row["group"] = salt.name("patient", row["group"])
    notes = told_once(told)
    if rows and len({row["group"] for row in rows}) == len(rows) and not patient:
        notes.append(
            "Every volume counts as a patient of its own. Where patients have several, say whose they are (a column "
            "patient in --table, or --patient with a pattern of the names), or a split may part a patient's."
        )
    taken = folders_of((Path(out, row["volume"]) for row in rows), found.root)
    if masks is not None:
        taken = (*taken, *_add_masks(out, rows, masks, notes))
    secrets = {name: _words(wanted.fact(names, "patient")) for name, names in called.items()}
    return finish(out, rows, called, rejected, wanted, notes, taken, secrets)


def _add_masks(out: Path, rows: list[dict[str, Any]], masks: Path, notes: list[str]) -> tuple[Path, ...]:
    """Name in column `labels` the label map of every volume that has one; returns the folders they lie in."""
    from counterpoint.medical.readers.nifti import GZIPPED, SUFFIXES

    found = find_files(masks, SUFFIXES, gzipped=GZIPPED)
    files = {name: file for file, name in name_files(found.files, found.root, GZIPPED).items()}
    for row in rows:
        row["labels"] = os.path.relpath(files[row["id"]], out) if row["id"] in files else ""
    if without := sum(not row["labels"] for row in rows):
        notes.append(f"{without} of {len(rows)} volumes have no label map of their name in {masks}.")
    return folders_of((Path(out, row["labels"]) for row in rows if row["labels"]), found.root)


def _take_file(file: Path, modality: str, hu: str, table: Mapping[Path, tuple[float, float] | None]) -> dict[str, Any]:
    """In a worker: read a file as it will be read in training, and say what it is."""
    scale = table.get(file)
    if hu == "table" and scale is None:
        raise InputError("the table has no slope and intercept for it")
    slope, intercept = scale or (None, None)
    volume = read_volume(file, modality, hu, slope, intercept)
    known = {"slope": slope, "intercept": intercept} if hu == "table" else {}
    return {"modality": modality, "hu": hu, **known, **_grid(volume), "notes": list(volume.notes)}


def _grid(volume: Any) -> dict[str, Any]:
    return {
        "size": "x".join(map(str, volume.data.shape)),
        "spacing": "x".join(f"{s:.4g}" for s in volume.spacing),
        "orientation": volume.orientation,
        "lowest": float(volume.data.min()),
        "highest": float(volume.data.max()),
    }


def _slope(wanted: ScansWanted, names: Sequence[str]) -> tuple[float, float] | None:
    """Slope and intercept of a volume in the table of facts (also CT-RATE's RescaleSlope and RescaleIntercept)."""
    found = []
    for column, other in (("slope", "RescaleSlope"), ("intercept", "RescaleIntercept")):
        number = as_number(wanted.fact(names, column) or wanted.fact(names, other), column)
        if number is None:
            return None
        found.append(number)
    return found[0], found[1]


def patient_pattern(patient: str) -> re.Pattern[str] | None:
    try:
        return re.compile(patient) if patient else None
    except re.error as error:
        raise InputError(f"--patient {patient!r} is no regular expression ({error})") from None


def import_dicom_folder(
    source: Path, out: Path, wanted: ScansWanted, *, hu: str = "header", tilt: str = "reject", workers: int = 1
) -> ImportReport:
    """Every CT and MR series below `source` as a NIfTI file in `out/volumes`, with the allow-listed facts of it."""
    from counterpoint.medical.readers.dicom import dicom_header, series_of

    out = Path(out)
    found = find_files(source, folders=(".dcm",))
    rejected, headers = list(found.rejected), []
    for _, header in read_files(dicom_header, found.files, rejected, description="reading headers", workers=workers):
        headers.append(header)
    if not headers:
        return ImportReport(out / "manifest.parquet", 0, tuple(rejected))
    groups, notes = series_of(headers)
    salt = Salt.of(wanted.salt or out / SALT_FILE)
    (out / "volumes").mkdir(parents=True, exist_ok=True)
    jobs = [_Job(tuple(group), i) for i, group in enumerate(groups)]
    table = {job.number: _slope(wanted, _called(job.headers)) for job in jobs} if hu == "table" else {}
    take = partial(_take_series, folder=out / "volumes", hu=hu, tilt=tilt, salt=salt, table=table)
    rows, called, secrets, told = [], {}, {}, {}
    for job, made in _isolated(take, jobs, rejected, workers):
        for row in made:
            names = _called(job.headers)
            called[row["id"]] = [row["id"], *names]
            secrets[row["id"]] = [*names, *_words(str(job.headers[0]["PatientName"] or ""))]
            for text in row.pop("notes"):
                told.setdefault(text, []).append(row["id"])
            rows.append(row | wanted.label_cells(names))
    return finish(out, rows, called, rejected, wanted, [*notes, *told_once(told), NOT_CERTIFIED], secrets=secrets)


@dataclass(frozen=True)
class _Job:
    """The files of one series; called by their folder and first file where something is wrong with them."""

    headers: tuple[Any, ...]
    number: int

    def __str__(self) -> str:
        first = self.headers[0]
        return f"{first.file.parent} (series of {len(self.headers)} files, {first.file.name} among them)"


def _isolated(take: Any, jobs: Sequence[_Job], rejected: list[Rejected], workers: int) -> Any:
    from counterpoint.common.data.isolation import isolated_map
    from counterpoint.common.progress import track

    for job, made in track(isolated_map(take, jobs, workers=workers), "reading series", len(jobs)):
        if isinstance(made, Rejected):
            rejected.append(made)
            continue
        rows, refused = made
        rejected += [Rejected(str(job), reason) for reason in refused]
        yield job, rows


def _called(headers: Sequence[Any]) -> list[str]:
    """What a table may call a series: its UID, its study's, the accession number, the patient's number."""
    fields = ("SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
    return [str(headers[0][name]).strip() for name in fields if headers[0][name]]


def _take_series(
    job: _Job, folder: Path, hu: str, tilt: str, salt: Salt, table: Mapping[int, tuple[float, float] | None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """In a worker: lay out, decode, check and write the volumes of a series; (rows, reasons of volumes refused)."""
    from counterpoint.medical.deidentify import travelling
    from counterpoint.medical.hu import hu_fault, require_hu
    from counterpoint.medical.readers.dicom import lay_out, read_series
    from counterpoint.medical.volume import write_nifti

    first = job.headers[0]
    uid = str(first["SeriesInstanceUID"] or "") or f"{first.file.parent}#{job.number}"
    study = str(first["StudyInstanceUID"] or "") or uid
    patient = str(first["PatientID"] or "") or study
    rows, refused = [], []
    volumes = lay_out(job.headers)
    for number, series in enumerate(volumes, start=1):
        ct = series.headers[0]["Modality"] == "CT"
        try:
            volume = read_series(series, hu, table.get(job.number), tilt)
            if ct:
                other = "already" if hu == "header" else "header"
                fault = hu_fault(volume.data)
                others = {other: read_series(series, other, None, tilt).data} if fault else {}
                require_hu(volume.data, hu, others)
        except InputError as error:
            if len(volumes) == 1:
                raise
            refused.append(f"volume {number} of {len(volumes)}: {error}")
            continue
        name = salt.name("series", f"{uid}#{first['ImageOrientationPatient']}")
        name = name if len(volumes) == 1 else f"{name}-{number}"
        write_nifti(folder / f"{name}.nii.gz", volume.data, volume.affine)
        notes = list(volume.notes)
        if not first["PatientID"]:
            notes.append("its header names no patient; its study (or series) counts as one")
        rows.append({
            "id": name, "group": salt.name("patient", patient), "volume": f"volumes/{name}.nii.gz",
            "study": salt.name("study", study), **travelling(series.headers[0].fields),
            "modality": "ct" if ct else "mr", "hu": "header", "tilt": round(series.tilt, 2),
            "slices": len(series.headers), **_grid(volume), "notes": notes,
        })  # fmt: skip
    return rows, refused


def finish(
    out: Path,
    rows: list[dict[str, Any]],
    called: Mapping[str, Sequence[str]],
    rejected: list[Rejected],
    wanted: ScansWanted,
    notes: list[str],
    outside: Sequence[Path] = (),
    secrets: Mapping[str, Sequence[str]] | None = None,
    taken: Sequence[str] = (),
) -> ImportReport:
    """Give the rows their reports, write these and the audit of the scrubber, save the manifest."""
    if alone := [name for name in wanted.facts if not any(name in names for names in called.values())]:
        some = f"{len(alone)} of {len(wanted.facts)} rows of {wanted.table}"
        notes.append(f"{some} are about no {wanted.what} that was taken ({alone[0]} first).")
    one_kind(rows, called, wanted)
    if wanted.facts:
        notes += left_columns(wanted, taken)
        named = ("patient", *(name for name in taken if "patient" in name or "subject" in name))
        nameless = [r["id"] for r in rows if not any(wanted.fact(called[r["id"]], name) for name in named)]
        if 0 < len(nameless) < len(rows) and any(row["group"] == row["id"] for row in rows):
            notes.append(
                f"{len(nameless)} of {len(rows)} {wanted.what}s have no patient in {wanted.table}, {nameless[0]} the "
                "first; where nothing else names one, each counts as a patient of its own, and a split may part a "
                "patient's."
            )
    if wanted.reports is not None:
        source = Path(wanted.reports)
        if source.is_dir():
            reports = reports_of_folder(source, rejected)
        else:
            reports = reports_of_table(source, wanted.key, rejected)
        belonging = match(reports, {row["id"]: called[row["id"]] for row in rows}, rejected, wanted.what)
        audit, doubtful = write_reports(out, rows, belonging, secrets or {}, wanted.scrub)
        without = sum(not row["reports"] for row in rows)
        if without:
            notes.append(f"{without} of {len(rows)} {wanted.what}s have no report.")
        if wanted.scrub:
            notes.append(f"{audit} passages of the reports were removed; {AUDIT} lists them and is as private.")
            if doubtful:
                notes.append(
                    f"{doubtful} words and numbers of the reports stay although they may identify someone: look at the "
                    f"rows `{STAYS}` of {AUDIT}."
                )
            if NOT_CERTIFIED not in notes:
                notes.append(NOT_CERTIFIED)
        else:
            notes.append("Reports were taken as they are (--scrub false): what they hold of patients stays in them.")
    return save_manifest(out, rows, rejected, note="\n".join(notes) if rows else "", outside=outside)


def _words(name: str) -> list[str]:
    """Of a name or number of a patient, all and each of its words."""
    return [w for w in (name.strip(), *re.split(r"[\^=,\s]+", name)) if w]


def told_once(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each note once, with the volumes that it is true of."""
    lines = []
    for text, names in notes.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{names[0]}{others}: {text}")
    more = [f"... and {len(lines) - SHOWN} more notes; data check lists them"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
