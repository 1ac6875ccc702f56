"""Radiographs: how values are shown, what is refused in words, whose they are, and what of a header travels."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.medical.commands import import_radiographs, preview
from counterpoint.medical.readers.radiograph import read_radiograph, window, write_grey
from counterpoint.medical.reading import check_row

NIH = Path(os.environ.get("COUNTERPOINT_DATA", "/nowhere")) / "medical" / "nih_cxr"
STORED = np.random.default_rng(0).integers(0, 4096, (20, 24)).astype(np.uint16)


def write_dicom(path, stored=STORED, kind="1.2.840.10008.5.1.4.1.1.1", bits=12, **fields):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = kind, meta.MediaStorageSOPInstanceUID, "CR"
    d.PatientID, d.PatientName, d.PatientAge, d.PatientSex, d.AccessionNumber = "MRN4711", "Doe^Jane", "093Y", "F", "A1"
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *stored.shape, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, bits, bits - 1, 0
    d.PixelData = stored.astype("<u2").tobytes()
    for name, value in fields.items():
        setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)
    return path


def picture(path, seed=0, shape=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


def frame_of(report):
    return pd.read_parquet(report.manifest)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(tmp_path, function):
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=1800, WindowWidth=900, VOILUTFunction=function)
    expected = pydicom.pixels.apply_voi_lut(STORED, pydicom.dcmread(path)) / 4095
    assert np.allclose(read_radiograph(path).data, expected, atol=1e-6)


def test_a_rescale_comes_before_the_window(tmp_path):
    fields = {"RescaleSlope": 0.5, "RescaleIntercept": -100}
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=700, WindowWidth=800, **fields)
    assert np.allclose(read_radiograph(path).data, window(STORED * 0.5 - 100, 700, 800), atol=1e-6)


def test_a_voi_lut_goes_before_a_window(tmp_path):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], np.linspace(65535, 0, 4096).astype("<u2").tolist()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    path = write_dicom(tmp_path / "a.dcm", VOILUTSequence=[item], WindowCenter=10, WindowWidth=20)
    assert np.allclose(read_radiograph(path).data, 1 - STORED / 4095, atol=1e-4)


def test_monochrome1_is_the_negative_of_monochrome2_and_padding_is_black_in_both(tmp_path):
    stored = STORED.copy()
    stored[:3] = 4095
    found = {}
    for light in ("MONOCHROME1", "MONOCHROME2"):
        known = {"PhotometricInterpretation": light, "PixelPaddingValue": 4095}
        path = write_dicom(tmp_path / f"{light}.dcm", stored, WindowCenter=2048, WindowWidth=4096, **known)
        found[light] = read_radiograph(path)
    assert np.allclose(found["MONOCHROME1"].data[3:], 1 - found["MONOCHROME2"].data[3:], atol=1e-6)
    assert not found["MONOCHROME1"].data[:3].any()
    assert not found["MONOCHROME2"].data[:3].any()
    assert any("turned over" in note for note in found["MONOCHROME1"].notes)


def test_without_a_window_all_values_but_padding_span_black_to_white(tmp_path):
    stored = 100 + STORED // 2
    stored[0] = 4000
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=4000))
    assert found.data.max() == 1
    assert found.data[1:].min() == 0
    assert any("no window" in note for note in found.notes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"kind": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "for processing"), ({"kind": "1.2.840.10008.5.1.4.1.1.2"}, "CT"),
     ({"kind": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}, "no radiograph"),
     ({"PhotometricInterpretation": "PALETTE COLOR"}, "not grey"), ({"NumberOfFrames": 2}, "frames"),
     ({"WindowCenter": 9000, "WindowWidth": 10}, "leaves nothing"), ({"WindowCenter": 5, "WindowWidth": 0}, "wide"),
     ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
     ({"stored": np.full((20, 24), 7, np.uint16)}, "same value"), ({"stored": STORED[:8]}, "too few")],
)  # fmt: skip
def test_what_is_no_radiograph_is_refused_in_words(tmp_path, fields, words):
    path = write_dicom(tmp_path / "a.dcm", **fields)
    with pytest.raises(InputError, match=words):
        read_radiograph(path)


def test_grey_is_grey_in_whatever_channels_and_colours_are_refused(tmp_path):
    grey = np.random.default_rng(1).integers(0, 256, (20, 24)).astype(np.uint8)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.allclose(read_radiograph(tmp_path / "a.png").data, grey / 255)
    rgba[..., 3] = 100
    Image.fromarray(rgba).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="transparent"):
        read_radiograph(tmp_path / "b.png")
    Image.fromarray(np.dstack([grey, grey[::-1], grey])).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="colours"):
        read_radiograph(tmp_path / "c.png")


def test_sixteen_bits_are_kept_and_twelve_in_them_are_told_of(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.png")
    found = read_radiograph(tmp_path / "a.png")
    assert found.bits == 12
    assert np.allclose(found.data, STORED / 4095, atol=1e-6)
    assert "12 bits" in found.notes[0]
    Image.fromarray(STORED * 16).save(tmp_path / "b.png")
    assert read_radiograph(tmp_path / "b.png").bits == 16


def test_a_dark_picture_that_was_written_stays_as_dark(tmp_path):
    write_grey(tmp_path / "a.png", STORED / 65535)
    found = read_radiograph(tmp_path / "a.png")
    assert found.bits == 16
    assert np.allclose(found.data, STORED / 65535, atol=1e-6)
    assert not found.notes


def test_a_jpeg_is_turned_as_its_exif_says(tmp_path):
    data = np.zeros((40, 24), np.uint8)
    data[:8] = 255
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(data).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_radiograph(tmp_path / "a.jpg")
    assert found.data[-8:].mean() > 0.9 > 0.1 > found.data[:8].mean()
    assert found.notes


def test_of_a_dicom_file_words_travel_and_no_names(tmp_path):
    fields = {
        "ViewPosition": "PA", "ImageLaterality": "L", "PatientOrientation": ["L", "F"], "BurnedInAnnotation": "YES",
        "WindowCenter": 2048, "WindowWidth": 4096,
    }  # fmt: skip
    (tmp_path / "d").mkdir()
    path = write_dicom(tmp_path / "d" / "Jane Doe.dcm", **fields)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "A1.txt").write_text("Findings: Jane has no effusion. MRN4711.")
    report = import_radiographs(tmp_path / "d", tmp_path / "o", reports=tmp_path / "r")
    (row,) = frame_of(report).to_dict("records")
    assert (row["view"], row["laterality"], row["age"], row["sex"]) == ("PA", "left", 90.0, "F")
    assert row["orientation"] == "rows run to the left, columns to the foot"
    assert "burned-in" in report.note
    assert "no certified" in report.note
    everything = str(row) + (tmp_path / "o" / row["reports"]).read_text()
    assert not any(word in everything for word in ("Doe", "Jane", "4711"))
    written = read_radiograph(tmp_path / "o" / row["image"])
    assert np.abs(written.data - read_radiograph(path).data).max() < 1e-4
    assert check_row(row, Folder(tmp_path / "o")) == []


def test_nih_labels_become_columns_and_patients_come_from_the_table(tmp_path):
    for number, name in enumerate(("00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png")):
        picture(tmp_path / "x" / name, number)
    (tmp_path / "t.csv").write_text(
        "Image Index,Finding Labels,Patient ID,View Position,Edema\n"
        "00000001_000.png,Cardiomegaly|Effusion,1,PA,-1\n00000001_001.png,No Finding,1,AP,\n"
        "00000002_000.png,Effusion,2,PA,1\n"
    )
    labels = ("Finding Labels", "Edema")
    report = import_radiographs(tmp_path / "x", tmp_path / "o", table=tmp_path / "t.csv", labels=labels)
    frame = frame_of(report).set_index("id")
    assert frame.loc["00000001_000", ["Cardiomegaly", "Effusion", "Edema"]].tolist() == [1, 1, -1]
    assert frame.loc["00000001_001", ["Cardiomegaly", "Effusion"]].tolist() == [0, 0]
    assert frame.loc["00000003_000", ["Cardiomegaly", "Effusion", "Edema"]].isna().all()
    first, second, other = frame["group"].iloc[:3]
    assert first == second != other
    assert "1 of 4 radiographs count as a patient of their own" in report.note
    assert "Finding Labels" not in frame
    assert frame.loc["00000001_001", "view"] == "AP"


def test_chexpert_paths_name_pictures_from_folders_above(tmp_path):
    for patient in ("patient1", "patient2"):
        picture(tmp_path / "v1" / "train" / patient / "study1" / "view1.png", len(patient) + ord(patient[-1]))
    (tmp_path / "t.csv").write_text("Path,Edema\nv1/train/patient2/study1/view1.png,1\n")
    report = import_radiographs(
        tmp_path / "v1" / "train", tmp_path / "o", table=tmp_path / "t.csv", labels=("Edema",), patient=r"patient\d+"
    )
    frame = frame_of(report).set_index("group")
    assert frame.loc["patient2", "Edema"] == 1
    assert np.isnan(frame.loc["patient1", "Edema"])


def test_damaged_and_doubled_pictures_are_listed_with_reasons(tmp_path):
    good = picture(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "b.png").write_bytes(good.read_bytes())
    (tmp_path / "x" / "c.png").write_bytes(good.read_bytes()[:300])
    (tmp_path / "x" / "d.dcm").write_bytes(b"nothing")
    (tmp_path / "x" / "notes.txt").write_text("x")
    report = import_radiographs(tmp_path / "x", tmp_path / "o")
    reasons = {Path(r.source).name: r.reason for r in report.rejected}
    assert report.rows == 1
    assert set(reasons) == {"b.png", "c.png", "d.dcm"}
    assert "same picture" in reasons["b.png"]
    assert "damaged" in reasons["c.png"]
    assert "no DICOM" in reasons["d.dcm"]
    assert "1 .txt" in report.note


def test_two_pictures_under_one_uid_stay_two(tmp_path):
    for name, stored in (("a", STORED), ("b", STORED[::-1])):
        write_dicom(tmp_path / f"{name}.dcm", stored, SOPInstanceUID="1.2.3")
    frame = frame_of(import_radiographs(tmp_path, tmp_path / "o"))
    assert len(set(frame["image"])) == 2
    assert frame["group"].nunique() == 1


@pytest.mark.realdata
@pytest.mark.skipif(not NIH.is_dir(), reason="COUNTERPOINT_DATA names no folder with medical/nih_cxr")
def test_real_radiographs(tmp_path):
    report = import_radiographs(NIH, tmp_path / "o", table=NIH / "meta.csv", patient=r"^(\d{8})_")
    frame = frame_of(report)
    assert report.rows == 16
    assert not report.rejected
    assert set(frame["view"]) == {"AP", "PA"}
    assert frame["group"].nunique() < 16
    outcome = preview(report.manifest, tmp_path / "p.html", 4)
    assert outcome.figures["volumes"] == 4
