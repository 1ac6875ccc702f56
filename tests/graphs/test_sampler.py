"""The pure-PyTorch neighbour sampler: what it may return, how often, and at what cost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Work(TorchDispatchMode):
    """Counts the elements that operations write; views and writes in place count what they are given."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        written = args[1:] if any(r.alias_info for r in function._schema.returns) else result
        self.elements += sum(leaf.numel() for leaf in tree_leaves(written) if isinstance(leaf, torch.Tensor))
        return result


def test_a_batch_costs_what_it_samples_and_not_what_the_graph_holds():
    """20 000 and 300 000 nodes, fan-out 8 x 8: as many elements are computed for each sampled edge."""
    costs = []
    for nodes in (20_000, 300_000):
        sampler = NeighborSampler(random_graph(nodes, 9 * nodes), nodes, fanout=(8, 8))
        seeds = torch.randperm(nodes, generator=torch.Generator().manual_seed(1))[:64]
        sampler.sample(seeds)  # the first batch makes the array of local numbers, which is kept
        with Work() as work:
            edges = sampler.sample(seeds).edge_index["node", "to", "node"].shape[1]
        assert edges > 3000
        costs.append(work.elements / edges)
    assert costs[1] < 1.05 * costs[0] < 70, costs
