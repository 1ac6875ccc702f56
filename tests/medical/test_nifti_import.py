"""NIfTI and NRRD volumes: what is read, what is refused in words, Hounsfield units, orientation, the recipe."""

import gzip
import os
import shutil
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pandas as pd
import pytest
from dicom_files import body, world
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.medical.commands import import_nifti
from counterpoint.medical.configs import RecipeConfig
from counterpoint.medical.hu import hu_fault
from counterpoint.medical.reading import check_row, read_volume, row_volume
from counterpoint.medical.volume import Volume, canonical, to_recipe, untilted, write_nifti

DATA = Path(os.environ.get("COUNTERPOINT_DATA", "/nowhere")) / "medical"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs COUNTERPOINT_DATA")
AFFINE = np.array([[-0.8, 0, 0, 5], [0, -0.7, 0, -7], [0, 0, 2.5, 100], [0, 0, 0, 1.0]])


def image(data=None, affine=AFFINE, **header):
    made = nibabel.Nifti1Image(body() if data is None else data, affine)
    made.set_sform(affine, header.pop("sform_code", 1))
    made.set_qform(affine, header.pop("qform_code", 1))
    for name, value in header.items():
        made.header[name] = value
    return made


def save(path, **options):
    nibabel.save(image(**options), path)
    return path


def rejected(folder, out, **options):
    report = import_nifti(folder, out, **options)
    return {Path(r.source).name: r.reason for r in report.rejected}, report


def test_damaged_and_doubtful_files_are_left_out_with_their_reasons(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "good.nii.gz")
    whole = (folder / "good.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.nii.gz").write_bytes(bytes(range(256)) * 20)
    (folder / "empty.nii").write_bytes(b"")
    plain = gzip.decompress(whole)
    (folder / "short.nii").write_bytes(plain[:1000])
    save(folder / "four.nii", data=np.stack([body(), body()], -1))
    nan = body().astype(np.float32)
    nan[3, 4, 5] = np.nan
    save(folder / "nan.nii", data=nan)
    save(folder / "flat.nii", data=np.full((4, 4, 4), 7, np.int16))
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.9
    both = image(affine=AFFINE)
    both.set_sform(sheared, 1)
    both.set_qform(None, 0)
    nibabel.save(both, folder / "sheared.nii")
    other = image()
    other.set_sform(np.diag([0.8, 0.7, 2.5, 1]), 1)
    nibabel.save(other, folder / "contradicts.nii")
    save(folder / "nowhere.nii", sform_code=0, qform_code=0)
    thin = image()
    thin.header["srow_x"] = [0, 0, 0, 5]
    thin.set_qform(None, 0)
    nibabel.save(thin, folder / "thin.nii")
    bomb = bytearray(plain)
    bomb[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (folder / "bomb.nii.gz").write_bytes(gzip.compress(bytes(bomb)))
    said, report = rejected(folder, tmp_path / "out")
    for name, words in {
        "cut.nii.gz": "damaged",
        "noise.nii.gz": "damaged",
        "empty.nii": "damaged",
        "short.nii": "damaged",
        "four.nii": "holds 2 volumes (4D)",
        "nan.nii": "1 of 1,920 voxels are NaN or infinite",
        "flat.nii": "all voxels have the same value (7)",
        "sheared.nii": "axes are not at right angles",
        "contradicts.nii": "sform and qform contradict each other",
        "nowhere.nii": "states no orientation",
        "thin.nii": "",
        "bomb.nii.gz": "promises",
    }.items():
        assert words in said[name], (name, said.get(name))
        assert "its reader failed" not in said[name], said[name]
    assert report.rows == 1
    assert set(said) | {"good.nii.gz"} == {f.name for f in folder.iterdir()}


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "ASL", "IRP"])
def test_canonical_keeps_every_voxel_where_it_lies(orientation):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 1000, (3, 4, 5))
    start = nibabel.orientations.axcodes2ornt("RAS")
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(orientation)))
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) @ nibabel.orientations.inv_ornt_aff(turn, data.shape)
    volume = Volume(nibabel.orientations.apply_orientation(data, turn), affine)
    assert volume.orientation == orientation
    made = canonical(volume)
    assert made.orientation == "RAS"
    where = {tuple(np.round(world(affine, i), 3)): v for i, v in np.ndenumerate(volume.data)}
    assert where == {tuple(np.round(world(made.affine, i), 3)): v for i, v in np.ndenumerate(made.data)}


