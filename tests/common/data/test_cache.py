"""The cache: one file per key, made once, whole or absent."""

import multiprocessing
import time

import pytest

from counterpoint.common.data import Cache
from counterpoint.common.errors import InputError


def test_a_changed_parameter_is_a_new_file(tmp_path):
    cache = Cache(tmp_path)
    a = cache.get_or_make({"rate": 8000, "b": [1, 2]}, ".txt", lambda p: p.write_text("a"))
    same = cache.get_or_make({"b": [1, 2], "rate": 8000}, ".txt", lambda p: p.write_text("never called"))
    other = cache.get_or_make({"rate": 8001, "b": [1, 2]}, ".txt", lambda p: p.write_text("c"))
    assert a == same != other
    assert (a.read_text(), other.read_text()) == ("a", "c")


def test_a_failed_make_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)

    def half(path):
        path.write_text("half")
        raise RuntimeError("synthesis failed")

    with pytest.raises(RuntimeError, match="synthesis failed"):
        cache.get_or_make({"k": 1}, ".txt", half)
    assert not cache.path({"k": 1}, ".txt").exists()
    assert [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.endswith(".lock")] == []
    assert cache.get_or_make({"k": 1}, ".txt", lambda p: p.write_text("whole")).read_text() == "whole"


def test_folders_can_be_cached(tmp_path):
    def make(path):
        path.mkdir()
        (path / "x").write_text("1")

    assert (Cache(tmp_path).get_or_make({"k": 2}, "", make) / "x").read_text() == "1"


def _make(root, log):
    def make(path):
        with log.open("a") as handle:
            handle.write("made\n")
        time.sleep(0.2)
        path.write_text("whole")

    assert Cache(root).get_or_make({"k": 3}, ".txt", make).read_text() == "whole"


def test_two_processes_make_it_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_make, args=(tmp_path / "cache", log)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [c.exitcode for c in children] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_an_unusable_root_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="the cache cannot be written .*set COUNTERPOINT_CACHE"):
        Cache().get_or_make({"k": 1}, ".txt", lambda p: p.write_text(""))
