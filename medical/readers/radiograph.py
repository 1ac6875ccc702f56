"""Radiographs from PNG, JPEG and DICOM: grey values in 0..1, bright where the body lets little through.

A DICOM picture is shown as its header says: modality LUT or rescale, then its first VOI LUT or window (DICOM PS3.3
C.11.2), then turned over where it is MONOCHROME1. What is no single grey picture is refused in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.errors import InputError
from counterpoint.medical.readers.dicom import open_dicom

PICTURES = (".png", ".jpg", ".jpeg")
DICOMS = (".dcm", ".dicom")
KINDS = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.7": "",
}
"""SOP classes that are read, and their modality; a secondary capture has to name one of a radiograph."""
REFUSED = {
    "1.2.840.10008.5.1.4.1.1.1.1.1": "a raw radiograph (for processing); export the one for presentation",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "a raw mammogram (for processing); export the one for presentation",
    "1.2.840.10008.5.1.4.1.1.2": "a slice of a CT; see `data import dicom`",
    "1.2.840.10008.5.1.4.1.1.4": "a slice of an MR; see `data import dicom`",
    "1.2.840.10008.1.3.10": "a DICOMDIR, no picture",
}
KEPT = (
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "AccessionNumber",
    "BodyPartExamined", "PatientSex", "PatientAge", "Manufacturer", "ManufacturerModelName", "KVP", "ViewPosition",
    "PatientIdentityRemoved",
)  # fmt: skip
LEAST, MOST = 16, 100_000_000
"""Pixels along a side, and in all."""
DEPTHS = (8, 10, 12, 14, 16)
DEPTH_KEY = "counterpoint:bits"
"""Text in a PNG whose 16 bits are meant as such."""
WORDS = {"L": "left", "R": "right", "A": "front", "P": "back", "H": "head", "F": "foot"}


@dataclass(frozen=True)
class Radiograph:
    """A grey picture.

    Attributes:
        data: [rows, columns] in 0..1.
        bits: depth of the stored values.
        facts: what the file says of it: view, laterality, orientation, spacing.
        header: fields of a DICOM header that may name the patient; never written down.
        notes: what was found or mended, in sentences.
    """

    data: np.ndarray
    bits: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_dicom(file: Path) -> bool:
    """Whether a file is called a DICOM one or begins as one does."""
    if file.suffix.lower() in DICOMS:
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_radiograph(file: str | Path) -> Radiograph:
    """A PNG, JPEG or DICOM file.

    Raises:
        InputError: damaged, no single grey picture, no radiograph, or a picture with nothing on it.
    """
    file = Path(file)
    found = read_picture(file) if file.suffix.lower() in PICTURES else read_dicom(file)
    if min(found.data.shape) < LEAST:
        raise InputError(f"{found.data.shape[1]} x {found.data.shape[0]} pixels are too few for a radiograph")
    if found.data.min() == found.data.max():
        raise InputError("every pixel has the same value")
    return found


def read_picture(file: Path) -> Radiograph:
    """A PNG or JPEG file. Colours that are grey and opacity that is whole are passed over; others are refused."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > MOST:
                raise InputError(f"{opened.width} x {opened.height} pixels are more than the {MOST:,} that are read")
            if getattr(opened, "n_frames", 1) > 1:
                raise InputError(f"holds {opened.n_frames} pictures; save the one that is meant")
            opened.load()
            turned = opened.getexif().get(274, 1) != 1
            image = ImageOps.exif_transpose(opened) if turned else opened.copy()
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).replace(str(file), file.name).split())[:100]
        raise InputError(f"damaged, or no PNG or JPEG ({reason}); copy it again") from None
    notes = ["turned as its EXIF field says"] if turned else []
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"holds values from {values.min()} to {values.max()}; 0 to 65535 are read")
        whole = DEPTH_KEY in image.info  # our own: dark pictures stay dark
        bits = 16 if whole else next(n for n in DEPTHS if values.max() < 2**n)
        if bits < 16:
            notes.append(f"its 16 bits hold at most {values.max()}: taken as {bits} bits")
        return Radiograph((values / (2**bits - 1)).astype(np.float32), bits, notes=tuple(notes))
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"a picture of the kind {image.mode}; 8 or 16 bits of grey are read")
    values = np.atleast_3d(np.asarray(image))
    if image.mode in ("LA", "RGBA"):
        if (values[..., -1] < 255).any():
            raise InputError("parts of it are transparent, so that its values are not known; save it without opacity")
        values = values[..., :-1]
    spread = int((values.max(-1).astype(int) - values.min(-1)).max())
    if spread > 8:
        raise InputError(f"holds colours (channels differ by up to {spread} of 255), no grey values")
    return Radiograph((values.mean(-1) / 255).astype(np.float32), 8, notes=tuple(notes))


