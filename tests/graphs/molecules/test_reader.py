"""Molecules in: every row is kept, changed or dropped with a reason."""

import numpy as np
import pytest
from rdkit import Chem

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.reader import read_molecules

CSV = """name,smiles,toxic,logP,comment
ethanol,CCO,0,-0.31,fine
ethanol twice,OCC,1,-0.31,the same molecule
broken,C1CC,1,2.0,ring not closed
pentavalent,CC(C)(C)(C)C,1,2.0,valence
salt,[Na+].CC(=O)[O-],,1.5,two fragments
copper,CCC1=[O+][Cu-3]2([O+]=C(CC)C1)[O+]=C(CC)CC(CC)=[O+]2,1,,metal
isotope,[2H]C([2H])([2H])O,0,,deuterated
argon,[Ar],0,,isolated atom
empty,,1,1,no smiles
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mols.csv"
    path.write_text(CSV)
    return path


def test_every_row_is_accounted_for(table):
    result = read_molecules(table)
    assert result.tasks == ["toxic", "logP"]
    dropped = {i.row: i.reason for i in result.issues if i.action == "dropped"}
    assert set(dropped) == {2, 3, 4, 9}
    assert dropped[2] == "duplicate; of row 1, with other labels"
    assert "cannot be parsed: a ring is not closed" in dropped[3]
    assert "Explicit valence for atom" in dropped[4]
    assert dropped[9] == "has no SMILES"
    assert len(result.frame) + len(dropped) == 9
    assert result.frame["id"].tolist() == ["ethanol", "salt", "copper", "isotope", "argon"]


def test_missing_labels_are_nan_and_text_columns_no_task(table):
    frame = read_molecules(table).frame.set_index("id")
    assert np.isnan(frame.loc["salt", "toxic"])
    assert frame.loc["copper", "toxic"] == 1
    assert "comment" not in frame


def test_isotopes_and_salts_stay_unless_asked(table):
    frame = read_molecules(table).frame.set_index("id")
    assert "[2H]" in frame.loc["isotope", "smiles"]
    assert "." in frame.loc["salt", "smiles"]
    reduced = read_molecules(table, salts="largest")
    assert reduced.frame.set_index("id").loc["salt", "smiles"] == "CC(=O)[O-]"
    assert any(i.action == "changed" and "largest of 2 fragments" in i.reason for i in reduced.issues)


def test_standardizing_makes_spellings_of_one_substance_equal(tmp_path):
    """Nitro groups in one notation, acids neutral, sodium off the phenolate; what changed is listed."""
    path = tmp_path / "m.csv"
    path.write_text("smiles\nCN(=O)=O\nC[N+](=O)[O-]\nCC(=O)[O-]\nCC(=O)O\nc1ccccc1O[Na]\nCCO\n")
    as_drawn, standard = (read_molecules(path, standardize=s, duplicates="keep") for s in (False, True))
    assert standard.frame["smiles"].tolist()[:4] == ["C[N+](=O)[O-]"] * 2 + ["CC(=O)O"] * 2
    assert "[Na]" not in standard.frame["smiles"][4].split(".")[0]
    assert [i.row for i in standard.issues if i.reason == "standardized"] == [3, 5]
    assert as_drawn.frame["smiles"].nunique() == 5
    assert "2 standardized" in standard.summary()


def test_duplicates_can_be_averaged(table):
    frame = read_molecules(table, duplicates="mean").frame.set_index("id")
    assert frame.loc["ethanol", "toxic"] == 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [({"smiles_column": "Smiles"}, "no column 'Smiles'; its columns are: name, smiles"),
     ({"tasks": ["ic50"]}, "--tasks names 'ic50'; its columns are: "),
     ({"tasks": ["comment"]}, "comment cannot be a task: row 1 has 'fine'"),
     ({"on_error": "raise"}, "row 3: 'C1CC' cannot be parsed"),
     ({"salts": "strip"}, "salts 'strip' is unknown; use one of keep, largest")],
)  # fmt: skip
def test_mistakes_are_named(table, options, words):
    with pytest.raises(InputError) as error:
        read_molecules(table, **options)
    assert words in str(error.value)


def test_ids_must_be_unique_only_where_asked_for(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("name,smiles\nx,CCO\nx,CCN\n")
    assert read_molecules(path).frame["id"].tolist() == ["1", "2"]
    with pytest.raises(InputError, match="id 'x' stands twice in column 'name'"):
        read_molecules(path, id_column="name")


def test_smi_and_sdf(tmp_path):
    smi = tmp_path / "list.smi"
    smi.write_text("CCO ethanol\nc1ccccc1\n")
    assert read_molecules(smi).frame["id"].tolist() == ["ethanol", "2"]
    sdf = tmp_path / "mols.sdf"
    with Chem.SDWriter(str(sdf)) as writer:
        for smiles, value in (("CCO", 1.5), ("c1ccccc1", 2.5)):
            molecule = Chem.MolFromSmiles(smiles)
            molecule.SetProp("_Name", smiles)
            molecule.SetDoubleProp("logS", value)
            writer.write(molecule)
    result = read_molecules(sdf)
    assert result.frame["logS"].tolist() == [1.5, 2.5]
    sdf.write_text(sdf.read_text().replace(" C  ", " Qq ", 1))
    broken = read_molecules(sdf)
    assert [(i.row, i.action) for i in broken.issues] == [(1, "dropped")]


def test_a_file_without_molecules_is_refused(tmp_path):
    path = tmp_path / "none.csv"
    path.write_text("smiles\nC1CC\n")
    with pytest.raises(InputError, match="none of its 1 row"):
        read_molecules(path)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "rows", "unparsable"), [("bbbp_kcl", 2050, 11), ("freesolv", 642, 0)])
def test_molecule_nets_known_row_counts(data_dir, name, rows, unparsable):
    result = read_molecules(data_dir / "graphs" / "molecules" / f"{name}.csv", duplicates="keep", id_column=None)
    dropped = [i for i in result.issues if i.action == "dropped"]
    assert (len(result.frame) + len(dropped), len(dropped)) == (rows, unparsable)
