"""What the tables say of the past is true of the code as it is: rows older than their code are marked, none is lost."""

import importlib
import json
from pathlib import Path

import pytest

from counterpoint.common.cli.listings import list_systems
from counterpoint.common.discover import find_verticals
from counterpoint.common.fidelity import FILE, fidelity_rows, read_records
from counterpoint.common.lazy import resolve
from counterpoint.common.sources import code_hash

ROOT = Path(__file__).resolve().parents[1]
VERTICALS = [v for v in (load() for load in find_verticals().values()) if v.package.startswith("counterpoint.")]
CHECKED = [v for v in VERTICALS if v.checks is not None and (ROOT / v.package.split(".")[1] / FILE).is_file()]


def folder(vertical):
    return ROOT / vertical.package.split(".")[1]


@pytest.mark.parametrize("vertical", CHECKED, ids=lambda v: v.name)
def test_the_table_is_that_of_the_records_and_marks_what_is_older_than_its_code(vertical):
    readme = folder(vertical) / "README.md"
    text = readme.read_text(encoding="utf-8")
    shown = text.split("<!-- fidelity:begin -->\n")[1].split("\n<!-- fidelity:end -->")[0]
    again = f"counterpoint {vertical.name} reproduce table --readme {readme.relative_to(ROOT)}"
    assert shown.splitlines() == fidelity_rows(read_records(folder(vertical) / FILE)), f"run: {again}"


@pytest.mark.parametrize("vertical", CHECKED, ids=lambda v: v.name)
def test_records_name_checks_that_exist_and_claims_as_they_are_now(vertical):
    from counterpoint.common.trainers.reproduce import code_of

    checks = resolve(vertical.checks)
    for record in read_records(folder(vertical) / FILE):
        assert record.check in checks, f"{record.check}: remove its record, or bring the check back"
        claim, run = checks[record.check]
        assert record.rests_on == code_of(run)
        if not record.stale:
            assert (record.claim, record.metric, record.source) == (claim.statement, claim.metric, claim.source)
            assert record.commit


@pytest.mark.parametrize("vertical", VERTICALS, ids=lambda v: v.name)
def test_every_check_says_how_large_its_claimed_effect_is(vertical):
    if vertical.checks is None:
        pytest.skip("no checks")
    for claim, run in resolve(vertical.checks).values():
        assert claim.size > 0 or not claim.source, f"{claim.name}: give the claim an effect"
        module = importlib.import_module(run.func.__module__ if hasattr(run, "func") else run.__module__)
        assert module.__name__.startswith("counterpoint.")


@pytest.mark.parametrize("vertical", VERTICALS, ids=lambda v: v.name)
def test_an_experimental_system_says_what_it_lacks(vertical):
    for row in list_systems(vertical):
        assert (row["status"] == "ready") == (not row["missing"])
        assert "not stated" not in row["missing"], f"{row['name']}: its entry names no missing criterion"
        assert row["verdict"]


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a script of `benchmarks`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_every_page_of_measurements_names_its_commit_and_says_whether_it_is_older_than_its_code(benchmark):
    stamp = benchmark("stamp")
    pages = {file.stem for file in (ROOT / "benchmarks").glob("*.md")}
    assert pages == {*stamp.RESTS_ON, "objectives"}
    for page in stamp.RESTS_ON:
        shown = (ROOT / "benchmarks" / f"{page}.md").read_text(encoding="utf-8")
        assert shown == stamp.stamped(page), "run: python benchmarks/stamp.py"


def test_the_page_of_objectives_is_that_of_its_records(benchmark):
    objectives = benchmark("objectives")
    shown = objectives.PAGE.read_text(encoding="utf-8")
    assert shown == objectives.page(objectives.read()), "run: python benchmarks/objectives.py --tasks none"
    for row in objectives.read():
        assert row["commit"]
        assert len(row["values"]) == row["seeds"]


def test_a_page_is_stale_once_its_code_has_changed(benchmark, tmp_path, monkeypatch):
    stamp = benchmark("stamp")
    monkeypatch.setattr(stamp, "STAMPS", tmp_path / "stamps.json")
    for code, stale in ((stamp.hashed("manifest"), False), ("0" * 12, True)):
        stamp.STAMPS.write_text(json.dumps({"manifest": {"commit": "abc1234", "code": code}}))
        assert ("(stale: " in stamp.line("manifest")) == stale


def test_hashes_do_not_depend_on_where_the_code_lies():
    assert len(code_hash("counterpoint.timeseries.checks:comet_labels")) == 12
