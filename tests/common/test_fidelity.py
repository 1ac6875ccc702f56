"""The record of checks: tables that keep what they do not know, and rows older than their code that say so."""

import json
from dataclasses import replace

import pytest

from counterpoint.common.errors import InputError
from counterpoint.common.fidelity import read_records, records_of, standing, system_of_check, write_table
from counterpoint.common.sources import code_hash
from counterpoint.common.trainers.reproduce import Claim, judge

HERE = "counterpoint.common.fidelity:system_of_check"


def record(name="ssl-helps", method=(0.4, 0.5, 0.6), **changes):
    claim = Claim(name, "says | things", "scratch", "ssl", "R@10", data="synthetic", source="paper")
    return judge(claim, range(3), [0.1, 0.2, 0.3], list(method)).record(HERE)


@pytest.fixture
def readme(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# Audio\n\n<!-- fidelity:begin -->\n<!-- fidelity:end -->\n\nEnd | of text\n")
    return file


def test_table_replaces_its_rows_keeps_others_and_the_text_around(readme):
    write_table(readme, [record(), record("bar", (0.1, 0.3, 0.2))])
    once = readme.read_text()
    assert once.startswith("# Audio\n\n<!-- fidelity:begin -->\n| check |")
    assert once.endswith("<!-- fidelity:end -->\n\nEnd | of text\n")
    assert "**holds**" in once
    assert "**undecided: needs " in once
    write_table(readme, [record(method=(-0.2, -0.1, 0.0))])
    twice = readme.read_text()
    assert twice.count("ssl-helps") == 1
    assert "**does not hold**" in twice
    assert "says \\| things" in twice
    write_table(readme)
    assert readme.read_text() == twice


def test_a_row_older_than_its_code_says_so(readme):
    write_table(readme, [record()])
    assert "(stale)" not in readme.read_text()
    file = readme.with_name("fidelity.json")
    kept = json.loads(file.read_text())
    for change in ({"code": "0" * 12}, {"code": ""}, {"rests_on": "counterpoint.common.fidelity:gone"}):
        file.write_text(json.dumps({"checks": [{**kept["checks"][0], **change}]}))
        write_table(readme)
        assert "(stale) |" in readme.read_text(), change


def test_the_record_reads_back_as_it_was_written(readme):
    made = record()
    write_table(readme, [made])
    (found,) = read_records(readme.with_name("fidelity.json"))
    assert found == made
    assert (found.code, found.powered, found.verdict) == (code_hash(HERE), True, "holds")


def test_mistakes_are_named(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(InputError, match="fidelity:begin"):
        write_table(tmp_path / "README.md", [])
    (tmp_path / "fidelity.json").write_text('{"checks": [{"check": "x"}]}')
    with pytest.raises(InputError, match="not a record of checks"):
        read_records(tmp_path / "fidelity.json")
    assert records_of("no_such_package.at_all") == []


def test_a_check_belongs_to_the_longest_name_that_begins_it():
    assert system_of_check("kcl-bbbp", ["kcl", "graphcl"]) == "kcl"
    assert system_of_check("graph-x", ["graphcl"]) == ""


def test_a_system_is_ready_after_a_check_with_power_whatever_it_found():
    fails, undecided = record(method=(-0.2, -0.1, 0.0)), record("open", (0.1, 0.3, 0.2))
    assert (fails.verdict, undecided.powered) == ("does not hold", False)
    ready = standing("ready", "", [fails, undecided])
    assert (ready.status, ready.missing) == ("ready", "")
    assert ready.verdict == f"does not hold; {undecided.verdict}"
    assert standing("ready", "", [undecided]).missing == "4: no check of a claim was run with power"


def test_what_does_not_count_for_ready():
    held = record()
    stale = replace(held, code="0" * 12)
    assert standing("ready", "", [stale]).missing == "4: no check of a claim was run with power on the code as it is"
    assert standing("ready", "", [stale]).verdict == "holds (stale)"
    assert standing("ready", "", [replace(held, source="")]).verdict == "not checked", "no paper claims it"
    ours = standing("experimental", "2: the encoder is ours", [held])
    assert (ours.status, ours.missing, ours.verdict) == ("experimental", "2: the encoder is ours", "holds")
    assert standing("ready", "", [held, replace(held, check="b")]).verdict == "holds (2 checks)"
