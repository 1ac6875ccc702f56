"""Files as people have them: other delimiters, Windows lines, gzip, ragged rows, SDF with broken records."""

import gzip

import pytest
from rdkit import Chem

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules.reader import read_molecules

TABLE = "smiles,y\nCCO,1\nCCN,\n"


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", TABLE), ("windows.csv", TABLE.replace("\n", "\r\n")), ("bom.csv", "\ufeff" + TABLE),
     ("semicolon.csv", TABLE.replace(",", ";")), ("a.tsv", TABLE.replace(",", "\t")),
     ("tabs.csv", TABLE.replace(",", "\t")),
     ("a.txt", TABLE), ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)),
     ("blank lines.csv", TABLE.replace("\n", "\n\n"))],
)  # fmt: skip
def test_the_same_table_in_every_dress(tmp_path, name, text):
    table = read_molecules(write(tmp_path, name, text))
    assert table.frame["smiles"].tolist() == ["CCO", "CCN"]
    assert table.frame["y"].tolist()[0] == 1
    assert table.frame["y"].isna().tolist() == [False, True]
    assert table.issues == []


def test_columns_that_are_no_labels_are_named(tmp_path):
    text = "smiles,ic50,active,split\nCCO,>10,True,train\nCCN,3,False,test\n"
    table = read_molecules(write(tmp_path, "assay.csv", text))
    assert table.tasks == ["active"]
    assert table.frame["active"].tolist() == [1, 0]
    assert table.left_out == {"ic50": "row 1 has '>10'", "split": "the manifest uses this name"}
    assert "ic50 (row 1 has '>10')" in table.summary()


def test_infinite_labels_and_manifest_names_are_no_labels(tmp_path):
    path = write(tmp_path, "odd.csv", "smiles,y,row\nCCO,inf,1\nCCN,2,2\n")
    assert read_molecules(path).left_out == {"y": "row 1 has 'inf'", "row": "the manifest uses this name"}
    with pytest.raises(InputError, match="row cannot be a task: the manifest uses this name; rename the column"):
        read_molecules(path, tasks=["row"])


def test_rows_with_too_many_fields_are_listed_not_shifted(tmp_path):
    table = read_molecules(write(tmp_path, "ragged.csv", "smiles,y\nCCO,1,2\nCCN,0\nCCC\n"))
    assert [(i.row, i.reason) for i in table.issues] == [(1, "has 3 fields where the header has 2")]
    assert table.frame["smiles"].tolist() == ["CCN", "CCC"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("none.csv", "", "the file is empty"), ("none.sdf", "\n", "the file is empty"),
     ("headerless.csv", "CCO,1\nCCN,0\n", "first row holds a molecule (CCO), not column names"),
     ("latin.csv", "smiles,name\nCCO,café\n".encode("latin1"), "line 2: is not UTF-8 text"),
     ("twice.csv", "smiles,y,y\nCCO,1,2\n", "column 'y' stands twice"),
     ("cut.csv.gz", gzip.compress(TABLE.encode(), mtime=0)[:-9], "is no whole gzip file"),
     ("header only.csv", "smiles,y\n", "none of its 0 row(s)")],
)  # fmt: skip
def test_unusable_files_say_what_to_do(tmp_path, name, text, words):
    with pytest.raises(InputError) as error:
        read_molecules(write(tmp_path, name, text))
    assert words in str(error.value)


def test_lists_have_names_comments_and_extensions(tmp_path):
    text = "# made by hand\nCCO ethyl alcohol\r\nCCN |c:1| amine\nC1CC ring\nCC(C open\n"
    table = read_molecules(write(tmp_path, "list.smi", text))
    assert table.frame["id"].tolist() == ["ethyl alcohol", "amine"]
    assert [(i.row, i.reason) for i in table.issues] == [
        (3, "cannot be parsed: a ring is not closed"), (4, "cannot be parsed: a parenthesis is not closed"),
    ]  # fmt: skip


def test_peculiar_molecules_are_kept_and_counted(tmp_path):
    text = "[2H]C\n[Na+].[Cl-]\nN->[Pt](Cl)Cl\n*CC\n[Ar]\nC[N+](C)(C)C.[Br-]\nCCO\n"
    table = read_molecules(write(tmp_path, "list.smi", text))
    assert len(table.frame) == 7
    assert list(table.peculiar().values()) == [2, 3, 1, 1, 1]  # fragments, isolated atoms, isotope, dative, placeholder


def sdf(tmp_path, *, broken=False, cut=False):
    path = tmp_path / "mols.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for i, smiles in enumerate(("CCO", "Oc1ccccc1", "C[C@H](N)O")):
            molecule = Chem.MolFromSmiles(smiles)
            for key, value in (("compound_id", f"X-{i}"), ("pIC50", str(5.5 + i)), ("CAS", "64-17-5")):
                molecule.SetProp(key, value)
            writer.write(molecule)
    text = path.read_text()
    if broken:
        text = text.replace(" C ", " Qq ", 1)
    return text[: text.rindex("V2000") + 60] if cut else text


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_sdf_properties_are_labels_and_ids(tmp_path, name):
    text = sdf(tmp_path).encode()
    table = read_molecules(write(tmp_path, name, gzip.compress(text, mtime=0) if name.endswith("gz") else text))
    assert table.frame["id"].tolist() == ["X-0", "X-1", "X-2"]
    assert table.frame["pIC50"].tolist() == [5.5, 6.5, 7.5]
    assert table.left_out == {"CAS": "row 1 has '64-17-5'"}
    assert table.frame["smiles"].tolist() == ["CCO", "Oc1ccccc1", "C[C@H](N)O"]


def test_broken_sdf_records_are_listed_with_their_reason(tmp_path, capfd):
    table = read_molecules(write(tmp_path, "broken.sdf", sdf(tmp_path, broken=True)))
    assert [(i.row, i.reason) for i in table.issues] == [(1, "cannot be read: Element 'Qq' not found")]
    table = read_molecules(write(tmp_path, "cut.sdf", sdf(tmp_path, cut=True)))
    assert [(i.row, i.reason) for i in table.issues] == [(3, "cannot be read: the file ends inside this record")]
    assert "rdkit" not in capfd.readouterr().err.lower()


def test_a_record_without_its_end_does_not_swallow_the_next(tmp_path):
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    (tmp_path / "m.sdf").write_text(
        f"{block.replace('M  END', 'M')}$$$$\n{block}$$$$\n{block.replace(' O ', ' é ')}$$$$\n"
    )
    table = read_molecules(tmp_path / "m.sdf")
    assert table.frame["row"].tolist() == [2]
    assert [issue.row for issue in table.issues] == [1, 3]
