"""A manifest names files of its own folder; others only where an import on this machine, or the user, said so."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from counterpoint.common.cli.main import main
from counterpoint.common.data import Manifest
from counterpoint.common.data.places import Folder
from counterpoint.common.errors import InputError
from counterpoint.timeseries.commands import import_arrays


def signal(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=np.sin(np.arange(100.0)).reshape(50, 2), fs=50.0)
    return path


def check(capsys, manifest: Path) -> tuple[int, str]:
    code = main(["timeseries", "data", "check", str(manifest)])
    found = capsys.readouterr()
    return code, found.out + found.err


@pytest.mark.parametrize(
    "name", ["../secret.npz", "{0}/secret.npz", "link.npz", "sub/../../secret.npz", "links/secret.npz"]
)
def test_files_outside_are_refused_until_they_are_allowed(tmp_path, monkeypatch, capsys, name):
    signal(tmp_path / "secret.npz")
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.npz").symlink_to(tmp_path / "secret.npz")
    (folder / "links").symlink_to(tmp_path)
    name = name.format(tmp_path)
    (folder / "m.csv").write_text(f"id,file\na,{name}\n")
    with pytest.raises(InputError, match=f"leads out of the manifest's folder, to {tmp_path}; .*COUNTERPOINT_ALLOW="):
        Manifest.load(folder / "m.csv").file(name)
    code, told = check(capsys, folder / "m.csv")
    assert (code, f"set COUNTERPOINT_ALLOW={tmp_path}" in told) == (2, True)
    monkeypatch.setenv("COUNTERPOINT_ALLOW", f"some_module,{tmp_path}")
    assert check(capsys, folder / "m.csv")[0] == 0


NO_PATHS = ["file:///etc/passwd", "https://a.org/x.npz", " FILE:/etc/passwd", "", " ", "a\0b", None, 3.5]


@pytest.mark.parametrize("name", NO_PATHS)
def test_a_name_is_a_path(tmp_path, name):
    with pytest.raises(InputError, match="is a URL|names no file"):
        Folder(tmp_path) / name


def test_prefixes_of_folder_names_are_other_folders(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="leads out"):
        Folder(tmp_path / "data") / "../data2/r.npz"
    assert Folder(tmp_path / "data", (tmp_path / "data2",)) / "../data2/r.npz"


def test_an_import_records_where_it_left_the_files_and_a_copy_elsewhere_is_worth_nothing(tmp_path, capsys):
    signal(tmp_path / "db" / "r.npz")
    signal(tmp_path / "far" / "s.npz")
    (tmp_path / "db" / "s.npz").symlink_to(tmp_path / "far" / "s.npz")
    out = tmp_path / "mine"
    table = Manifest.load(import_arrays(tmp_path / "db", out).manifest)
    assert set(table.outside) == {tmp_path / "db", tmp_path / "far"}
    code, told = check(capsys, out / "manifest.parquet")
    assert (code, f"files of {tmp_path / 'db'} are read as well" in told) == (0, True)
    # An edited copy in the same folder reads the same files; saving again keeps what was recorded.
    table.frame.assign(label="a").to_csv(out / "edited.csv", index=False)
    assert check(capsys, out / "edited.csv")[0] == 0
    Manifest(table.frame.assign(group="a"), table.root).save(out / "manifest.parquet")
    assert check(capsys, out / "manifest.parquet")[0] == 0
    assert len(Manifest.load(out / "manifest.parquet").outside) == 2
    # Neither the folder sent to somebody else nor a record that its sender wrote opens anything.
    other = tmp_path / "sent"
    shutil.copytree(out, other)
    assert Manifest.load(other / "manifest.parquet").outside == ()
    side = other / "manifest.parquet.meta.json"
    side.write_text(json.dumps({"outside": {"at": str(out), "folders": ["/"]}}))
    code, told = check(capsys, other / "manifest.parquet")
    assert (code, "COUNTERPOINT_ALLOW" in told) == (2, True)


def test_a_table_of_this_program_names_what_it_likes_and_keeps_it_when_told(tmp_path):
    file = signal(tmp_path / "far" / "s.npz")
    rows = [{"id": "a", "file": str(file)}]
    assert Manifest.from_rows(rows).file(str(file)) == file
    folder = tmp_path / "m"
    saved = Manifest.from_rows(rows, folder, outside=[file.parent]).save(folder / "m.jsonl")
    assert Manifest.load(saved.path).file(str(file)) == file
    assert "outside" not in Manifest.load(saved.path).meta
    other = Manifest.from_rows(rows, tmp_path / "n").save(tmp_path / "n" / "m.jsonl")
    with pytest.raises(InputError, match="leads out"):
        Manifest.load(other.path).file(str(file))


def test_damaged_records_allow_nothing_and_break_nothing(tmp_path):
    (tmp_path / "m.csv").write_text("id\na\n")
    here = os.path.realpath(tmp_path)
    for fact in (3, {"at": here}, {"at": 3, "folders": 1}, {"at": here, "folders": [1, None]}):
        (tmp_path / "other.meta.json").write_text(json.dumps({"outside": fact}))
        assert Manifest.load(tmp_path / "m.csv").outside == ()
    for text in ("[1]", "{", "", "\0"):
        (tmp_path / "other.meta.json").write_text(text)
        assert Manifest.load(tmp_path / "m.csv").outside == ()
