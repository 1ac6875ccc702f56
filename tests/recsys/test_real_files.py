"""The field's published files, as they are: counts as their papers state them."""

import numpy as np
import pytest

from counterpoint.recsys.commands import (
    import_edges,
    import_interactions,
    import_mmrec,
    import_recbole,
    import_sequences,
)
from counterpoint.recsys.configs import InteractionsConfig
from counterpoint.recsys.data.features import scale_of, standardized
from counterpoint.recsys.data.fields import encode_field, learn_fields
from counterpoint.recsys.data.folder import open_dataset, prepared

pytestmark = pytest.mark.realdata


def test_amazon_baby_as_mmrec_and_rearm_count_it(data_dir, tmp_path):
    report = import_edges(data_dir / "recsys" / "amazon-baby", tmp_path)
    data = prepared(open_dataset(report.manifest), InteractionsConfig())
    assert (len(data.log.users), len(data.log.items), report.rejected) == (19445, 7050, ())
    assert np.bincount(data.log.split).tolist() == [118551, 20559, 21682]
    assert data.split == "given"


def test_lastfm_with_its_vectors(data_dir, tmp_path):
    folder = data_dir / "recsys" / "lfm2k"
    vectors = (f"audio={folder / 'vggish.npy'}", f"text={folder / 'all-MiniLM-L6-v2.npy'}")
    report = import_mmrec(folder / "lfm2k.inter", tmp_path, features=vectors)
    data = prepared(open_dataset(report.manifest), InteractionsConfig())
    assert (len(data.log.users), len(data.log.items)) == (1858, 1425)
    assert np.bincount(data.log.split).tolist() == [44327, 4799, 7219]
    raw = data.feature("audio")
    assert raw.values[raw.known].mean() > 100, "raw values of 0 to 255"
    found = standardized(raw, *scale_of(raw)).values
    assert abs(found.mean()) < 1e-3
    assert found.std(0).max() < 1.01
    row = int(data.log.items[100])
    assert np.array_equal(data.feature("text").values[100], np.load(folder / "all-MiniLM-L6-v2.npy")[row])


def test_movielens_100k_as_atomic_files(data_dir, tmp_path):
    report = import_recbole(data_dir / "recsys" / "ml-100k-recbole", tmp_path, lowest=1, highest=5)
    data = open_dataset(report.manifest)
    assert (len(data.log.users), len(data.log.items), len(data.log)) == (943, 1682, 100_000)
    assert report.rejected == ()
    toy = data.log.items.row("1")
    assert data.items.column("movie_title")[toy].as_py() == ["Toy", "Story"]
    fields = learn_fields(data.items)
    assert {name: field["kind"] for name, field in fields.items()} == {
        "movie_title": "set", "release_year": "category", "class": "set"
    }  # fmt: skip
    assert len(fields["class"]["values"]) == 19, "18 genres and unknown"
    assert encode_field(fields["class"], data.items.column("class").to_pylist())[[toy]].sum() == 3
    assert set(data.users.column("gender").to_pylist()) == {"M", "F"}
    high = prepared(data, InteractionsConfig(at_least=4, core=5, split="time"))
    assert (high.log.rating >= 4).all()
    assert len(high.log) < 55_375


def test_movielens_small_by_its_usual_names(data_dir, tmp_path):
    folder = data_dir / "recsys" / "ml-latest-small"
    report = import_interactions(folder / "ratings.csv", tmp_path, items=folder / "movies.csv")
    data = open_dataset(report.manifest)
    assert (len(data.log.users), len(data.log.items), len(data.log)) == (610, 9742, 100_836)
    assert int((data.log.item_counts == 0).sum()) == 18, "films that nobody rated"


def test_amazon_beauty_as_sequences(data_dir, tmp_path):
    report = import_sequences(data_dir / "recsys" / "seq-mclrec" / "Amazon_Beauty.txt", tmp_path)
    data = prepared(open_dataset(report.manifest), InteractionsConfig(split="leave-last-out"))
    assert (len(data.log.users), len(data.log.items), len(data.log)) == (22363, 12101, 198_502)
    assert np.bincount(data.log.split)[1:].tolist() == [22363, 22363]
