"""Phantoms written as DICOM come back voxel by voxel, in their place, under a header that says synthetic."""

import numpy as np
import pydicom
import pytest

from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import make_case
from counterpoint.medical.phantom_dicom import write_dicom_slices
from counterpoint.medical.scans import read_scan


def test_a_phantom_comes_back_from_dicom_where_it_lay(tmp_path):
    case = make_case(3, PhantomConfig(size=24, spacing=14.0))
    files = write_dicom_slices(tmp_path / "one", case.volume, case.affine, "P1", accession="A1")
    assert len(files) == 24
    assert files != sorted(files)  # whoever reads them in the order of their names reads a shuffled body
    found = read_scan(tmp_path / "one")
    assert np.array_equal(found.data, case.volume)
    assert np.allclose(found.affine, case.affine, atol=1e-4)
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert "synthetic" in header.SeriesDescription.lower()


def test_values_that_cannot_be_stored_are_refused(tmp_path):
    with pytest.raises(ValueError, match="values from -2000"):
        write_dicom_slices(tmp_path, np.full((2, 2, 2), -2000, dtype=np.int16), np.eye(4), "P1")