def read_dicom(file: Path) -> Radiograph:
    """A DICOM file of a radiograph (CR, DX, mammogram, or a secondary capture of one)."""
    found = open_dicom(file)
    try:
        return _shown(found)
    except InputError:
        raise
    except Exception as error:  # values are converted when they are looked at
        raise InputError(f"its header or pixels cannot be read ({' '.join(str(error).split())[:160]})") from None


def _shown(found: Any) -> Radiograph:
    kind = str(found.get("SOPClassUID") or found.file_meta.get("MediaStorageSOPClassUID") or "")
    modality = KINDS.get(kind) or str(found.get("Modality") or "")
    if kind not in KINDS or modality not in ("CR", "DX", "MG", "RG"):
        what = REFUSED.get(kind) or f"no radiograph (SOP class {kind or 'not stated'}, modality {modality or 'none'})"
        raise InputError(f"is {what}")
    light = str(found.get("PhotometricInterpretation") or "")
    if int(found.get("SamplesPerPixel") or 1) != 1 or light not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"holds {light or 'no stated kind of values'}, not grey values")
    if int(found.get("NumberOfFrames") or 1) != 1:
        raise InputError(f"holds {found.NumberOfFrames} frames; save the one that is meant")
    if int(found.get("Rows") or 0) * int(found.get("Columns") or 0) > MOST:
        raise InputError(f"{found.Columns} x {found.Rows} pixels are more than the {MOST:,} that are read")
    stored = found.pixel_array
    if stored.ndim != 2:
        raise InputError(f"holds pixels of shape {stored.shape}, no single picture")
    notes: list[str] = []
    data = voi(found, stored, notes)
    if light == "MONOCHROME1":
        data = 1 - data
        notes.append("MONOCHROME1: turned over, so that what lets little through is bright")
    shape = str(found.get("PresentationLUTShape") or "").upper()
    if (shape == "INVERSE" and light == "MONOCHROME2") or (shape == "IDENTITY" and light == "MONOCHROME1"):
        notes.append(f"its PresentationLUTShape {shape} contradicts {light}, which was followed; look at it")
    padding = padding_of(found, stored)
    if padding.any():
        data = np.where(padding, 0.0, data)
        notes.append(f"{int(padding.sum()):,} pixels of padding were made black")
    if kind == "1.2.840.10008.5.1.4.1.1.7":
        notes.append("a secondary capture of a radiograph: its values may have been cut before")
    if str(found.get("BurnedInAnnotation") or "").upper() == "YES":
        notes.append("its pixels have burned-in annotations, which may name the patient")
    if str(found.get("FieldOfViewHorizontalFlip") or "").upper() == "YES":
        notes.append("its header says that it was flipped from left to right; its pixels were taken as they are")
    header = {name: str(found.get(name) or "") for name in KEPT}
    header["Modality"] = modality
    return Radiograph(data.astype(np.float32), int(found.BitsStored), _facts(found), header, tuple(notes))