@settings(max_examples=25, deadline=None)
@given(
    codes=st.sampled_from(["RAS", "LPS", "PIR", "SAR", "LAI"]),
    spacing=st.tuples(*[st.floats(1.0, 4.0)] * 3),
    shift=st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_the_recipe_finds_a_place_of_the_body_however_it_was_stored(codes, spacing, shift):
    """A volume that is linear in the world's coordinates stays that function at the places of the new grid."""
    shape = (20, 22, 24)
    ras = np.diag([*spacing, 1.0])
    ras[:3, 3] = shift
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    place = grid @ ras[:3, :3].T + ras[:3, 3]
    field = place @ np.array([1.0, 0.5, -0.25])
    stored = nibabel.orientations.apply_orientation(field, turn)
    volume = Volume(stored, ras @ nibabel.orientations.inv_ornt_aff(turn, shape))
    recipe = RecipeConfig(spacing=(2.0, 2.0, 2.0), size=(8, 8, 8), low=-1e5, high=1e5, outside=-1e5)
    made = to_recipe(volume, recipe)
    assert made.orientation == "RAS"
    assert made.spacing == pytest.approx((2.0, 2.0, 2.0))
    new = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1) @ made.affine[:3, :3].T + made.affine[:3, 3]
    expected = new @ np.array([1.0, 0.5, -0.25])
    inside = made.data > -9e4
    # The low-pass bends the field at the volume's own ends only.
    index = (new - ras[:3, 3]) / np.array(spacing)
    core = inside & ((index > 4) & (index < np.array(shape) - 5)).all(-1)
    assert core.sum() > 50
    assert np.abs(made.data - expected)[core].max() < 0.05
    outside = ((index < -0.01) | (index > np.array(shape) - 0.99)).any(-1)
    assert (made.data[outside] == -1e5).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "spacing", "new", "size"),
    [
        ((30, 40, 12), (0.7, 0.8, 5.0), (2.0, 2.0, 3.0), (10, 20, 24)),  # coarser in the plane, finer along the body
        ((9, 20, 31), (2.0, 2.0, 2.0), (2.0, 2.0, 2.0), (9, 20, 31)),  # as it is
        ((20, 6, 8), (1.0, 1.0, 1.0), (1.05, 1.05, 1.05), (40, 3, 8)),  # too little to need a low-pass
        ((40, 40, 40), (1.0, 1.0, 1.0), (3.0, 1.02, 1.0), (12, 12, 12)),
    ],
)
def test_the_recipe_is_scipys_low_pass_and_linear_interpolation(shape, spacing, new, size, order):
    from scipy.ndimage import affine_transform, gaussian_filter

    data = np.random.default_rng(0).normal(0, 400, shape).astype(np.float32)
    recipe = RecipeConfig(spacing=new, size=size)
    made = to_recipe(Volume(np.array(data, order=order), np.diag([*spacing, 1.0])), recipe).data
    factor = np.array(new) / np.array(spacing)
    sigma, first = np.maximum((factor - 1) / 2, 0), (np.array(shape) - 1) / 2 - factor * (np.array(size) - 1) / 2
    fine = np.clip(data, recipe.low, recipe.high)
    fine = gaussian_filter(fine, sigma, mode="nearest") if (sigma > 0.05).any() else fine
    expected = affine_transform(
        fine, factor, offset=first, output_shape=size, order=1, mode="constant", cval=recipe.outside
    )
    assert made.dtype == np.float32
    assert np.array_equal(made == recipe.outside, expected == recipe.outside)
    assert np.abs(made - expected).max() < 1e-3


def test_untilting_nothing_changes_nothing():
    data = body().astype(np.float32)
    made, affine = untilted(data, AFFINE, -1024)
    assert np.array_equal(made, data)
    assert np.allclose(affine, AFFINE)


