"""DICOM series: order by place, geometry, units, refusals in words, and what of a header travels."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import SHAPE, SPACING, body, reread, world, write_series

from counterpoint.common.data.importing import find_files, read_files
from counterpoint.common.errors import InputError
from counterpoint.medical.commands import import_dicom
from counterpoint.medical.readers.dicom import dicom_header, lay_out, read_series, series_of
from counterpoint.medical.readers.nifti import read_file
from counterpoint.medical.volume import canonical

DATA = Path(os.environ.get("COUNTERPOINT_DATA", "/nowhere")) / "medical" / "totalsegmentator"


def headers(folder):
    return [dicom_header(file) for file in sorted(folder.iterdir())]


def one(folder, **options):
    (series,) = lay_out(headers(folder))
    return read_series(series, **options)


def imported(folder, out, **options):
    report = import_dicom(folder, out, **options)
    frame = pd.read_parquet(report.manifest) if report.rows else pd.DataFrame()
    return report, frame


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, -2000.0), (1.0, 0.0)])
def test_slope_and_intercept_are_applied_once(tmp_path, slope, intercept, signed):
    if intercept == 0.0 and not signed:
        pytest.skip("unsigned values need an intercept")
    hu = 2 * (body() // 2)
    write_series(tmp_path / "d", hu, slope=slope, intercept=intercept, signed=signed)
    assert np.array_equal(one(tmp_path / "d").data, hu)


def test_slices_are_ordered_by_where_they_lie_and_not_by_name_or_number(tmp_path):
    hu = body()
    shuffled = np.random.default_rng(0).permutation(SHAPE[2]).tolist()
    write_series(tmp_path / "d", hu, order=shuffled)
    volume = one(tmp_path / "d")
    assert np.array_equal(volume.data, hu)
    assert volume.orientation == "LPS"
    assert volume.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("orientation", "axes"),
    [((1, 0, 0, 0, 1, 0), "LPS"), ((1, 0, 0, 0, 0, -1), "LIP"), ((0, 1, 0, 0, 0, -1), "PIR"),
     ((-1, 0, 0, 0, -1, 0), "RAS"), ((0.96, 0.28, 0, -0.28, 0.96, 0), "LPS")],
)  # fmt: skip
def test_every_voxel_lies_where_the_header_says(tmp_path, orientation, axes):
    """Against the standard's own equation (C.7.6.2.1.1), at all corners; L and P are negative in RAS+."""
    hu = body()
    write_series(tmp_path / "d", hu, orientation=orientation)
    volume = one(tmp_path / "d")
    assert volume.orientation == axes
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for c in (0, SHAPE[0] - 1):
        for r in (0, SHAPE[1] - 1):
            for k in (0, SHAPE[2] - 1):
                lps = np.array([-5.0, 7.0, 100.0]) + row * SPACING[0] * c + column * SPACING[1] * r
                lps = lps + np.cross(row, column) * SPACING[2] * k
                assert world(volume.affine, (c, r, k)) == pytest.approx(lps * [-1, -1, 1], abs=1e-4)
    assert np.array_equal(volume.data, hu)


def test_a_series_scanned_head_first_or_feet_first_is_the_same_body(tmp_path):
    """A descending series is laid out along its normal: the same values at the same places."""
    hu = body()
    write_series(tmp_path / "up", hu)
    top = np.array([-5.0, 7.0, 100.0]) + [0, 0, SPACING[2] * (SHAPE[2] - 1)]
    write_series(tmp_path / "down", hu[:, :, ::-1], origin=top, step=(0, 0, -SPACING[2]))
    up, down = canonical(one(tmp_path / "up")), canonical(one(tmp_path / "down"))
    assert np.allclose(up.affine, down.affine, atol=1e-5)
    assert np.array_equal(up.data, down.data)


def drop(*slices):
    return lambda d, k: k not in slices


def alter(k, **fields):
    def change(d, i):
        if i == k:
            for name, value in fields.items():
                setattr(d, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop(4), "1 slices are missing: the first gap is between s003.dcm and s005.dcm, 5 mm where 2.5 mm is usual"),
        (drop(4, 5, 8), "3 slices are missing"),
        (alter(3, ImagePositionPatient=[-5.0, 7.0, 108.4]), "unevenly spaced"),
        (alter(3, ImagePositionPatient=[-5.0, 7.0, 105.0]), "places have several images that nothing tells apart"),
        (alter(5, PixelSpacing=[0.9, 0.9]), "s005.dcm: its PixelSpacing differs"),
        (alter(5, ImagePositionPatient=[3.0, 7.0, 112.5]), "s005.dcm: lies 8.0 mm beside the line"),
        (alter(2, RescaleSlope=0.0), "its rescale slope is 0"),
        (alter(2, PixelData=b"\0" * 20), "cannot be decoded"),
    ],
)
def test_what_is_wrong_with_a_series_is_said(tmp_path, change, said):
    write_series(tmp_path / "d", change=change)
    report, _ = imported(tmp_path / "d", tmp_path / "out")
    assert report.rows == 0
    assert len(report.rejected) == 1
    assert said in report.rejected[0].reason, report.rejected


