"""A synthetic volume as a DICOM series, one file a slice, as an archive holds it; its headers say synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from counterpoint.medical.phantom import SYNTHETIC

INTERCEPT = -1024
"""Of the stored values, as most scanners write it."""


def write_dicom_slices(
    folder: str | Path,
    hu: Int[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    patient: str,
    *,
    accession: str = "",
    kernel: str = "",
) -> list[Path]:
    """Write HU as CT slices (unsigned 16 bits, intercept -1024, uncompressed), the files named out of order.

    Args:
        folder: receives the files.
        hu: values from -1024 to 31743.
        affine: to RAS+ millimetres; the third axis leads from slice to slice, at right angles to the others.
        patient: PatientID and PatientName.
        accession: AccessionNumber, by which a table of reports may name the study.
        kernel: ConvolutionKernel.

    Returns:
        The files, from the first slice to the last.

    Raises:
        ValueError: values that 15 bits with this intercept cannot hold.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    if hu.min() < INTERCEPT or hu.max() >= 2**15 + INTERCEPT:
        raise ValueError(f"values from {hu.min()} to {hu.max()}; {INTERCEPT} to {2**15 + INTERCEPT - 1} can be stored")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes lead to the patient's left, back and head
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    series, study, frame, n = generate_uid(), generate_uid(), generate_uid(), hu.shape[2]
    names = np.random.default_rng(n).permutation(n)
    files = []
    for k in range(n):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"IM{names[k]:04d}.dcm"
        d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, study, frame
        d.PatientID = d.PatientName = patient
        d.AccessionNumber, d.ConvolutionKernel = accession, kernel
        d.Modality, d.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.SeriesDescription, d.Manufacturer = f"SYNTHETIC: {SYNTHETIC}"[:64], "counterpoint phantom"
        d.InstanceNumber = n - k
        d.ImageOrientationPatient = [*axes[:, 0].tolist(), *axes[:, 1].tolist()]
        d.ImagePositionPatient = [round(float(v), 6) for v in lps[:3, 3] + k * lps[:3, 2]]
        d.PixelSpacing = [float(spacing[1]), float(spacing[0])]  # between rows first
        d.SliceThickness = float(spacing[2])
        d.Rows, d.Columns = hu.shape[1], hu.shape[0]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, 0
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, INTERCEPT, "HU"
        d.PixelData = (hu[:, :, k].astype(np.int32) - INTERCEPT).T.astype("<u2").tobytes()  # [row, column]
        d.save_as(path, enforce_file_format=True)
        files.append(path)
    return files
