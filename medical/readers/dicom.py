"""DICOM series of CT and MR slices as volumes: ordered by where they lie, checked for gaps, duplicates and tilt.

One header a file is read first (`dicom_header`), then files are put into series (`series_of`), each series is laid out
in space (`lay_out`) and only then are its pixels decoded (`read_series`). Slices are ordered by their position along
the normal of their plane, never by file name or instance number.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.medical.volume import AIR, Volume, check_geometry, check_values, untilted

IMAGES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
}
"""SOP classes of single slices that are read."""
OTHERS = {
    "1.2.840.10008.5.1.4.1.1.2.1": "an enhanced (multi-frame) CT; convert it to NIfTI (dcm2niix) or to single slices",
    "1.2.840.10008.5.1.4.1.1.4.1": "an enhanced (multi-frame) MR; convert it to NIfTI (dcm2niix) or to single slices",
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture (a picture of a screen), no slice",
    "1.2.840.10008.5.1.4.1.1.88.67": "a dose report, no slice",
    "1.2.840.10008.1.3.10": "a DICOMDIR, no slice",
}
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
KEPT = (
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber",
    "Modality", "ImageType", "PhotometricInterpretation", "SamplesPerPixel", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "BodyPartExamined", "PatientSex", "PatientAge", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "KVP", "SliceThickness", "ContrastBolusAgent", "PatientIdentityRemoved", "AcquisitionNumber",
    "TemporalPositionIdentifier", "EchoNumbers", "InstanceNumber", "BurnedInAnnotation", *GEOMETRY,
)  # fmt: skip
PHASES = ("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "ImageType", "ConvolutionKernel")
"""Fields by which several images of one place are told apart, in the order in which they are tried."""
TILT = 0.5
"""Degrees between the slices' normal and the way from slice to slice above which the gantry was tilted."""
STEP = 0.02
"""Share of the slice distance (at least 0.05 mm) by which distances may differ: headers round."""


@dataclass(frozen=True)
class Header:
    """What is known of one file before its pixels are decoded: plain values by DICOM's keywords."""

    file: Path
    fields: Mapping[str, Any]
    syntax: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)


@dataclass(frozen=True)
class Series:
    """Slices of one volume in the order in which they lie, and the grid that they span.

    Attributes:
        headers: of the slices, from the first along the normal.
        affine: [4, 4] from (column, row, slice) to millimetres in RAS+; askew where `tilt` is not 0.
        tilt: degrees.
        notes: what was found or mended, in sentences.
    """

    headers: tuple[Header, ...]
    affine: np.ndarray
    tilt: float
    notes: tuple[str, ...] = field(default=())


