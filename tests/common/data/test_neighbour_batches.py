"""Sample4Geo's batches: each sample once, an anchor with its nearest and some behind them, resumable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoint.common.data.neighbour_batches import NeighbourBatchSampler, nearest_places


def line(n, k):
    """Places on a meridian: the neighbours of i are those next to it."""
    return nearest_places(np.arange(n) / 10, np.zeros(n), k)


@given(
    n=st.integers(2, 40), size=st.integers(1, 12), near=st.integers(0, 4), far=st.integers(0, 4), seed=st.integers(0, 9)
)
def test_every_sample_at_most_once_and_only_full_batches(n, size, near, far, seed):
    batches = NeighbourBatchSampler(line(n, 10), size, near, far, seed=seed).batches(0)
    flat = [i for batch in batches for i in batch]
    assert len(flat) == len(set(flat)) == n // size * size
    assert all(len(batch) == size for batch in batches)


def test_an_anchor_brings_its_nearest_and_some_of_the_ranks_behind():
    n, near, far = 400, 4, 3
    table = line(n, 20)
    for seed in range(5):
        first = NeighbourBatchSampler(table, 8, near, far, seed=seed).batches(0)[0]
        anchor = first[0]
        assert first[1 : 1 + near] == table[anchor, :near].tolist()
        assert set(first[1 + near :]) <= set(table[anchor, near:].tolist())
    drawn = {tuple(sorted(NeighbourBatchSampler(table, 8, near, far, seed=s).batches(0)[0][5:])) for s in range(20)}
    assert len(drawn) > 10


def test_sample_zero_is_a_neighbour_like_any_other():
    table = np.array([[1], [0], [3], [2]])
    for seed in range(6):
        assert {tuple(sorted(b)) for b in NeighbourBatchSampler(table, 2, 1, 0, seed=seed).batches(0)} == {
            (0, 1),
            (2, 3),
        }


def test_samples_that_must_stay_apart_do_and_have_their_turn():
    names = np.repeat(np.arange(20), 2)
    batches = NeighbourBatchSampler(line(40, 10), 5, 4, 2, apart=names.astype(str)).batches(0)
    assert all(len(set(names[batch])) == 5 for batch in batches)
    assert len(batches) >= 7


def test_nearest_places_agree_with_great_circles_across_the_date_line():
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, 50), rng.uniform(-180, 180, 50)
    p, q = np.radians(lat), np.radians(lon)
    cosine = np.sin(p)[:, None] * np.sin(p) + np.cos(p)[:, None] * np.cos(p) * np.cos(q[:, None] - q)
    np.fill_diagonal(cosine, -2)
    assert np.array_equal(nearest_places(lat, lon, 5), np.argsort(-cosine, 1, kind="stable")[:, :5])
    assert nearest_places(np.zeros(3), np.array([179.9, -179.9, 170.0]), 1).tolist() == [[1], [0], [0]]


def test_a_new_table_counts_from_the_next_epoch_and_travels_in_the_state():
    sampler = NeighbourBatchSampler(np.full((6, 1), -1), 2, 1, 0, seed=3)
    begun = iter(sampler)
    first = next(begun)
    sampler.update(line(6, 2))
    other = NeighbourBatchSampler(np.full((6, 1), -1), 2, 1, 0, seed=0)
    other.load_state_dict(sampler.state_dict())
    assert [*begun] == [*other]
    assert [first] != []
    assert [*sampler] == [*other]
    assert np.array_equal(sampler.neighbours, line(6, 2))
    with pytest.raises(ValueError, match="neighbours of 3 samples"):
        sampler.update(line(3, 2))
