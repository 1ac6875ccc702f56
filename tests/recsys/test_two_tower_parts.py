"""The streaming frequency estimator, the corrected softmax, mutual information and masks of fields."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from recsys_formulas import formula
from sklearn.metrics import mutual_info_score

from counterpoint.recsys.models.frequency import CorrectedSoftmax, StreamingFrequency
from counterpoint.recsys.models.masking import FieldMasks, mutual_information


@pytest.mark.parametrize("hashes", [1, 3])
def test_the_estimator_finds_how_often_items_come_by(hashes):
    """A stream of known frequencies, in fewer buckets than there are ids."""
    rng = np.random.default_rng(0)
    probability = np.array([0.8, 0.4, 0.1, 0.02])
    frequency = StreamingFrequency(2000, hashes=hashes, rate=0.03, first=10.0)
    for _ in range(3000):
        frequency.update(torch.from_numpy(np.flatnonzero(rng.random(4) < probability) * 10**7))
    found = frequency(torch.arange(4) * 10**7).numpy()
    assert found == pytest.approx(probability, rel=0.35)


def test_the_update_is_the_papers():
    frequency = StreamingFrequency(64, hashes=1, rate=0.2, first=7.0)
    gap, last = 7.0, 0
    for step, there in enumerate([False, True, False, False, True, True], start=1):
        frequency.update(torch.tensor([5, 5] if there else [9]))
        if there:
            gap, last = 0.8 * gap + 0.2 * (step - last), step
    assert float(frequency(torch.tensor([5]))) == pytest.approx(1 / gap, rel=1e-6)
    assert float(frequency(torch.tensor([11]))) == pytest.approx(1 / 7), "what has not come by is as rare as said"


def test_more_hashes_are_misled_less_by_collisions():
    """One item in a crowd that shares 40 buckets: gaps of a shared bucket are too short."""
    rng = np.random.default_rng(1)
    found = {}
    for hashes in (1, 4):
        frequency = StreamingFrequency(40, hashes=hashes, rate=0.02, first=50.0)
        for _ in range(1000):
            frequency.update(torch.from_numpy(np.flatnonzero(rng.random(60) < 0.02)))
        found[hashes] = float(frequency(torch.arange(60)).mean())
    assert 0.02 < found[4] < found[1]


def test_the_softmax_is_the_dense_one():
    q, k = formula(5, 3, 0.2).requires_grad_(), formula(5, 3, 0.8).requires_grad_()
    p, ids = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.1], dtype=torch.float64), torch.tensor([4, 7, 1, 2, 7])
    logits = q @ k.T / 0.3 - p.log()
    plain = torch.nn.functional.cross_entropy(logits, torch.arange(5), reduction="none")
    mine = CorrectedSoftmax(0.3)(q, k, ids, p)
    torch.testing.assert_close(mine, plain)
    for x, y in zip(torch.autograd.grad(mine.sum(), (q, k)), torch.autograd.grad(plain.sum(), (q, k))):
        torch.testing.assert_close(x, y)
    copies = (ids[:, None] == ids) & ~torch.eye(5, dtype=torch.bool)
    assert copies.any()
    dropped = logits.masked_fill(copies, -torch.inf)
    expected = torch.nn.functional.cross_entropy(dropped, torch.arange(5), reduction="none")
    torch.testing.assert_close(CorrectedSoftmax(0.3, drop_same=True)(q, k, ids, p), expected)


def test_a_constant_factor_of_the_probabilities_means_nothing():
    q, k, ids = formula(4, 3, 0.2), formula(4, 3, 0.8), torch.arange(4)
    p = torch.tensor([0.5, 0.1, 0.9, 0.3]).double()
    torch.testing.assert_close(CorrectedSoftmax(0.1)(q, k, ids, p), CorrectedSoftmax(0.1)(q, k, ids, p / 50))


def test_corrected_in_batch_softmax_estimates_the_one_over_all_items():
    """Negatives drawn by popularity: the corrected gradient points where that of the full softmax does."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    popularity = torch.linspace(1, 40, 30, dtype=torch.float64)
    popularity /= popularity.sum()
    q = torch.randn(1, 4, generator=generator, dtype=torch.float64).requires_grad_()
    whole = torch.nn.functional.cross_entropy(q @ table.T, torch.tensor([3]))
    (exact,) = torch.autograd.grad(whole, q)
    sums = {True: 0.0, False: 0.0}
    for _ in range(20):
        drawn = torch.multinomial(popularity, 4000, replacement=True, generator=generator)
        drawn[0] = 3
        for corrected in sums:
            loss = CorrectedSoftmax(1.0)(q, table[drawn], drawn, popularity[drawn] if corrected else None)[0]
            sums[corrected] = sums[corrected] + torch.autograd.grad(loss, q)[0] / 20
    errors = {k: float((v - exact).norm() / exact.norm()) for k, v in sums.items()}
    assert errors[True] < 0.05 < errors[False], errors


def one_hot(codes):
    return sp.csr_array(np.eye(max(codes) + 1)[codes])


def test_mutual_information_is_that_of_the_counts():
    rng = np.random.default_rng(0)
    a, b = rng.integers(4, size=200), rng.integers(3, size=200)
    c = np.where(rng.random(200) < 0.7, a, rng.integers(4, size=200))
    found = mutual_information([one_hot(v) for v in (a, b, c)])
    for i, x in enumerate((a, b, c)):
        for j, y in enumerate((a, b, c)):
            assert found[i, j] == pytest.approx(mutual_info_score(x, y), abs=1e-12)


def test_items_of_several_values_count_once_and_those_of_none_do_not():
    both = sp.csr_array(np.array([[1, 1, 0], [0, 0, 5], [0, 0, 0], [1, 0, 0]]))
    other = sp.csr_array(np.array([[1, 0], [0, 1], [1, 0], [1, 0]]))
    joint = np.array([[0.5, 0.0], [0.5 / 3, 0.0], [0.0, 1 / 3]])
    joint[0, 0] = 0.5 / 3 + 1 / 3
    where = joint > 0
    expected = (joint[where] * np.log(joint[where] / (joint.sum(1, keepdims=True) * joint.sum(0))[where])).sum()
    assert mutual_information([both, other])[0, 1] == pytest.approx(expected)
    empty = sp.csr_array((4, 2))
    assert mutual_information([both, empty])[0, 1] == 0


def test_correlated_fields_are_hidden_together_and_the_views_hide_all_between_them():
    twins = np.array([[1, 9, 0, 0, 0.5], [9, 1, 0, 0, 0], [0, 0, 1, 8, 0], [0, 0, 8, 1, 0], [0.5, 0, 0, 0, 1]])
    masks, generator = FieldMasks(twins), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(100):
        first, second = masks.draw(generator)
        assert bool((first ^ second).all())
        seen.add(tuple(first.nonzero().flatten().tolist()))
    assert seen == {(0, 1), (2, 3), (0, 4)}, "floor(5 / 2) fields: the seed and its nearest"


def test_random_masks_hide_every_pair_as_often():
    masks, generator = FieldMasks(None, 4), torch.Generator().manual_seed(0)
    drawn = [tuple(masks.draw(generator)[0].nonzero().flatten().tolist()) for _ in range(1200)]
    counts = {pair: drawn.count(pair) for pair in set(drawn)}
    assert len(counts) == 6
    assert all(140 < count < 260 for count in counts.values()), counts


def test_one_field_cannot_be_shared_out():
    with pytest.raises(ValueError, match="1 fields"):
        FieldMasks(np.ones((1, 1)))
