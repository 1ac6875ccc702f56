"""`reproduce`: checks are listed, chosen by system, judged, stored, and written into a README."""

import json
from dataclasses import replace

import pytest

from counterpoint.common.cli import reproduce as module
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import sample_data
from counterpoint.common.vertical import SystemEntry, Vertical

RAN = []


def arm(data, arm, seed):
    RAN.append((arm, seed))
    return seed + (arm == "method")


def with_data(data, arm, seed):
    sample_data(data)
    return 0.0


CHECKS = {
    "toy-adds": (Claim("toy-adds", "adding one helps", "plain", "method", "score", effect=1.0), arm),
    "other-data": (Claim("other-data", "needs data", "plain", "method", "score"), with_data),
}
VERTICAL = Vertical(
    name="toys",
    package="toys",
    summary="toys",
    systems=(SystemEntry("toy", "ready", "nobody", "nothing", "nothing", "m:C", "m:S"),),
    checks="toys:CHECKS",
)


@pytest.fixture(autouse=True)
def resolved(monkeypatch):
    monkeypatch.setattr(module, "resolve", lambda target: CHECKS)
    monkeypatch.delenv("COUNTERPOINT_DATA", raising=False)
    RAN.clear()


def test_a_system_names_all_of_its_checks_and_finished_runs_stay(tmp_path):
    done = module.reproduce_run(VERTICAL, "toy", out=tmp_path, seeds=(0, 1, 2))
    assert done.figures["toy-adds"]["verdict"] == "holds"
    assert "other-data" not in done.figures
    assert len(RAN) == 6
    module.reproduce_run(VERTICAL, "toy-adds", out=tmp_path, seeds=(0, 1, 2))
    assert len(RAN) == 6
    assert json.loads((tmp_path / "toys" / "toy-adds.json").read_text())["improvement"]["value"] == 1.0


def test_a_page_without_a_place_for_the_table_is_told_before_anything_runs(tmp_path):
    (tmp_path / "README.md").write_text("# Toys\n")
    for page, said in (("README.md", "fidelity:begin"), ("none.md", "no such file")):
        with pytest.raises(InputError, match=said):
            module.reproduce_run(VERTICAL, "toy", out=tmp_path / "runs", seeds=(0, 1, 2), readme=tmp_path / page)
    assert not (tmp_path / "runs").exists()


def test_the_row_goes_into_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Toys\n<!-- fidelity:begin -->\n<!-- fidelity:end -->\n")
    module.reproduce_run(VERTICAL, "toy", out=tmp_path, seeds=(0, 1, 2), readme=readme)
    assert "| toy-adds | adding one helps |" in readme.read_text()


def test_a_plan_alone_runs_the_baseline_only(tmp_path):
    done = module.reproduce_run(VERTICAL, "toy", out=tmp_path, seeds=(0, 1, 2), plan=True)
    assert set(RAN) == {("plain", 0), ("plain", 1), ("plain", 2)}
    assert done.lines[0].startswith("plan of toy-adds: pilot of 'plain' alone over 3 seeds")
    assert done.figures["toy-adds"]["seeds"] > 3


def test_the_plan_stands_beside_the_verdict_and_in_the_record(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Toys\n<!-- fidelity:begin -->\n<!-- fidelity:end -->\n")
    done = module.reproduce_run(VERTICAL, "toy", out=tmp_path, seeds=(0, 1, 2), readme=readme)
    (record,) = json.loads((tmp_path / "fidelity.json").read_text())["checks"]
    stored = json.loads((tmp_path / "toys" / "toy-adds.json").read_text())
    assert done.lines[0] == f"plan of toy-adds: {record['plan']}"
    assert stored["plan"]["sentence"] == record["plan"]
    assert record["power"]["pilot"]["seeds"] == 3
    assert module.reproduce_run(VERTICAL, "table", readme=readme).figures == {"checks": 1, "stale": []}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="unknown check 'toyy'; did you mean 'toy'"):
        module.reproduce_run(VERTICAL, "toyy", out=tmp_path)
    bare = replace(VERTICAL, systems=(SystemEntry("bare", "ready", "nobody", "nothing", "nothing", "m:C", "m:S"),))
    with pytest.raises(InputError, match="bare: no claim about this system has a check"):
        module.reproduce_run(bare, "bare", out=tmp_path)
    with pytest.raises(InputError, match="set COUNTERPOINT_DATA or give --data"):
        module.reproduce_run(VERTICAL, "other", out=tmp_path)
    for seeds in ((), (0, 0, 1)):
        with pytest.raises(InputError, match="--seeds: give different seeds"):
            module.reproduce_run(VERTICAL, "toy", out=tmp_path, seeds=seeds)
    with pytest.raises(InputError, match="name the file whose table"):
        module.reproduce_run(VERTICAL, "table")
    with pytest.raises(InputError, match="no such folder"):
        module.reproduce_run(VERTICAL, "toy", out=tmp_path, data=tmp_path / "gone")


def test_list_says_what_would_be_checked():
    assert module.reproduce_run(VERTICAL, "list").lines[0].startswith("toy-adds: adding one helps")
