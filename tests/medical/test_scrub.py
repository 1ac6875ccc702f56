"""The scrubber, case by case: what identifies goes, what a report is about stays, and doubt is told."""

import csv

import nibabel
import numpy as np
import pytest
from dicom_files import body

from counterpoint.medical.commands import import_nifti
from counterpoint.medical.scrub import UNKNOWN, scrub, suspects
from counterpoint.medical.scrub_names import names_of

GONE = [
    ("Patient John Doe, MRN 12345", "Patient [NAME], [NUMBER]"),
    ("Patient John Doe, MRN 12345, has a 12 mm nodule.", "Patient [NAME], [NUMBER], has a 12 mm nodule."),
    ("Pt: John Doe. No nodule.", "Pt: [NAME]. No nodule."),
    ("Pt. Doe was seen.", "Pt. [NAME] was seen."),
    ("Name: DOE, JOHN", "Name: [NAME]"),
    ("NAME: DOE, JOHN A  MRN: 12345  DOB: 01/02/1950", "NAME: [NAME]  [NUMBER]  DOB: [DATE]"),
    ("Patient Name: Mary Stone\nAge: 54", "Patient Name: [NAME]\nAge: 54"),
    ("PATIENT NAME: SMITH, ANNA MARIA   SEX: F   DOB: 03 JAN 1948", "PATIENT NAME: [NAME]   SEX: F   DOB: [DATE]"),
    ("Name: mary stone\nFindings: clear.", "Name: [NAME]\nFindings: clear."),
    ("Patient: Doe^John^^Dr", "Patient: [NAME]"),
    ("Patient: Doe, John, male, 54", "Patient: [NAME], male, 54"),
    ("patient john doe, mrn 12345", "patient [NAME], [NUMBER]"),
    ("PATIENT JOHN DOE HAS A NODULE.", "PATIENT [NAME] HAS A NODULE."),
    ("Patient Smith CT chest. Patient O. Smith.", "Patient [NAME] CT chest. Patient [NAME]."),
    ("Dr. Smith", "[NAME]"),
    ("Seen by dr smith at the ward.", "Seen by [NAME] at the ward."),
    ("DR. SMITH REVIEWED THE IMAGES.", "[NAME] REVIEWED THE IMAGES."),
    ("Mr. Stone has a stone.", "[NAME] has a stone."),
    ("Mrs. O'Brien-M\u00fcller and Ms van der Berg.", "[NAME] and [NAME]."),
    ("Findings were called to Dr. Lee, who agreed.", "Findings were called to [NAME], who agreed."),
    ("Referring physician: Jane A. Roe, MD", "Referring physician: [NAME]"),
    ("Interpreted by Jane Roe MD. Clear.", "Interpreted by [NAME]. Clear."),
    ("cc: Dr. A. B. Smith, Dr. Jones", "cc: [NAME], [NAME]"),
    ("Attending: Stone\nLungs: clear", "Attending: [NAME]\nLungs: clear"),
    ("Technologist: RT(R) Smith", "Technologist: RT(R) [NAME]"),
    (
        "Electronically signed by: Roe, Jane, M.D. on 01/02/2020 at 10:45 AM",
        "Electronically signed by: [NAME] on [DATE] at [TIME]",
    ),
    ("Discussed with Smith by phone at 10.45 am.", "Discussed with [NAME] by phone at [TIME]"),
    ("His wife Anna Karenina called.", "His wife [NAME] called."),
    ("Herr M\u00fcller, geb. 12.03.1950, Befund vom 12.03.", "[NAME], geb. [DATE], Befund vom [DATE]"),
    ("Maria Gonzalez was scanned.", "[NAME] was scanned."),
    ("Accession number: ABC-12-345. Acc# 99812. ACC 12345678.", "[NUMBER]. [NUMBER]. [NUMBER]."),
    ("Medical record number 00-12-34. Hospital No. H123456.", "[NUMBER]. [NUMBER]."),
    ("NHS number 943 476 5919. SSN 123-45-6789.", "[NUMBER]. [NUMBER]."),
    ("Call 555-1234 or (555) 123-4567 or +49 171 1234567.", "Call [PHONE] or [PHONE] or [PHONE]."),
    ("Tel. 030/1234567, ext. 4567, pager 12345.", "Tel. [PHONE], ext. [PHONE], pager [PHONE]."),
    (
        "Compared to 12/03/2021, 2020-05-17, 3 March 2020, March 3, Mar 3rd 2019, 03/2021 and 12-Mar-21.",
        "Compared to [DATE], [DATE], [DATE], [DATE], [DATE], [DATE] and [DATE].",
    ),
    ("CT on 12/03 and on 5 May. 12.03.21", "CT on [DATE] and on [DATE]. [DATE]"),
    ("DOB 1/2/50. born 12.03.1950", "DOB [DATE]. born [DATE]"),
    ("Lives at 12 Main Street, Springfield, IL 62704.", "Lives at [ADDRESS], [ADDRESS]."),
    ("Seen at St. Mary's Hospital.", "Seen at [PLACE]."),
    ("A 95-year-old woman, age 92, 93F.", "A [AGE]-year-old woman, age [AGE], [AGE]F."),
    ("Mail jane.roe@example.org or www.example.org/roe.", "Mail [EMAIL] or [URL]."),
]
KEPT = [
    "Series 3 image 112, HU 45, range 100-1200 HU, 12 x 14 x 9 mm, T1-weighted, L4-L5, 1.2. No effusion.",
    "Grade 2/4, Bosniak III cyst, Hodgkin lymphoma, Baker cyst, Crohn disease, Swan-Ganz catheter.",
    "DR CHEST AP. MR BRAIN WITHOUT CONTRAST. MS PLAQUES.",
    "PATIENT HISTORY: COUGH. PATIENT POSITION: SUPINE. THE PATIENT IS STABLE.",
    "Patient: 54-year-old male with cough. Patient has a nodule. Patient History: none.",
    "The patient Has A Nodule In The Left Lobe.",
    "Discussed with ER. Discussed with radiology. Outside hospital CT. ACC 3 cm in the left adrenal.",
    "Referring Physician:\n\nFINDINGS: Lungs clear.",
    "Ratio 3/4. L4/5 disc. may 3 mm. images 45 120 300; density 30 40 50; kVp 120, 512 x 512 matrix.",
    "Name: Findings: none",
    "May represent a granuloma. Right Upper Lobe nodule. A 54-year-old man in 2019.",
]