def fault(hu):
    return hu_fault(hu)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda v: v - 1024, "look applied twice"),
        (lambda v: v - 1000, "look applied twice"),
        (lambda v: v + 1024, "looks not applied"),
        (lambda v: np.clip((v + 160) / 400, 0, 1), "normalised"),
        (lambda v: np.clip((v + 160) / 400 * 255, 0, 255).astype(np.uint8), "windowed to 8 bits"),
        (lambda v: v * 2.0 - 1024, "look applied twice"),
    ],
)
def test_the_known_faults_of_units_are_seen(wrong, said):
    big = body((40, 40, 12))
    assert hu_fault(big) == ""
    assert said in hu_fault(wrong(big.astype(np.float32)))


def test_padding_beyond_air_is_no_fault():
    """GE fills the corners with -3024 or -2000; that is one value, not a body."""
    padded = body((40, 40, 12)).astype(np.int32)
    padded[:9] = -3024
    assert hu_fault(padded) == ""


@real
@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["example_ct.nii.gz", "example_ct_sm.nii.gz", "aorta/ct_cropped.nii.gz", "pulmonary/ct_cropped.nii.gz"]
)
def test_real_scans_are_in_units_and_their_faults_are_not(name):
    data = np.asarray(nibabel.load(DATA / "totalsegmentator" / name).dataobj).astype(np.float32)
    assert hu_fault(data) == ""
    for wrong in (data - 1024, data + 1024, np.clip(data, -1024, None) + 1024, np.clip(data, -1024, None) - 1024):
        assert hu_fault(wrong) != ""


def test_the_headers_scale_is_applied_once_or_left_or_taken_from_a_table(tmp_path):
    hu = body()
    made = image(data=(hu + 1024).astype(np.int16))
    made.header.set_slope_inter(1, -1024)
    nibabel.save(made, tmp_path / "scaled.nii")
    stored = nibabel.load(tmp_path / "scaled.nii").dataobj.get_unscaled()
    if not np.array_equal(stored, hu + 1024):  # nibabel divides what it writes by the slope
        raw = bytearray((tmp_path / "scaled.nii").read_bytes())
        raw[352:] = (hu + 1024).astype("<i2").tobytes(order="F")
        (tmp_path / "scaled.nii").write_bytes(bytes(raw))
    assert np.array_equal(read_volume(tmp_path / "scaled.nii").data, hu)
    with pytest.raises(InputError, match=r"scaled.nii: read with --hu already .* with --hu header it looks right"):
        read_volume(tmp_path / "scaled.nii", hu="already")
    save(tmp_path / "raw.nii", data=(hu + 1024).astype(np.int16))
    assert np.array_equal(read_volume(tmp_path / "raw.nii", hu="table", slope=1, intercept=-1024).data, hu)
    save(tmp_path / "done.nii", data=hu)
    with pytest.raises(InputError, match=r"applied twice.*with --hu already it looks right"):
        read_volume(tmp_path / "done.nii", hu="table", slope=1, intercept=-1024)


def test_a_table_of_slopes_is_remembered_in_the_manifest(tmp_path):
    """CT-RATE's form: volume names with their endings, RescaleSlope and RescaleIntercept."""
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "train_1_a_1.nii.gz", data=(body() + 1024).astype(np.int16))
    save(folder / "train_2_a_1.nii.gz", data=(body() + 1024).astype(np.int16))
    table = tmp_path / "meta.csv"
    table.write_text("VolumeName,RescaleSlope,RescaleIntercept,nodule\ntrain_1_a_1.nii.gz,1,-1024,-1\n")
    asked = {"hu": "table", "table": table, "labels": ("nodule",), "patient": r"^train_(\d+)"}
    report = import_nifti(folder, tmp_path / "out", **asked)
    assert report.rows == 1
    assert "the table has no slope and intercept for it" in report.rejected[0].reason
    manifest = Manifest.load(report.manifest)
    row = manifest.row(0)
    assert (row["group"], row["nodule"], row["intercept"]) == ("1", -1.0, -1024.0)
    assert np.array_equal(row_volume(row, manifest.folder).data, body())
    assert any("of the table were applied" in note for note in check_row(row, manifest.folder))


