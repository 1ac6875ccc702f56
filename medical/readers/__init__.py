"""Readers of the field's files: NIfTI, NRRD and DICOM series."""
