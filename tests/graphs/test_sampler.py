"""The pure-PyTorch neighbour sampler: what it may return, how often, and how fast."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.graphs.sampler import (
    NeighborSampler,
    batch_generator,
    choose_without_replacement,
    sample_links,
    seeded_batches,
)


def random_graph(n, e, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(n, (2, e), generator=g)


def test_every_subset_is_equally_likely():
    """10 000 draws of 2 out of 4: each of the 6 subsets about 1/6 (chi-square with 5 degrees of freedom)."""
    picks = choose_without_replacement(torch.full((12_000,), 4), 2, torch.Generator().manual_seed(1)).sort(1).values
    counts = torch.unique(picks, dim=0, return_counts=True)[1].double()
    assert len(counts) == 6
    chi2 = ((counts - 2000) ** 2 / 2000).sum()
    assert chi2 < 20.5  # p = 0.001


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(0, 200), st.integers(1, 5), st.booleans(), st.integers(0, 10**6))
def test_sampled_edges_are_edges_of_the_graph(n, e, k, disjoint, seed):
    edges = random_graph(n, e, seed)
    sampler = NeighborSampler(edges, n, fanout=(k, k), disjoint=disjoint)
    seeds = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: max(1, n // 3)]
    sub = sampler.sample(seeds, generator=torch.Generator().manual_seed(seed))
    nodes, local, ids = sub.node["node"], sub.edge_index["node", "to", "node"], sub.edge_id["node", "to", "node"]
    assert torch.equal(nodes[local], edges[:, ids])
    drawn = torch.unique(torch.cat([local, ids[None]]), dim=1)
    assert drawn.shape[1] == len(ids), "an edge was drawn twice for one target"
    in_degree = torch.bincount(local[1], minlength=len(nodes))
    assert in_degree.max() <= k if len(ids) else True
    if disjoint:
        assert torch.equal(sub.tree["node"][local[0]], sub.tree["node"][local[1]])
    else:
        assert torch.equal(nodes[: len(seeds)], seeds)
        assert len(torch.unique(nodes)) == len(nodes)


def test_full_fanout_is_the_whole_neighbourhood():
    edges = random_graph(30, 120)
    sub = NeighborSampler(edges, 30, fanout=(-1,)).sample(torch.tensor([3, 7]))
    expected = ((edges[1] == 3) | (edges[1] == 7)).nonzero().squeeze(1)
    assert torch.equal(sub.edge_id["node", "to", "node"].sort().values, expected)


def test_heterogeneous_hops_follow_edge_types():
    """net <- pin <- device: two hops from a net reach its pins, then their devices, nothing else."""
    edges = {
        ("pin", "on", "net"): torch.tensor([[0, 1, 2], [0, 0, 1]]),
        ("device", "has", "pin"): torch.tensor([[0, 0, 1], [0, 1, 2]]),
    }
    sampler = NeighborSampler(edges, {"net": 2, "pin": 3, "device": 2}, fanout=(5, 5))
    sub = sampler.sample(torch.tensor([0]), "net")
    assert sub.node["net"].tolist() == [0]
    assert sorted(sub.node["pin"].tolist()) == [0, 1]
    assert sub.node["device"].tolist() == [0]


@pytest.mark.parametrize("disjoint", [False, True])
def test_links_find_their_ends(disjoint):
    edges = random_graph(50, 300)
    links = random_graph(50, 40, seed=5)
    sampler = NeighborSampler(edges, 50, fanout=(3, 3), disjoint=disjoint)
    chosen = torch.tensor([4, 9, 9, 30])
    batch = sample_links(sampler, links, ("node", "node"), chosen, torch.Generator().manual_seed(0))
    nodes = batch.subgraph.node["node"]
    assert torch.equal(nodes[batch.source], links[0, chosen])
    assert torch.equal(nodes[batch.target], links[1, chosen])
    if disjoint:
        tree = batch.subgraph.tree["node"]
        assert torch.equal(tree[batch.source], torch.arange(4))
        assert torch.equal(tree[batch.target], torch.arange(4))


def test_batches_depend_on_seed_epoch_and_number_alone():
    first = [(b, torch.rand(1, generator=g)) for b, g in seeded_batches(20, 6, seed=3, epoch=1)]
    again = list(seeded_batches(20, 6, seed=3, epoch=1))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert torch.equal(first[2][1], torch.rand(1, generator=batch_generator(3, 1, 2)))
    other = torch.cat([b for b, _ in seeded_batches(20, 6, seed=3, epoch=2)])
    assert not torch.equal(torch.cat([b for b, _ in first]), other)


def test_bad_graphs_are_named():
    with pytest.raises(ValueError, match=r"names a node outside 0\.\.4"):
        NeighborSampler(torch.tensor([[0, 9], [1, 2]]), 5, fanout=(2,))
    with pytest.raises(ValueError, match="fanout must be positive"):
        NeighborSampler(torch.tensor([[0], [1]]), 5, fanout=(0,))


@pytest.mark.slow
def test_a_thousand_seeds_on_a_large_graph_take_under_a_tenth_of_a_second():
    """150 000 nodes, 1.4 million edges, fan-out 8x8x8, one thread (CPU time, best of 5)."""
    torch.set_num_threads(1)
    sampler = NeighborSampler(random_graph(150_000, 1_400_000), 150_000, fanout=(8, 8, 8))
    times = []
    for trial in range(5):
        g = torch.Generator().manual_seed(trial)
        seeds = torch.randperm(150_000, generator=g)[:1024]
        start = time.process_time()
        sampler.sample(seeds, generator=g)
        times.append(time.process_time() - start)
    assert min(times) < 0.1, times
