"""RotatE learns the element graph; batches hold similar molecules."""

import numpy as np
import torch
from rdkit import DataStructs

from counterpoint.graphs.molecules.element_kg import FIRST_ATTRIBUTE, periodic_table_graph
from counterpoint.graphs.molecules.rotate import RotatE, train_rotate
from counterpoint.graphs.molecules.similar import OrderedBatchSampler, butina_order, morgan_fingerprints


def test_the_score_is_the_complex_rotation():
    torch.manual_seed(0)
    model = RotatE(4, 2, 6).double()
    h = torch.complex(*model.entities[0].chunk(2))
    t = torch.complex(*model.entities[3].chunk(2))
    r = torch.exp(1j * model.phases[1])
    expected = 6.0 - (h * r - t).abs().sum()
    torch.testing.assert_close(model(torch.tensor([0]), torch.tensor([1]), torch.tensor([3]))[0], expected)


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


def test_epochs_shuffle_batches_not_members():
    sampler = OrderedBatchSampler(range(12), 3, seed=5)
    assert {tuple(b) for b in sampler.batches(0)} == {tuple(b) for b in sampler.batches(1)}
    assert any((a != b).any() for a, b in zip(sampler.batches(0), sampler.batches(1), strict=True))
