"""Manifests, validation, splits: nothing is dropped in silence, and groups stay together."""

import json
import tempfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counterpoint.common.data import (
    BadSample,
    Manifest,
    ManifestDataset,
    check_leakage,
    collate,
    group_codes,
    split_by_group,
    split_hash,
    validate_manifest,
)
from counterpoint.common.errors import InputError, LeakageError

ROWS = [
    {"id": "1", "group": "p1", "split": "train", "file": "a.wav", "label": "x"},
    {"id": "2", "group": "p1", "split": "train", "file": "b.wav", "label": None},
    {"id": "3", "group": "p2", "split": "test", "file": "c.wav", "label": "y"},
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_format_holds_the_same_manifest(tmp_path, suffix):
    table = Manifest.from_rows(ROWS, meta={"synthetic": True})
    table.save(tmp_path / f"m{suffix}")
    again = Manifest.load(tmp_path / f"m{suffix}")
    assert again.hash == table.hash
    assert again.meta == {"synthetic": True}
    assert again.root == tmp_path
    assert again.file("a.wav") == tmp_path / "a.wav"
    assert again.row(1)["label"] is None
    assert [again.row(i)["id"] for i in range(3)] == ["1", "2", "3"]
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
NAMES = st.one_of(TEXT, st.sampled_from(["NA", "None", "null", "nan", "007", "1e5", "1.0", "True", " a", "2024-01-01"]))


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(NAMES, NAMES | st.none(), st.floats(-1e6, 1e6) | st.none()),
        min_size=1,
        max_size=5,
        unique_by=lambda r: r[0],
    )
)
def test_names_are_text_in_every_format_whatever_they_look_like(rows):
    """A patient called NA is a patient, "007" is not 7, and who has no group is a group of his own."""
    table = Manifest.from_rows([{"id": i, "group": g, "x": x} for i, g, x in rows])
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".parquet", ".csv", ".jsonl"):
            table.save(f"{folder}/m{suffix}")
            again = Manifest.load(f"{folder}/m{suffix}")
            assert again.frame["id"].tolist() == [i for i, _, _ in rows]
            assert again.frame["group"].tolist() == [i if g is None else g for i, g, _ in rows]
            assert again.hash == table.hash


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_text_that_looks_like_a_number_stays_text_where_the_format_knows_the_difference(tmp_path, suffix):
    labels = ["01", "1e5", "None", "2024-01-01", None]
    Manifest.from_rows([{"id": str(i), "label": v, "x": v and 1 / 3} for i, v in enumerate(labels)]).save(
        tmp_path / f"m{suffix}"
    )
    again = Manifest.load(tmp_path / f"m{suffix}")
    assert [again.row(i)["label"] for i in range(5)] == labels
    assert [again.row(i)["x"] for i in range(5)] == [1 / 3] * 4 + [None]  # every digit


def test_lists_travel_through_parquet_and_json(tmp_path):
    rows = [{"id": "a", "leads": ["I", "II"], "box": [0, 1, 2]}, {"id": "b", "leads": [], "box": None}]
    Manifest.from_rows(rows).save(tmp_path / "m.parquet")
    again = Manifest.load(tmp_path / "m.parquet")  # arrays now
    again.save(tmp_path / "m.jsonl")
    found = Manifest.load(tmp_path / "m.jsonl")
    assert [(found.row(i)["leads"], found.row(i)["box"]) for i in range(2)] == [(r["leads"], r["box"]) for r in rows]
    assert found.hash == again.hash == Manifest.from_rows(rows).hash


def test_who_has_no_group_does_not_share_one(tmp_path):
    (tmp_path / "m.csv").write_text("id,group\na,p\nb,\nc,\n")
    (tmp_path / "m.jsonl").write_text(
        '{"id": "a", "group": "p"}\n{"id": "b", "group": null}\n\n{"id": "c", "group": ""}\n'
    )
    for table in (
        Manifest.load(tmp_path / "m.csv"),
        Manifest.load(tmp_path / "m.jsonl"),
        Manifest.from_rows([{"id": "a", "group": "p"}, {"id": "b", "group": None}, {"id": "c", "group": ""}]),
    ):
        assert table.frame["group"].tolist() == ["p", "b", "c"]


