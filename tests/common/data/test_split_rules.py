"""Splits by time, leave-last-out and place: how they are made, what they record, and what counts as a leak in each."""

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.data import Manifest, check_leakage, split_by, split_by_group, split_hash
from counterpoint.common.errors import InputError, LeakageError


def visits(patients=12, each=6, seed=0):
    """Rows of several patients at days of their own, in no order."""
    random = np.random.default_rng(seed)
    rows = [
        {"id": f"p{p}v{v}", "group": f"p{p}", "day": int(random.integers(0, 400)), "lat": random.uniform(0, 9),
         "lon": random.uniform(-20, -11)}
        for p in range(patients) for v in range(each)
    ]  # fmt: skip
    return Manifest.from_rows([rows[i] for i in random.permutation(len(rows))])


def column(manifest, name):
    return manifest.frame.set_index("id")[name].to_dict()


class TestTime:
    def test_the_latest_rows_test_and_rows_of_one_day_stay_together(self):
        done = split_by(visits(), "time", ["day"], {"train": 0.6, "val": 0.2, "test": 0.2})
        days = done.frame.groupby("split")["day"]
        assert days.max()["train"] < days.min()["val"]
        assert days.max()["val"] < days.min()["test"]
        shares = done.frame["split"].value_counts(normalize=True)
        assert shares["train"] == pytest.approx(0.6, abs=0.05)
        same_day = Manifest.from_rows([{"id": str(i), "day": i // 10} for i in range(40)])
        assert split_by(same_day, "time", ["day"]).frame.groupby("day")["split"].nunique().max() == 1

    def test_patients_on_both_sides_are_no_leak_but_a_later_training_row_is(self):
        done = split_by(visits(), "time", ["day"])
        assert done.frame.groupby("group")["split"].nunique().max() > 1
        summary = check_leakage(done)
        assert summary.unchanged
        frame = done.frame.copy()
        frame.loc[frame["day"].idxmax(), "split"] = "train"
        with pytest.raises(LeakageError, match=r"row \d+ of train is not earlier than row \d+ of (val|test)"):
            check_leakage(Manifest(frame, meta=done.meta))

    @pytest.mark.parametrize(
        "written",
        [
            lambda day: str(pd.Timestamp("2024-01-01") + pd.Timedelta(day, "D"))[:10],
            lambda day: (pd.Timestamp("2024-01-01") + pd.Timedelta(day, "D")).isoformat(),
            lambda day: float(day),
        ],
    )
    def test_dates_and_numbers_order_alike(self, written):
        plain = visits()
        dated = Manifest(plain.frame.assign(day=[written(int(d)) for d in plain.frame["day"]]))
        assert column(split_by(dated, "time", ["day"]), "split") == column(split_by(plain, "time", ["day"]), "split")

    def test_a_row_without_a_time_is_named(self):
        frame = visits().frame.astype({"day": object})
        frame.loc[3, "day"] = "soon"
        with pytest.raises(InputError, match="row 4: day is 'soon'; a split by time needs a number or a date"):
            split_by(Manifest(frame), "time", ["day"])


class TestLeaveLastOut:
    def test_the_last_row_of_every_group_tests_whatever_the_order_of_rows(self):
        table = visits()
        done = split_by(table, "leave-last-out", ["day"])
        for _, rows in done.frame.groupby("group"):
            ordered = rows.sort_values(["day", "id"])["split"].tolist()
            assert ordered == ["train"] * (len(rows) - 2) + ["val", "test"]
        again = split_by(Manifest(table.frame[::-1].reset_index(drop=True)), "leave-last-out", ["day"])
        assert column(again, "split") == column(done, "split")
        check_leakage(done)

    def test_short_groups_keep_a_training_row(self):
        rows = [{"id": "a", "group": "x", "t": 0}, {"id": "b", "group": "y", "t": 0}, {"id": "c", "group": "y", "t": 1}]
        assert split_by(Manifest.from_rows(rows), "leave-last-out", ["t"]).frame["split"].tolist() == [
            "train", "train", "test",
        ]  # fmt: skip

    def test_a_training_row_after_the_test_row_and_a_second_test_row_leak(self):
        done = split_by(visits(), "leave-last-out", ["day"])
        last = done.frame[done.frame["split"] == "test"].index[0]
        swapped = done.frame.copy()
        first = swapped[(swapped["group"] == swapped["group"][last]) & (swapped["split"] == "train")].index[0]
        swapped.loc[[first, last], "split"] = ["test", "train"]
        with pytest.raises(LeakageError, match="comes after one of a later split"):
            check_leakage(Manifest(swapped, meta=done.meta))
        two = done.frame.copy()
        before = two[(two["group"] == two["group"][last]) & (two["split"] == "val")].index[0]
        two.loc[before, "split"] = "test"
        with pytest.raises(LeakageError, match="has 2 rows in test, where leave-last-out leaves one"):
            check_leakage(Manifest(two, meta=done.meta))


class TestPlace:
    def test_whole_squares_go_to_one_side_also_at_negative_coordinates(self):
        done = split_by(visits(40), "place", ["lat", "lon"], block=1.5)
        places = done.frame[["lat", "lon"]].to_numpy()
        squares = done.frame.assign(s=[tuple(np.floor(place / 1.5)) for place in places])
        assert squares.groupby("s")["split"].nunique().max() == 1
        assert set(done.frame["split"]) == {"train", "val", "test"}
        check_leakage(done)
        frame = done.frame.copy()
        crowded = squares["s"].value_counts().index[0]
        row = squares.index[squares["s"] == crowded][0]
        frame.loc[row, "split"] = "val" if frame["split"][row] != "val" else "test"
        with pytest.raises(LeakageError, match=r"lie in one square of side 1.5 \(lat, lon\)"):
            check_leakage(Manifest(frame, meta=done.meta))

    @pytest.mark.parametrize("block", [None, 0.0, float("nan"), 100.0])
    def test_squares_that_cannot_split_are_refused(self, block):
        with pytest.raises(InputError, match="side of its squares|choose a smaller --block"):
            split_by(visits(), "place", ["lat", "lon"], block=block)


def test_the_kind_travels_with_every_form_of_manifest(tmp_path):
    done = split_by(visits(), "time", ["day"])
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        done.save(tmp_path / name)
        read = Manifest.load(tmp_path / name)
        assert read.meta["split"]["kind"] == "time"
        check_leakage(read)
    assert split_by_group(visits()).meta["split"]["kind"] == "group"


@pytest.mark.parametrize(
    ("kind", "by", "said"),
    [
        ("times", ["day"], "unknown kind of split 'times'; did you mean 'time'"),
        ("time", [], "needs one column of times"),
        ("place", ["lat"], "needs two columns, as in --by lat,lon"),
        ("time", ["dai"], "unknown column 'dai'; did you mean 'day'"),
    ],
)
def test_what_is_missing_is_said(kind, by, said):
    with pytest.raises(InputError, match=said):
        split_by(visits(), kind, by)


def test_a_column_that_is_gone_is_named_instead_of_passing():
    done = split_by(visits(), "time", ["day"])
    with pytest.raises(InputError, match="split by time along the column 'day', which it no longer has"):
        check_leakage(Manifest(done.frame.drop(columns="day"), meta=done.meta))


def test_the_hash_of_a_split_is_that_of_its_sorted_lines_whatever_the_text_and_the_number_of_parts(monkeypatch):
    import hashlib

    names = ["b", "a", "Ä", "ä", "10", "9", "\U0001f3b5", "z z", "\uffff", ""]
    table = Manifest.from_rows([{"id": f"{n}{i}", "split": ("train", "", "test")[i % 3]} for i, n in enumerate(names)])
    pairs = sorted(zip(table.frame["id"], table.frame["split"]))
    said = hashlib.sha256("\n".join(f"{i}\t{s}" for i, s in pairs).encode()).hexdigest()
    assert split_hash(table) == said
    monkeypatch.setattr("counterpoint.common.data.splits.PART", 3)
    assert split_hash(table) == said
