"""Retrieval: middle ranks, many-to-many truth, both directions, chance in closed form."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from counterpoint.common.metrics import rank_queries, retrieval
from counterpoint.common.metrics.chance import chance_levels
from counterpoint.common.metrics.ranking import paired_ranks


def random(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_collapsed_encoder_is_at_chance_and_never_ahead():
    flat = torch.ones(500, 16)
    one_each = (torch.arange(500), torch.arange(500))
    for result in (retrieval(flat, flat).a_to_b, retrieval(flat, flat, relevant=one_each).b_to_a):
        assert result.metrics["R@5"] == 0.0
        assert result.metrics["median_rank"] == result.chance["median_rank"] == 250.5


def test_collapse_hidden_by_rounding_is_still_a_tie():
    base = torch.nn.functional.normalize(torch.randn(1, 257, generator=torch.Generator().manual_seed(0)), dim=1)
    scale = torch.rand(1003, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    result = retrieval(base * scale, base * scale.flip(0)).a_to_b
    assert result.metrics["R@10"] == 0.0
    assert result.metrics["median_rank"] == 502.0


@pytest.mark.parametrize("n", [1, 2, 7, 520])
def test_paired_ranks_equal_scipy_middle_ranks_in_both_directions(n):
    q, k = random(n, 8, 1), random(n, 8, 2)
    k[n // 2 :] = k[: n - n // 2].clone()  # exact duplicates: ties
    target = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    rows, columns = paired_ranks(q, k, target, both=True)
    scores = (q @ k.T).numpy()
    expected = rankdata(-np.round(scores, 9), method="average", axis=1)[np.arange(n), target]
    np.testing.assert_array_equal(rows.numpy(), expected)
    inverse = torch.empty_like(target).index_copy_(0, target, torch.arange(n)).numpy()
    expected = rankdata(-np.round(scores, 9), method="average", axis=0)[inverse, np.arange(n)]
    np.testing.assert_array_equal(columns.numpy(), expected)


def test_many_to_many_path_equals_the_counting_path_on_one_to_one_truth():
    a, b = random(300, 6, 1), random(300, 6, 2) * 0.3 + random(300, 6, 1)
    fast, slow = retrieval(a, b), retrieval(a, b, relevant=(torch.arange(300), torch.arange(300)))
    for one, other in ((fast.a_to_b, slow.a_to_b), (fast.b_to_a, slow.b_to_a)):
        for key in one.metrics:
            assert one.metrics[key] == pytest.approx(other.metrics[key], abs=1e-12), key
            assert one.chance[key] == pytest.approx(other.chance[key], abs=1e-12), key


def test_index_truth_backwards_is_every_query_that_names_the_key():
    k = torch.eye(3)
    q = k[[0, 0, 1, 2]]
    result = retrieval(q, k, relevant=torch.tensor([0, 0, 1, 2]), ks=(1, 2))
    assert result.a_to_b.metrics["R@1"] == 1.0
    assert result.b_to_a.queries == 3
    assert result.b_to_a.metrics["coverage@2"] == 1.0
    assert result.b_to_a.metrics["mAP"] == 1.0


def test_many_to_many_matches_torchmetrics_without_ties():
    q, k = random(40, 5, 4), random(70, 5, 5)
    labels_q, labels_k = torch.arange(40) % 6, torch.arange(70) % 6
    result = rank_queries(q, k, relevant=(labels_q, labels_k), ks=(5, 10), normalize=False)
    scores = (q @ k.T).exp()  # torchmetrics never retrieves an item of negative score; order is what counts
    for i in range(40):
        target = labels_k == labels_q[i]
        expected = {
            "mAP": retrieval_average_precision(scores[i], target),
            "MRR": retrieval_reciprocal_rank(scores[i], target),
            "NDCG@10": retrieval_normalized_dcg(scores[i], target, top_k=10),
        }
        for key, value in expected.items():
            assert float(result.per_query[key][i]) == pytest.approx(float(value), abs=1e-6), key


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_tied_figures_equal_brute_force_definitions(pool, dim, seed):
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randint(0, 2, (3, dim), generator=g).double(), torch.randint(0, 2, (pool, dim), generator=g).double()
    truth = torch.rand(3, pool, generator=g) < 0.5
    truth[0, 0] = True
    result = rank_queries(q, k, relevant=truth, ks=(1, 2), normalize=False, n_boot=1)
    scores = q @ k.T
    for row, i in enumerate(result.rows.tolist()):
        s, t = scores[i].numpy(), truth[i].numpy()
        # Expected place of the first relevant key over all orders of the tied block: enumerate them.
        orders = [o for o in itertools.permutations(range(pool)) if all(s[a] >= s[b] for a, b in itertools.pairwise(o))]
        first = np.mean([min(o.index(j) for j in np.flatnonzero(t)) + 1 for o in orders])
        assert float(result.ranks[row]) == pytest.approx(first)
        rank = rankdata(-s, method="average")
        hits = rankdata(-s[t], method="average")
        assert float(result.per_query["mAP"][row]) == pytest.approx(float(np.mean(hits / rank[t])))


@pytest.mark.parametrize(("pool", "p"), [(5, 1), (6, 2), (7, 7), (7, 3)])
def test_chance_levels_equal_enumeration_of_every_order(pool, p):
    rows = []
    for places in itertools.combinations(range(1, pool + 1), p):
        discount = sum(1 / np.log2(1 + r) for r in places if r <= 3)
        ideal = sum(1 / np.log2(1 + r) for r in range(1, min(p, 3) + 1))
        ap = np.mean([(i + 1) / r for i, r in enumerate(places)])
        rows.append((places[0] <= 3, 1 / places[0], places[0], ap, discount / ideal, np.mean([r <= 3 for r in places])))
    expected = np.mean(rows, axis=0)
    got = chance_levels(pool, torch.tensor([p]), [3])
    keys = ["R@3", "MRR", "mean_rank", "mAP", "NDCG@3", "coverage@3"]
    np.testing.assert_allclose([got[key] for key in keys], expected, atol=1e-12)
    assert got["median_rank"] == np.median([row[2] for row in rows])


def test_random_features_score_at_chance_within_their_interval():
    result = retrieval(random(1000, 32, 7), random(1000, 32, 8)).a_to_b
    for key in ("MRR", "median_rank", "mean_rank", "R@10"):
        interval = result.intervals[key]
        assert interval.low <= result.chance[key] <= interval.high, key


def test_scores_do_not_depend_on_how_the_work_is_cut():
    q, k = random(1025, 4, 1).float(), random(1025, 4, 2).float()
    whole = retrieval(q, k).a_to_b.ranks
    rows = torch.arange(1025)
    parts = [rank_queries(q[i], k, relevant=i, n_boot=1).ranks for i in rows.split(100)]
    assert torch.equal(whole, torch.cat(parts))


def test_nan_is_refused_because_it_would_rank_first():
    broken = torch.eye(4)
    broken[2] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 4 rows \(first: row 2"):
        retrieval(torch.eye(4), broken)


def test_queries_without_truth_are_counted_not_dropped_in_silence():
    result = rank_queries(torch.eye(3), torch.eye(3), relevant=(["a", "b", "z"], ["a", "b", "c"]))
    assert (result.queries, result.unanswerable) == (2, 1)


def test_as_dict_names_the_pool_and_is_json():
    import json

    out = retrieval(torch.eye(4), torch.eye(4), names=("audio", "sheet")).as_dict()
    assert list(out) == ["audio -> sheet (pool 4)", "sheet -> audio (pool 4)"]
    assert json.loads(json.dumps(out))["audio -> sheet (pool 4)"]["metrics"]["R@1"] == 1.0


def test_unequal_sets_without_truth_say_what_to_give():
    with pytest.raises(ValueError, match="give `relevant`"):
        retrieval(torch.eye(4), torch.eye(4)[:3])
