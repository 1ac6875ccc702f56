"""Synthetic radiographs: the law of attenuation, how they hang, what they show, and what their reports may say."""

import json

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.data.places import Folder
from counterpoint.common.metrics.classification import auroc
from counterpoint.medical.commands import simulate
from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import make_case
from counterpoint.medical.phantom_report import PROJECTED, write_report
from counterpoint.medical.projection import PHOTONS, WATER, WHITE, attenuation, project_body
from counterpoint.medical.reading import check_row

SMALL = PhantomConfig(size=24, spacing=14.0)
OTHERS = ("steatosis", "liver", "hepatic", "cyst", "spleen", "CT")


def test_layers_attenuate_by_the_sum_of_their_lengths_and_air_by_nothing():
    hu = np.full((3, 40, 3), -1000.0)
    hu[:, :10], hu[:, 10:15] = 0.0, 1000.0
    assert np.allclose(attenuation(hu, 2.0), WATER * (10 + 2 * 5) * 2)
    assert np.array_equal(attenuation(np.full((2, 5, 2), -1024.0), 1.0), np.zeros((2, 2)))


def test_the_patients_right_hangs_on_the_left_and_the_head_above():
    hu = np.full((4, 5, 6), -1000.0)
    hu[0, 2, 5] = 0.0  # rightmost, at the head
    assert np.argwhere(attenuation(hu, 1.0)).tolist() == [[0, 0]]


def test_noise_is_that_of_counted_photons():
    p = WATER * 100 * 1.0
    grey = project_body(np.zeros((100, 100, 100)), 1.0, np.random.default_rng(0))
    assert grey.mean() == pytest.approx(p / WHITE, rel=1e-3)
    assert WHITE * grey.std() == pytest.approx(1 / np.sqrt(PHOTONS * np.exp(-p)), rel=0.05)


def test_a_large_heart_casts_its_shadow_beyond_the_left_border_of_a_normal_one():
    # That lies 66 mm to the left of the middle, 38 mm above it; an enlarged one reaches to 80 mm and more.
    cases = [make_case(seed, SMALL) for seed in range(60)]
    shadow = np.array([attenuation(case.volume, SMALL.spacing)[8:10, 17].mean() for case in cases])
    assert auroc(shadow, np.array([case.findings["cardiomegaly"] for case in cases])) > 0.75


def test_reports_speak_of_what_a_radiograph_shows():
    for seed in range(40):
        text, said = write_report(make_case(seed, SMALL), seed, SMALL, radiograph=True)
        assert text.startswith("Technique: Frontal radiograph.")
        assert not any(word in text for word in OTHERS)
        assert {s.finding for s in said} <= {*PROJECTED, ""}


def test_what_is_written_is_read_and_says_synthetic(tmp_path):
    size = {"size": 24, "spacing": 14.0, "workers": 1}
    report = simulate(tmp_path / "a", 4, 2, 2, readers=2, kind="radiographs", **size)
    again = simulate(tmp_path / "b", 4, 2, 2, readers=2, kind="radiographs", **size)
    assert "SYNTHETIC" in report.note
    frame = pd.read_parquet(report.manifest)
    assert frame.equals(pd.read_parquet(again.manifest))
    for row in frame.to_dict("records"):
        assert check_row(row, Folder(tmp_path / "a")) == []
        assert (tmp_path / "a" / row["image"]).read_bytes() == (tmp_path / "b" / row["image"]).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "a" / "sentences.jsonl").read_text().splitlines()]
    assert {line["report"] for line in lines} == {name for files in frame["reports"] for name in files.split("|")}
    assert "fatty_liver" not in frame


def test_the_patients_are_those_of_the_volumes(tmp_path):
    size = {"size": 24, "spacing": 14.0, "workers": 1}
    flat = pd.read_parquet(simulate(tmp_path / "a", 3, 2, 2, kind="radiographs", **size).manifest)
    deep = pd.read_parquet(simulate(tmp_path / "b", 3, 2, 2, **size).manifest)
    columns = ["id", *(name.replace(" ", "_") for name in PROJECTED), "lung_nodule_side"]
    assert flat[columns].equals(deep[columns])