@pytest.mark.parametrize(("text", "expected"), GONE)
def test_what_identifies_goes(text, expected):
    clean, removed = scrub(text)
    assert clean == expected
    assert all(text[part.at : part.at + len(part.text)] == part.text for part in removed)


@pytest.mark.parametrize("text", KEPT)
def test_what_a_report_is_about_stays(text):
    assert scrub(text) == (text, ())


@pytest.mark.parametrize(
    "label", ["Patient", "Patient:", "Pt:", "Patient name:", "Name:", "Dr.", "Seen by", "Signed by"]
)
@pytest.mark.parametrize(
    "name", ["Doe", "John Doe", "DOE, JOHN", "Roe, Jane A.", "O'Neil", "Xochitl Nwosu", "van Houten"]
)
@pytest.mark.parametrize("after", ["", ".", ", MRN 12345.", " on 12.03.2021.", "\nFindings: clear."])
def test_every_label_with_every_form_of_name(label, name, after):
    clean, _ = scrub(f"{label} {name}{after}")
    for word in name.replace(",", "").split():
        assert word not in clean or word in ("A.", "van"), clean
    assert "12345" not in clean
    assert "12.03" not in clean
    assert ("clear" in clean) == ("clear" in after)


def test_a_name_that_was_given_away_goes_everywhere_in_the_report():
    assert scrub("Roe was called. Signed by Dr. Jane Roe. ROE agrees.")[0] == (
        "[NAME] was called. Signed by [NAME]. [NAME] agrees."
    )
    assert scrub("Dr. Baker notes a Baker cyst.")[0] == "[NAME] notes a Baker cyst."


def test_a_name_around_a_date_loses_both_its_ends():
    assert scrub("seen by roe", {"roe": "identity"})[0] == "seen by [IDENTITY]"
    clean, removed = scrub("Name: Jane 12345678 Roe", {"12345678": "identity", "Roe": "identity"})
    assert clean == "Name: [NAME] [IDENTITY] [IDENTITY]"
    assert len(removed) == 3


def test_doubt_is_told_and_the_words_of_the_field_are_not():
    assert suspects("Results were left with Okonkwo. Hodgkin lymphoma of the Right lobe. Film 54321.") == (
        (23, "Okonkwo"), (73, "54321")
    )  # fmt: skip
    assert suspects("A Spiculated mass.", {"spiculated"}) == ()


def test_reading_names_takes_time_in_proportion():
    assert len(list(names_of("Dr. Jane Roe and DOE, JOHN. " * 2000))) >= 4000


def test_the_audit_lists_what_stays_and_what_no_rule_can_know(tmp_path):
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(body(), np.diag([0.8, 0.7, 2.5, 1])), tmp_path / "in" / "a.nii.gz")
    table = tmp_path / "r.csv"
    table.write_text("id,report\na,Patient John Doe MRN 12345. Left with Okonkwo. quux came back.\n")
    facts = tmp_path / "facts.csv"
    facts.write_text("id,patient\na,Quux^Ann\n")
    done = import_nifti(tmp_path / "in", tmp_path / "out", reports=table, table=facts)
    rows = list(csv.DictReader((tmp_path / "out" / "scrub-audit.private.csv").open()))
    assert [(r["rule"], r["passage"]) for r in rows] == [
        ("name", "John Doe"), ("number", "MRN 12345"), ("identity", "quux"), ("stays, look at it", "Okonkwo"),
        ("not known", UNKNOWN),
    ]  # fmt: skip
    assert "1 words and numbers of the reports stay although they may identify someone" in done.note
    assert next((tmp_path / "out" / "reports").glob("*.txt")).read_text() == (
        "Patient [NAME] [NUMBER]. Left with Okonkwo. [IDENTITY] came back."
    )
