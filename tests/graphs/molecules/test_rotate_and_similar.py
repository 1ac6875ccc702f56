"""RotatE learns the element graph; batches hold similar molecules."""

import numpy as np
import pytest
import torch
from rdkit import DataStructs
from rdkit.ML.Cluster.Butina import ClusterData

from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, periodic_table_graph
from counterpoint.graphs.molecules.fingerprints import fingerprint_matrix, fingerprints_apart, morgan_fingerprints
from counterpoint.graphs.molecules.rotate import RotatE, train_rotate
from counterpoint.graphs.molecules.similar import (
    OrderedBatchSampler,
    butina_clusters,
    butina_order,
)


def test_the_score_is_the_complex_rotation():
    torch.manual_seed(0)
    model = RotatE(4, 2, 6).double()
    h = torch.complex(*model.entities[0].chunk(2))
    t = torch.complex(*model.entities[3].chunk(2))
    r = torch.exp(1j * model.phases[1])
    expected = 6.0 - (h * r - t).abs().sum()
    torch.testing.assert_close(model(torch.tensor([0]), torch.tensor([1]), torch.tensor([3]))[0], expected)


def test_turning_back_the_tail_scores_as_turning_the_head():
    """|r| = 1: many heads against one tail cost no more than one head against many tails."""
    torch.manual_seed(0)
    model = RotatE(6, 2, 8).double()
    heads, one = torch.arange(5)[None], torch.tensor([[1]])
    broadcast = model(heads, one, one + 4)
    each = [model(heads[:, i : i + 1], one, one + 4) for i in range(5)]
    torch.testing.assert_close(broadcast, torch.cat(each, 1))


def test_training_is_deterministic_and_brings_elements_of_a_group_together():
    """Mean cosine of halogens (F, Cl, Br, I) among themselves exceeds theirs with the metals of the same periods."""
    knowledge = periodic_table_graph()
    table = train_rotate(knowledge, 16, epochs=80, negatives=8, lr=0.03, seed=1)
    assert table.shape == (knowledge.n_nodes, 16)
    once, again = (train_rotate(knowledge, 8, epochs=3, negatives=4, seed=1) for _ in range(2))
    assert torch.equal(once, again)
    unit = torch.nn.functional.normalize(table, dim=1)
    halogens, metals = unit[[9, 17, 35, 53]], unit[[3, 11, 22, 40, 26, 29]]
    own = (halogens @ halogens.T).sum().item() - 4
    assert own / 12 > (halogens @ metals.T).mean().item() + 0.1
    assert unit[FIRST_ATTRIBUTE:].isfinite().all()


ALCOHOLS = [f"{'C' * n}O" for n in range(4, 14)]
RINGS = [f"c1ccc({x})cc1" for x in ("F", "Cl", "Br", "I", "C", "N", "O", "S", "CC", "CCC")]


def test_butina_order_keeps_families_together():
    mixed = [m for pair in zip(ALCOHOLS, RINGS, strict=True) for m in pair]
    order = butina_order(mixed, threshold=0.7)
    assert sorted(order) == list(range(20))
    prints = morgan_fingerprints(mixed)

    def within(batches):
        pairs = [DataStructs.TanimotoSimilarity(prints[a], prints[b]) for x in batches for a in x for b in x if a < b]
        return np.mean(pairs)

    similar = within(OrderedBatchSampler(order, 5).batches(0))
    assert similar > 2 * within(np.random.default_rng(0).permutation(20).reshape(4, 5))


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.85])
def test_clusters_are_rdkits(threshold):
    mixed = [*ALCOHOLS, *RINGS, "c1ccncc1", "c1ccc2ccccc2c1", "CCO", "CCO", "[Na+]"]
    bits = fingerprint_matrix(mixed, bits=1024)
    assert np.array_equal(bits, fingerprints_apart(mixed, bits=1024))
    prints = morgan_fingerprints(mixed)
    distances = [
        1 - s for i in range(1, len(prints)) for s in DataStructs.BulkTanimotoSimilarity(prints[i], prints[:i])
    ]
    expected = ClusterData(distances, len(prints), threshold, isDistData=True, reordering=True)
    found = butina_clusters(bits, threshold)
    assert [c[0] for c in expected] == [c[0] for c in found]
    assert [sorted(c) for c in expected] == [sorted(c.tolist()) for c in found]


def test_epochs_shuffle_batches_not_members():
    sampler = OrderedBatchSampler(range(12), 3, seed=5)
    assert {tuple(b) for b in sampler.batches(0)} == {tuple(b) for b in sampler.batches(1)}
    assert any((a != b).any() for a, b in zip(sampler.batches(0), sampler.batches(1), strict=True))
