"""Batch samplers: what a batch may hold, what an epoch covers, and that a position is enough to go on."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.common.data import (
    ClusterDisjointBatchSampler,
    GroupUniqueBatchSampler,
    HardNegativeBatchSampler,
    SequentialSampler,
    ShuffleSampler,
    WeightedSampler,
    WithinClusterBatchSampler,
)

RNG = np.random.default_rng(0)
GROUPS = RNG.integers(0, 30, 100)
SAMPLERS = {
    "shuffle": lambda: ShuffleSampler(50, 8),
    "unique": lambda: GroupUniqueBatchSampler(GROUPS, 8),
    "disjoint": lambda: ClusterDisjointBatchSampler(GROUPS, 8),
    "within": lambda: WithinClusterBatchSampler([GROUPS % 3, GROUPS % 5], 8),
    "hard": lambda: HardNegativeBatchSampler(RNG.permutation(100).reshape(100, 1), 8),
    "weighted": lambda: WeightedSampler(np.arange(50.0), 8),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_position_is_enough_to_go_on(name):
    sampler = SAMPLERS[name]()
    first, second = list(sampler), list(sampler)
    assert first != second  # a new order every epoch
    assert len(first) == sampler_len(SAMPLERS[name](), 0)
    other = SAMPLERS[name]()
    other.load_state_dict({**sampler.state_dict(), "epoch": 1, "batch": 3})
    assert list(other) == second[3:]
    assert other.state_dict()["epoch"] == 2
    halfway = SAMPLERS[name]()
    if name == "hard":
        halfway.load_state_dict({**sampler.state_dict(), "epoch": 0, "batch": 0})
    taken = list(itertools.islice(halfway, 2))
    assert taken == first[:2]
    assert halfway.state_dict()["batch"] == 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_decides_and_travels_with_the_position(name):
    one, other = SAMPLERS[name](), SAMPLERS[name]()
    if name == "hard":
        other.load_state_dict(one.state_dict())
    other.seed = 5
    assert [list(b) for b in one.batches(0)] != [list(b) for b in other.batches(0)]
    one.load_state_dict({**other.state_dict(), "batch": 2})
    assert list(one) == list(other)[2:]


def sampler_len(sampler, epoch):
    sampler.epoch = epoch
    return len(sampler)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 15), min_size=8, max_size=120), st.integers(1, 6), st.integers(0, 3))
def test_unique_batches_hold_a_group_once_and_waste_little(groups, batch_size, epoch):
    if len(set(groups)) < batch_size:
        with pytest.raises(ValueError, match="groups cannot fill a batch"):
            GroupUniqueBatchSampler(groups, batch_size)
        return
    sampler = GroupUniqueBatchSampler(groups, batch_size)
    batches = sampler.batches(epoch)
    flat = np.concatenate(batches)
    assert len(set(flat.tolist())) == len(flat)
    for batch in batches:
        assert len(batch) == batch_size
        assert len({groups[i] for i in batch}) == batch_size
    # Optimal: n batches exist only if the groups, at most one member per batch, hold n * batch_size samples.
    sizes = np.array(list(Counter(groups).values()))
    more = len(batches) + 1
    assert np.minimum(sizes, more).sum() < more * batch_size
    assert sampler.waiting(epoch) == len(groups) - len(flat)


def test_over_epochs_everybody_has_a_turn():
    groups = ["big"] * 20 + [f"g{i}" for i in range(20)]
    sampler = GroupUniqueBatchSampler(groups, 4)
    seen = Counter(i for epoch in range(60) for b in sampler.batches(epoch) for i in b)
    assert len(seen) == 40


def test_linear_time_in_the_number_of_samples():
    groups = np.random.default_rng(0).integers(0, 40_000, 200_000)
    batches = GroupUniqueBatchSampler(groups, 256).batches(0)
    assert sum(map(len, batches)) > 199_000


def test_disjoint_batches_have_fewer_false_negatives_than_random_ones():
    clusters = np.repeat(np.arange(16), 20)
    disjoint = ClusterDisjointBatchSampler(clusters, 16)
    assert disjoint.disjointness(0) == disjoint.disjointness(3) == 1.0
    random = np.mean([len(np.unique(clusters[b])) / 16 for b in ShuffleSampler(320, 16).batches(0)])
    assert random < 0.8
    assert sorted(i for b in disjoint.batches(0) for i in b) == list(range(320))


def test_within_cluster_batches_keep_to_their_cell_and_fall_back_to_the_parent():
    first, second = np.repeat([0, 1], 50), np.tile([0, 1], 50)
    sampler = WithinClusterBatchSampler([first, second], 8)
    cell = first * 2 + second
    pure = [len(set(cell[b])) for b in sampler.batches(0)]
    parents = [len(set(first[b])) for b in sampler.batches(0)]
    assert pure.count(1) == 12  # four cells of 25: three batches each
    assert len(pure) == 12  # remainders of 1 + 1 a parent, 4 in all: no further batch
    wide = WithinClusterBatchSampler([first, second], 20)
    kinds = Counter((len(set(cell[b])), len(set(first[b]))) for b in wide.batches(0))
    assert kinds == {(1, 1): 4, (4, 2): 1}  # one batch a cell; the four remainders of 5 meet in the whole set
    assert set(parents) == {1}
    strict = WithinClusterBatchSampler([first, second], 20, fallback=False)
    assert len(strict.batches(0)) == 4


def test_hard_negatives_share_batches_with_their_neighbours():
    points = np.random.default_rng(1).normal(size=(120, 2))
    distance = ((points[:, None] - points[None]) ** 2).sum(-1)
    neighbours = distance.argsort(1)[:, 1:11]
    sampler = HardNegativeBatchSampler(neighbours, 12, per_seed=3, groups=np.arange(120) // 2)
    batches = sampler.batches(0)
    flat = [i for b in batches for i in b]
    assert len(flat) == len(set(flat))
    assert len(flat) >= 96
    assert all(len({i // 2 for i in b}) == 12 for b in batches)

    def nearest(batches):
        return np.mean([np.sort(distance[np.ix_(b, b)], 1)[:, 1].mean() for b in batches])

    assert nearest(batches) < 0.5 * nearest(ShuffleSampler(120, 12).batches(0))
    with pytest.raises(ValueError, match="table"):
        sampler.update([[500]])


def test_new_neighbours_count_from_the_next_epoch_on():
    old, new = RNG.permutation(60).reshape(60, 1), RNG.permutation(60).reshape(60, 1)
    plain = [list(HardNegativeBatchSampler(table, 6, per_seed=1)) for table in (old, new)]
    sampler, second = HardNegativeBatchSampler(old, 6, per_seed=1), HardNegativeBatchSampler(new, 6, per_seed=1)
    second.epoch = 1
    walk = iter(sampler)
    taken = [next(walk) for _ in range(3)]
    sampler.update(new)
    # Stopped here and resumed, the epoch goes on as it was begun; the table waits for the next one.
    resumed = HardNegativeBatchSampler(new[::-1], 6, per_seed=1)
    resumed.load_state_dict(sampler.state_dict())
    assert taken + list(walk) == plain[0]
    assert list(resumed) == plain[0][3:]
    assert plain[0] != plain[1]
    assert list(sampler) == list(resumed) == list(second)
    with pytest.raises(ValueError, match="neighbours of 59 samples, and there are 60"):
        sampler.update(np.zeros((59, 1), int))


def test_weights_are_frequencies():
    sampler = WeightedSampler([1.0, 3.0, 0.0], 100, n_batches=200)
    drawn = Counter(i for b in sampler for i in b)
    assert drawn[1] / drawn[0] == pytest.approx(3, rel=0.1)
    assert 2 not in drawn
    with pytest.raises(ValueError, match="not all zero"):
        WeightedSampler([0.0, 0.0], 2)


@pytest.mark.parametrize(("n", "size"), [(10, 4), (12, 4), (3, 4), (1, 1)])
def test_without_dropping_every_sample_comes_once(n, size):
    batches = list(ShuffleSampler(n, size, drop_last=False))
    assert sorted(i for b in batches for i in b) == list(range(n))
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    kept = list(ShuffleSampler(n, size))
    assert [len(b) for b in kept] == [size] * (n // size)
    assert len({i for b in kept for i in b}) == n // size * size


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 3))
def test_in_order_every_sample_comes_once_and_no_batch_is_too_small(n, size, least):
    batches = list(SequentialSampler(n, size, least))
    assert [i for b in batches for i in b] == list(range(n))
    assert all(len(b) == size for b in batches[:-1])
    assert len(batches) == 1 or len(batches[-1]) >= min(least, size)
    assert len(batches[-1]) < size + least


def test_groups_meet_other_groups_every_epoch():
    """Dealt in a fixed order of groups, the same neighbours would share a batch for ever."""
    groups = np.repeat(np.arange(24), 2)
    sampler = GroupUniqueBatchSampler(groups, 4)
    met = {frozenset(p) for e in range(40) for b in sampler.batches(e) for p in itertools.combinations(groups[b], 2)}
    assert len(met) == 24 * 23 // 2


def test_so_many_neighbours_join_a_seed_and_padding_is_nobody():
    n = 60
    ring = (np.arange(n)[:, None] + [1, 2, 3, 4, 5]) % n
    batches = HardNegativeBatchSampler(ring, 6, per_seed=1).batches(0)
    joined = [sum((b - a) % n == 1 for a, b in itertools.pairwise(batch)) for batch in batches]
    assert np.mean(joined) < 4  # pairs, not runs of neighbours
    first = HardNegativeBatchSampler(ring, 6, per_seed=5).batches(0)[0]
    assert sorted((i - first[0]) % n for i in first) == [0, 1, 2, 3, 4, 5]
    padded = np.full((20, 3), -1)
    padded[:, 2] = (np.arange(20) + 1) % 20  # the neighbour stands after the padding
    for batch in HardNegativeBatchSampler(padded, 2, per_seed=1).batches(0)[:3]:
        assert (batch[1] - batch[0]) % 20 == 1


def test_hard_negatives_are_never_the_sample_itself_or_a_second_time():
    itself = np.tile(np.arange(30)[:, None], (1, 4))  # an index that finds only the query
    flat = [i for b in HardNegativeBatchSampler(itself, 5).batches(0) for i in b]
    assert sorted(flat) == list(range(30))
    with pytest.raises(ValueError, match="each of the 30 samples, got 29"):
        HardNegativeBatchSampler(itself, 5, groups=[0] * 29)


def test_weights_that_are_no_numbers_are_refused():
    for weights in ([1.0, float("inf")], [1.0, float("nan")], [1.0, -1.0]):
        with pytest.raises(ValueError, match="finite numbers, not negative"):
            WeightedSampler(weights, 2)


def test_a_weight_of_zero_is_never_drawn_wherever_it_stands():
    class Edge:
        def random(self, n):
            return np.zeros(n)  # the smallest draw there is

    sampler = WeightedSampler([0.0, 1.0, 0.0], 4, n_batches=1)
    sampler._rng = lambda epoch: Edge()
    assert sampler.batches(0)[0].tolist() == [1, 1, 1, 1]