def test_nrrd_is_turned_from_its_space_into_ras(tmp_path):
    data = body()
    header = {"space": "left-posterior-superior", "space directions": [[0.8, 0, 0], [0, 0.7, 0], [0, 0, 2.5]],
              "space origin": [-5.0, 7.0, 100.0]}  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.data, data)
    assert np.allclose(volume.affine, AFFINE)
    nrrd.write(str(tmp_path / "b.nrrd"), data)
    with pytest.raises(InputError, match=r"b.nrrd: its space is 'not stated'"):
        read_volume(tmp_path / "b.nrrd")
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "c.nrrd").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"c.nrrd: damaged"):
        read_volume(tmp_path / "c.nrrd")
    text = content.replace(b"encoding:", b"data file: ../../etc/passwd\nencoding:", 1)
    (tmp_path / "d.nrrd").write_bytes(text)
    with pytest.raises(InputError, match=r"d.nrrd: its voxels lie in other folders"):
        read_volume(tmp_path / "d.nrrd")


@real
@pytest.mark.realdata
def test_real_nrrd_mr_and_hippocampus_volumes_come_in(tmp_path):
    some = tmp_path / "in"
    some.mkdir()
    for file in sorted((DATA / "msd_hippocampus" / "images").iterdir())[:3]:
        shutil.copy(file, some)
    report = import_nifti(some, tmp_path / "out", modality="mr")
    assert (report.rows, report.rejected) == (3, ())
    report = import_nifti(DATA / "pyradiomics", tmp_path / "out2", modality="mr")
    assert report.rows == 3
    assert all("it is a mask or a label map" in r.reason for r in report.rejected)
    assert set(pd.read_parquet(report.manifest)["orientation"]) <= {"LPS", "LAS", "RAS", "LPI", "RPS"}


def test_written_volumes_are_read_back_as_they_were(tmp_path):
    for data in (body(), body().astype(np.float32) + 0.25):
        write_nifti(tmp_path / "v.nii.gz", data, AFFINE)
        again = read_volume(tmp_path / "v.nii.gz")
        assert np.array_equal(again.data, data)
        assert np.allclose(again.affine, AFFINE, atol=1e-5)


def test_a_volume_changed_after_its_import_is_found_by_the_check(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.nii.gz")
    manifest = Manifest.load(import_nifti(tmp_path / "in", tmp_path / "out").manifest)
    assert check_row(manifest.row(0), manifest.folder) == []
    save(tmp_path / "in" / "a.nii.gz", data=body() - 1024)
    with pytest.raises(InputError, match="applied twice"):
        check_row(manifest.row(0), manifest.folder)


def test_label_maps_go_with_their_volumes_and_must_lie_on_their_grid(tmp_path):
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.nii.gz")
    save(tmp_path / "masks" / "a.nii.gz", data=(body() > 0).astype(np.uint8))
    report = import_nifti(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert "1 of 2 volumes have no label map" in report.note
    manifest = Manifest.load(report.manifest)
    row = manifest.row(0)
    assert check_row(row, manifest.folder) == []
    shifted = AFFINE.copy()
    shifted[0, 3] += 3
    save(tmp_path / "masks" / "a.nii.gz", data=(body() > 0).astype(np.uint8), affine=shifted)
    with pytest.raises(InputError, match="its grid is not that of the volume"):
        check_row(row, manifest.folder)


def _phantom_body():
    """HU of a patient: air, lungs, fat, muscle, some bone."""
    return np.repeat([-1000.0, -800.0, -100.0, 40.0, 60.0, 700.0, 1200.0], [300, 100, 100, 300, 100, 10, 10])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda x: -x, "it looks inverted"),
        (lambda x: np.where(x < 0, x + 65536, x), "wrapped round"),
        (lambda x: np.where(x > 500, 30000, x), "more than metal"),
    ],
)
def test_values_denser_than_any_body_are_no_hounsfield_units(damage, words):
    assert hu_fault(_phantom_body()) == ""
    assert words in hu_fault(damage(_phantom_body()))


def test_what_of_a_table_was_not_taken_is_said(tmp_path):
    for name in "ab":
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", body(), np.diag([2.0, 2.0, 3.0, 1.0]))
    lines = ["id,patient,split,nodule,age", "a,p1,train,yes,40", "b,,test,1,50", ""]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    report = import_nifti(tmp_path / "in", tmp_path / "out", table=tmp_path / "t.csv", labels=("nodule",))
    assert "these columns were not taken: split, age" in report.note
    assert "`data split` makes one by patient" in report.note
    assert "1 of 2 volumes have no patient in" in report.note
    assert Manifest.load(report.manifest).frame["nodule"].tolist() == ["yes", "1"]
