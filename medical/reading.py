"""A manifest row's volume and reports, read as the import found them; every faulty cell is named.

Columns the vertical adds to a manifest: `volume` (file), `reports` (text files, with | between), `modality` (ct, mr),
`hu` (how the file's values become Hounsfield units), `slope` and `intercept` (with `hu` = table). A radiograph's row
has `image` (file) in place of `volume`, and the modality `xr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.importing import require_file
from counterpoint.common.data.manifest import as_number
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.medical.hu import require_hu
from counterpoint.medical.readers.nifti import read_file
from counterpoint.medical.readers.radiograph import Radiograph, read_radiograph
from counterpoint.medical.volume import Volume

HU = ("already", "header", "table")
MODALITIES = ("ct", "mr")
REPORT_BYTES = 1 << 20
MASK_VALUES = 16
"""An image has more different values than this."""


def read_volume(
    path: str | Path,
    modality: str = "ct",
    hu: str = "header",
    slope: float | None = None,
    intercept: float | None = None,
) -> Volume:
    """A NIfTI or NRRD file with its values in HU (`ct`), or as its header scales them (`mr`).

    Args:
        path: the file.
        modality: `ct` or `mr`; only the values of a CT have a scale that can be checked.
        hu: `header` applies the header's slope and intercept (none in most files), once; `already` takes the stored
            values; `table` applies `slope` and `intercept` to the stored values, and the header's are not used.
        slope, intercept: of `hu="table"`.

    Raises:
        InputError: unreadable, or not in Hounsfield units when read so; says which other way would be.
    """
    for what, value, known in (("modality", modality, MODALITIES), ("hu", hu, HU)):
        if value not in known:
            raise no_such(what, str(value), known)
    if hu == "table" and (slope is None or intercept is None):
        raise InputError(f"{path}: --hu table needs its slope and its intercept")
    volume = read_file(path, scaled=hu == "header" or modality == "mr")
    if modality == "mr":
        _refuse_masks(volume)
        return volume
    if hu == "table":
        told = f"slope {slope:g} and intercept {intercept:g} of the table were applied"
        data = volume.data.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        volume = replace(volume, data=data, notes=(*volume.notes, told))
    try:
        require_hu(volume.data, hu, _Others(Path(path), slope, intercept))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return volume


def _refuse_masks(volume: Volume) -> None:
    """An MR has no scale to check, but an image has more than a handful of values."""
    values = np.unique(volume.data.reshape(-1)[: 1 << 22])
    if len(values) <= MASK_VALUES:
        raise InputError(
            f"{volume.source}: holds {len(values)} different values; it is a mask or a label map, no image"
        )


class _Others(Mapping):
    """The same file read in each way; only looked into when the way chosen has failed."""

    def __init__(self, path: Path, slope: float | None, intercept: float | None) -> None:
        self.path, self.table = path, (slope, intercept)

    def __iter__(self):
        return iter(("already", "header", *(("table",) if None not in self.table else ())))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> np.ndarray:
        data = read_file(self.path, scaled=name == "header").data
        slope, intercept = self.table
        return data * np.float32(slope) + np.float32(intercept) if name == "table" else data


def row_volume(row: Mapping[str, Any], folder: Folder) -> Volume:
    """The volume of a manifest's row."""
    name = row.get("volume")
    if not isinstance(name, str) or not name.strip():
        raise InputError("no file named in column 'volume'")
    path = require_file(folder / name)
    modality, hu = str(row.get("modality") or "ct").lower(), str(row.get("hu") or "header")
    numbers = {column: as_number(row.get(column), column) for column in ("slope", "intercept")}
    return read_volume(path, modality, hu, **numbers)


def row_labels(row: Mapping[str, Any], folder: Folder, volume: Volume | None = None) -> Volume:
    """The label map of a manifest's row (column `labels`): whole numbers from 0, on the grid of its volume."""
    volume = volume or read_file(require_file(folder / row["volume"]))
    labels = read_file(require_file(folder / row["labels"]))
    if labels.data.shape != volume.data.shape or not np.allclose(labels.affine, volume.affine, atol=1e-2):
        raise InputError(f"{row['labels']}: its grid is not that of the volume")
    low, high = float(labels.data.min()), float(labels.data.max())
    if low < 0 or high >= 2**15 or not (labels.data == np.rint(labels.data)).all():
        raise InputError(f"{row['labels']}: labels are whole numbers from 0 on; it holds {low:g} to {high:g}")
    return labels


def row_radiograph(row: Mapping[str, Any], folder: Folder) -> Radiograph:
    """The radiograph of a manifest's row."""
    name = row.get("image")
    if not isinstance(name, str) or not name.strip():
        raise InputError("no file named in column 'image'")
    path = require_file(folder / name)
    try:
        return read_radiograph(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def row_reports(row: Mapping[str, Any], folder: Folder) -> list[str]:
    """The texts of a row's reports; none where the column is empty."""
    listed = row.get("reports")
    if not isinstance(listed, str) or not listed.strip():
        return []
    texts = []
    for name in listed.split("|"):
        path = require_file(folder / name.strip())
        texts.append(read_report_text(path))
    return texts


def read_report_text(path: Path) -> str:
    """A report's text. Raises `InputError` for an empty file, one that is no text, or of more than a megabyte."""
    size = path.stat().st_size
    if size > REPORT_BYTES:
        raise InputError(f"{path}: {size:,} bytes are no report; at most {REPORT_BYTES:,} are read")
    content = path.read_bytes()
    if b"\0" in content:
        raise InputError(f"{path}: no plain text (it holds NUL bytes); save it as UTF-8 text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path}: an empty report")
    return text


def check_row(row: dict, root: Folder) -> list[str]:
    """Read a row's volume or radiograph and its reports; raise what is wrong, return what is to be known."""
    if row.get("modality") == "xr":
        found = row_radiograph(row, root)
        row_reports(row, root)
        return list(found.notes)
    volume = row_volume(row, root)
    row_reports(row, root)
    if isinstance(row.get("labels"), str) and row["labels"]:
        row_labels(row, root, volume)
    return list(volume.notes)
