"""Whatever a parser does to its process, it costs one item; the others come back in order."""

import sys
from pathlib import Path

import pytest

from counterpoint.common.data.isolation import Isolated, isolated_map
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected

sys.path.insert(0, str(Path(__file__).parent))
import parsers

WORDS = ["one", "abort", "two", "segmentation fault", "division", "three", "exit", "unforeseen", "refused", "missing"]


@pytest.mark.parametrize(("workers", "chunk"), [(1, 1), (2, 1), (1, 4), (2, 100)])
def test_a_crash_costs_its_own_item(workers, chunk):
    found = list(isolated_map(parsers.parse, WORDS, workers=workers, chunk=chunk))
    assert [word for word, _ in found] == WORDS
    good = {word: result for word, result in found if not isinstance(result, Rejected)}
    assert good == {"one": "ONE", "two": "TWO", "three": "THREE"}
    reasons = {result.source: result.reason for _, result in found if isinstance(result, Rejected)}
    assert reasons["refused"] == "no notes in it"
    assert reasons["missing"] == "nowhere.mid: no such file or directory"
    for word, part in {"abort": "(SIGABRT)", "segmentation fault": "(SIGSEGV)", "division": "(SIGFPE)"}.items():
        assert part in reasons[word]
    assert "(exit code 3)" in reasons["exit"]
    assert "ZeroDivisionError: division by zero" in reasons["unforeseen"]


def test_time_and_memory_are_limited():
    ((_, hang),) = isolated_map(parsers.parse, ["hang"], timeout=1)
    assert "its reader was ended" in hang.reason  # in its own words, or, where the machine is busy, in ours
    found = dict(isolated_map(parsers.parse, ["memory", "one"], memory=256 << 20))
    assert "needs more than 256 MB" in found["memory"].reason
    assert found["one"] == "ONE"


def test_a_worker_is_where_its_caller_is_and_is_kept(tmp_path, monkeypatch):
    ((_, (_, _, first)),) = isolated_map(parsers.where, [0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLD_TO_THE_WORKER", "yes")
    ((_, (folder, told, again)),) = isolated_map(parsers.where, [0])
    assert (Path(folder), told) == (tmp_path, "yes")
    assert again == first


def test_a_worker_that_was_ended_while_idle_is_replaced():
    import os
    import signal

    ((_, (_, _, first)),) = isolated_map(parsers.where, [0])
    os.kill(first, signal.SIGKILL)
    ((_, (_, _, second)),) = isolated_map(parsers.where, [0])
    assert second != first


def test_a_missing_library_is_no_fault_of_the_file():
    with pytest.raises(ModuleNotFoundError, match="a_library_nobody_has"):
        list(isolated_map(parsers.parse, ["library"]))


def test_warnings_of_a_reader_reach_the_caller():
    with pytest.warns(UserWarning, match="half of it is empty"):
        list(isolated_map(parsers.parse, ["warning"]))


def test_one_call_raises_the_reason():
    with Isolated() as workers:
        assert workers.call(parsers.parse, "one") == "ONE"
        with pytest.raises(InputError, match="no notes in it"):
            workers.call(parsers.parse, "refused")
        with pytest.raises(InputError, match="SIGABRT"):
            workers.call(parsers.parse, "abort")


def test_giving_up_ends_what_hangs():
    answers = isolated_map(parsers.parse, ["one", "hang", "hang", "hang"], workers=2)
    next(answers)
    answers.close()  # returns: else the test's own time limit would tell
