"""The contract between data sets, batches and whoever reads them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from counterpoint.common.data import ListSamples, Manifest, ManifestDataset, Part, Samples
from counterpoint.common.data.arrow import table_hash
from counterpoint.common.data.batch import cut, rows, to_device
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.samples import checked, fact, facts
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Datasets


class Windows(Samples):
    """Two windows of every recording: more samples than manifest rows."""

    columns = ("label",)

    def __init__(self, recordings=3):
        self.recordings = recordings

    def __len__(self):
        return 2 * self.recordings

    def __getitem__(self, i):
        return {"x": torch.randn(3) + i, "index": i, "id": self.ids[i], "group": self.groups[i], "step": i % 2}

    @property
    def ids(self):
        return [f"r{i // 2}:{i % 2}" for i in range(len(self))]

    @property
    def groups(self):
        return [f"r{i // 2}" for i in range(len(self))]

    @property
    def hash(self):
        return f"windows {self.recordings}"

    def row_of(self, position):
        return position // 2

    def column(self, name):
        return ["odd" if self.row_of(i) % 2 else "even" for i in range(len(self))]


class Ragged:
    """A batch that knows itself."""

    def __init__(self, values, where="cpu"):
        self.values, self.where = values, where

    def __len__(self):
        return len(self.values)

    def to(self, device):
        return Ragged(self.values, str(device))

    def cut(self, start, stop):
        return Ragged(self.values[start:stop], self.where)


def test_batches_and_their_objects_move_and_are_cut():
    batch = {
        "parts": Ragged([[1], [2, 3], []]), "mask": torch.tensor([True, False, True]), "code": torch.tensor([5, 6, 7]),
        "id": ["a", "b", "c"], "nested": {"x": torch.zeros(3, 2)}, "rate": 8000,
    }  # fmt: skip
    moved = to_device(batch, "meta")
    assert moved["parts"].where == "meta"
    assert moved["nested"]["x"].device.type == moved["mask"].device.type == "meta"
    assert moved["id"] == ["a", "b", "c"]
    part = cut(batch, 1, 3)
    assert rows(batch) == 3
    assert rows(part) == 2
    assert part["parts"].values == [[2, 3], []]
    assert part["mask"].dtype == torch.bool
    assert part["code"].tolist() == [6, 7]
    assert part["nested"]["x"].shape == (2, 2)
    assert part["rate"] == 8000
    assert rows({"parts": Ragged([1, 2])}) == 2


def test_labels_belong_to_samples_and_not_to_rows():
    windows = Windows()
    assert facts(windows, "label") == ["even", "even", "odd", "odd", "even", "even"]
    assert facts(windows, "step") == [0, 1, 0, 1, 0, 1]
    assert fact(windows, 3, windows[3], "label") == "odd"
    with pytest.raises(InputError, match="unknown label field 'colour'; there are: .*step.*label"):
        facts(windows, "colour")
    part = Part(windows, [5, 2])
    assert part.ids == ["r2:1", "r1:0"]
    assert part.column("label") == ["even", "odd"]
    assert [part.row_of(i) for i in range(2)] == [2, 1]
    assert part.hash not in (windows.hash, Part(windows, [2, 5]).hash)


def test_encoding_draws_the_same_views_with_any_number_of_workers():
    class Same(torch.nn.Module):
        def encode(self, batch):
            return {"x": batch["x"] + torch.rand(())}

    state = torch.get_rng_state()
    alone, shared = (encode_rows(Same(), Windows(), batch_size=4, workers=w, facts=("label",)) for w in (0, 2))
    assert torch.equal(alone.vectors["x"], shared.vectors["x"])
    assert alone.facts["label"] == shared.facts["label"] == Windows().column("label")
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_no_samples_is_refused_where_it_is_given():
    with pytest.raises(TypeError, match="the train split is a list, not Samples: .*ListSamples"):
        checked([{"x": 1}], "the train split")
    with pytest.raises(TypeError):
        Datasets(ListSamples([{"x": 1}]), val=[1])


def test_a_manifest_is_known_by_its_content_whatever_file_holds_it(tmp_path):
    values = [{"id": f"s{i}", "n": i, "x": i / 3, "name": "ä" * i or None, "ok": bool(i % 2)} for i in range(5)]
    table = Manifest.from_rows(values)
    hashes = {Manifest.load(table.save(tmp_path / f"m{ending}").path).hash for ending in (".parquet", ".jsonl", ".csv")}
    assert hashes == {table.hash}
    shuffled = Manifest(table.frame[["x", "id", "ok", "name", "split", "n", "group"]])
    assert shuffled.hash == table.hash
    for column, value in (("name", "b"), ("n", 7), ("x", 0.0), ("ok", None)):
        other = table.frame.astype({column: object})
        other.loc[2, column] = value
        assert Manifest(other).hash != table.hash, column


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),  # where one text ends
        ({"a": ["", None]}, {"a": [None, ""]}),  # the empty text is not a missing one
        ({"a": [1, 2]}, {"b": [1, 2]}),
        ({"a": [2**53, 1]}, {"a": [2**53 + 1, 1]}),  # beyond what a double holds
    ],
)
def test_different_tables_have_different_hashes(one, two):
    assert table_hash(pa.table(one)) != table_hash(pa.table(two))


def test_reading_options_are_part_of_the_identity():
    table = Manifest.from_rows([{"id": "a"}])

    def load(row):
        return {"x": torch.zeros(1)}

    plain, again = (ManifestDataset(table, load, reading={"seconds": 4}) for _ in range(2))
    assert plain.hash == again.hash
    assert plain.hash != ManifestDataset(table, load, reading={"seconds": 8}).hash


def test_a_column_of_a_manifest_is_read_without_its_samples():
    frame = pd.DataFrame({"id": ["a", "b", "c"], "label": ["x", None, "NA"], "score": [1.0, np.nan, 3.0]})
    dataset = ManifestDataset(Manifest(frame), lambda row: 1 / 0)
    assert facts(dataset, "label") == ["x", None, "NA"]
    assert facts(dataset, "score") == [1.0, None, 3.0]
    assert list(dataset.ids) == list(dataset.groups) == ["a", "b", "c"]


def test_the_row_of_a_splits_sample_is_the_manifests():
    table = Manifest.from_rows([{"id": f"s{i}", "split": "test" if i % 2 else "train"} for i in range(6)])
    held = ManifestDataset(table.select("test"), lambda row: {"x": torch.zeros(1)})
    assert [held.row_of(i) for i in range(len(held))] == [1, 3, 5]
    assert Part(held, [2, 0]).row_of(0) == 5


def test_a_modality_with_a_pool_is_not_embedded_from_the_samples_beside_it():
    """Training samples hold a caption each; the captions of the pool are more, and a row of them is no sample."""

    class Both(torch.nn.Module):
        def encode(self, batch, modality=None):
            found = {name: batch[name] for name in ("scene", "caption") if name in batch}
            return found if modality is None else {modality: found[modality]}

    data = ListSamples([{"scene": torch.ones(2), "caption": torch.zeros(2)}] * 2)
    assert list(encode_rows(Both(), data).vectors) == ["scene", "caption"]
    data.pools = {"caption": ListSamples([{"caption": torch.zeros(2)}] * 3)}
    assert list(encode_rows(Both(), data).vectors) == ["scene"]
