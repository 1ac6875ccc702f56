"""The first volumes of a manifest in three planes (radiographs as they are), with headers and reports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data import Manifest
from counterpoint.common.data.dataset import synthetic_part
from counterpoint.common.data.isolation import isolated_map
from counterpoint.common.data.places import Folder
from counterpoint.common.report import Report
from counterpoint.common.vertical import Outcome, Rejected
from counterpoint.medical.gallery import LUNG, SHOWN, planes, whole
from counterpoint.medical.reading import row_radiograph, row_reports, row_volume
from counterpoint.medical.volume import canonical


def preview_page(manifest: Path, out: Path, volumes: int) -> Outcome:
    """Write the page; a volume that cannot be read is shown with its reason."""
    table = Manifest.load(manifest)
    rows = [table.row(i) for i in range(min(volumes, len(table)))]
    flat = all(row.get("modality") == "xr" for row in rows)
    page = Report(
        "Radiographs" if flat else "Volumes",
        f"{manifest}: {len(rows)} of {len(table)}",
        synthetic=synthetic_part(table),
    )
    planes_told = (
        "Axial, coronal and sagittal planes through the middle: the patient's right on the left, front and head up."
    )
    page.text("As the files have them; nothing was turned or flipped." if flat else planes_told)
    lines, shown = [], 0
    for row, found in isolated_map(partial(_look, folder=table.folder), rows, name=lambda r: str(r["id"])):
        if isinstance(found, Rejected):
            page.text(f"{row['id']}: {found.reason}")
            lines.append(f"{row['id']}: {found.reason}")
            continue
        image, facts, texts = found
        page.figure(str(row["id"]), image, " \u2014 ".join([facts, *texts]))
        shown += 1
        lines.append(f"{row['id']}: {facts}, {len(texts)} reports")
    written = page.write(out)
    return Outcome({"volumes": shown}, (*lines, f"wrote {written}"), {"preview": Path(written)})


def _look(row: dict[str, Any], folder: Folder) -> tuple[np.ndarray, str, list[str]]:
    """In a worker: the planes of a row's volume, facts in words, the texts of its reports."""
    if row.get("modality") == "xr":
        found = row_radiograph(row, folder)
        stated = ("view", "laterality", "orientation")
        known = [str(row[name]) for name in stated if isinstance(row.get(name), str) and row[name]]
        facts = ", ".join([f"{found.data.shape[1]} x {found.data.shape[0]} pixels of {found.bits} bits", *known])
        return whole(found.data), facts, row_reports(row, folder)
    volume = row_volume(row, folder)
    turned = canonical(volume)
    data = np.asarray(turned.data, dtype=np.float32)
    if str(row.get("modality") or "ct") == "ct":
        image = np.concatenate([planes(data, turned.spacing, window) for window in (SHOWN, LUNG)])
    else:
        image = planes(data, turned.spacing, tuple(np.percentile(data, (1, 99))))
    size = " x ".join(map(str, volume.data.shape))
    spacing = " x ".join(f"{s:.3g}" for s in volume.spacing)
    facts = f"{size} voxels of {spacing} mm, {volume.orientation}, {data.min():g} to {data.max():g}"
    return image, facts, row_reports(row, folder)