def open_dicom(file: Path, **options: Any) -> Any:
    """pydicom's data set of a file. Raises `InputError` for what is no DICOM file, or a damaged one."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(file, **options)
    except InvalidDicomError:
        raise InputError("is no DICOM file (it has no DICOM preamble)") from None
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"damaged or cut ({' '.join(str(error).split())[:100]}); copy it again") from None


def dicom_header(file: Path) -> Header:
    """The header of one file. Raises `InputError` for what is no slice of a CT or MR, with what it is."""
    found = open_dicom(file, stop_before_pixels=True, specific_tags=[*KEPT, "SOPClassUID"])
    meta = found.file_meta
    kind = str(found.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    if kind not in IMAGES:
        what = OTHERS.get(kind) or f"no slice of a CT or MR (SOP class {kind or 'not stated'})"
        raise InputError(f"is {what}")
    try:
        fields = {name: _plain(found.get(name)) for name in KEPT}
    except Exception as error:  # values are converted when they are looked at
        raise InputError(f"a field of its header cannot be read ({' '.join(str(error).split())[:100]})") from None
    if not fields["SOPInstanceUID"]:
        fields["SOPInstanceUID"] = str(meta.get("MediaStorageSOPInstanceUID") or "")
    fields["Modality"] = fields["Modality"] or IMAGES[kind]
    types = [str(t).upper() for t in _several(fields["ImageType"])]
    if {"LOCALIZER", "SCOUT"} & set(types):
        raise InputError("is a localiser (scout), no slice of a volume")
    if missing := [name for name in GEOMETRY if fields[name] in (None, "", [])]:
        raise InputError(f"says not where it lies in the patient ({', '.join(missing)} missing)")
    if len(fields["ImagePositionPatient"]) != 3 or len(fields["ImageOrientationPatient"]) != 6:
        raise InputError("its position or orientation has a wrong number of values")
    if (fields["SamplesPerPixel"] or 1) != 1 or not str(fields["PhotometricInterpretation"]).startswith("MONOCHROME"):
        raise InputError(f"holds colours ({fields['PhotometricInterpretation']}), not intensities")
    return Header(Path(file), fields, str(meta.get("TransferSyntaxUID", "")))


def _plain(value: Any) -> Any:
    """A pydicom value as Python's own: nothing of the library travels between processes."""
    from pydicom.multival import MultiValue

    if value is None or (isinstance(value, (int, bool)) and not hasattr(value, "original_string")):
        return value
    if isinstance(value, MultiValue):
        return [_plain(v) for v in value]
    if isinstance(value, (int, float)):
        return float(value)
    return str(value)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def series_of(headers: Iterable[Header]) -> tuple[list[list[Header]], list[str]]:
    """Files by their SeriesInstanceUID; those without one by their folder and plane. Second: what was assumed.

    A series whose files lie in several planes (a localiser among them, reformats) is parted by plane.
    """
    groups: dict[str, list[list[Header]]] = defaultdict(list)
    nameless: set[str] = set()
    for header in headers:
        uid = str(header["SeriesInstanceUID"] or "")
        if not uid:
            nameless.add(str(header.file.parent))
        planes = groups[uid or str(header.file.parent)]
        same = next((plane for plane in planes if _one_plane(plane[0], header)), None)
        if same is None:
            planes.append([header])
        else:
            same.append(header)
    notes = [f"{folder}: its files name no series; those of one plane were taken as one" for folder in sorted(nameless)]
    return [plane for planes in groups.values() for plane in planes], notes


def _one_plane(a: Header, b: Header) -> bool:
    """Whether two slices lie in parallel planes (to about a degree) and have one size."""
    turned = np.abs(np.subtract(a["ImageOrientationPatient"], b["ImageOrientationPatient"])).max()
    return bool(turned < 0.02) and (a["Rows"], a["Columns"]) == (b["Rows"], b["Columns"])


def lay_out(headers: Sequence[Header]) -> list[Series]:
    """The volumes of a series, usually one: several where each place was imaged several times (phases, echoes).

    Raises:
        InputError: fewer than two slices, gaps, slices of one place that nothing tells apart, planes or pixel sizes
            that differ.
    """
    kept, notes = _without_copies(list(headers))
    places = _places(kept)
    if len(np.unique(np.round(places, 3))) < len(kept):
        parts = _phases(kept)
        made = [_volume(part, notes) for part in parts]
        told = f"one of {len(parts)} volumes of its series, told apart by {_telling(kept)}"
        return [Series(s.headers, s.affine, s.tilt, (*s.notes, told)) for s in made]
    return [_volume(kept, notes)]


def _without_copies(headers: list[Header]) -> tuple[list[Header], list[str]]:
    """One file of every image: what stands there twice by its SOPInstanceUID is a copy."""
    first: dict[str, Header] = {}
    kept = []
    for header in sorted(headers, key=lambda h: str(h.file)):
        uid = str(header["SOPInstanceUID"] or header.file)
        if uid not in first:
            first[uid] = header
            kept.append(header)
        elif any(header[name] != first[uid][name] for name in GEOMETRY):
            raise InputError(
                f"{header.file.name} and {first[uid].file.name} have one SOPInstanceUID and lie in different places"
            )
    copies = len(headers) - len(kept)
    return kept, [f"{copies} files are copies of others and were left out"] if copies else []


def _frame(headers: Sequence[Header]) -> np.ndarray:
    """[3, 3] directions along a row, along a column, and of the normal (LPS)."""
    cosines = np.array(headers[0]["ImageOrientationPatient"], dtype=np.float64)
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if min(lengths) < 0.9 or abs(along_row @ along_column) > 1e-2:
        raise InputError(f"{headers[0].file.name}: its orientation {cosines.tolist()} is no plane")
    along_row, along_column = along_row / lengths[0], along_column / lengths[1]
    normal = np.cross(along_row, along_column)
    return np.stack([along_row, along_column, normal / np.linalg.norm(normal)])


