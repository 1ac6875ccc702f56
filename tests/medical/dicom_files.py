"""Small CT series as DICOM files, good ones and every kind of bad one."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (12, 16, 10)  # columns, rows, slices
SPACING = (0.8, 0.7, 2.5)  # between columns, between rows, between slices (mm)


def body(shape=SHAPE, seed: int = 0) -> np.ndarray:
    """HU [column, row, slice] of an ellipse of tissue, fat about it and bone within, in air; lopsided on purpose."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    r = (x / 0.9) ** 2 + (y / 0.8) ** 2
    hu = np.where(r < 1, np.where(r < 0.7, 45.0, -100.0), -1000.0)
    hu[(x + 0.4) ** 2 + (y - 0.1) ** 2 < 0.05] = 400.0
    hu[(x > 0.2) & (x < 0.5) & (z > 0.3)] = -800.0
    return np.clip(np.rint(hu + rng.normal(0, 8, shape)), -1024, None).astype(np.int16)


def write_series(
    folder: Path,
    hu: np.ndarray | None = None,
    *,
    orientation=(1, 0, 0, 0, 1, 0),
    origin=(-5.0, 7.0, 100.0),
    step=None,
    slope=1.0,
    intercept=-1024.0,
    order=None,
    change=None,
    series=None,
    patient="P1",
    signed=False,
    prefix="s",
) -> list[Path]:
    """One file a slice. `order` names files in another order than they lie; `change(dataset, k)` damages a slice or
    returns False to leave it out."""
    folder.mkdir(parents=True, exist_ok=True)
    hu = body() if hu is None else hu
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    step = np.cross(row, column) * SPACING[2] if step is None else np.asarray(step, float)
    series, study, files = series or generate_uid(), generate_uid(), []
    order = list(range(hu.shape[2])) if order is None else order
    for k in range(hu.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{prefix}{order[k]:03d}.dcm"
        d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        d.SeriesInstanceUID, d.StudyInstanceUID = series, study
        d.PatientID, d.PatientName, d.PatientAge, d.PatientSex = patient, "Doe^Jane", "093Y", "F"
        d.StudyDate, d.InstitutionName, d.AccessionNumber = "20200101", "General Hospital", "ACC77"
        d.Modality, d.ImageType, d.ConvolutionKernel = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "B30f"
        d.Manufacturer, d.KVP, d.InstanceNumber = "ACME", 120, hu.shape[2] - k
        d.ImageOrientationPatient = [float(v) for v in orientation]
        d.ImagePositionPatient = [float(v) for v in np.array(origin) + k * step]
        d.PixelSpacing = [SPACING[1], SPACING[0]]  # between rows first
        d.Rows, d.Columns = hu.shape[1], hu.shape[0]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, int(signed)
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = slope, intercept, "HU"
        stored = np.rint((hu[:, :, k].astype(float) - intercept) / slope)
        stored = np.clip(stored, -32768 if signed else 0, 32767)
        d.PixelData = stored.T.astype("<i2" if signed else "<u2").tobytes()  # [row, column]
        if change is None or change(d, k) is not False:
            d.save_as(path, enforce_file_format=True)
            files.append(path)
    return files


def world(affine: np.ndarray, index) -> np.ndarray:
    """Where a voxel lies, in RAS+ millimetres."""
    return (affine @ np.array([*index, 1.0]))[:3]


def reread(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)