def _facts(found: Any) -> dict[str, Any]:
    """View, side and orientation as words, spacing in millimetres; what the header leaves open is left out."""
    facts: dict[str, Any] = {}
    if view := str(found.get("ViewPosition") or "").strip().upper():
        facts["view"] = view
    side = str(found.get("ImageLaterality") or found.get("Laterality") or "").strip().upper()
    if side in ("L", "R", "B", "U"):
        facts["laterality"] = {"L": "left", "R": "right", "B": "both", "U": "unpaired"}[side]
    ways = found.get("PatientOrientation") or []
    if len(ways) == 2 and all(str(way).strip() and set(str(way)) <= set(WORDS) for way in ways):
        along, down = ("-".join(WORDS[letter] for letter in str(way)) for way in ways)
        facts["orientation"] = f"rows run to the {along}, columns to the {down}"
    for name, label in (("PixelSpacing", "spacing"), ("ImagerPixelSpacing", "detector_spacing")):
        if found.get(name):
            facts[label] = "x".join(f"{float(s):.4g}" for s in found[name].value)
    return facts


def padding_of(found: Any, stored: np.ndarray) -> np.ndarray:
    """Which stored values the file names as padding."""
    value, limit = found.get("PixelPaddingValue"), found.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def voi(found: Any, stored: np.ndarray, notes: list[str]) -> np.ndarray:
    """Stored values through the modality LUT and the first VOI LUT or window, in 0..1 (before MONOCHROME1)."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(stored, found))
    tables, centres = found.get("VOILUTSequence"), found.get("WindowCenter")
    if tables:
        if len(tables) > 1:
            notes.append(f"the first of its {len(tables)} VOI LUTs was applied")
        depth = int(tables[0].LUTDescriptor[2])
        return apply_voi(values.astype(stored.dtype), found).astype(np.float64) / (2**depth - 1)
    if centres is not None and str(centres) and found.get("WindowWidth") is not None:
        pairs = [np.atleast_1d(np.asarray(found[name].value, dtype=np.float64)) for name in _WINDOW]
        if len(pairs[0]) > 1:
            notes.append(f"the first of its {len(pairs[0])} windows was applied")
        function = str(found.get("VOILUTFunction") or "LINEAR").upper()
        shown = window(values.astype(np.float64), float(pairs[0][0]), float(pairs[1][0]), function)
        if shown.min() == shown.max() and values.min() != values.max():
            raise InputError(f"its window ({pairs[0][0]:g}, {pairs[1][0]:g}) leaves nothing of its values")
        return shown
    kept = values[~padding_of(found, stored)]
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    notes.append(f"it names no window: {low:g} to {high:g}, all its values, became black to white")
    return np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)


_WINDOW = ("WindowCenter", "WindowWidth")


def window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    r"""DICOM's window in 0..1 (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    LINEAR: clip((x - (c - 1/2)) / (w - 1) + 1/2); LINEAR_EXACT: clip((x - c) / w + 1/2); SIGMOID: 1 / (1 + exp(-4 (x -
    c) / w)).

    >>> window(np.array([0.0, 127.5, 255.0]), 128, 256).tolist()
    [0.0, 0.5, 1.0]
    """
    if function == "LINEAR":
        if width < 1:
            raise InputError(f"its window is {width:g} wide; 1 is the least of a linear one")
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if width <= 0:
        raise InputError(f"its window is {width:g} wide")
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    raise InputError(f"its VOILUTFunction {function} is none of DICOM's (LINEAR, LINEAR_EXACT, SIGMOID)")


def write_grey(path: Path, data: np.ndarray) -> None:
    """[rows, columns] in 0..1 as a PNG of 16 bits that says so, and holds nothing else but the pixels."""
    from PIL import Image, PngImagePlugin

    said = PngImagePlugin.PngInfo()
    said.add_text(DEPTH_KEY, "16")
    Image.fromarray(np.rint(np.clip(data, 0, 1) * 65535).astype(np.uint16)).save(path, pnginfo=said)
