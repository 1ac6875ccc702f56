"""The phantom: findings lie where the labels and reports say, held-out combinations stay out, files are real files."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest

from counterpoint.common.data import Manifest
from counterpoint.medical.commands import simulate
from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.findings import phantom_prompts
from counterpoint.medical.hu import hu_fault
from counterpoint.medical.phantom import FINDINGS, HELD_OUT, LABELS, make_case
from counterpoint.medical.phantom_report import PRESENT, write_report
from counterpoint.medical.reading import read_volume, row_reports
from counterpoint.medical.reports import denies
from counterpoint.medical.volume import canonical

SMALL = PhantomConfig(size=24, spacing=14.0)
CASES = [make_case(seed, SMALL) for seed in range(60)]


def test_the_same_seed_gives_the_same_patient_and_another_another():
    a, b = make_case(5, SMALL), make_case(5, SMALL)
    assert np.array_equal(a.volume, b.volume)
    assert (a.findings, a.attributes, a.nuisance) == (b.findings, b.attributes, b.nuisance)
    assert not np.array_equal(a.volume, make_case(6, SMALL).volume)


def test_a_phantom_is_in_hounsfield_units():
    assert [hu_fault(case.volume) for case in CASES] == [""] * len(CASES)


def test_lesions_are_on_the_side_and_at_the_height_that_the_attributes_say():
    """Checked in the world: RAS, so that the patient's right has positive x."""
    seen = 0
    for case in CASES:
        for finding in ("lung nodule", "renal cyst", "kidney stone", "pleural effusion"):
            where = np.argwhere(case.labels == LABELS[finding])
            if finding not in case.attributes or not len(where):
                continue
            x = (where @ case.affine[:3, :3].T + case.affine[:3, 3])[:, 0].mean()
            assert (x > 0) == (case.attributes[finding]["side"] == "right"), finding
            seen += 1
    assert seen > 30


def test_findings_present_have_voxels_and_absent_ones_none():
    for case in CASES:
        for finding in ("lung nodule", "pleural effusion", "liver lesion", "renal cyst", "kidney stone"):
            n = int((case.labels == LABELS[finding]).sum())
            assert n == 0 or case.findings[finding]
            # So coarse a grid may have no voxel in a stone, nor in a small lesion at an organ's rim.
            assert n > 0 or not case.findings[finding] or finding == "kidney stone"


def test_held_out_combinations_are_never_in_training():
    def combination(case):
        nodule = case.attributes.get("lung nodule")
        return nodule and (nodule["side"], nodule["lobe"], nodule["type"])

    assert {combination(c) for c in CASES} & set(HELD_OUT)
    trained = [make_case(seed, SMALL, training=True) for seed in range(60)]
    assert not {combination(c) for c in trained} & set(HELD_OUT)
    # What is not held out has the same patients: no other figure of theirs moves.
    assert [c.findings for c in trained] == [c.findings for c in CASES]


def test_reports_affirm_what_is_there_and_deny_what_is_not():
    exact = PhantomConfig(size=24, spacing=14.0, omissions=0.0, synonyms=0.0)
    for seed, case in enumerate(CASES[:20]):
        text, said = write_report(case, seed, exact)
        affirmed = {s.finding for s in said if s.present}
        assert affirmed == {f for f, there in case.findings.items() if there}
        for sentence in said:
            assert sentence.text in text
            if sentence.finding and not sentence.present:
                assert denies(sentence.text) or "free of" in sentence.text
                assert not case.findings[sentence.finding]
            if sentence.present:
                assert sentence.label == LABELS[sentence.finding]
                for word in (case.attributes.get(sentence.finding) or {}).get("side", ""), "":
                    assert word in sentence.text.lower()


def test_omissions_and_readers_change_words_and_never_add_a_finding():
    often = PhantomConfig(size=24, spacing=14.0, omissions=0.5)
    left_out = 0
    for seed, case in enumerate(CASES[:20]):
        _, said = write_report(case, seed, often)
        affirmed = {s.finding for s in said if s.present}
        there = {f for f, yes in case.findings.items() if yes}
        assert affirmed <= there
        left_out += len(there - affirmed)
    assert left_out > 10
    assert write_report(CASES[0], 1)[0] != write_report(CASES[0], 2)[0]


def test_prompts_are_of_the_reports_words_and_hold_no_template():
    prompts = phantom_prompts()
    assert set(prompts) == set(FINDINGS) == set(PRESENT)
    for given in prompts.values():
        assert given["present"]
        assert given["absent"]
        assert not any("{" in text for side in given.values() for text in side)


def test_simulated_files_say_synthetic_and_agree_with_each_other(tmp_path):
    report = simulate(tmp_path / "ph", volumes=4, val=2, test=3, size=24, spacing=14.0, readers=2, workers=1)
    assert "SYNTHETIC" in report.note
    manifest = Manifest.load(report.manifest)
    assert "generator" in manifest.meta["synthetic"]
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 4, "val": 2, "test": 3}
    assert not manifest.frame[manifest.frame.split == "train"]["held_out"].any()
    sentences = pd.DataFrame([json.loads(line) for line in (tmp_path / "ph" / "sentences.jsonl").open()])
    for i in range(len(manifest)):
        row = manifest.row(i)
        volume = canonical(read_volume(manifest.file(row["volume"])))
        labels = nibabel.as_closest_canonical(nibabel.load(manifest.file(row["labels"])))
        assert np.allclose(volume.affine, labels.affine)
        assert volume.data.shape == labels.shape
        texts = row_reports(row, manifest.folder)
        assert len(texts) == 2
        mine = sentences[sentences.id == row["id"]]
        assert all(s.text in texts[0] + texts[1] for s in mine.itertuples())
        assert set(mine[mine.present].finding) <= {f for f in FINDINGS if row[f.replace(" ", "_")] == 1}
    again = simulate(tmp_path / "again", volumes=4, val=2, test=3, size=24, spacing=14.0, readers=2, workers=1)
    assert Manifest.load(again.manifest).frame.equals(manifest.frame)


@pytest.mark.parametrize("wrong", [{"size": 8}, {"lesions": 0.0}, {"omissions": 1.5}])
def test_settings_out_of_bounds_are_named(wrong):
    with pytest.raises(ValueError, match=f"--phantom.{next(iter(wrong))}"):
        PhantomConfig(**wrong)
