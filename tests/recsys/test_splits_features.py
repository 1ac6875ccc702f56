"""Splits, k-core, names that keep their rows, features whose missing rows stay missing."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings

from counterpoint.common.data import ListSamples
from counterpoint.common.data.embeddings import embed_to_parquet
from counterpoint.common.errors import InputError, LeakageError
from counterpoint.recsys.configs import InteractionsConfig
from counterpoint.recsys.data.features import ItemFeatures, read_features, scale_of, standardized
from counterpoint.recsys.data.folder import open_dataset, prepared
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions
from counterpoint.recsys.data.splits import KINDS, check_split, k_core, split_log
from counterpoint.recsys.simulate import simulated_interactions, write_simulated

LOG = simulated_interactions(80, 60, 3).log


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_what_its_kind_says(kind):
    log = split_log(LOG, kind, (0.7, 0.1, 0.2), 5)
    check_split(log, kind)
    shares = np.bincount(log.split, minlength=3) / len(log)
    if kind in ("random", "time"):
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    if kind == "leave-last-out":
        last = log.starts[1:] - 1
        assert (log.split[last] == 2).all()
        assert np.bincount(log.split)[1:].tolist() == [80, 80]
    assert (log.of("train").user_counts > 0).mean() > 0.9
    assert np.array_equal(split_log(LOG, kind, (0.7, 0.1, 0.2), 5).split, log.split)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_moved_across_is_found(kind):
    from dataclasses import replace

    log = split_log(LOG, kind, (0.7, 0.1, 0.2))
    split = log.split.copy()
    held = np.flatnonzero(split == 2)
    if kind == "random":  # nothing but a pair in both is wrong there
        doubled = Interactions(log.users, log.items, *(np.append(v, v[held[0]]) for v in (log.user, log.item)))
        wrong = replace(doubled, split=np.append(split, 0))
    else:
        place = {"time": log.time.argmin(), "leave-last-out": log.starts[0], "items": held[0]}[kind]
        split[place] = 0 if kind == "items" else 2
        wrong = replace(log, split=split)
    with pytest.raises(LeakageError):
        check_split(wrong, kind)


EDGES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60, unique=True)


@settings(max_examples=25)
@given(EDGES, st.integers(1, 4))
def test_a_core_is_the_largest_part_of_its_degree(edges, k):
    user, item = np.array(edges).T
    names = IdMap([str(i) for i in range(7)])
    log = Interactions(names, names, user, item)
    alive, changed = set(edges), True
    while changed:  # the definition, one edge at a time
        degree = [{}, {}]
        for edge in alive:
            for side in (0, 1):
                degree[side][edge[side]] = degree[side].get(edge[side], 0) + 1
        gone = {e for e in alive if degree[0][e[0]] < k or degree[1][e[1]] < k}
        alive, changed = alive - gone, bool(gone)
    if not alive:
        with pytest.raises(InputError, match="give a smaller core"):
            k_core(log, k)
        return
    found = k_core(log, k)
    assert set(zip(found.user.tolist(), found.item.tolist())) == alive


def test_a_cores_catalogue_is_its_own(tmp_path):
    data = prepared(simulated_interactions(60, 80, 1), InteractionsConfig(core=6))
    assert (data.log.user_counts >= 6).all()
    assert (data.log.item_counts >= 6).all()
    assert len(data.log.items) == data.items.num_rows < 80
    whole = simulated_interactions(60, 80, 1)
    name = data.log.items[5]
    row = whole.log.items.row(name)
    assert data.feature("text").values[5].tolist() == whole.feature("text").values[row].tolist()
    assert data.items.column("title")[5].as_py() == whole.items.column("title")[row].as_py()


def test_fingerprints_are_of_the_data_and_of_the_split_not_of_the_order():
    data = simulated_interactions(40, 30, 2)
    one = prepared(data, InteractionsConfig(split_seed=1)).fingerprint
    assert prepared(data, InteractionsConfig(split_seed=1)).fingerprint == one
    two = prepared(data, InteractionsConfig(split_seed=2)).fingerprint
    assert (one["data"] == two["data"], one["split"] == two["split"]) == (True, False)
    mixed = data.log.take(np.random.default_rng(0).permutation(len(data.log)))
    assert mixed.pair_hash == data.log.pair_hash
    assert data.log.take(np.arange(1, len(data.log))).pair_hash != data.log.pair_hash


def test_names_may_be_added_and_none_changes_its_row():
    ids = IdMap(["b", "a\nb", 'q"'])
    more = ids.extended(["z", "b", "c"])
    assert list(more) == ["b", "a\nb", 'q"', "c", "z"]
    assert IdMap.from_bytes(more.to_bytes()) == more
    with pytest.raises(InputError, match="'b' stands in the table twice"):
        IdMap(["b", "b"])


def test_half_precision_is_summed_in_full():
    values = np.full((20_000, 1), 300.0, dtype=np.float16)  # squares and sums overflow in half precision
    values[::2] = 100.0
    features = ItemFeatures(values, np.ones(len(values), dtype=bool))
    mean, deviation = scale_of(features)
    assert (mean.item(), deviation.item()) == (200.0, 100.0)
    z = standardized(features, mean, deviation).values
    assert set(z[:, 0].tolist()) == {-1.0, 1.0}
    assert z.dtype == np.float32


def test_scale_is_that_of_the_items_trained_on_and_missing_rows_stay_zero():
    features = ItemFeatures(np.array([[1.0], [3.0], [99.0], [7.0]], np.float32), np.array([1, 1, 1, 0], bool))
    mean, deviation = scale_of(features, np.array([1, 1, 0, 0], bool))
    found = standardized(features, mean, deviation)
    assert found.values[:, 0].tolist() == [-1.0, 1.0, 97.0, 0.0]
    assert found.known.tolist() == [True, True, True, False]


def test_vectors_come_by_id_from_a_table_an_array_and_what_embed_wrote(tmp_path):
    items = IdMap(["a", "b", "c"])
    pd.DataFrame({"id": ["c", "a", "x"], "v": [[1.0, 2.0], [3.0, float("nan")], [5.0, 6.0]]}).to_parquet(
        tmp_path / "v.parquet"
    )
    found, notes = read_features(tmp_path / "v.parquet", items)
    assert found.known.tolist() == [False, False, True]
    assert found.values[2].tolist() == [1.0, 2.0]
    assert "1 of 3 rows are of no item of the log (the first: 'x')" in notes[0]
    assert "1 rows hold NaN or infinity (the first: 'a')" in notes[1]
    assert "2 of 3 items have no vector (the first: 'a')" in notes[2]
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float16))
    found, _ = read_features(tmp_path / "v.npy", items, ["b", "a"])
    assert found.values.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    with pytest.raises(InputError, match="2 rows and 3 ids"):
        read_features(tmp_path / "v.npy", items, ["b", "a", "c"])
    with pytest.raises(InputError, match="none of its ids is an item of the log"):
        read_features(tmp_path / "v.npy", items)

    class Twice(torch.nn.Module):
        def encode(self, batch, modality=None):
            return {"audio": 2 * batch["x"]}

    samples = ListSamples([{"x": torch.tensor([float(i), 1.0]), "id": name} for i, name in enumerate("cab")])
    embed_to_parquet(Twice(), samples, tmp_path / "store")
    found, _ = read_features(tmp_path / "store", items)
    assert found.values.tolist() == [[2.0, 2.0], [4.0, 2.0], [0.0, 2.0]]

    class Both(Twice):
        def encode(self, batch, modality=None):
            return {"audio": batch["x"], "sheet": -batch["x"]}

    embed_to_parquet(Both(), samples, tmp_path / "two")
    assert read_features(tmp_path / "two", items, name="sheet")[0].values[1].tolist() == [-2.0, -1.0]
    with pytest.raises(InputError, match="holds audio and sheet; name the one to use: sheet=two"):
        read_features(tmp_path / "two", items)


def test_rows_that_are_counted_are_those_of_every_item_or_of_none(tmp_path):
    """Row i of an array without ids is the item called i: a catalogue that counts otherwise would get the vectors of
    others."""
    np.save(tmp_path / "v.npy", np.eye(4))
    found, notes = read_features(tmp_path / "v.npy", IdMap(["0", "3"]))
    assert found.values.argmax(1).tolist() == [0, 3]
    assert "2 of 4 rows are of no item of the log (the first: '1')" in notes[0]
    with pytest.raises(InputError, match=r"1 of 4 items have no row \(the first: '4'\); say whose rows they are"):
        read_features(tmp_path / "v.npy", IdMap(["1", "2", "3", "4"]))


def test_ids_of_vectors_are_the_texts_that_they_are_in_the_log(tmp_path):
    items = IdMap(["1", "2"])
    for ids in ([2.0, 1.0], [" 2", "1 "], [2, 1]):
        pd.DataFrame({"id": ids, "v": [[2.0], [1.0]]}).to_parquet(tmp_path / "v.parquet")
        assert read_features(tmp_path / "v.parquet", items)[0].values[:, 0].tolist() == [1.0, 2.0]
    pd.DataFrame({"id": ["1", None], "v": [[2.0], [1.0]]}).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(InputError, match=r"v.parquet: row 2 has no id"):
        read_features(tmp_path / "v.parquet", IdMap(["1", "None"]))


def test_vectors_that_no_item_can_use_are_told_as_such(tmp_path):
    np.save(tmp_path / "v.npy", np.full((2, 3), 1e300))
    with pytest.raises(InputError, match="every vector of an item of the log holds NaN or infinity"):
        read_features(tmp_path / "v.npy", IdMap(["0", "1"]))


def test_a_data_set_comes_back_as_it_was_written(tmp_path):
    report = write_simulated(tmp_path / "set", 30, 25, 4)
    data, made = open_dataset(report.manifest), simulated_interactions(30, 25, 4)
    assert data.log.hash == made.log.hash
    assert data.synthetic == made.synthetic != ""
    for name in ("text", "image"):
        assert np.array_equal(data.feature(name).values, made.feature(name).values)
        assert np.array_equal(data.feature(name).known, made.feature(name).known)
    assert pq.read_table(tmp_path / "set" / "items.parquet").column("category").to_pylist() == (
        made.items.column("category").to_pylist()
    )
    with pytest.raises(InputError, match="item feature"):
        prepared(data, InteractionsConfig(features=("sound",)))
