"""A recording under another id in another split is found by its bytes."""

from __future__ import annotations

import os

import pytest

from counterpoint.common.data import Manifest
from counterpoint.common.data.copies import check_copies, copies_within
from counterpoint.common.errors import LeakageError


def table(folder, rows):
    return Manifest.from_rows(
        [{"id": f"r{i}", "file": f, "split": s, **more} for i, (f, s, more) in enumerate(rows)], folder
    )


@pytest.fixture
def files(tmp_path):
    for name, content in {"a.bin": b"abc", "copy.bin": b"abc", "b.bin": b"abd"}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_same_file_and_a_copy_of_it_are_found_with_both_rows(files):
    with pytest.raises(LeakageError, match=r"rows 1 \('r0', train\) and 3 \('r2', test\) name the same file"):
        check_copies(table(files, [("a.bin", "train", {}), ("b.bin", "train", {}), ("a.bin", "test", {})]))
    with pytest.raises(LeakageError, match=r"files of the same content \(copy.bin\)"):
        check_copies(table(files, [("a.bin", "train", {}), ("copy.bin", "test", {})]))


def test_other_content_one_split_and_parts_of_one_file_are_no_copies(files):
    check_copies(table(files, [("a.bin", "train", {}), ("b.bin", "test", {})]))
    check_copies(table(files, [("a.bin", "train", {}), ("copy.bin", "train", {}), ("copy.bin", "", {})]))
    check_copies(table(files, [("a.bin", "train", {"start": 0}), ("a.bin", "test", {"start": 5})]))
    check_copies(table(files, [("no file", "train", {}), ("no file", "test", {})]))


def test_copies_within_a_split_are_listed_together(files):
    (files / "more.bin").write_bytes(b"abc")
    rows = [("a.bin", "test", {}), ("b.bin", "test", {}), ("copy.bin", "test", {}), ("more.bin", "test", {})]
    assert copies_within(table(files, rows), "test") == [["r0", "r2", "r3"]]
    assert copies_within(table(files, rows), "train") == []
    parts = [("a.bin", "test", {"start": 0}), ("copy.bin", "test", {"start": 5})]
    assert copies_within(table(files, parts), "test") == []


def test_a_file_that_changed_is_read_again(files):

    rows = [("a.bin", "test", {}), ("b.bin", "test", {})]
    assert copies_within(table(files, rows), "test") == []
    (files / "b.bin").write_bytes(b"abc")
    os.utime(files / "b.bin", (1, 1))  # a clock of coarse steps may show no change
    assert copies_within(table(files, rows), "test") == [["r0", "r1"]]


def test_only_texts_that_may_name_files_are_looked_for(files, monkeypatch):
    """Not the SMILES of millions of molecules; whatever leads out of the folder, or into one of it, is."""
    asked, real = [], Manifest.file
    monkeypatch.setattr(Manifest, "file", lambda self, name: asked.append(name) or real(self, name))
    (files / "more").mkdir()
    (files / "more" / "\u00fc.bin").write_bytes(b"abc")
    names = ["more/\u00fc.bin", str(files / "a.bin"), f"../{files.name}/copy.bin", "./a.bin", "C" * 900, "CCO", "title"]
    found = copies_within(table(files, [(name, "test", {"smiles": "CC/C=C/C"}) for name in names]), "test")
    assert found == [["r0", "r1", "r2", "r3"]]
    assert not {"C" * 900, "CCO", "title"} & set(asked)
