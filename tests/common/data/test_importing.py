"""Files found without being opened, ids that stay inside their folder, archives measured before they are expanded."""

import gzip
import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.data.archives import check_zip, read_gzip
from counterpoint.common.data.importing import find_files, name_files, read_files, require_file
from counterpoint.common.data.names import LONGEST, file_name
from counterpoint.common.errors import InputError


def test_kinds_that_the_field_keeps_compressed_are_taken_as_they_are(tmp_path):
    for name in ("a.nii", "a.nii.gz", "b.nii.gz", "c.edf.gz", "d.nii.bz2"):
        (tmp_path / name).write_bytes(b"x")
    found = find_files(tmp_path, (".nii",), gzipped=(".nii",))
    assert [f.name for f in found.files] == ["a.nii", "a.nii.gz", "b.nii.gz"]
    assert [Path(r.source).name for r in found.rejected] == ["d.nii.bz2"]
    assert list(name_files(found.files, tmp_path, (".nii",)).values()) == ["a-nii", "a-nii-gz", "b"]


def test_what_only_looks_like_a_file_is_listed_and_never_opened(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.csv", "a.CSV", "deep/c.csv", "other.txt", ".hidden.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "gone.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "good.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)  # a circle of folders
    os.mkfifo(tmp_path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        place = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{place}/sock.csv")
        os.close(place)
        (tmp_path / "folder.csv").mkdir()
        found = find_files(tmp_path, (".csv",))
    assert [f.relative_to(tmp_path).as_posix() for f in found.files] == ["a.CSV", "b.csv", "deep/c.csv", "good.csv"]
    reasons = {Path(r.source).name: r.reason for r in found.rejected}
    assert reasons.keys() == {"dangling.csv", "folder.csv", "loop.csv", "pipe.csv", "sock.csv"}
    assert "leads nowhere" in reasons["dangling.csv"]
    assert "named pipe" in reasons["pipe.csv"]
    assert "socket" in reasons["sock.csv"]
    with pytest.raises(InputError, match=r"pipe.csv: is a named pipe, not a file"):
        find_files(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe.csv: is a named pipe, not a file"):
        require_file(tmp_path / "pipe.csv")


def test_files_that_may_not_be_read_are_listed(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.csv").write_text("x")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "a.csv" and allowed(path, mode))
    found = find_files(tmp_path, (".csv",))
    assert [f.name for f in found.files] == ["b.csv"]
    assert "permission denied" in found.rejected[0].reason


def test_a_file_is_named_with_or_without_suffix_and_nothing_is_an_error(tmp_path):
    (tmp_path / "r.hea").write_text("x")
    assert find_files(tmp_path / "r", (".hea",)).files == [tmp_path / "r.hea"]
    with pytest.raises(InputError, match="no such file or folder"):
        find_files(tmp_path / "s", (".hea",))
    with pytest.raises(InputError, match=r"no \.edf file in it"):
        find_files(tmp_path, (".edf",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        find_files(tmp_path / "empty")


@pytest.mark.parametrize(
    ("suffix", "program"),
    [(".gz", "gunzip"), (".GZ", "gunzip"), (".bz2", "bunzip2"), (".xz", "unxz"), (".zst", "unzstd"), (".zip", "unzip"),
     (".7z", "7z x")],
)  # fmt: skip
def test_compressed_files_are_listed_with_what_unpacks_them(tmp_path, suffix, program):
    bad = tmp_path / f"b.edf{suffix}"
    for path in (tmp_path / "a.edf", bad, tmp_path / f"c.csv{suffix}"):
        path.write_bytes(b"x")
    found = find_files(tmp_path, (".edf",))
    assert [f.name for f in found.files] == ["a.edf"]
    assert [(r.source, r.reason.endswith(f"unpack it first ({program})")) for r in found.rejected] == [(str(bad), True)]
    every = find_files(tmp_path, folders=(".edf",))  # the caller judges other kinds itself
    assert [f.name for f in every.files] == ["a.edf", f"c.csv{suffix}"]
    with pytest.raises(InputError, match=rf"b\.edf{suffix}: is .*, unpack it first \({program}\)"):
        find_files(bad, (".edf",))
    with pytest.raises(InputError, match=rf"b\.edf{suffix}: is .*, unpack it first \({program}\)"):
        require_file(bad, (".edf",))


def test_a_folder_that_holds_archives_only_is_told_to_unpack_them(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no \.edf file in it; set.tar.gz is an archive, unpack it first \(tar -xf\)"):
        find_files(tmp_path, (".edf",))


def test_a_named_file_is_of_the_named_format(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    for find in (find_files, require_file):
        with pytest.raises(InputError, match=r"a\.csv: is no \.edf or \.bdf file"):
            find(tmp_path / "a.csv", (".edf", ".bdf"))


def _refuse(file):
    raise InputError(f"{file.name}: not a table")


def test_what_is_compressed_under_another_name_is_said(tmp_path):
    rejected = []
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"1,2"))
    (tmp_path / "b.csv").write_bytes(b"1,2")
    assert list(read_files(_refuse, [tmp_path / "a.csv", tmp_path / "b.csv"], rejected)) == []
    assert "compressed although its name does not say so; add .gz to its name and unpack" in rejected[0].reason
    assert rejected[1].reason == "not a table"


def test_names_are_unique_whatever_the_order(tmp_path):
    files = [tmp_path / name for name in ("a/b.hea", "a-b.hea", "r.csv", "r.npz", "s.csv")]
    names = name_files(files, tmp_path)
    assert names == name_files(files[::-1], tmp_path)
    assert list(names.values()) == ["a/b.hea", "a-b.hea", "r-csv", "r-npz", "s"]


@pytest.mark.parametrize("name", ["bwv66.6", "p1 day 2", "Übung_3", "a-b+c=(1),[2]@x", "0", "x" * LONGEST])
def test_plain_ids_name_their_files(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "a/b", "a\\b", "C:x", "nul", "COM1.txt", ".", "..", "", ".x", "x.", "x ", "a\0b", "a\n",
     "x" * 400, "é" * 200, "\ud800", "a?b", "50%", "x~y"],
)  # fmt: skip
def test_an_id_never_leads_out_of_its_folder(tmp_path, name):
    target = tmp_path / f"{file_name(name)}.png"
    target.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [target.name]
    assert file_name(name) != name


@given(st.lists(st.text(st.characters(), max_size=8) | st.text("./%~ab", max_size=150), unique=True, max_size=20))
def test_two_ids_never_share_a_file(names):
    written = [file_name(name) for name in names]
    assert len(set(written)) == len(names)
    # Nor with an id that is another's file name.
    assert len({file_name(name) for name in {*names, *written}}) == len({*names, *written})


def test_archives_are_measured_first(tmp_path):
    bomb, good = tmp_path / "bomb.npz", tmp_path / "good.npz"
    np.savez_compressed(bomb, x=np.zeros(4 << 20, np.uint8))
    np.savez_compressed(good, x=np.arange(1000))
    check_zip(good, limit=1 << 20, whole=True)
    with pytest.raises(InputError, match=r"bomb.npz: expands from [\d,]+ to at least 4,194,[\d,]+ bytes"):
        check_zip(bomb, limit=1 << 20)
    check_zip(bomb, limit=8 << 20)
    good.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(InputError, match="is no whole archive"):
        check_zip(good)
    with zipfile.ZipFile(tmp_path / "out.mxl", "w") as archive:
        archive.writestr("../../outside", b"x")
    with pytest.raises(InputError, match="leads out of the archive"):
        check_zip(tmp_path / "out.mxl")


def test_a_damaged_member_is_found_before_a_native_reader_meets_it(tmp_path):
    path, content = tmp_path / "a.mxl", io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.xml", b"<score>" + bytes(range(256)) * 40)
    data = bytearray(content.getvalue())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="is no whole archive"):
        check_zip(path, whole=True)


def test_gzip_is_bounded(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    assert len(read_gzip(tmp_path / "a.gz")) == 4 << 20
    with pytest.raises(InputError, match="expands from"):
        read_gzip(tmp_path / "a.gz", limit=1 << 20)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1000))[:-6])
    with pytest.raises(InputError, match="no whole gzip"):
        read_gzip(tmp_path / "a.gz")
