"""A molecule that ends RDKit's process costs its own row."""

import sys
from functools import partial
from pathlib import Path

import pytest

from counterpoint.common.errors import InputError
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
