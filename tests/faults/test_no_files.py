"""What only looks like a file is listed, or refused where it is the only one, by every importer; none is opened."""

import os
import socket
import sys
from pathlib import Path

import pytest

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve

sys.path.insert(0, str(Path(__file__).parent))
from ways import OPTIONS, READERS, ROWS

FIRST = {r.way.split(" data import ")[1]: r for r in reversed(READERS) if " data import " in r.way}


def link(path):
    path.symlink_to("nowhere")


def listener(path):
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


KINDS = {"a link that leads nowhere": link, "a named pipe": os.mkfifo, "a folder": Path.mkdir, "a socket": listener}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("importer", [i for load in find_verticals().values() for i in load().importers],
                         ids=lambda importer: importer.name)  # fmt: skip
def test_what_is_no_file_is_said(tmp_path, monkeypatch, importer, kind):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    reader, folder = FIRST[importer.name], tmp_path / "in"
    folder.mkdir()
    reader.make(folder / reader.file)
    run, options = resolve(importer.run), OPTIONS.get(importer.name, {})
    if importer.name in ("molecules", "ucr", "kaldi", "ptbxl"):  # take one file, or the files of one set
        bad = folder / reader.file
        bad.unlink()
        KINDS[kind](bad)
        with pytest.raises(InputError, match=f"{bad.name}: is {kind}"):
            run(bad if importer.name == "molecules" else folder, tmp_path / "out", **options)
        return
    bad = folder / f"bad{Path(reader.file).suffix}"
    KINDS[kind](bad)
    report = run(folder, tmp_path / "out", **options)
    assert report.rows == ROWS.get(importer.name, 1)
    assert [(Path(r.source).name, r.reason.startswith(f"is {kind}")) for r in report.rejected] == [(bad.name, True)]


@pytest.mark.parametrize("kind", ["a link that leads nowhere", "a named pipe"])
def test_parasitics_that_are_no_file_cost_their_netlist(tmp_path, kind):
    reader = FIRST["circuits"]
    reader.make(tmp_path / "c.sp")
    KINDS[kind](tmp_path / "c.spef")
    run = resolve("counterpoint.graphs.commands:import_circuits")
    with pytest.raises(InputError, match=f"c.spef: is {kind}"):
        run(tmp_path / "c.sp", tmp_path / "out")
