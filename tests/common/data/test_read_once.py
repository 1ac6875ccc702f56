"""A manifest's file is read once while it stays as it is; what one owner does to a table, no other one sees."""

import os

import pandas as pd
import pytest

from counterpoint.common.data import Manifest
from counterpoint.common.data import splits as splitting
from counterpoint.common.data.manifest import forget_manifest
from counterpoint.common.errors import LeakageError
from counterpoint.common.trainers import leakage

ROWS = [{"id": str(i), "group": f"g{i // 2}", "split": "train" if i < 4 else "test", "y": i} for i in range(6)]


@pytest.fixture
def file(tmp_path):
    forget_manifest()
    path = tmp_path / "m.parquet"
    Manifest.from_rows(ROWS).save(path)
    return path


@pytest.fixture
def reads(monkeypatch):
    """How often pandas reads a Parquet file."""
    found, real = [], pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", lambda path, *a, **k: found.append(path) or real(path, *a, **k))
    return found


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(file, reads):
    first = Manifest.load(file)
    assert Manifest.load(file).frame.equals(first.frame)
    assert len(reads) == 1
    before = file.stat()
    Manifest.from_rows([{**row, "y": 9 - row["y"]} for row in ROWS]).save(file)  # of the same size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Manifest.load(file).frame["y"].tolist() == [9 - i for i in range(6)]
    file.with_name("m.parquet.meta.json").write_text('{"synthetic": "made"}')
    assert Manifest.load(file).meta == {"synthetic": "made"}
    forget_manifest()
    Manifest.load(file)
    assert len(reads) == 4


def test_owners_share_no_change(file):
    one, other = Manifest.load(file), Manifest.load(file)
    one.frame.loc[0, "split"] = "test"
    one.frame["more"] = 1
    one.meta["said"] = "by one"
    for table in (other, Manifest.load(file)):
        assert table.frame["split"][0] == "train"
        assert "more" not in table.frame
        assert not table.meta


def test_a_file_is_held_to_its_split_once_and_again_when_it_changes(file, monkeypatch):
    checked, real = [], splitting.check_leakage
    monkeypatch.setattr(leakage, "check_leakage", lambda table: checked.append(table) or real(table))
    for _ in range(3):
        leakage.hold_to_split(Manifest.load(file))
    assert len(checked) == 1
    Manifest.from_rows([{**row, "group": "one"} for row in ROWS]).save(file)
    for _ in range(2):
        with pytest.raises(LeakageError, match=r"m.parquet: group 'one' stands in test and train"):
            leakage.hold_to_split(Manifest.load(file))


def test_rows_that_were_chosen_or_changed_are_checked_anew(file):
    table = Manifest.load(file)
    leakage.hold_to_split(table)
    assert table.state is not None
    assert table.select(split="train").state is None
    changed = Manifest(table.frame.assign(group="one"), path=table.path)
    with pytest.raises(LeakageError):
        leakage.hold_to_split(changed)