def test_a_tilted_gantry_is_refused_or_resampled_to_where_it_was(tmp_path):
    """Of a pattern that is linear in the world's y, the resampled one is the same function of y."""
    degrees, shape = 15.0, (10, 40, 8)
    step = np.array([0.0, np.tan(np.deg2rad(degrees)) * 2.5, 2.5])
    j, k = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    y = 7.0 + 0.7 * j + step[1] * k
    hu = np.broadcast_to(np.rint(10 * y)[None], shape)
    write_series(tmp_path / "d", hu, step=step)
    with pytest.raises(InputError, match="tilted by 15.0 degrees; import with --tilt resample"):
        one(tmp_path / "d")
    volume = one(tmp_path / "d", tilt="resample")
    assert volume.affine[:3, 2] == pytest.approx([0, 0, 2.5])
    inside = volume.data > -1000
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ volume.affine[:3, :3].T
    there = -(places + volume.affine[:3, 3])[..., 1]
    assert np.abs(volume.data - 10 * there)[inside].max() < 1.1
    assert inside.mean() > 0.7


def test_two_series_in_one_folder_are_two_volumes_and_a_third_plane_a_third(tmp_path):
    write_series(tmp_path / "d", body(seed=1), prefix="a")
    uid = reread(sorted((tmp_path / "d").iterdir())[0]).SeriesInstanceUID
    write_series(tmp_path / "d", body(seed=2), prefix="b", patient="P2")
    write_series(tmp_path / "d", body(seed=3), prefix="c", orientation=(1, 0, 0, 0, 0, -1), series=uid)
    report, frame = imported(tmp_path / "d", tmp_path / "out")
    assert (report.rows, report.rejected) == (3, ())
    assert frame["group"].nunique() == 2
    assert sorted(frame["orientation"]) == ["LIP", "LPS", "LPS"]


def test_phases_of_one_series_are_told_apart(tmp_path):
    uid = "1.2.3.4"
    for phase in (1, 2):

        def change(d, k, phase=phase):
            d.AcquisitionNumber = phase

        write_series(tmp_path / "d", body(seed=phase), prefix=f"p{phase}", series=uid, change=change)
    made = lay_out(headers(tmp_path / "d"))
    assert [np.array_equal(read_series(s).data, body(seed=p)) for s, p in zip(made, (1, 2))] == [True, True]
    assert "told apart by AcquisitionNumber" in made[0].notes[-1]


def test_copies_of_files_count_once(tmp_path):
    files = write_series(tmp_path / "d")
    (tmp_path / "d" / "copy.dcm").write_bytes(files[3].read_bytes())
    report, frame = imported(tmp_path / "d", tmp_path / "out")
    assert (report.rows, int(frame.slices[0])) == (1, SHAPE[2])
    assert "1 files are copies of others" in report.note


def test_localisers_captures_and_other_files_are_listed(tmp_path):
    def change(d, k):
        if k == 0:
            d.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        if k == 1:
            d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"

    write_series(tmp_path / "d", change=change)
    (tmp_path / "d" / "readme.txt").write_text("no DICOM")
    report, _ = imported(tmp_path / "d", tmp_path / "out")
    said = {Path(r.source).name: r.reason for r in report.rejected}
    assert report.rows == 1
    assert said["s000.dcm"].startswith("is a localiser")
    assert said["s001.dcm"].startswith("is a secondary capture")
    assert said["readme.txt"].startswith("is no DICOM file")


def test_monochrome1_is_not_inverted_and_padding_becomes_air(tmp_path):
    hu = body()

    def change(d, k):
        d.PhotometricInterpretation = "MONOCHROME1"
        if k == 2:
            d.PixelPaddingValue = int(hu[0, 0, 2]) + 1024

    write_series(tmp_path / "d", hu, change=change)
    volume = one(tmp_path / "d")
    changed = volume.data != hu
    assert set(volume.data[changed].tolist()) == {-1024.0}
    assert np.array_equal(np.unique(np.argwhere(changed)[:, 2]), [2])
    assert any("voxels of padding were set to -1024" in note for note in volume.notes)


def test_intercept_applied_twice_or_not_at_all_is_refused_with_the_way_that_is_right(tmp_path):
    hu = body()
    write_series(tmp_path / "twice", hu, slope=1.0, intercept=0.0, signed=True,
                 change=lambda d, k: setattr(d, "RescaleIntercept", -1024.0))  # fmt: skip
    report, _ = imported(tmp_path / "twice", tmp_path / "out")
    assert "slope and intercept look applied twice" in report.rejected[0].reason
    assert report.rejected[0].reason.endswith("read with --hu already it looks right")
    report, frame = imported(tmp_path / "twice", tmp_path / "out2", hu="already")
    assert np.array_equal(read_file(tmp_path / "out2" / frame.volume[0]).data, hu)
    write_series(tmp_path / "raw", hu)
    report, _ = imported(tmp_path / "raw", tmp_path / "out3", hu="already")
    assert "looks not applied; read with --hu header it looks right" in report.rejected[0].reason


