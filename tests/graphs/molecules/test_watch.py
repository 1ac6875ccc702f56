"""A molecule that ends RDKit's process costs its own row."""

import sys
from functools import partial
from pathlib import Path

import pytest

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.errors import InputError
from counterpoint.graphs.gallery import preview_page
from counterpoint.graphs.molecules import featurize
from counterpoint.graphs.molecules.data import MoleculeDataset
from counterpoint.graphs.molecules.watch import MOST, read_watched

sys.path.insert(0, str(Path(__file__).parent))
import crashing


@pytest.mark.parametrize("when", ["parse", "InChI"])
def test_a_crash_costs_its_row_and_names_it(tmp_path, when):
    file = tmp_path / "m.smi"
    file.write_text("CCO a\nCCBr b\nc1ccccc1 c\nCCCl d\nCC e\n")
    read = partial(crashing.read, source=file, deadly=("CCBr", "CCCl"), when=when)
    table, keys, groups = read_watched(read, 60.0)
    assert table.frame["smiles"].tolist() == ["CCO", "c1ccccc1", "CC"]
    assert keys[0] == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert groups == ["acyclic:CCO", "c1ccccc1", "acyclic:CC"]
    assert [(i.row, i.smiles, i.action) for i in table.issues] == [(2, "CCBr", "dropped"), (4, "CCCl", "dropped")]
    assert all("SIGABRT" in issue.reason for issue in table.issues)


def test_a_file_of_nothing_else_is_refused(tmp_path):
    file = tmp_path / "m.smi"
    file.write_text("CCBr b\n" * (MOST + 2))
    with pytest.raises(InputError, match="SIGABRT"):
        read_watched(partial(crashing.read, source=file, deadly=("CCBr",)), 60.0)


def test_what_the_reader_refuses_is_no_row(tmp_path):
    file = tmp_path / "m.smi"
    file.write_text("C(C a\n")
    with pytest.raises(InputError, match="none of its 1 row"):
        read_watched(partial(crashing.read, source=file, deadly=()), 60.0)


def table(folder, *smiles):
    rows = [{"id": f"m{i}", "smiles": text, "split": "train"} for i, text in enumerate(smiles)]
    return Manifest.from_rows(rows, folder).save(folder / "manifest.csv")


def test_a_molecule_that_ends_rdkit_costs_its_row_of_the_training_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(featurize, "molecule_arrays", crashing.arrays)
    manifest = table(tmp_path, "CCO", "CCBr", "c1ccccc1", "CCCl", "CC")
    with pytest.raises(InputError, match=r"manifest.csv, row 2 \(id m1\): ends the program .*SIGABRT.* \(2 of 5 rows"):
        MoleculeDataset(manifest)
    kept = MoleculeDataset(manifest, on_error="skip", max_bad=0.5)
    assert [(s["id"], s["index"], len(s["molecule"].atoms)) for s in kept] == [("m0", 0, 3), ("m2", 2, 6), ("m4", 4, 2)]
    assert kept.smiles == ["CCO", "c1ccccc1", "CC"]
    assert [(bad.index, bad.id) for bad in kept.left_out] == [(1, "m1"), (3, "m3")]
    said = capsys.readouterr().err
    assert "row 2 (id m1): ends the program" in said
    assert "row 4 (id m3): ends the program" in said
    with pytest.raises(InputError, match=r"raise `--train.max_bad`"):
        MoleculeDataset(manifest, on_error="skip", max_bad=0.1)


@pytest.mark.parametrize(
    ("bad", "said"),
    [("C" * 20_000, "is 20000 characters long"), ("C" + "(" * 5000 + "C" + ")" * 5000, "is 10002 characters long"),
     ("C" + "(C" * 400 + ")" * 400, "nested 400 deep"), ("C(", "no SMILES"), ("", "no atom")],
)  # fmt: skip
def test_molecules_no_program_can_read_are_named_in_training_and_preview(tmp_path, bad, said):
    manifest = table(tmp_path, "CCO", bad, "CC")
    with pytest.raises(InputError, match=rf"row 2 \(id m1\): .*{said}"):
        MoleculeDataset(manifest)
    outcome = preview_page(tmp_path / "manifest.csv", tmp_path / "p.html", 3)
    assert [line.split(":")[1] for line in outcome.lines[:-1]] == [" row 2 (id m1)"]
    assert said in outcome.lines[0]
    page = (tmp_path / "p.html").read_text()
    assert page.count("<svg") + page.count("data:image/svg") >= 2
