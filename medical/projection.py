"""Synthetic radiographs of the CT phantom: frontal projections with photon noise, reports of what they can show.

With the attenuation of water mu (1/mm), values in HU, and voxels of s mm, a ray through the body from back to front
(parallel beam) is weakened by

    p = sum_y mu (1 + HU / 1000) s,    n ~ Poisson(N exp(-p)),    grey = clip(log(N / max(n, 1)) / P, 0, 1),

so that what lets little through is bright. No scatter, no magnification, one energy. The patient of a seed is the one
whose CT `data simulate` writes under that seed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.importing import save_manifest
from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.progress import track
from counterpoint.common.vertical import ImportReport, Rejected
from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import HELD_OUT, SYNTHETIC, make_case
from counterpoint.medical.phantom_report import PROJECTED, write_report
from counterpoint.medical.readers.radiograph import write_grey
from counterpoint.medical.simulate import ATTRIBUTES, READER, SENTENCES, VERSION, column, jobs_of

WATER = 0.02
"""Attenuation of water in 1/mm, about that at 70 keV."""
PHOTONS = 100_000.0
"""That reach a pixel where nothing is in the way."""
WHITE = 7.0
"""Attenuation p of a ray that is shown white."""


def attenuation(hu: np.ndarray, spacing: float) -> np.ndarray:
    """[x, y, z] HU -> [rows, columns] of line integrals along y; head up, the patient's right on the left, as
    radiographs are hung. x leads to the patient's left, z to the head.

    >>> attenuation(np.zeros((2, 50, 3)), 2.0)[0].round(6).tolist()  # 100 mm of water
    [2.0, 2.0]
    """
    mu = WATER * np.maximum(1 + hu.astype(np.float64) / 1000, 0)
    return np.ascontiguousarray((mu.sum(axis=1) * spacing)[:, ::-1].T)


def project_body(hu: np.ndarray, spacing: float, rng: np.random.Generator, photons: float = PHOTONS) -> np.ndarray:
    """[x, y, z] HU -> [rows, columns] grey values in 0..1, with photon noise."""
    counted = rng.poisson(photons * np.exp(-attenuation(hu, spacing)))
    return np.clip(np.log(photons / np.maximum(counted, 1)) / WHITE, 0, 1).astype(np.float32)


def write_radiographs(
    out: Path,
    sizes: dict[str, int],
    seed: int = 0,
    config: PhantomConfig | None = None,
    workers: int = 1,
    readers: int = 1,
) -> ImportReport:
    """Write a radiograph and reports of `sizes[split]` patients for every split, and their manifest."""
    out, config = Path(out), config or PhantomConfig()
    jobs = jobs_of(sizes, seed)
    for folder in ("images", "reports"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    make = partial(_write, out=out, config=config, readers=readers)
    rows: list[dict[str, Any]] = []
    with (out / SENTENCES).open("w", encoding="utf-8") as file:
        found = isolated_map(make, jobs, workers=workers, chunk=8)
        for job, made in track(found, "simulating radiographs", len(jobs)):
            if isinstance(made, Rejected):
                raise RuntimeError(f"the generator failed at {job}: {made.reason}")
            row, sentences = made
            rows.append(row)
            file.writelines(json.dumps(s) + "\n" for s in sentences)
    settings = {"water": WATER, "photons": PHOTONS, "white": WHITE}
    meta = {"synthetic": SYNTHETIC, "phantom": asdict(config), "seed": seed, "version": VERSION, "projection": settings}
    note = "SYNTHETIC data: projections of CT phantoms and their reports, made by a generator; nothing was measured."
    return save_manifest(out, rows, meta=meta, note=note)


def _write(
    job: tuple[str, int, int], out: Path, config: PhantomConfig, readers: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """In a worker: one patient's files; the row and the sentences."""
    split, number, seed = job
    case = make_case(seed, config, training=split == "train")
    name = f"{split}-{number:05d}"
    image = project_body(case.volume, config.spacing, np.random.default_rng([seed, 31]))
    write_grey(out / "images" / f"{name}.png", image)
    files, sentences = [], []
    for reader in range(readers):
        text, said = write_report(case, seed + reader * READER, config, radiograph=True)
        file = f"reports/{name}--{reader + 1}.txt"
        (out / file).write_text(text, encoding="utf-8")
        files.append(file)
        kept = [{k: v for k, v in asdict(s).items() if k != "label"} for s in said]
        sentences += [{"id": name, "report": file, **s} for s in kept]
    nodule = case.attributes.get("lung nodule", {})
    row: dict[str, Any] = {
        "id": name, "group": name, "split": split, "image": f"images/{name}.png", "reports": "|".join(files),
        "modality": "xr", "view": "PA", "size": "x".join(map(str, image.shape[::-1])), "bits": 16,
        **{column(f): float(case.findings[f]) for f in PROJECTED},
        **{f"{column(f)}_{a}": str(case.attributes.get(f, {}).get(a, "")) for f, a in ATTRIBUTES if f in PROJECTED},
        "held_out": tuple(nodule.get(k) for k in ("side", "lobe", "type")) in HELD_OUT,
        "habitus": case.nuisance["habitus"],
    }  # fmt: skip
    return row, sentences
