"""Logs of every format become the same tables of numbers; bad rows are named by file and row, and counted."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from counterpoint.common.data.filters import meeting
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.common.trainers import create_system, override
from counterpoint.recsys.commands import (
    import_edges,
    import_interactions,
    import_mmrec,
    import_recbole,
    import_sequences,
)
from counterpoint.recsys.configs import LightGCNConfig
from counterpoint.recsys.contrast_configs import SASRecConfig
from counterpoint.recsys.data.checking import split_dataset
from counterpoint.recsys.data.fields import learn_fields
from counterpoint.recsys.data.folder import open_dataset
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.samples import Table
from counterpoint.recsys.data.splits import check_split
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.sasrec import SASRec

ROWS = [("ann", "x", 30.0, 5.0), ("bob", "y", 10.0, 3.0), ("ann", "y", 20.0, 4.0), ("cat", "z", 40.0, 1.0)]


def frame():
    return pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp", "rating"])


def triples(data):
    log = data.log
    return [(log.users[u], log.items[i], t, r) for u, i, t, r in zip(log.user, log.item, log.time, log.rating)]


def jsonl(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))


def atomic(table, path):
    head = "user_id:token\titem_id:token\ttimestamp:float\trating:float\n"
    path.write_text(head + "".join("\t".join(map(str, row)) + "\n" for row in table.itertuples(index=False)))


WRITERS = {
    "log.csv": (lambda t, p: t.to_csv(p, index=False), import_interactions),
    "log.tsv": (lambda t, p: t.to_csv(p, index=False, sep="\t"), import_interactions),
    "log.parquet": (lambda t, p: t.to_parquet(p), import_interactions),
    "log.jsonl": (jsonl, import_interactions),
    "log.inter": (atomic, import_recbole),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_log_in_the_order_of_user_and_time(tmp_path, name):
    write, run = WRITERS[name]
    write(frame(), tmp_path / name)
    report = run(tmp_path / name, tmp_path / "out")
    assert (report.rows, report.rejected) == (3, ())
    data = open_dataset(report.manifest)
    assert triples(data) == sorted(ROWS, key=lambda row: (row[0], row[2]))
    assert data.log.users == IdMap(["ann", "bob", "cat"])


def test_a_folder_of_parts_is_one_log_whatever_its_ids_are_kept_as(tmp_path):
    source = tmp_path / "parts"
    source.mkdir()
    numbers = pd.DataFrame({"user": [10, 2], "item": [7.0, 8.0], "timestamp": [1, 2]})
    numbers.to_parquet(source / "a.parquet")
    texts = pd.DataFrame({"user": ["2", "x"], "item": pd.Categorical(["7", "8"]), "timestamp": [0, 5]})
    texts.to_parquet(source / "b.parquet")
    data = open_dataset(import_interactions(source, tmp_path / "out").manifest)
    assert list(data.log.users) == ["10", "2", "x"]
    pairs = [(data.log.users[u], data.log.items[i]) for u, i in zip(data.log.user, data.log.item)]
    assert pairs == [("10", "7"), ("2", "7"), ("2", "8"), ("x", "8")]


def test_times_are_numbers_or_dates(tmp_path):
    when = ["1970-01-01T00:01:00", "60.5", "1970-01-02"]
    pd.DataFrame({"user": list("abc"), "item": list("xyz"), "date": when}).to_csv(tmp_path / "t.csv", index=False)
    data = open_dataset(import_interactions(tmp_path / "t.csv", tmp_path / "out").manifest)
    assert data.log.time.tolist() == [60.0, 60.5, 86400.0]
    stamps = pa.table({"user": ["a"], "item": ["x"], "time": pa.array([1500], pa.timestamp("ms"))})
    pq.write_table(stamps, tmp_path / "t.parquet")
    data = open_dataset(import_interactions(tmp_path / "t.parquet", tmp_path / "other").manifest)
    assert data.log.time.tolist() == [1.5]


def test_bad_rows_are_named_counted_and_left_out(tmp_path):
    lines = ["user,item,timestamp,rating", "a,x,1,5", ",x,2,5", "a,y,yesterday,5", "b,x,3,9", "b,y,4,good", "b,z,5,4,7",
             "c,x,6,3", "c,,7,3", "d,x,soon,1", "a,x,9,5"]  # fmt: skip
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out", lowest=1, highest=5)
    said = [r.reason for r in report.rejected]
    assert all(r.source == str(tmp_path / "log.csv") for r in report.rejected)
    for words in (
        "row 2 has no user",
        "2 rows (the first: row 3 ('yesterday')) have no readable time; write seconds",
        "row 4 ('9') has a rating out of range",
        "row 5 ('good') has no rating that is a number",
        "row 6 has not as many fields as the header",
        "row 8 has no item",
        "row 10 ('a' and 'x') repeating a user and an item",
    ):
        assert sum(words in reason for reason in said) == 1, (words, said)
    assert len(said) == 7
    data = open_dataset(report.manifest)
    assert triples(data) == [("a", "x", 1.0, 5.0), ("c", "x", 6.0, 3.0)]
    assert data.manifest.meta["rejected"] == 7


@pytest.mark.parametrize(("repeats", "kept"), [("first", [1.0]), ("last", [9.0]), ("keep", [1.0, 9.0])])
def test_of_repeated_pairs_the_one_that_was_asked_for_counts(tmp_path, repeats, kept):
    (tmp_path / "log.csv").write_text("user,item,time\na,x,9\na,x,1\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out", repeats=repeats)
    assert open_dataset(report.manifest).log.time.tolist() == kept


def test_unknown_ids_are_kept_and_told_or_left_out_by_name(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\na,x\na,nowhere\n")
    (tmp_path / "items.csv").write_text("id,title,year\nx,A song,1999\nnew,Another,2001\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out", items=tmp_path / "items.csv")
    assert "1 interactions are of items that the table of items does not list" in report.note
    data = open_dataset(report.manifest)
    assert list(data.log.items) == ["new", "nowhere", "x"]
    assert data.items.column("title").to_pylist() == ["Another", None, "A song"]
    assert data.items.column("year").to_pylist() == [2001.0, None, 1999.0]
    report = import_interactions(tmp_path / "log.csv", tmp_path / "other", items=tmp_path / "items.csv", unknown="drop")
    assert [r.reason.split(" of an item")[0] for r in report.rejected] == ["row 2 ('a' and 'nowhere')"]
    assert len(open_dataset(report.manifest).log) == 1
    assert list(open_dataset(report.manifest).log.items) == ["new", "x"], "what was left out is not ranked"
    (tmp_path / "log.csv").write_text("user,item\nann,x\nbob,x\nbob,y\ncat,y\n")
    (tmp_path / "users.csv").write_text("id,age\ncat,30\nann,20\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "third", users=tmp_path / "users.csv", unknown="drop")
    assert "2 rows (the first: row 2, 'bob' and 'x') of a user that" in report.rejected[0].reason
    log = open_dataset(report.manifest).log
    assert [(log.users[u], log.items[i]) for u, i in zip(log.user, log.item)] == [("ann", "x"), ("cat", "y")]
    assert list(log.users) == ["ann", "cat"]


def test_mmrecs_labels_are_the_split_and_a_training_edge_held_out_is_named(tmp_path):
    text = "userID\titemID\trating\tx_label\n0\t0\t1\t0\n0\t1\t1\t1\n0\t2\t1\t2\n1\t0\t1\t0\n1\t0\t1\t2\n"
    (tmp_path / "set.inter").write_text(text)
    np.save(tmp_path / "image.npy", np.arange(6.0).reshape(3, 2))
    report = import_mmrec(tmp_path / "set.inter", tmp_path / "out", features=(f"image={tmp_path / 'image.npy'}",))
    (told,) = report.rejected
    assert told.reason.startswith("row 5 ('1' and '0') held out, though the same user and item stand in train")
    data = open_dataset(report.manifest)
    assert data.log.split.tolist() == [0, 1, 2, 0]
    assert data.split == "given"
    assert data.feature("image").values.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    check_split(data.log, data.split)


def test_a_log_with_a_training_edge_in_the_test_is_a_leak(tmp_path):
    from dataclasses import replace

    (tmp_path / "log.csv").write_text("user,item\na,x\na,x\nb,y\n")
    log = open_dataset(import_interactions(tmp_path / "log.csv", tmp_path / "out", repeats="keep").manifest).log
    with pytest.raises(LeakageError, match="user 'a' and item 'x' stand in train and in test"):
        check_split(replace(log, split=np.array([0, 2, 0])), "given")


def test_lines_of_items_keep_their_order_and_their_repetitions(tmp_path):
    (tmp_path / "seq.txt").write_text("u2 c a c\nu1 b\nu3\n")
    report = import_sequences(tmp_path / "seq.txt", tmp_path / "out")
    assert [r.reason for r in report.rejected] == ["row 3 ('u3') has no item; give every row one"]
    log = open_dataset(report.manifest).log
    assert [log.items[i] for i in log.item] == ["b", "c", "a", "c"]


def test_arrays_of_edges_bring_their_split(tmp_path):
    for name, edges in (("train", [[0, 1], [5, 6]]), ("valid", [[0], [6]]), ("test", [[1], [5]])):
        np.save(tmp_path / f"{name}.npy", np.array(edges))
    np.save(tmp_path / "other.npy", np.zeros(3))
    report = import_edges(tmp_path, tmp_path / "out")
    assert [r.reason for r in report.rejected] == ["is none of train.npy, valid.npy and test.npy"]
    data = open_dataset(report.manifest)
    found = {(data.log.users[u], data.log.items[i]): s for u, i, s in zip(data.log.user, data.log.item, data.log.split)}
    assert found == {("0", "5"): 0, ("0", "6"): 1, ("1", "6"): 0, ("1", "5"): 2}


def test_atomic_tables_of_users_and_items_join_by_their_first_field(tmp_path):
    atomic(frame(), tmp_path / "set.inter")
    rows = ['x\t"Half\t1999', "w\tNobody's\t2000", ""]
    (tmp_path / "set.item").write_text("\n".join(["item_id:token\ttitle:token_seq\tyear:float", *rows]))
    (tmp_path / "set.user").write_text("user_id:token\tage:token\nann\t31\n")
    data = open_dataset(import_recbole(tmp_path / "set.inter", tmp_path / "out").manifest)
    assert data.items.to_pydict() == {
        "id": ["w", "x", "y", "z"], "title": [["Nobody's"], ['"Half'], None, None], "year": [2000.0, 1999.0, None, None]
    }  # fmt: skip
    assert data.users.column("age").to_pylist() == ["31", None, None]


def test_several_values_of_a_row_are_a_list_where_the_header_or_the_file_says_so(tmp_path):
    atomic(frame(), tmp_path / "set.inter")
    rows = ["x\tToy Story\tpg 13\tDrama  War", "y\tThe Toy\t\t", "z\tAgain\tpg 13\tWar"]
    head = "item_id:token\ttitle:token_seq\trated:token\tclass:token_seq"
    (tmp_path / "set.item").write_text("\n".join([head, *rows]) + "\n")
    (tmp_path / "set.user").write_text("user_id:token\tlikes:token_seq\nann\ta b\nbob\tb\n")
    data = open_dataset(import_recbole(tmp_path / "set.inter", tmp_path / "out").manifest)
    assert data.items.column("class").to_pylist() == [["Drama", "War"], None, ["War"]]
    assert data.items.column("rated").to_pylist() == ["pg 13", "", "pg 13"], "one token, whatever it holds"
    assert data.users.column("likes").to_pylist() == [["a", "b"], ["b"], None]
    assert learn_fields(data.items)["class"] == {"kind": "set", "values": ["War"]}
    table = Table("item", data.log.items, np.arange(3), data.items, "", "")
    assert [table.words(row) for row in range(3)] == ["Toy Story", "The Toy", "Again"]
    met = {"title~toy st": [0], "title=Toy Story": [0], "title=Toy": [0, 1], "class=War": [0, 2],
           "class!=Drama": [1, 2]}  # fmt: skip
    for condition, found in met.items():
        assert np.flatnonzero(meeting(table, [condition])).tolist() == found, condition
    split_dataset(tmp_path / "out" / "manifest.parquet", "random", (0.5, 0.25, 0.25), 0, 0, tmp_path / "split")
    again = open_dataset(tmp_path / "split" / "manifest.parquet")
    assert (again.items.schema, again.users) == (data.items.schema, data.users)


def test_texts_of_several_values_are_parted_where_asked_and_named_where_not(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    films = {"item_id": ["x", "y", "z"], "genres": ["Drama|War", "Drama | Film-Noir", ""], "tags": ["a, b", "b", "a"]}
    pd.DataFrame(films).to_csv(tmp_path / "films.csv", index=False)
    options = {"items": tmp_path / "films.csv"}
    plain = import_interactions(tmp_path / "log.csv", tmp_path / "plain", **options)
    assert "2 of 2 texts of genres hold '|'" in plain.note
    assert "tags" not in plain.note
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out", sets=("genres=|", "tags=comma"), **options)
    assert "|" not in report.note
    data = open_dataset(report.manifest)
    assert data.items.column("genres").to_pylist() == [["Drama", "War"], ["Drama", "Film-Noir"], None]
    assert data.items.column("tags").to_pylist() == [["a", "b"], ["b"], ["a"]]
    table = Table("item", data.log.items, np.arange(3), data.items, "", "")
    assert np.flatnonzero(meeting(table, ["genres=War"])).tolist() == [0]
    for given, said in (("genre=|", "did you mean 'genres'"), ("genres", "give COLUMN=SEPARATOR")):
        with pytest.raises(InputError, match=said):
            import_interactions(tmp_path / "log.csv", tmp_path / "no", sets=(given,), **options)


def test_lists_of_parquet_and_json_stay_lists_and_vectors_do_not(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\na,x\na,y\n")
    columns = {
        "tags": pa.array([["film noir", "crime"], None], pa.large_list(pa.string())),
        "codes": pa.array([[1, 2], [2]], pa.list_(pa.int16())),
        "place": pa.array([[0.5, 1.0], None], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table({"id": ["x", "y"], **columns}), tmp_path / "items.parquet")
    (tmp_path / "items.jsonl").write_text('{"id": "x", "tags": ["film noir", "crime"]}\n{"id": "y", "tags": null}\n')
    for name in ("items.parquet", "items.jsonl"):
        report = import_interactions(tmp_path / "log.csv", tmp_path / "out", items=tmp_path / name)
        items = open_dataset(report.manifest).items
        assert items.column("tags").to_pylist() == [["film noir", "crime"], None], name
        if name == "items.parquet":
            assert items.column("codes").to_pylist() == [["1", "2"], ["2"]]
            assert items.column("place").to_pylist() == ["[0.5, 1.0]", None]
        table = Table("item", IdMap(["x", "y"]), np.arange(2), items, "", "")
        assert np.flatnonzero(meeting(table, ["tags~noir, cri"])).tolist() == [0]
        assert table.sort == "tags"


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out", user="user_i")
    assert report.rows == 0
    assert "user_id" in report.rejected[0].reason
    (tmp_path / "odd.csv").write_text("who,what\na,x\n")
    report = import_interactions(tmp_path / "odd.csv", tmp_path / "out")
    assert "no column of users among 'who', 'what'; name it with --user" in report.rejected[0].reason


def test_two_data_sets_in_a_folder_are_not_one(tmp_path):
    for name in ("one", "other"):
        (tmp_path / f"{name}.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t2\n")
    with pytest.raises(InputError, match=r"one.inter and other.inter: several data sets; name one .inter file"):
        import_mmrec(tmp_path, tmp_path / "out")


def test_a_first_line_of_numbers_is_no_header(tmp_path):
    (tmp_path / "log.csv").write_text("1,1,4.0,964982703\n1,3,4.0,964981247\n")
    (rejected,) = import_interactions(tmp_path / "log.csv", tmp_path / "out").rejected
    assert "its first line names no columns ('1,1,4.0,964982703')" in rejected.reason


def test_a_text_that_is_not_utf8_is_told_to_be_saved_so(tmp_path):
    (tmp_path / "log.csv").write_bytes("user,item\nZoë,x\n".encode("latin1"))
    (rejected,) = import_interactions(tmp_path / "log.csv", tmp_path / "out").rejected
    assert rejected.reason.endswith("save it as UTF-8")


def test_whole_numbers_of_json_are_the_ids_that_they_are_in_parquet(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"user": 1.0, "item": 7}\n{"user": "1", "item": 2.5}\n')
    data = open_dataset(import_interactions(tmp_path / "log.jsonl", tmp_path / "out").manifest)
    assert (list(data.log.users), list(data.log.items)) == (["1"], ["2.5", "7"])


def test_a_table_that_lists_nothing_of_the_log_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\na,x\na,y\n")
    (tmp_path / "items.csv").write_text("title,id\nA song,x\nAnother,y\n")
    with pytest.raises(InputError, match=r"lists not one item of the log \(such as 'x'\).*it holds 'A song'"):
        import_interactions(tmp_path / "log.csv", tmp_path / "out", items=tmp_path / "items.csv")


def test_parts_of_other_columns_are_named(tmp_path):
    for name, columns in (("a", "user,item,time"), ("b", "user,item,time"), ("c", "user,item")):
        (tmp_path / f"{name}.csv").write_text(f"{columns}\n{','.join('1' for _ in columns.split(','))}\n")
    with pytest.raises(InputError, match=r"c.csv has user, item and a.csv has user, item, time\)"):
        import_interactions(tmp_path, tmp_path / "out")


def test_seconds_among_milliseconds_are_told(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time\na,x,1445714835\na,y,1445714835000\nb,x,1445714836000\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out")
    assert "1 times read as seconds since 1970 and 2 as milliseconds" in report.note
    (tmp_path / "log.csv").write_text("user,item,time\na,x,1\na,y,1445714835000\n")
    assert "milliseconds" not in import_interactions(tmp_path / "log.csv", tmp_path / "out").note


def test_a_damaged_log_is_told_by_its_checksum(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    manifest = import_interactions(tmp_path / "log.csv", tmp_path / "out").manifest
    file = tmp_path / "out" / "interactions.parquet"
    content = bytearray(file.read_bytes())
    content[40] ^= 4
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"interactions.parquet: cannot be read .*import the data again"):
        open_dataset(manifest)


def test_ids_in_two_forms_are_told_by_row(tmp_path):
    """`1` in one part and `1.0` in another, as where pandas wrote a column with missing values."""
    source = tmp_path / "parts"
    source.mkdir()
    (source / "a.csv").write_text("user,item\n1,x\n2,y\n")
    (source / "b.csv").write_text("user,item\n3.0,x\n2.0,y\n")
    with pytest.raises(InputError, match=r"b.csv: row 2 names the user '2.0', and others '2'; write an id in one"):
        import_interactions(source, tmp_path / "out")
    (tmp_path / "items.csv").write_text("item,title\nx,X\ny,Y\n7.0,Seven\n7,Seven\n")
    (source / "b.csv").write_text("user,item\n3,x\n4,7\n")
    with pytest.raises(InputError, match=r"the table of items names the item '7.0', and others '7'"):
        import_interactions(source, tmp_path / "out", items=tmp_path / "items.csv")
    (source / "b.csv").write_text("user,item\n3.0,x\n2.0,y\n")
    (source / "a.csv").write_text("user,item\n1,x\n4,y\n")
    data = open_dataset(import_interactions(source, tmp_path / "out").manifest)
    assert list(data.log.users) == ["1", "2.0", "3.0", "4"]


def test_words_for_missing_values_are_no_ids_and_decimal_commas_have_their_remedy(tmp_path):
    lines = ["user;item;rating", "a;x;1", "nan;x;2", "b;null;3", "NaN;y;4", "none;NA;5", "c;y;3,5"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out")
    said = [r.reason for r in report.rejected]
    assert len(said) == 2
    assert "3 rows (the first: row 2 ('nan')) have a word for a missing value in place of an id" in said[0]
    assert "row 6 ('3,5') has no rating that is a number" in said[1]
    assert said[1].endswith("(decimals have a point: 3.5)")
    assert list(open_dataset(report.manifest).log.users) == ["a", "none"]


@pytest.mark.parametrize("row", ['b,"x', '"b,y', 'b,"he said ""x'])
def test_a_quote_that_is_never_closed_is_told_by_row(tmp_path, row):
    (tmp_path / "log.csv").write_text("\n".join(["user,item", 'a,"x, y"', "a,w", row, "c,z", "d,z"]) + "\n")
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out")
    assert report.rows == 0
    assert "row 3 opens a quote that is never closed" in report.rejected[0].reason
    text = (tmp_path / "log.csv").read_text().replace(row, 'b,the 12" mix')  # of no field's beginning: a text's own
    (tmp_path / "log.csv").write_text(text)
    data = open_dataset(import_interactions(tmp_path / "log.csv", tmp_path / "out").manifest)
    assert list(data.log.items) == ['the 12" mix', "w", "x, y", "z"]


def test_two_open_quotes_that_swallow_the_lines_between_are_told(tmp_path):
    (tmp_path / "log.csv").write_text('user,item\na,x\nb,"y\nc,z"\nd,x\n')
    report = import_interactions(tmp_path / "log.csv", tmp_path / "out")
    (said,) = [r.reason for r in report.rejected]
    assert said.startswith("row 2")
    assert "a line break within an id, as where a quote is opened and not closed" in said


@pytest.mark.parametrize(("system", "config"), [(SASRec, SASRecConfig), (LightGCN, LightGCNConfig)])
def test_a_log_of_one_item_is_nothing_to_recommend_from(tmp_path, system, config):
    (tmp_path / "log.csv").write_text("user,item,time\na,x,1\na,x,2\nb,x,1\n")
    manifest = import_interactions(tmp_path / "log.csv", tmp_path / "out", repeats="keep").manifest
    with pytest.raises(InputError, match=r"manifest.parquet: its log has 1 item\(s\); a recommender needs two"):
        create_system(system, override(config(), {"data.manifest": str(manifest), "data.split": "random"}))
