"""The demo and the reduced check at tiny size, from the first file to the page."""

import json
import re
from functools import partial

import pytest

from counterpoint.audio_speech.checks import AUDIO_SHEET, audio_sheet_arm
from counterpoint.audio_speech.commands import demo
from counterpoint.common.trainers.reproduce import reproduce


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_ends_with_figures_and_a_page_to_look_at_and_listen_to(tmp_path, small_data, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    done = demo(tmp_path / "run", pieces=12, steps=1, workers=1)
    text = "\n".join(done.lines)
    for word in ("Synthetic audio", "R@25", "chance", "piece, audio -> sheet", "unseen timbre"):
        assert word in text
    page = done.files["report"].read_text(encoding="utf-8")
    assert page.count("<audio") >= 12
    assert len(re.findall("data:image/png", page)) > 40
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = json.loads(done.files["figures"].read_text(encoding="utf-8"))
    assert figures["parameters"] == {"sheet": 83_884, "audio": 83_884}
    again = demo(tmp_path / "run", pieces=12, steps=1, workers=1)
    assert again.figures["results"] == done.figures["results"], "the same seed gives the same figures"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_reduced_check_runs_both_arms_on_the_same_pairs(tmp_path, small_data):
    changes = {
        "channels": [4, 4, 8, 8], "data.pieces": 12, "data.cache": small_data.cache, "data.workers": 1,
        "data.test_snippets": 24, "train.batch_size": 8, "sheet_stage.batch_size": 8, "audio_stage.batch_size": 8,
        "train.tensorboard": False, "cca_pairs": 64,
    }  # fmt: skip
    arm = partial(audio_sheet_arm, None, unimodal_steps=1, align_steps=1, changes=changes, out=tmp_path)
    verdict = reproduce(AUDIO_SHEET, arm, seeds=(0,), out=tmp_path)
    assert verdict.verdict.startswith("undecided"), "one seed decides nothing"
    assert verdict.claim is AUDIO_SHEET
    runs = [json.loads(line) for line in (tmp_path / f"{AUDIO_SHEET.name}.runs.jsonl").read_text().splitlines()]
    assert {r["arm"] for r in runs} == {"from scratch", "pretrained"}
    stages = [
        list(json.loads((tmp_path / f"{arm}-0" / "environment.json").read_text())["data"])
        for arm in ("from-scratch", "pretrained")
    ]
    assert stages == [["align"], ["sheet", "audio", "align"]]
    recorded = json.loads((tmp_path / "pretrained-0" / "environment.json").read_text())["data"]
    assert recorded["align"]["train"]["samples"] < 0.11 * recorded["sheet"]["train"]["samples"] + 1
