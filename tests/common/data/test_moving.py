"""A split or curated manifest in another folder still names its files; shares that do not add up are refused."""

import pytest

from counterpoint.common.cli.data import split
from counterpoint.common.data import Manifest
from counterpoint.common.data.moving import file_columns, moved
from counterpoint.common.errors import InputError


@pytest.fixture
def manifest(tmp_path):
    folder = tmp_path / "data"
    (folder / "audio").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("x")
    rows = []
    for i in range(10):
        (folder / "audio" / f"{i}.wav").write_text(f"sound {i}")
        rows.append({"id": f"s{i}", "group": f"g{i}", "audio": f"audio/{i}.wav", "label": "audio", "note": "a/b.txt"})
    rows[3]["audio"] = "audio/gone.wav"
    rows[4]["audio"] = None
    rows[5]["audio"] = "../secret.txt"
    rows[6]["audio"] = str(folder / "audio" / "6.wav")
    Manifest.from_rows(rows, folder).save(folder / "m.csv")
    return folder / "m.csv"


@pytest.mark.parametrize("kind", [".csv", ".parquet", ".jsonl"])
def test_a_split_in_another_folder_names_the_same_files(tmp_path, manifest, kind):
    out = tmp_path / "elsewhere" / "deep" / f"m{kind}"
    split(manifest, out)
    old, new = Manifest.load(manifest), Manifest.load(out)
    for i in (0, 1, 2, 6, 7):
        assert new.file(new.frame["audio"][i]).read_text() == f"sound {i}"
    assert new.frame["audio"][0] == "../../data/audio/0.wav"
    assert new.frame["audio"][3] == "../../data/audio/gone.wav"
    assert new.row(4)["audio"] is None
    for table in (old, new):  # what the first manifest may not read, the second may not either
        with pytest.raises(InputError, match="leads out of the manifest's folder"):
            table.file(table.frame["audio"][5])
    for column in ("id", "group", "label", "note"):
        assert new.frame[column].tolist() == old.frame[column].tolist()


def test_in_its_own_folder_a_manifest_keeps_its_names(tmp_path, manifest):
    split(manifest, manifest.with_name("s.csv"))
    assert Manifest.load(manifest.with_name("s.csv")).frame["audio"][0] == "audio/0.wav"
    table = Manifest.load(manifest)
    assert moved(table, manifest.parent) is table
    assert file_columns(table) == ["audio"]


def test_a_moved_manifest_can_be_moved_back(tmp_path, manifest):
    there = moved(Manifest.load(manifest), tmp_path / "other").save(tmp_path / "other" / "m.csv")
    back = moved(Manifest.load(there.path), manifest.parent)
    assert back.frame["audio"].dropna().tolist() == Manifest.load(manifest).frame["audio"].dropna().tolist()


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"train": 0.9, "val": 0.9}, "--train 0.9 and --val 0.9 must be shares that add up to 1 or less"),
        ({"train": 0.5, "val": 0.1, "test": 0.1}, r"--train 0.5, --val 0.1 and --test 0.1 add up to 0.7; .* \(leave"),
        ({"train": -0.1}, "--train -0.1 and --val 0.1 must be shares"),
        ({"train": float("nan")}, "--train nan and --val 0.1 must be shares"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(manifest, shares, said):
    with pytest.raises(InputError, match=said):
        split(manifest, **shares)


def test_the_test_split_is_what_is_left(manifest):
    rows = split(manifest, train=0.6, val=0.1).figures["splits"]
    assert {name: n["rows"] for name, n in rows.items()} == {"train": 6, "val": 1, "test": 3}


def test_too_few_groups_are_told_with_the_file_and_a_remedy(tmp_path):
    Manifest.from_rows([{"id": "a"}, {"id": "b"}], tmp_path).save(tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"m.csv: 2 group\(s\) cannot fill 3 splits .*; give more groups .* share 0"):
        split(tmp_path / "m.csv")
    assert split(tmp_path / "m.csv", train=0.5, val=0.5).figures["splits"]["test"]["rows"] == 0