def test_hash_is_of_the_content():
    table = Manifest.from_rows(ROWS)
    assert Manifest(table.frame[table.frame.columns[::-1]]).hash == table.hash
    assert Manifest.from_rows([{**ROWS[0], "label": "z"}, *ROWS[1:]]).hash != table.hash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na\n", r"has no column 'id' \(its columns: name\); give every row a name"),
        ("id\na\nb\na\n", "row 3: id 'a' stands there a second time"),
        ('id,x\na,1\n"",2\n', "row 2: empty id"),
        ("id,split\na,training\n", "row 1: split 'training' is not train, val, test"),
        ('id,x\na,"1\n', "cannot be read"),
    ],
)
def test_broken_manifests_are_refused_with_the_row(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        Manifest.load(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"id": "a"}\n{"id": \n', "line 2: not JSON"), ('{"id": "a"}\n[1]\n', "line 2: a row is a JSON object")],
)
def test_broken_lines_are_named(tmp_path, text, words):
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        Manifest.load(tmp_path / "m.jsonl")


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        Manifest.load(tmp_path / "m.csv")
    (tmp_path / "m.txt").write_text("id\n")
    with pytest.raises(InputError, match=r"not \.txt"):
        Manifest.load(tmp_path / "m.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Manifest.from_rows(ROWS).save(tmp_path / "file" / "m.csv")


def test_select_keeps_the_stable_number_and_names_what_there_is():
    table = Manifest.from_rows(ROWS)
    assert list(table.select(split="test").frame.index) == [2]
    assert len(table.select(label="x")) == 1
    with pytest.raises(InputError, match="no row with split = 'val'; there are: test, train"):
        table.select(split="val")
    with pytest.raises(InputError, match="no column 'colour'"):
        table.select(colour=1)


def test_validation_lists_every_bad_row_in_order():
    table = Manifest.from_rows([{"id": str(i), "file": f"{i}.wav"} for i in range(50)])

    def check(row):
        if int(row["id"]) % 7 == 3:
            raise FileNotFoundError(2, "No such file", "/x/" + row["file"])
        if row["id"] == "20":
            raise ValueError("sample rate 0")

    report = validate_manifest(table, check, workers=4, progress=False)
    assert report.rows == 50
    assert [b.row for b in report.bad] == [4, 11, 18, 21, 25, 32, 39, 46]
    assert report.bad[0].file == "/x/3.wav"
    assert (report.bad[3].file, report.bad[3].reason) == ("20.wav", "sample rate 0")
    assert json.loads(json.dumps(report.as_dict()))["bad"][0]["id"] == "3"


groups = st.lists(st.integers(0, 12), min_size=12, max_size=80).filter(lambda g: len(set(g)) >= 3)


@settings(max_examples=60)
@given(groups, st.integers(0, 5), st.booleans(), st.sampled_from([0.6, 0.2, 0.05]))
@example([0] * 6 + [1] * 5 + [2], 0, False, 0.6)  # two groups that straddle both cuts leave the middle split empty
@example([0] * 6 + [1] * 6 + [2] * 6, 0, False, 0.05)  # the first group reaches beyond the first cut
def test_groups_never_stand_in_two_splits(ids, seed, stratified, train):
    fractions = {"train": train, "val": 0.2, "test": 0.8 - train}
    table = Manifest.from_rows([{"id": str(i), "group": f"g{g}", "label": g % 2} for i, g in enumerate(ids)])
    split = split_by_group(table, fractions, seed, "label" if stratified else None)
    summary = check_leakage(split)
    assert set(summary.rows) == {"train", "val", "test"}
    assert sum(summary.rows.values()) == len(ids)
    assert summary.unchanged
    shuffled = replace(table, frame=table.frame.sample(frac=1, random_state=seed))
    again = split_by_group(shuffled, fractions, seed, "label" if stratified else None)
    assert split_hash(again) == split_hash(split)  # the order of the rows does not matter


def test_fractions_and_strata_are_met():
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{g}-{i}", "group": str(g), "label": "rare" if g % 10 == 0 else "common"}
        for g in range(300)
        for i in range(rng.integers(1, 5))
    ]
    table = Manifest.from_rows(rows)
    for stratify in (None, "label"):
        split = split_by_group(table, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=1, stratify=stratify).frame
        share = split["split"].value_counts(normalize=True)
        assert share["train"] == pytest.approx(0.7, abs=0.02)
        assert share["val"] == pytest.approx(0.1, abs=0.02)
    rare = split.groupby("split")["label"].apply(lambda c: (c == "rare").mean())
    assert rare.max() - rare.min() < 0.03
    assert split_hash(split_by_group(table, seed=1)) != split_hash(split_by_group(table, seed=2))


def test_the_largest_group_is_placed_while_there_is_room_for_it():
    rows = [{"id": str(i), "group": "large" if i < 50 else str(i), "label": i % 2} for i in range(100)]
    for seed in range(3):
        split = split_by_group(Manifest.from_rows(rows), {"train": 0.5, "test": 0.5}, seed, "label").frame
        assert split.groupby("split")["label"].value_counts().tolist() == [25] * 4


def test_impossible_splits_are_refused():
    table = Manifest.from_rows([{"id": "a"}, {"id": "b"}])
    with pytest.raises(InputError, match=r"2 group\(s\) cannot fill 3 splits"):
        split_by_group(table)
    with pytest.raises(InputError, match="shares of train 0.5, test 0.2: .* that add up to 1"):
        split_by_group(table, {"train": 0.5, "test": 0.2})
    with pytest.raises(InputError, match="no column 'sex'"):
        split_by_group(table, {"train": 0.5, "test": 0.5}, stratify="sex")


def test_leakage_names_group_and_rows_and_a_changed_split_is_seen():
    leaky = Manifest.from_rows([{"id": str(i), "group": "g", "split": s} for i, s in enumerate(["train", "", "test"])])
    with pytest.raises(LeakageError, match=r"group 'g' stands in test and train \(rows 3 and 1\)"):
        check_leakage(leaky)
    split = split_by_group(Manifest.from_rows([{"id": str(i)} for i in range(20)]), seed=0)
    frame = split.frame.copy()
    frame.loc[0, "split"] = "test" if frame.loc[0, "split"] != "test" else "val"
    assert check_leakage(replace(split, frame=frame)).unchanged is False


def test_dataset_names_the_row_or_marks_it():
    table = Manifest.from_rows(ROWS, root="/data")

    def load(row):
        if row["id"] == "3":
            raise OSError("header missing")
        return {"x": torch.ones(2), "label": row["label"]}

    strict = ManifestDataset(table.select(split="test"), load)
    with pytest.raises(
        InputError, match=r"row 3 \(id 3\): header missing; repair the row, or train with --train.on_error skip"
    ):
        strict[0]
    held_out = ManifestDataset(table.select(split="test"), load, on_error="skip")
    assert held_out[0] == BadSample(2, "3", "header missing")  # the stable number, not the place in the split
    last = ManifestDataset(table.select(split="test"), lambda row: {})[0]
    assert (last["index"], last["id"], last["group"]) == (2, "3", "p2")
    lenient = ManifestDataset(table, load, on_error="skip")
    assert lenient[2] == BadSample(2, "3", "header missing")
    batch = collate([lenient[0], lenient[1]])
    assert batch["x"].shape == (2, 2)
    assert batch["index"].tolist() == [0, 1]
    assert batch["label"] == ["x", None]
    holes = collate([{"y": 1, "z": torch.ones(2)}, {"y": None, "z": None}])
    assert holes["y"] == [1, None]  # a missing label of some samples is no reason to stop
    assert holes["z"][1] is None
    for pair in ([{"x": 1}, {"x": 2, "y": 3}], [{"x": 1, "y": 3}, {"x": 2}]):
        with pytest.raises(ValueError, match="field 'y' stands in some samples of a batch only: give None"):
            collate(pair)
    with pytest.raises(ValueError, match="field 'x' has several shapes"):
        collate([{"x": torch.ones(2)}, {"x": torch.ones(3)}])


def test_group_codes_are_the_same_everywhere():
    # A fixed number: with another one, groups in an older run's queue would be strangers to today's.
    assert group_codes(["a", "b", "a"]).tolist()[::2] == [2340832890917691671] * 2
    assert len(set(group_codes([str(i) for i in range(5000)]).tolist())) == 5000


def test_numbers_in_csv_stay_numbers_and_ids_stay_text(tmp_path):
    (tmp_path / "m.csv").write_text("id,group,tempo\n007,01,80\n008,01,90.5\n")
    table = Manifest.load(tmp_path / "m.csv")
    assert table.row(0) == {"id": "007", "group": "01", "tempo": 80.0, "split": ""}
    assert isinstance(table.frame, pd.DataFrame)