def _places(headers: Sequence[Header]) -> np.ndarray:
    """Of every slice, in mm along the normal."""
    return np.array([h["ImagePositionPatient"] for h in headers], dtype=np.float64) @ _frame(headers)[2]


def _key(header: Header, name: str) -> str:
    return "/".join(map(str, _several(header[name])))


def _telling(headers: Sequence[Header]) -> str:
    """The field that tells images of one place apart; empty where none does."""
    for name in PHASES:
        parts: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            parts[_key(header, name)].append(header)
        if len(parts) > 1 and all(len(np.unique(np.round(_places(p), 3))) == len(p) for p in parts.values()):
            return name
    return ""


def _phases(headers: Sequence[Header]) -> list[list[Header]]:
    name = _telling(headers)
    if not name:
        places = np.round(_places(headers), 3)
        values, counts = np.unique(places, return_counts=True)
        at = values[counts > 1][0]
        both = [h.file.name for h, p in zip(headers, places) if p == at][:2]
        raise InputError(
            f"{int((counts > 1).sum())} places have several images that nothing tells apart (the first at {at:g} mm: "
            f"{' and '.join(both)}); remove the duplicates"
        )
    parts: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        parts[_key(header, name)].append(header)
    return [parts[key] for key in sorted(parts)]


def _volume(headers: Sequence[Header], notes: Sequence[str]) -> Series:
    """Order, check and span the grid of slices of distinct places."""
    if len(headers) < 2:
        raise InputError(f"has one slice ({headers[0].file.name}), no volume")
    frame, places = _frame(headers), _places(headers)
    order = np.argsort(places, kind="stable")
    headers, places = [headers[i] for i in order], places[order]
    for name, tolerance in (("ImageOrientationPatient", 1e-3), ("PixelSpacing", 1e-3)):
        values = np.array([h[name] for h in headers], dtype=np.float64)
        odd = np.abs(values - values[0]).max(axis=1) > tolerance
        if odd.any():
            name_of = headers[int(odd.argmax())].file.name
            raise InputError(f"{name_of}: its {name} differs from the series' other slices")
    positions = np.array([h["ImagePositionPatient"] for h in headers], dtype=np.float64)
    step = _even(headers, places)
    # Fitted over all slices: headers round single positions.
    way = (positions[-1] - positions[0]) / (len(headers) - 1)
    line = positions[0] + np.arange(len(headers))[:, None] * way
    off = np.abs(positions - line).max(axis=1)
    if off.max() > max(0.5, 0.1 * step):
        name = headers[int(off.argmax())].file.name
        raise InputError(f"{name}: lies {off.max():.1f} mm beside the line of the other slices")
    tilt = float(np.rad2deg(np.arccos(np.clip(way @ frame[2] / np.linalg.norm(way), -1, 1))))
    spacing = [float(s) for s in headers[0]["PixelSpacing"]]  # between rows, between columns
    lps = np.eye(4)
    lps[:3, 0] = frame[0] * spacing[1]
    lps[:3, 1] = frame[1] * spacing[0]
    lps[:3, 2] = way if tilt > TILT else frame[2] * step
    lps[:3, 3] = positions[0]
    found = list(notes)
    for name in ("RescaleSlope", "RescaleIntercept"):
        if len({h[name] for h in headers}) > 1:
            found.append(f"{name} differs from slice to slice; each slice's own was applied")
    return Series(tuple(headers), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, tilt if tilt > TILT else 0.0, tuple(found))


def _even(headers: Sequence[Header], places: np.ndarray) -> float:
    """The distance of the slices, when it is one; raises with the place of the first gap."""
    steps = np.diff(places)
    usual = float(np.median(steps))
    allowed = max(STEP * usual, 0.05)
    odd = np.abs(steps - usual) > allowed
    if not odd.any():
        return float((places[-1] - places[0]) / len(steps))
    at = int(odd.argmax())
    between = f"between {headers[at].file.name} and {headers[at + 1].file.name}"
    times = steps[at] / usual
    if times > 1.5 and abs(times - round(times)) < 0.1:
        missing = sum(round(s / usual) - 1 for s in steps[odd] if s > 1.5 * usual)
        raise InputError(
            f"{missing} slices are missing: the first gap is {between}, {steps[at]:g} mm where {usual:g} mm is usual; "
            "export the whole series"
        )
    raise InputError(
        f"its slices are unevenly spaced: {steps[at]:g} mm {between}, {usual:g} mm is usual; part the series or "
        "resample it"
    )


