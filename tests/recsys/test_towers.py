"""Fields read off tables, and towers over them."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from counterpoint.recsys.data.fields import encode_field, encode_fields, learn_fields
from counterpoint.recsys.models.features import FeatureTables
from counterpoint.recsys.models.towers import CodedField, Tower

TABLE = pa.table({
    "id": [str(i) for i in range(60)],
    "title": [f"song {i}" for i in range(60)],
    "mood": ["high", "low", None] * 20,
    "year": [1950 + i for i in range(60)],
    "stars": [1, 2, 3] * 20,
    "price": [float(i % 7) if i % 5 else None for i in range(60)],
    "tags": [["a", "b"], ["b"], [], None] * 15,
    "nothing": pa.array([None] * 60, pa.string()),
})  # fmt: skip


def test_columns_are_told_apart_by_what_they_hold():
    fields = learn_fields(TABLE)
    kinds = {name: field["kind"] for name, field in fields.items()}
    assert kinds == {"mood": "category", "year": "bins", "stars": "category", "price": "bins", "tags": "set"}
    assert fields["mood"]["values"] == ["high", "low"]
    assert len(fields["year"]["edges"]) == 9


def test_every_row_has_its_values_and_what_is_missing_is_nowhere():
    fields = learn_fields(TABLE)
    mood, year, _, price, tags = (codes.toarray() for codes in encode_fields(fields, TABLE))
    assert mood[:3].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert (year.sum(1) == 1).all()
    assert (year.sum(0) == 6).all(), "deciles"
    assert (price.sum(1) == np.array([i % 5 > 0 for i in range(60)])).all()
    assert tags[:4].tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    other = pa.table({"id": ["x"], "mood": ["never heard of"]})
    assert [codes.sum() for codes in encode_fields(fields, other)] == [0] * 5


def test_values_of_one_row_alone_are_no_values_of_a_set():
    table = pa.table({"id": list("abc"), "words": [["the", "wall"], ["the", "end"], []], "own": [["a"], ["b"], ["c"]]})
    assert learn_fields(table) == {"words": {"kind": "set", "values": ["the"]}}


def test_numbers_fall_into_the_bins_of_their_edges():
    codes = encode_field({"kind": "bins", "edges": [0.0, 1.0]}, [-5.0, 0.0, 0.5, 1.0, float("nan"), None]).toarray()
    assert codes.argmax(1)[:4].tolist() == [0, 1, 1, 2]
    assert codes.sum(1).tolist() == [1, 1, 1, 1, 0, 0]


def test_a_field_is_the_mean_of_its_values_vectors_and_without_any_its_default():
    codes = sp.csr_array(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]]))
    field = CodedField(codes, 4).double()
    with torch.no_grad():
        field.default.fill_(7.0)
    rows = torch.tensor([2, 0, 1, 0])
    table = field.embedding.weight
    expected = torch.stack([field.default, (table[0] + table[1]) / 2, table[2], (table[0] + table[1]) / 2])
    torch.testing.assert_close(field(rows), expected)
    torch.manual_seed(0)
    dropped = torch.stack([field(torch.tensor([0]), dropped=0.5)[0] for _ in range(200)])
    ways = torch.stack([field.default, table[0], table[1], (table[0] + table[1]) / 2])
    nearest = torch.cdist(dropped, ways).min(1)
    assert float(nearest.values.max()) < 1e-6
    assert (torch.bincount(nearest.indices, minlength=4) > 25).all(), "each value is kept half of the time"


@pytest.mark.parametrize("hidden", range(3))
def test_a_hidden_part_has_no_say_and_the_others_have(hidden):
    torch.manual_seed(0)
    features = FeatureTables({"text": 3}, 4)
    features.load("text", torch.randn(4, 3), torch.tensor([True, True, True, False]))
    codes = [sp.csr_array(np.eye(4)[:, :2])]
    tower = Tower(codes, torch.tensor([True, True, False, True]), features, 4, (6, 5))
    masks = torch.zeros(tower.size, dtype=torch.bool)
    masks[hidden] = True
    rows = torch.arange(4)
    seen, blind = tower(rows), tower(rows, masks)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(4))
    lacking = {0: [2, 3], 1: [3], 2: [2]}[hidden]  # rows that have nothing there anyway
    for row in range(4):
        assert torch.allclose(seen[row], blind[row]) == (row in lacking)