def test_only_allow_listed_facts_travel(tmp_path):
    write_series(tmp_path / "d")
    report, frame = imported(tmp_path / "d", tmp_path / "out")
    row = frame.iloc[0]
    assert (row.modality, row.kernel, row.manufacturer, row.sex) == ("ct", "B30f", "ACME", "F")
    assert (row.age, row.kvp) == (90, 120)
    everything = b"".join(f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file())
    for secret in (b"Doe", b"Jane", b"General Hospital", b"20200101", b"ACC77", b"093Y"):
        assert secret not in everything
    assert "P1" not in "".join(map(str, row))
    assert (tmp_path / "out" / "salt.private").stat().st_mode & 0o077 == 0
    assert "no certified de-identification" in report.note


def test_one_salt_keeps_patients_together_over_imports(tmp_path):
    for i in (1, 2):
        write_series(tmp_path / f"d{i}", body(seed=i), patient="same")
    groups = [imported(tmp_path / f"d{i}", tmp_path / f"out{i}", salt=tmp_path / "salt")[1]["group"][0] for i in (1, 2)]
    assert groups[0] == groups[1]
    assert imported(tmp_path / "d1", tmp_path / "out3")[1]["group"][0] != groups[0]


def test_reports_find_their_series_by_accession_number(tmp_path):
    write_series(tmp_path / "d")
    table = tmp_path / "reports.csv"
    table.write_text(
        'AccessionNumber,Findings,Impression\nACC77,"No nodule of Mrs Doe. See ACC77.",Normal for Jane.\nACC99,x,y\n'
    )
    report, frame = imported(tmp_path / "d", tmp_path / "out", reports=table, key="AccessionNumber")
    text = (tmp_path / "out" / frame.reports[0]).read_text()
    assert text == "Findings: No nodule of [NAME] [IDENTITY]. See [IDENTITY]. Impression: Normal for [IDENTITY]."
    assert [r.reason for r in report.rejected] == ["a report about 'ACC99', and no volume is called so"]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="needs COUNTERPOINT_DATA")
def test_the_real_jpeg2000_series_lies_where_dcm2niix_laid_it(tmp_path):
    """The folder has a segmentation of it that was made by way of dcm2niix, an independent converter."""
    import nibabel

    report, frame = imported(DATA / "example_ct_dicom", tmp_path / "out")
    assert report.rows == 1
    ours = canonical(read_file(tmp_path / "out" / frame.volume[0]))
    theirs = nibabel.as_closest_canonical(nibabel.load(DATA / "example_seg_dicom.nii.gz"))
    assert ours.data.shape == theirs.shape
    assert np.allclose(ours.affine, theirs.affine, atol=1e-3)
    labels = np.asarray(theirs.dataobj)
    spleen, liver, vertebra, muscle, outside = (float(np.median(ours.data[labels == k])) for k in (1, 5, 32, 86, 0))
    assert 60 < spleen < 100
    assert 70 < liver < 110
    assert vertebra > 150
    assert 10 < muscle < 60
    assert outside < -900
    assert not any("Petersgraben" in str(v) for v in frame.iloc[0])


def test_files_of_a_folder_are_read_in_workers(tmp_path):
    """A truncated file costs itself alone."""
    files = write_series(tmp_path / "d")
    content = files[2].read_bytes()
    files[2].write_bytes(content[: len(content) // 3])
    rejected: list = []
    found = find_files(tmp_path / "d")
    good = [h for _, h in read_files(dicom_header, found.files, rejected)]
    assert len(good) + len(rejected) == SHAPE[2]
    groups, notes = series_of(good)
    assert len(groups) == 1
    assert notes == []


@pytest.mark.parametrize(
    "name", ["JPEGBaseline8Bit", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]
)
def test_what_scanners_and_archives_compress_with_can_be_decoded(name):
    from pydicom import uid
    from pydicom.pixels import get_decoder

    assert get_decoder(getattr(uid, name)).is_available


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_lossless_slices_come_back_to_the_bit(tmp_path, name):
    import gdcm
    import pydicom

    (tmp_path / "raw").mkdir()
    write_series(tmp_path / "raw", body(SHAPE))
    file = sorted((tmp_path / "raw").rglob("*.dcm"))[0]
    stored = pydicom.dcmread(file).pixel_array
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    packed = pydicom.dcmread(tmp_path / "packed.dcm")
    assert packed.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(packed.pixel_array, stored)
