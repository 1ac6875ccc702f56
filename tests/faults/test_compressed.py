"""Every importer names compressed files with what unpacks them; a named format must be that format."""

import gzip
import sys
from pathlib import Path

import pytest

from counterpoint.common.data import Manifest
from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.graphs.nodes.reader import read_graph
from counterpoint.timeseries.readers.dispatch import read_record

sys.path.insert(0, str(Path(__file__).parent))
from ways import OPTIONS, READERS, ROWS

FIRST = {r.way.split(" data import ")[1]: r for r in reversed(READERS) if " data import " in r.way}
IMPORTERS = {i.name: resolve(i.run) for load in find_verticals().values() for i in load().importers}


def pressed(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return packed


@pytest.mark.parametrize("importer", IMPORTERS)
def test_compressed_files_are_told_apart_or_read(tmp_path, monkeypatch, importer):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    reader, folder = FIRST[importer], tmp_path / "in"
    folder.mkdir()
    reader.make(folder / reader.file)
    run, options = IMPORTERS[importer], OPTIONS.get(importer, {})
    if importer == "molecules":  # which reads them
        assert run(pressed(folder / reader.file), tmp_path / "out", **options).rows == 3
        return
    if importer == "nifti":  # which the field keeps compressed
        assert run(pressed(folder / reader.file), tmp_path / "out", **options).rows == 1
        return
    if importer in ("ucr", "kaldi", "ptbxl"):
        packed = pressed(folder / reader.file)
        with pytest.raises(InputError, match=rf"{packed.name}: is compressed, unpack it first \(gunzip\)"):
            run(folder, tmp_path / "out", **options)
        return
    bad = folder / f"bad{Path(reader.file).suffix}"
    if importer == "hetero":  # whose files are parts of one graph
        bad.write_bytes((folder / reader.file).read_bytes())
    else:
        reader.make(bad)
    packed = pressed(bad)
    report = run(folder, tmp_path / "out", **options)
    assert report.rows == ROWS.get(importer, 1)
    assert [(r.source, r.reason) for r in report.rejected] == [(str(packed), "is compressed, unpack it first (gunzip)")]


def test_what_belongs_to_a_file_is_named_where_it_is_compressed(tmp_path):
    FIRST["circuits"].make(tmp_path / "c.sp")
    (tmp_path / "c.spef.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"c.spef.gz: is compressed, unpack it first"):
        IMPORTERS["circuits"](tmp_path, tmp_path / "out")
    FIRST["wfdb"].make(tmp_path / "r.hea")
    pressed(tmp_path / "r.dat")
    with pytest.raises(InputError, match=r"r.dat.gz: is compressed, unpack it first \(gunzip\); r.hea names r.dat"):
        read_record(tmp_path / "r.hea")


@pytest.mark.parametrize("read", [read_record, read_graph, Manifest.load])
def test_a_single_file_is_named_where_it_is_compressed(tmp_path, read):
    (tmp_path / "a.npz.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a.npz.gz: is compressed, unpack it first \(gunzip\)$"):
        read(tmp_path / "a.npz.gz")


@pytest.mark.parametrize(
    ("importer", "file", "said"),
    [
        ("edf", "a.csv", r"is no .edf or .bdf file; import it with `data import arrays`"),
        ("arrays", "r.edf", r"is no .csv or .parquet or .npy or .npz file; import it with `data import edf`"),
        ("wfdb", "r.dat", r"is the signal file of a record; name its header, r.hea"),
        ("ucr", "r.edf", r"is no .ts or .arff or .txt or .tsv file"),
        ("circuits", "a.csv", r"is no .sp or .spice or .*file"),
        ("molecules", "r.edf", r"is no file of molecules by its name; give .csv, .*.gz"),
    ],
)
def test_a_named_format_must_be_that_format(tmp_path, importer, file, said):
    (tmp_path / file).write_text("time,I\n0,1\n1,2\n")
    with pytest.raises(InputError, match=f"{file}: {said}"):
        IMPORTERS[importer](tmp_path / file, tmp_path / "out")
