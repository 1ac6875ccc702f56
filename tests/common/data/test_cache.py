"""The cache: one file per key, made once, whole or absent."""

import multiprocessing
import os
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


def test_many_keys_are_many_files(tmp_path):
    cache = Cache(tmp_path)
    paths = {cache.path({"rate": rate, "seed": seed}, ".npy") for rate in range(60) for seed in range(60)}
    assert len(paths) == 3600


def test_a_file_that_cannot_be_read_is_not_the_caches_fault(tmp_path):
    def missing(path):
        (tmp_path / "elsewhere" / "a.wav").read_bytes()

    def corrupt(path):
        raise OSError("cannot identify image file")  # as image readers say it, without a file name

    def full(path):
        raise OSError(28, "No space left on device")  # as a write says it

    cache = Cache(tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"a\.wav"):
        cache.get_or_make({"k": 1}, ".txt", missing)
    with pytest.raises(OSError, match="cannot identify image file"):
        cache.get_or_make({"k": 1}, ".txt", corrupt)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        cache.get_or_make({"k": 1}, ".txt", full)


def test_the_rest_of_a_killed_process_is_in_nobodys_way(tmp_path):
    cache = Cache(tmp_path)
    path = cache.path({"k": 1}, "")
    rest = path.with_name(f".{os.getpid()}-{path.name}")  # a later process may get the same number
    (rest / "half").mkdir(parents=True)

    def make(target):
        target.mkdir()
        (target / "x").write_text("1")

    assert [p.name for p in cache.get_or_make({"k": 1}, "", make).iterdir()] == ["x"]


def test_a_truncated_file_is_made_again(tmp_path):
    cache, calls = Cache(tmp_path), []

    def make(path):
        calls.append(path)
        path.write_text("four notes")

    path = cache.get_or_make({"k": 1}, ".txt", make)
    path.write_text("four")
    assert cache.get_or_make({"k": 1}, ".txt", make).read_text() == "four notes"
    cache.get_or_make({"k": 1}, ".txt", make)
    assert len(calls) == 2
