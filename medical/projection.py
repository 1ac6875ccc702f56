"""Synthetic radiographs of the CT phantom: frontal projections with photon noise, reports of what they can show.

With the attenuation of water mu (1/mm), values in HU, and voxels of s mm, a ray through the body from back to front
(parallel beam) is weakened by

    p = sum_y mu (1 + HU / 1000) s,    n ~ Poisson(N exp(-p)),    grey = clip(log(N / max(n, 1)) / P, 0, 1),

so that what lets little through is bright. No scatter, no magnification, one energy. The patient of a seed is the one
whose CT `data simulate` writes under that seed.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import Cache, Manifest
from counterpoint.common.vertical import ImportReport
from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import SYNTHETIC, make_case
from counterpoint.medical.phantom_report import PROJECTED
from counterpoint.medical.readers.radiograph import write_grey
from counterpoint.medical.simulate import VERSION, finding_cells, jobs_of, write_patient_reports, write_patients

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
    config = config or PhantomConfig()
    make = partial(_project, out=Path(out), config=config, readers=readers)
    settings = {"water": WATER, "photons": PHOTONS, "white": WHITE}
    meta = {"synthetic": SYNTHETIC, "phantom": asdict(config), "seed": seed, "version": VERSION, "projection": settings}
    note = "SYNTHETIC data: projections of CT phantoms and their reports, made by a generator; nothing was measured."
    return write_patients(Path(out), jobs_of(sizes, seed), make, ("images",), workers, meta, note)


def cached_radiographs(
    sizes: dict[str, int], seed: int, config: PhantomConfig, workers: int = 1, cache: str = ""
) -> Manifest:
    """The manifest of such a data set, made once and kept in the cache."""
    key = {"kind": "phantom-radiographs", "version": VERSION, "sizes": sizes, "seed": seed, "config": asdict(config)}
    made = Cache(cache or None).get_or_make(key, "", lambda path: write_radiographs(path, sizes, seed, config, workers))
    return Manifest.load(made / "manifest.parquet")


def _project(
    job: tuple[str, int, int], out: Path, config: PhantomConfig, readers: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """In a worker: one patient's files; the row and the sentences."""
    split, number, seed = job
    case = make_case(seed, config, training=split == "train")
    name = f"{split}-{number:05d}"
    image = project_body(case.volume, config.spacing, np.random.default_rng([seed, 31]))
    write_grey(out / "images" / f"{name}.png", image)
    files, sentences = write_patient_reports(out, name, case, seed, config, readers, radiograph=True)
    row: dict[str, Any] = {
        "id": name, "group": name, "split": split, "image": f"images/{name}.png", "reports": files, "modality": "xr",
        "view": "PA", "size": "x".join(map(str, image.shape[::-1])), "bits": 16, **finding_cells(case, PROJECTED),
        "habitus": case.nuisance["habitus"],
    }  # fmt: skip
    return row, sentences
