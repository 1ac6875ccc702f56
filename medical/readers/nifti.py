"""NIfTI-1 and -2 (`.nii`, `.nii.gz`) and NRRD (`.nrrd`, `.nhdr`) as volumes; what is doubtful is refused in words."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.data.archives import LIMIT, RATIO
from counterpoint.common.errors import InputError
from counterpoint.medical.volume import Volume, check_geometry, check_values

SUFFIXES = (".nii", ".nrrd", ".nhdr")
GZIPPED = (".nii",)
_MM = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}
_LPS = {"left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "right-anterior-superior": (1, 1, 1),
        "ras": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1)}  # fmt: skip


def read_file(path: str | Path, scaled: bool = True) -> Volume:
    """A volume from a NIfTI or NRRD file. `scaled=False` gives the values as stored, without a NIfTI header's slope and
    intercept.

    Raises:
        InputError: unreadable or cut, not three-dimensional, of an affine that is no grid, or without values.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    return _nrrd(path) if name.endswith((".nrrd", ".nhdr")) else _nifti(path, scaled)


def _nifti(path: Path, scaled: bool) -> Volume:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    broken = (ImageFileError, HeaderDataError, WrapStructError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):  # Nifti2Image is one
            raise InputError(f"{path}: is a {type(image).__name__}, not NIfTI; convert it")
        header, shape = image.header, image.shape
        declared = int(np.prod(shape, dtype=np.float64)) * header.get_data_dtype().itemsize
        if declared > max(LIMIT, RATIO * path.stat().st_size):
            raise InputError(f"{path}: promises {declared:,} bytes of voxels in a file of {path.stat().st_size:,}")
        affine, notes = _affine(header)
        if len(shape) > 3 and int(np.prod(shape[3:])) == 1:
            shape = shape[:3]
            notes.append(f"its {len(image.shape)} dimensions have one volume, which was taken")
        if len(shape) == 4:
            raise InputError(f"holds {shape[3]} volumes (4D); save the one you want as a file of its own")
        check_geometry(shape, affine)
        if header.get_data_dtype().fields is not None:
            raise InputError("holds colours (RGB), not intensities")
        # The proxy applies slope and intercept once, where the header states them.
        data = np.asanyarray(image.dataobj if scaled else image.dataobj.get_unscaled()).reshape(shape)
    except InputError as error:
        raise InputError(f"{path}: {_after(str(error), path)}") from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.errno is None:
            raise InputError(f"{path}: damaged or cut ({_words(error)}); copy it again") from None
        raise
    except broken as error:
        raise InputError(f"{path}: damaged, cut or no NIfTI file ({_words(error)}); copy it again") from None
    slope, intercept = header.get_slope_inter()
    if scaled and (slope, intercept) not in ((1.0, 0.0), (None, None)):
        notes.append(f"the header's slope {slope:g} and intercept {intercept or 0:g} were applied")
    return _checked(Volume(_native(data), affine, path, tuple(notes), {"slope": slope, "intercept": intercept}))


def _affine(header: Any) -> tuple[np.ndarray, list[str]]:
    """The grid in millimetres: sform, else qform. Two that contradict each other, or none, are refused."""
    notes: list[str] = []
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        raise InputError(
            "states no orientation (sform_code and qform_code are 0), so left and right are not known; write it with "
            "its affine"
        )
    unit = header.get_xyzt_units()[0]
    if unit not in _MM:
        raise InputError(f"its spatial unit is {unit!r}; millimetres are expected")
    scale = np.diag([_MM[unit]] * 3 + [1.0])
    if sform and qform:
        a, b = header.get_sform(), header.get_qform()
        size = np.linalg.norm(a[:3, :3], axis=0)
        apart = np.abs(a[:3, :3] - b[:3, :3]).max() / max(size.max(), 1e-6)
        if not apart < 0.05:
            raise InputError(
                "its sform and qform contradict each other (other directions or spacings); set both to the right one"
            )
        if np.abs(a - b).max() > 0.01 * max(size.min(), 1e-6):
            notes.append("sform and qform differ a little; sform was taken")
    affine = np.asarray(header.get_sform() if sform else header.get_qform(), dtype=np.float64)
    if unit in ("meter", "micron"):
        notes.append(f"its affine is in {unit}s; converted to mm")
    return scale @ affine, notes


def _nrrd(path: Path) -> Volume:
    import nrrd

    try:
        header = nrrd.read_header(str(path))
        sizes = [int(n) for n in header.get("sizes", ())]
        if len(sizes) != 3:
            raise InputError(f"has {len(sizes)} dimensions {tuple(sizes)}; a volume has three")
        declared = int(np.prod(np.array(sizes, dtype=np.float64))) * 8
        if declared > 8 * max(LIMIT, RATIO * path.stat().st_size):
            raise InputError(f"promises {declared // 8:,} voxels in a file of {path.stat().st_size:,} bytes")
        detached = [header[key] for key in ("data file", "datafile") if key in header]
        if detached and (not isinstance(detached[0], str) or Path(detached[0]).name != detached[0]):
            raise InputError("its voxels lie in other folders or several files; save it as one .nrrd file")
        affine = _nrrd_affine(header)
        check_geometry(tuple(sizes), affine)
        data, _ = nrrd.read(str(path))
    except InputError as error:
        raise InputError(f"{path}: {_after(str(error), path)}") from None
    except FileNotFoundError as error:
        raise InputError(f"{path}: its voxels are in {Path(error.filename or '').name}, which is missing") from None
    except Exception as error:  # pynrrd raises what its parsers meet
        raise InputError(f"{path}: damaged, cut or no NRRD file ({_words(error)}); copy it again") from None
    return _checked(Volume(_native(data), affine, path))


def _nrrd_affine(header: dict[str, Any]) -> np.ndarray:
    space = str(header.get("space", "")).lower()
    if space not in _LPS:
        known = ", ".join(name for name in _LPS if "-" in name)
        raise InputError(
            f"its space is {space or 'not stated'!r}, so left and right are not known; one of {known} is expected"
        )
    directions = np.asarray(header.get("space directions"), dtype=np.float64)
    if directions.shape != (3, 3):
        raise InputError("its field 'space directions' is not three vectors")
    units = [str(u).strip('"') for u in header.get("space units", ())]
    if any(unit not in ("mm", "") for unit in units):
        raise InputError(f"its space units are {', '.join(units)}; millimetres are expected")
    affine = np.eye(4)
    affine[:3, :3] = directions.T  # one row an axis in the file
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), dtype=np.float64)
    return np.diag([*_LPS[space], 1.0]) @ affine


def _checked(volume: Volume) -> Volume:
    try:
        check_values(volume.data)
    except InputError as error:
        raise InputError(f"{volume.source}: {error}") from None
    return volume


def _native(data: np.ndarray) -> np.ndarray:
    """In memory, in this machine's byte order, no more precise than float32 needs where it is a fraction."""
    data = np.asarray(data)
    if data.dtype.kind == "f":
        return data.astype(np.float32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _after(text: str, path: Path) -> str:
    return text.removeprefix(f"{path}: ")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
