"""Volumes and reports to look at, and users' own files and texts as queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.report import Media
from counterpoint.medical.readers.radiograph import Radiograph, read_radiograph
from counterpoint.medical.reading import read_volume
from counterpoint.medical.reported import report_sample
from counterpoint.medical.reports import RadiologyReport
from counterpoint.medical.tokens import ReportTokenizer
from counterpoint.medical.volume import Volume, to_recipe

SHOWN = (-160.0, 240.0)
"""Window of pictures, in HU: soft tissue; lungs are black in it."""
LUNG = (-1350.0, 150.0)
PIXELS = 96


def planes(data: np.ndarray, spacing: tuple[float, float, float], window: tuple[float, float] = SHOWN) -> np.ndarray:
    """Three planes through the middle of a RAS volume side by side: axial, coronal, sagittal, as radiologists see them
    (the patient's right on the left, the front above, the head above). [PIXELS, 3 PIXELS] in 0..1.

    >>> planes(np.zeros((4, 5, 6)), (1.0, 1.0, 1.0)).shape
    (96, 288)
    """
    x, y, z = (n // 2 for n in data.shape)
    cuts = (
        (data[::-1, ::-1, z].T, spacing[1], spacing[0]),
        (data[::-1, y, ::-1].T, spacing[2], spacing[0]),
        (data[x, ::-1, ::-1].T, spacing[2], spacing[1]),
    )
    shown = [_fit((np.clip(cut, *window) - window[0]) / (window[1] - window[0]), dy, dx) for cut, dy, dx in cuts]
    return np.concatenate(shown, axis=1)


def whole(data: np.ndarray) -> np.ndarray:
    """A radiograph in 0..1 in a square of 2 PIXELS, true to scale."""
    return _fit(data, 1.0, 1.0, 2 * PIXELS)


def _fit(cut: np.ndarray, dy: float, dx: float, side: int = PIXELS) -> np.ndarray:
    """A plane in a square, true to scale."""
    from PIL import Image

    height, width = cut.shape[0] * dy, cut.shape[1] * dx
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = Image.fromarray(np.ascontiguousarray(255 * cut).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    canvas = np.zeros((side, side), dtype=np.float32)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(image, dtype=np.float32) / 255
    return canvas


def picture(sample: dict[str, Any], modality: str, system: Any) -> Media | None:
    """A volume as three planes in two windows (soft tissue above, lung below); a report has no picture but its text."""
    if modality == "volume" and "volume" in sample:
        shown = planes(np.asarray(sample["volume"]), tuple(system.config.data.recipe.spacing), (0.0, 1.0))
        return Media(str(sample["id"]), image=shown)
    if modality == "xr" and "xr" in sample:
        return Media(str(sample["id"]), image=whole(np.asarray(sample["xr"])), caption=caption(sample, "xr", system))
    if modality == "report" or "ct" not in sample:
        return Media(str(sample.get("id", "report")), caption=caption(sample, modality, system))
    spacing = tuple(system.config.data.recipe.spacing)
    data = np.asarray(sample["ct"], dtype=np.float32)
    image = np.concatenate([planes(data, spacing), planes(data, spacing, LUNG)])
    return Media(str(sample["id"]), image=image, caption=caption(sample, "ct", system))


def caption(sample: dict[str, Any], modality: str, system: Any = None) -> str:
    """The impression of a report, or its beginning."""
    report = RadiologyReport(str(sample.get("text") or ""))
    said = report.section("impression") or report.text
    return said if len(said) <= 200 else f"{said[:197]}..."


def query(file: Path, modality: str, system: Any) -> dict[str, Any]:
    """A user's NIfTI or NRRD file (a radiograph, a report in a text file) in the form of the loaded system: its recipe
    is applied, and a CT that is not in HU is refused."""
    file = Path(file)
    if modality == "report":
        from counterpoint.medical.reading import read_report_text

        return parse(read_report_text(file), modality, system)
    if modality == "xr":
        return picture_sample(read_radiograph(file), file, system)
    if modality == "volume":
        from counterpoint.medical.scenes import unit_scale

        made = to_recipe(read_volume(file, "mr"), system.config.data.recipe)
        return {"volume": torch.from_numpy(unit_scale(made.data)), "id": file.name}
    return volume_sample(read_volume(file), system)


def picture_sample(found: Radiograph, file: Path, system: Any) -> dict[str, Any]:
    """A radiograph as a sample of a system: the system's recipe is applied."""
    from counterpoint.medical.radiograph_data import to_picture

    try:
        made = to_picture(found.data, system.config.data.recipe)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return {"xr": torch.from_numpy(np.rint(made * 65535).astype(np.float32) / 65535), "id": file.name, "text": ""}


def volume_sample(volume: Volume, system: Any) -> dict[str, Any]:
    """A volume as a sample of a system."""
    made = to_recipe(volume, system.config.data.recipe)
    name = volume.source.name
    return {"ct": torch.from_numpy(made.data), "affine": torch.from_numpy(made.affine), "id": name, "text": ""}


def parse(text: str, modality: str, system: Any) -> dict[str, Any]:
    """A sentence or a report as a query."""
    if modality != "report":
        raise InputError("a scan cannot be given as text; give a file (--file), or --source report")
    if not text.strip():
        raise InputError("an empty text; write a finding, as in 'left pleural effusion'")
    tokenizer = ReportTokenizer(system.assets["tokenizer.json"])
    return {**report_sample(text, system.config.data, tokenizer), "id": "text"}
