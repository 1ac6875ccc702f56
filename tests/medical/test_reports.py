"""Reports: sections, sentences, negation, the files they come from, and the scrubber with its audit."""

import csv

import nibabel
import numpy as np
import pytest
from dicom_files import body
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.data import Manifest
from counterpoint.common.errors import InputError
from counterpoint.medical.commands import import_nifti
from counterpoint.medical.reading import row_reports
from counterpoint.medical.reports import RadiologyReport, denies, sentences
from counterpoint.medical.scrub import scrub


def volumes(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        nibabel.save(nibabel.Nifti1Image(body(seed=i), np.diag([0.8, 0.7, 2.5, 1])), folder / f"{name}.nii.gz")
    return folder


def test_sections_are_found_by_their_headings_and_nothing_is_lost():
    report = RadiologyReport(
        "CT CHEST\nCLINICAL HISTORY: cough. TECHNIQUE: contrast-enhanced CT.\nCOMPARISON: None.\n"
        "FINDINGS:\nThe findings: are odd. A 3.5 mm nodule.\n\nNo effusion.\nIMPRESSION: 1. Nodule.\n2. No effusion."
    )
    assert list(report.sections) == ["preamble", "indication", "technique", "comparison", "findings", "impression"]
    assert report.section("comparison") == "None."
    assert "The findings: are odd." in report.section("findings")
    assert report.sentences == (
        "The findings: are odd.", "A 3.5 mm nodule.", "No effusion.", "1. Nodule.", "2. No effusion."
    )  # fmt: skip


def test_a_report_without_headings_is_all_findings():
    assert RadiologyReport("Lungs clear. Heart normal.").sections == {"findings": "Lungs clear. Heart normal."}
    assert RadiologyReport("  ").sections == {}


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=200))
def test_sentences_keep_every_word(text):
    assert " ".join(sentences(text)).split() == text.split()


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No pleural effusion.", True),
        ("There is a nodule without calcification.", True),
        ("Pleural spaces are clear.", False),
        ("The lungs are unremarkable.", True),
        ("Effusion cannot be excluded.", False),
        ("A nodule in the right lobe.", False),
        ("Nodule is stable, no significant change.", False),
        ("Notably enlarged heart.", False),
        ("Normal heart size.", True),
    ],
)
def test_denial_is_a_rule_of_words(sentence, expected):
    assert denies(sentence) is expected


def test_many_reports_of_one_volume_from_a_folder(tmp_path):
    folder = volumes(tmp_path / "in", "a", "b", "c")
    texts = tmp_path / "texts"
    (texts / "b").mkdir(parents=True)
    (texts / "a.txt").write_text("Findings: no nodule.")
    (texts / "a__2.txt").write_text("Second reader: no nodule.")
    (texts / "b" / "r1.txt").write_text("Findings: effusion.")
    (texts / "zz.txt").write_text("about nobody")
    (texts / "c.txt").write_bytes(b"\xff\xfe\0x")
    report = import_nifti(folder, tmp_path / "out", reports=texts)
    manifest = Manifest.load(report.manifest)
    found = {row["id"]: row_reports(row, manifest.folder) for row in map(manifest.row, range(3))}
    assert found == {
        "a": ["Findings: no nodule.", "Second reader: no nodule."], "b": ["Findings: effusion."], "c": []
    }  # fmt: skip
    said = {r.source.rsplit("/", 1)[-1]: r.reason for r in report.rejected}
    assert said["zz.txt"] == "a report about 'zz', and no volume is called so"
    assert "no plain text" in said["c.txt"]
    assert "1 of 3 volumes have no report." in report.note


def test_a_table_of_sections_makes_reports_and_its_empty_rows_are_named(tmp_path):
    folder = volumes(tmp_path / "in", "a", "b")
    table = tmp_path / "r.csv"
    table.write_text(
        'VolumeName,Findings_EN,Impressions_EN\na.nii.gz,No nodule.,Normal.\nb.nii.gz,"Not given.",\n,x,y\n'
    )
    report = import_nifti(folder, tmp_path / "out", reports=table)
    manifest = Manifest.load(report.manifest)
    assert row_reports(manifest.row(0), manifest.folder) == ["Findings: No nodule. Impression: Normal."]
    assert [r.reason for r in report.rejected] == [
        "an empty report", "its column VolumeName is empty, so it is about no volume"
    ]  # fmt: skip


def test_the_scrubber_removes_shapes_and_keeps_measurements():
    text = (
        "Patient name: Jane Roe. MRN: 1234567. Compared to 12.03.2021 and March 3, 2020. Nodule 12 x 14 mm, series 3 "
        "image 112, HU 45. Call +1 555 123 4567. 95 year-old. Signed by Dr. A. Smith at 10:45. L4-L5, T1-weighted."
    )
    clean, removed = scrub(text)
    for secret in ("Roe", "1234567", "12.03.2021", "March 3", "4567", "Smith", "10:45", "95"):
        assert secret not in clean, secret
    for kept in ("12 x 14 mm", "series 3 image 112", "HU 45", "L4-L5", "T1-weighted"):
        assert kept in clean
    assert all(text[part.at : part.at + len(part.text)] == part.text for part in removed)


@given(st.text(max_size=300))
def test_what_is_removed_and_what_stays_make_up_the_report(text):
    clean, removed = scrub(text)
    for part in removed:
        clean = clean.replace(f"[{part.rule.upper()}]", part.text, 1)
    assert clean == text or "[" in text


def test_the_audit_says_what_was_removed_and_is_private(tmp_path):
    folder = volumes(tmp_path / "in", "a")
    table = tmp_path / "r.csv"
    table.write_text("id,report\na,Seen by Dr. Roe on 2020-01-02. No nodule.\n")
    report = import_nifti(folder, tmp_path / "out", reports=table)
    audit = tmp_path / "out" / "scrub-audit.private.csv"
    rows = list(csv.DictReader(audit.open()))
    assert [(r["rule"], r["passage"]) for r in rows[:-1]] == [("name", "Dr. Roe"), ("date", "2020-01-02")]
    assert audit.stat().st_mode & 0o077 == 0
    assert "no certified de-identification" in report.note
    plain = import_nifti(folder, tmp_path / "out2", reports=table, scrub=False)
    manifest = Manifest.load(plain.manifest)
    assert "Dr. Roe" in row_reports(manifest.row(0), manifest.folder)[0]
    assert "stays in them" in plain.note


def test_patients_of_a_table_are_hashed_and_kept_together(tmp_path):
    folder = volumes(tmp_path / "in", "a", "b", "c")
    table = tmp_path / "facts.csv"
    table.write_text("id,patient\na,Roe\nb,Roe\nc,Doe\n")
    manifest = Manifest.load(import_nifti(folder, tmp_path / "out", table=table).manifest)
    groups = manifest.frame.set_index("id")["group"]
    assert groups["a"] == groups["b"] != groups["c"]
    assert "Roe" not in "".join(groups)


def test_wrong_tables_are_named(tmp_path):
    folder = volumes(tmp_path / "in", "a")
    table = tmp_path / "t.csv"
    table.write_text("id,patient\na,1\na,2\n")
    with pytest.raises(InputError, match="row 2: a second row about 'a', which says otherwise"):
        import_nifti(folder, tmp_path / "out", table=table)
    table.write_text("name,patient\na,1\n")
    with pytest.raises(InputError, match="no column says which volume a row is about"):
        import_nifti(folder, tmp_path / "out", table=table)
    with pytest.raises(InputError, match="is no regular expression"):
        import_nifti(folder, tmp_path / "out", patient="(")