def read_series(
    series: Series, hu: str = "header", table: tuple[float, float] | None = None, tilt: str = "reject"
) -> Volume:
    """Decode a series' pixels: stored * slope + intercept, once.

    Args:
        series: from `lay_out`.
        hu: `header` (each slice's RescaleSlope and RescaleIntercept), `already` (stored values are HU) or `table`.
        table: slope and intercept of `hu="table"`.
        tilt: `reject` a tilted gantry, or `resample` its slices onto an orthogonal grid.

    Values that the files name as padding (PixelPaddingValue) become -1024 in a CT. MONOCHROME1 only says how a slice is
    to be shown; its values stand for what they are.
    """
    first = series.headers[0]
    if series.tilt and tilt == "reject":
        raise InputError(
            f"its gantry was tilted by {series.tilt:.1f} degrees; import with --tilt resample to lay the slices onto "
            "an orthogonal grid"
        )
    slices, padded, seen = [], 0, {}
    ct = first["Modality"] == "CT"
    for header in series.headers:
        stored, padding = _pixels(header)
        digest = hashlib.blake2b(stored.tobytes(), digest_size=16).digest()
        if digest in seen and stored.min() != stored.max():
            raise InputError(f"{header.file.name} and {seen[digest]} hold the same picture in two places")
        seen[digest] = header.file.name
        slope, intercept = _rescale(header, hu, table)
        values = stored.astype(np.float64) * slope + intercept
        if ct and padding.any():
            values[padding] = AIR
            padded += int(padding.sum())
        slices.append(values.astype(np.float32))
    data = np.stack(slices).T  # [column, row, slice], laid out as in the files: nothing is copied askew
    affine, notes = series.affine, list(series.notes)
    if padded:
        notes.append(f"{padded:,} voxels of padding were set to {AIR:g}")
    if first["PhotometricInterpretation"] == "MONOCHROME1":
        notes.append("MONOCHROME1: shown inverted by viewers; its values were taken as they are")
    if "DERIVED" in [str(t).upper() for t in _several(first["ImageType"])]:
        notes.append("its slices are derived (a reformat or a projection), not as they were acquired")
    if str(first["BurnedInAnnotation"]).upper() == "YES":
        notes.append("its pixels have burned-in annotations, which may name the patient")
    if series.tilt:
        data, affine = untilted(data, affine, AIR if ct else float(data.min()))
        notes.append(f"gantry tilt of {series.tilt:.1f} degrees resampled onto an orthogonal grid")
    check_geometry(data.shape, affine)
    check_values(data)
    return Volume(data, affine, first.file.parent, tuple(notes), {"tilt": series.tilt})


def _rescale(header: Header, hu: str, table: tuple[float, float] | None) -> tuple[float, float]:
    if hu == "already":
        return 1.0, 0.0
    if hu == "table":
        if table is None:
            raise InputError("the table of slopes and intercepts has no row for it")
        return table
    slope, intercept = header["RescaleSlope"], header["RescaleIntercept"]
    slope, intercept = (1.0 if slope in (None, "") else float(slope)), float(intercept or 0.0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise InputError(f"{header.file.name}: its rescale slope is {slope:g} and its intercept {intercept:g}")
    return slope, intercept


def _pixels(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Stored values [row, column] of one file, and which of them are padding."""
    import pydicom

    try:
        found = pydicom.dcmread(header.file)
        stored = found.pixel_array
    except OSError:
        raise
    except Exception as error:
        syntax = getattr(pydicom.uid.UID(header.syntax), "name", header.syntax)
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{header.file.name}: its pixels ({syntax}) cannot be decoded: {reason}") from None
    if stored.shape != (int(header["Rows"]), int(header["Columns"])):
        raise InputError(f"{header.file.name}: holds pixels of shape {stored.shape}, no single slice")
    padding = np.zeros(stored.shape, dtype=bool)
    value, limit = found.get("PixelPaddingValue"), found.get("PixelPaddingRangeLimit")
    if value is not None:
        low, high = sorted((int(value), int(value if limit is None else limit)))
        padding = (stored >= low) & (stored <= high)
    return stored, padding
