"""One scan of a user, from whatever it is stored as, to its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.importing import find_files, read_files, require_file
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.vertical import Outcome, Rejected
from counterpoint.medical.hu import require_hu
from counterpoint.medical.readers.radiograph import Radiograph, read_radiograph
from counterpoint.medical.reading import read_volume
from counterpoint.medical.volume import Volume


def read_scan(scan: Path, hu: str = "header", tilt: str = "reject") -> Volume:
    """A NIfTI or NRRD file, or the one DICOM series of a folder, in HU; read in a worker process."""
    scan = Path(scan)
    with Isolated() as worker:
        if scan.is_dir():
            rejected: list[Rejected] = []
            found = find_files(scan, folders=(".dcm",))
            headers = [h for _, h in read_files(_header(), found.files, rejected, description="reading headers")]
            if not headers:
                said = rejected[0].reason if rejected else "it is empty"
                raise InputError(f"{scan}: no DICOM slice of a CT or MR in it (the first file {said})")
            return worker.call(partial(_series, hu=hu, tilt=tilt), scan, headers)
        return worker.call(partial(read_volume, hu=hu), require_file(scan))


def _header() -> Any:
    from counterpoint.medical.readers.dicom import dicom_header

    return dicom_header


def _series(scan: Path, headers: list[Any], hu: str, tilt: str) -> Volume:
    from counterpoint.medical.readers.dicom import lay_out, read_series, series_of

    groups, _ = series_of(headers)
    made = [series for group in groups for series in lay_out(group)]
    if len(made) > 1:
        sizes = ", ".join(str(len(series.headers)) for series in made)
        raise InputError(f"{scan}: holds {len(made)} volumes (of {sizes} slices); name the folder of one of them")
    volume = read_series(made[0], hu, None, tilt)
    try:
        require_hu(volume.data, hu, {})
    except InputError as error:
        raise InputError(f"{scan}: {error}") from None
    return volume


def write_scan_vectors(run: Path, scan: Path, out: Path | None, checkpoint: str, hu: str, tilt: str) -> Outcome:
    """See `commands.embed_scan`."""
    import torch

    from counterpoint.common.data.samples import ListSamples
    from counterpoint.common.runs.queries import encode_samples
    from counterpoint.common.trainers import load_run
    from counterpoint.medical.gallery import volume_sample

    system = load_run(run, checkpoint)
    if "xr" in system.modalities:
        return _embed_picture(system, scan, out)
    volume = read_scan(scan, hu, tilt)
    for said in volume.notes:
        note(f"{scan}: {said}")
    names = ["ct"] if "ct" in system.modalities else [m for m in system.modalities if m != "volume"]
    if not names:
        raise InputError(f"{run}: {type(system).__name__} embeds no CT; use `embed` with a manifest")
    sample = ListSamples([volume_sample(volume, system)])
    vector = torch.cat([encode_samples(system, sample, name)[0] for name in names])
    shape, spacing = "x".join(map(str, volume.data.shape)), " x ".join(f"{s:.3g}" for s in volume.spacing)
    lines = [f"{scan}: {shape} voxels of {spacing} mm, {volume.orientation}; embedded in {len(vector)} numbers"]
    lines += [f"first its {' code, then its '.join(names)} code"] if len(names) > 1 else []
    return _keep_vector(scan, vector, volume.notes, lines, out)


def _embed_picture(system: Any, scan: Path, out: Path | None) -> Outcome:
    """A radiograph's embedding; the file is read in a worker process."""
    from counterpoint.common.data.samples import ListSamples
    from counterpoint.common.runs.queries import encode_samples
    from counterpoint.medical.gallery import picture_sample

    if Path(scan).is_dir():
        raise InputError(f"{scan}: a folder; the run reads radiographs, so name one PNG, JPEG or DICOM file")
    with Isolated() as worker:
        found = worker.call(_radiograph, require_file(scan))
    for said in found.notes:
        note(f"{scan}: {said}")
    sample = picture_sample(found, Path(scan), system)
    vector = encode_samples(system, ListSamples([sample]), "xr")[0]
    return _keep_vector(scan, vector, found.notes, [f"{scan}: a radiograph; embedded in {len(vector)} numbers"], out)


def _radiograph(file: Path) -> Radiograph:
    try:
        return read_radiograph(file)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _keep_vector(scan: Path, vector: Any, notes: Sequence[str], lines: Sequence[str], out: Path | None) -> Outcome:
    figures = {"scan": str(scan), "dim": len(vector), "notes": list(notes)}
    if out is None:
        return Outcome({**figures, "vector": vector.tolist()}, (*lines, "give --out FILE.npy to keep it, or --json"))
    target = out if out.suffix == ".npy" else out.with_name(f"{out.name}.npy")
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, vector.numpy())
    return Outcome(figures, (*lines, f"wrote {target}"), {"vector": target})
