"""The vertical's own verbs as typed functions; their signatures are the command line, so imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import ImportReport, Outcome


def import_nifti(
    source: Path,
    out: Path,
    modality: Literal["ct", "mr"] = "ct",
    hu: Literal["header", "already", "table"] = "header",
    reports: Path | None = None,
    table: Path | None = None,
    key: str = "",
    patient: str = "",
    labels: tuple[str, ...] = (),
    masks: Path | None = None,
    scrub: bool = True,
    salt: Path | None = None,
    workers: int = 1,
) -> ImportReport:
    """Turn SOURCE (NIfTI or NRRD volumes, with reports) into a manifest; volumes stay where they are.

    A CT is only taken when its values are Hounsfield units: slope and intercept applied twice, or not at all, 8-bit
    windows and normalised values are refused, with the way that would read them right.

    Args:
        source: a .nii, .nii.gz, .nrrd or .nhdr file, or a folder that is searched with all below it.
        out: folder that receives manifest.parquet and the reports.
        modality: ct, or mr, whose values have no scale to check.
        hu: how values become HU: header applies the file's own slope and intercept once (most files have none),
            already takes what is stored, table applies slope and intercept of --table.
        reports: a folder of text files (a.txt, a__2.txt or a/x.txt are about volume a), or a table with a column
            report, or with a column a section (findings, impression, ...).
        table: facts of the volumes (.csv, .tsv, .parquet, .jsonl): patient, slope, intercept, labels.
        key: the column of either table that names volumes; id, volume, series, study, accession or patient unless
            given.
        patient: regular expression that finds the patient in a volume's name, as in '^([^_]+)_'.
        labels: columns of --table to keep, with commas between; 1, 0, -1 (uncertain), empty (unknown).
        masks: folder of label maps of the same names as the volumes, for tasks that need them.
        scrub: remove from reports what looks like a name, date or number of a patient. No certified de-identification.
        salt: file of the salt of hashed names; OUT/salt.private unless given. One salt for all imports keeps patients
            together.
        workers: processes that read.
    """
    from counterpoint.medical.importers import import_files
    from counterpoint.medical.wanted import ScansWanted

    wanted = ScansWanted(reports, table, key, labels, scrub, salt)
    return import_files(source, out, wanted, modality=modality, hu=hu, patient=patient, masks=masks, workers=workers)


def import_dicom(
    source: Path,
    out: Path,
    hu: Literal["header", "already", "table"] = "header",
    tilt: Literal["reject", "resample"] = "reject",
    reports: Path | None = None,
    table: Path | None = None,
    key: str = "",
    labels: tuple[str, ...] = (),
    scrub: bool = True,
    salt: Path | None = None,
    workers: int = 1,
) -> ImportReport:
    """Turn SOURCE (a folder of DICOM files, of any number of CT and MR series) into NIfTI volumes and a manifest.

    Slices are ordered by where they lie, never by name. Series with gaps, duplicates or mixed planes are refused with
    the reason; localisers, screen captures and dose reports are listed. Only allow-listed header fields travel, names
    of patients, studies and series as salted hashes, no dates. No certified de-identification.

    Args:
        source: a DICOM file, or a folder that is searched with all below it.
        out: folder that receives manifest.parquet, volumes and reports.
        hu: header applies each slice's slope and intercept once; already takes stored values; table those of --table.
        tilt: what to do with a series of a tilted gantry: reject it, or resample it onto an orthogonal grid.
        reports: a folder of text files, or a table of reports; see `data import nifti --help`. Volumes are called by
            their series, study or accession number, or patient.
        table: facts of the volumes: slope, intercept, labels.
        key: the column of either table that names volumes.
        labels: columns of --table to keep, with commas between.
        scrub: remove from reports what looks like a name, date or number of a patient. No certified de-identification.
        salt: file of the salt of hashed names; OUT/salt.private unless given.
        workers: processes that read.
    """
    from counterpoint.medical.importers import import_dicom_folder
    from counterpoint.medical.wanted import ScansWanted

    wanted = ScansWanted(reports, table, key, labels, scrub, salt)
    return import_dicom_folder(source, out, wanted, hu=hu, tilt=tilt, workers=workers)


def import_radiographs(
    source: Path,
    out: Path,
    reports: Path | None = None,
    table: Path | None = None,
    key: str = "",
    patient: str = "",
    labels: tuple[str, ...] = (),
    scrub: bool = True,
    salt: Path | None = None,
    workers: int = 1,
) -> ImportReport:
    """Turn SOURCE (radiographs as PNG, JPEG or DICOM, with reports) into a manifest.

    PNG and JPEG files stay where they are. DICOM ones are shown as their header says (VOI LUT or window, MONOCHROME1
    turned over) and written as PNG of 16 bits under hashed names; only allow-listed header fields travel. Texts burned
    into the pixels are told of where the header says so, and stay. No certified de-identification.

    Args:
        source: a file, or a folder that is searched with all below it.
        out: folder that receives manifest.parquet, pictures made from DICOM, and reports.
        reports: a folder of text files, or a table of reports; see `data import nifti --help`.
        table: facts of the pictures (.csv, .tsv, .parquet, .jsonl): patient, view, sex, age, labels; also NIH's names
            (Image Index, Patient ID, View Position) and CheXpert's (Path, AP/PA).
        key: the column of either table that names pictures; id, study, image, Image Index, dicom_id, file, path or
            another known one unless given.
        patient: regular expression that finds the patient in a picture's name, as in '^([0-9]+)_'.
        labels: columns of --table to keep, with commas between; 1, 0, -1 (uncertain), empty (unknown). NIH's column
            'Finding Labels' (A|B) becomes a column a finding.
        scrub: remove from reports what looks like a name, date or number of a patient.
        salt: file of the salt of hashed names; OUT/salt.private unless given.
        workers: processes that read.
    """
    from counterpoint.medical.radiographs import import_pictures
    from counterpoint.medical.wanted import ScansWanted

    wanted = ScansWanted(reports, table, key, labels, scrub, salt, "radiograph")
    return import_pictures(source, out, wanted, patient=patient, workers=workers)


def simulate(
    out: Path,
    volumes: int = 200,
    val: int = 50,
    test: int = 50,
    seed: int = 0,
    size: int = 48,
    spacing: float = 7.0,
    lesions: float = 2.0,
    readers: int = 1,
    workers: int = 2,
    kind: Literal["ct", "radiographs"] = "ct",
) -> ImportReport:
    """Write synthetic CT volumes (NIfTI) with findings, label maps, reports, and what every sentence is about.

    Args:
        out: folder that receives manifest.parquet, volumes (or images), labels, reports and sentences.jsonl.
        volumes: of the training split.
        val: of the validation split.
        test: of the test split.
        seed: the same seed gives the same files.
        size: voxels along each side.
        spacing: millimetres between voxels.
        lesions: lesions are this many times as large as in a body.
        readers: reports of every volume, each in other words.
        workers: processes that write.
        kind: ct, or radiographs: frontal projections of the same patients (PNG of 16 bits, `size` pixels along each
            side), with reports of what these can show and no label maps.
    """
    from counterpoint.medical.configs import PhantomConfig
    from counterpoint.medical.projection import write_radiographs
    from counterpoint.medical.simulate import write_phantoms

    config = PhantomConfig(size=size, spacing=spacing, lesions=lesions)
    write = write_phantoms if kind == "ct" else write_radiographs
    return write(out, {"train": volumes, "val": val, "test": test}, seed, config, workers, readers)


def embed_scan(
    run: Path,
    scan: Path,
    out: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    hu: Literal["header", "already"] = "header",
    tilt: Literal["reject", "resample"] = "reject",
) -> Outcome:
    """Embed SCAN (a NIfTI or NRRD file, a folder with one DICOM series, a radiograph) by RUN, with the run's recipe.

    Args:
        run: the run's folder.
        scan: the file or folder.
        out: .npy file for the vector; printed with --json unless given.
        checkpoint: which weights.
        hu: how values become HU; see `data import --help`. A scan that is not in HU is refused.
        tilt: what to do with a DICOM series of a tilted gantry.
    """
    from counterpoint.medical.scans import write_scan_vectors as run_embed

    return run_embed(run, scan, out, checkpoint, hu, tilt)


def preview(manifest: Path, out: Path = Path("preview.html"), volumes: int = 8) -> Outcome:
    """Look at the volumes of MANIFEST in three planes, with their reports.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        volumes: how many to show.
    """
    from counterpoint.medical.preview import preview_page

    return preview_page(manifest, out, volumes)


def demo(
    out: Path = Path("runs/medical-demo"), volumes: int = 1000, epochs: int = 5, seed: int = 0, workers: int = 2
) -> Outcome:
    """Learn which synthetic CT volume a synthetic report is about, in minutes, and show it in one HTML report.

    Volumes and reports are made by a generator; findings are scored without labels, beside floors that had them.

    Args:
        out: folder of the run and its report.html.
        volumes: of the training split.
        epochs: passes over them.
        seed: seed of weights and batches.
        workers: processes that simulate and read.
    """
    from counterpoint.medical.demo import run_demo

    return run_demo(out, volumes, epochs, seed, workers)


def segment(
    run: Path,
    out: Path,
    manifest: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    limit: int = 0,
) -> Outcome:
    """Label maps of whole volumes by RUN (of `finetune --task dense --labels labels`), as NIfTI on the grids of the
    volumes; Dice and surface distances in mm where the volumes have label maps.

    Volumes go window by window (MONAI's sliding windows of the run's recipe), long ones in slabs.

    Args:
        run: the finetuned run's folder.
        out: folder that receives segmentation/ID.nii.gz and segmentation.json.
        manifest: other volumes; those of the run unless given.
        split: which split of them.
        checkpoint: which weights.
        limit: the first so many volumes; 0: all.
    """
    from counterpoint.medical.segmenting import segment_split

    out.mkdir(parents=True, exist_ok=True)
    return segment_split(run, out, manifest, split, checkpoint, limit)


def ground(
    run: Path,
    file: Path,
    text: str,
    out: Path = Path("grounding.nii.gz"),
    checkpoint: Literal["best", "last"] = "best",
    hu: Literal["header", "already"] = "header",
) -> Outcome:
    """Where in a scan RUN sees a sentence: its similarity at every voxel of the run's grid, as NIfTI in patient space.

    A picture of what the network looks at, no finding.

    Args:
        run: the run's folder, of clip-ct or velvet-med.
        file: a NIfTI or NRRD file, or a folder with one DICOM series.
        text: the sentence, as in 'left pleural effusion'.
        out: the NIfTI file to write.
        checkpoint: which weights.
        hu: how values become HU; see `data import --help`.
    """
    from counterpoint.medical.grounding import ground_text

    return ground_text(run, file, text, out, checkpoint, hu)
