"""Synthetic CT volumes with reports as real files: NIfTI, text, label maps, and what every sentence is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.common.data import Cache, Manifest
from counterpoint.common.data.importing import save_manifest
from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.errors import InputError
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import FINDINGS, HELD_OUT, SYNTHETIC, Case, make_case
from counterpoint.medical.phantom_report import write_report
from counterpoint.medical.volume import write_nifti

VERSION = 1
"""Of the generator: a changed one makes other files."""
SPLITS = {"train": 0, "val": 1, "test": 2}
_SEEDS = 10_000_000
READER = 999 * _SEEDS
"""Between the seeds of the readers of one patient."""
SENTENCES = "sentences.jsonl"


def column(finding: str) -> str:
    """A finding as a column of the manifest.

    >>> column("lung nodule")
    'lung_nodule'
    """
    return finding.replace(" ", "_")


def jobs_of(sizes: dict[str, int], seed: int) -> list[tuple[str, int, int]]:
    """(split, number, seed of the patient) of every patient; no two splits or seeds share one.

    >>> jobs_of({"train": 1, "test": 1}, 0)
    [('train', 0, 0), ('test', 0, 20000000)]
    """
    if unknown := set(sizes) - set(SPLITS):
        raise InputError(f"no split {min(unknown)!r}; there are {', '.join(SPLITS)}")
    return [(name, i, _SEEDS * (1000 * seed + SPLITS[name]) + i) for name, n in sizes.items() for i in range(n)]


def write_phantoms(
    out: Path,
    sizes: dict[str, int],
    seed: int = 0,
    config: PhantomConfig | None = None,
    workers: int = 1,
    readers: int = 1,
) -> ImportReport:
    """Write volumes, label maps and reports of `sizes[split]` patients for every split, and their manifest.

    The training split holds no nodule of a held-out combination (`phantom.HELD_OUT`); the others do, and say so in the
    column `held_out`. Every patient has `readers` reports by readers who choose other words.
    """
    config = config or PhantomConfig()
    make = partial(_write, out=Path(out), config=config, readers=readers)
    meta = {"synthetic": SYNTHETIC, "phantom": asdict(config), "seed": seed, "version": VERSION}
    note = "SYNTHETIC data: CT phantoms and their reports, made by a generator; nothing of them was measured."
    return write_patients(Path(out), jobs_of(sizes, seed), make, ("volumes", "labels"), workers, meta, note)


def write_patients(
    out: Path,
    jobs: Sequence[tuple[str, int, int]],
    make: Callable[[tuple[str, int, int]], tuple[dict[str, Any], list[dict[str, Any]]]],
    folders: Sequence[str],
    workers: int,
    meta: dict[str, Any],
    note: str,
) -> ImportReport:
    """Run `make` (a job -> its manifest row and the sentences of its reports) in worker processes; write
    `sentences.jsonl` and the manifest. `folders` are made first, beside `reports`."""
    for folder in (*folders, "reports"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with (out / SENTENCES).open("w", encoding="utf-8") as file:
        found = isolated_map(make, jobs, workers=workers, chunk=8)
        for job, made in track(found, f"simulating {folders[0]}", len(jobs)):
            if isinstance(made, Rejected):
                raise RuntimeError(f"the generator failed at {job}: {made.reason}")
            row, sentences = made
            rows.append(row)
            file.writelines(json.dumps(s) + "\n" for s in sentences)
    return save_manifest(out, rows, meta=meta, note=note)


def write_patient_reports(
    out: Path, name: str, case: Case, seed: int, config: PhantomConfig, readers: int, radiograph: bool = False
) -> tuple[str, list[dict[str, Any]]]:
    """The reports of a patient as files: what the column `reports` says, and their sentences. Those of a radiograph
    name no label: it has no label map."""
    files, sentences = [], []
    for reader in range(readers):
        text, said = write_report(case, seed + reader * READER, config, radiograph=radiograph)
        file = f"reports/{name}--{reader + 1}.txt"
        (out / file).write_text(text, encoding="utf-8")
        files.append(file)
        kept = [{k: v for k, v in asdict(s).items() if not (radiograph and k == "label")} for s in said]
        sentences += [{"id": name, "report": file, **s} for s in kept]
    return "|".join(files), sentences


def finding_cells(case: Case, findings: Collection[str]) -> dict[str, Any]:
    """A patient's columns: findings, their attributes, whether the nodule is of a held-out combination."""
    nodule = case.attributes.get("lung nodule", {})
    return {
        **{column(f): float(case.findings[f]) for f in findings},
        **{f"{column(f)}_{a}": str(case.attributes.get(f, {}).get(a, "")) for f, a in ATTRIBUTES if f in findings},
        "held_out": tuple(nodule.get(k) for k in ("side", "lobe", "type")) in HELD_OUT,
    }


def _write(
    job: tuple[str, int, int], out: Path, config: PhantomConfig, readers: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """In a worker: one patient's files; the row and the sentences."""
    split, number, seed = job
    case = make_case(seed, config, training=split == "train")
    name = f"{split}-{number:05d}"
    write_nifti(out / "volumes" / f"{name}.nii.gz", case.volume, case.affine)
    write_nifti(out / "labels" / f"{name}.nii.gz", case.labels, case.affine)
    files, sentences = write_patient_reports(out, name, case, seed, config, readers)
    row: dict[str, Any] = {
        "id": name, "group": name, "split": split, "volume": f"volumes/{name}.nii.gz", "reports": files,
        "labels": f"labels/{name}.nii.gz", "modality": "ct", "hu": "header", **finding_cells(case, FINDINGS),
        **case.nuisance,
    }  # fmt: skip
    return row, sentences


ATTRIBUTES = (
    ("lung nodule", "side"), ("lung nodule", "lobe"), ("lung nodule", "type"), ("pleural effusion", "side"),
    ("liver lesion", "type"), ("renal cyst", "side"), ("kidney stone", "side"),
)  # fmt: skip


def cached_phantoms(
    sizes: dict[str, int], seed: int, config: PhantomConfig, workers: int = 1, cache: str = ""
) -> Manifest:
    """The manifest of such a data set, made once and kept in the cache."""
    key = {"kind": "ct-phantoms", "version": VERSION, "sizes": sizes, "seed": seed, "config": asdict(config)}
    folder = Cache(cache or None).get_or_make(key, "", lambda path: write_phantoms(path, sizes, seed, config, workers))
    return Manifest.load(folder / "manifest.parquet")
