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


@pytest.mark.parametrize("relevant", [None, (torch.arange(500), torch.arange(500)), (torch.arange(500) // 4,) * 2])
@pytest.mark.parametrize("level", [1.0, 0.0])
def test_a_collapsed_encoder_is_exactly_at_chance_in_every_figure(relevant, level):
    """Counting only what is strictly greater would give R@5 = 1 here; middle ranks alone 0, below chance.

    At level 0 the tolerance of ties is 0 too: only "at or above" still finds the block.
    """
    flat = torch.full((500, 16), level)
    both = retrieval(flat, flat, relevant=relevant)
    for result in (both.a_to_b, both.b_to_a):
        for key, value in result.metrics.items():
            assert key == "median_rank" or value == pytest.approx(result.chance[key], rel=1e-9), key
    if relevant is None:
        assert both.a_to_b.metrics["R@5"] == pytest.approx(0.01)
        assert both.a_to_b.metrics["median_rank"] == both.a_to_b.chance["median_rank"] == 250.5


def test_collapse_hidden_by_rounding_is_still_a_tie():
    base = torch.nn.functional.normalize(torch.randn(1, 257, generator=torch.Generator().manual_seed(0)), dim=1)
    scale = torch.rand(1003, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    result = retrieval(base * scale, base * scale.flip(0)).a_to_b
    assert result.metrics["R@10"] == pytest.approx(10 / 1003)
    assert result.metrics["median_rank"] == 502.0


@pytest.mark.parametrize("n", [1, 2, 7, 520])
def test_paired_ranks_equal_scipy_middle_ranks_in_both_directions(n):
    q, k = random(n, 8, 1), random(n, 8, 2)
    k[n // 2 :] = k[: n - n // 2].clone()  # exact duplicates: ties
    target = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    rows, columns = paired_ranks(q, k, target, both=True)
    scores = (q @ k.T).numpy()
    expected = rankdata(-np.round(scores, 9), method="average", axis=1)[np.arange(n), target]
    np.testing.assert_array_equal(rows.middle.numpy(), expected)
    inverse = torch.empty_like(target).index_copy_(0, target, torch.arange(n)).numpy()
    expected = rankdata(-np.round(scores, 9), method="average", axis=0)[inverse, np.arange(n)]
    np.testing.assert_array_equal(columns.middle.numpy(), expected)


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


def figures_of_an_order(relevant, ks):
    """The figures' definitions for one order of the pool without ties."""
    ranks = np.flatnonzero(relevant) + 1
    discount = 1 / np.log2(1 + np.arange(1, len(relevant) + 1))
    out = {"rank": ranks[0], "MRR": 1 / ranks[0], "mAP": np.mean((np.arange(len(ranks)) + 1) / ranks)}
    for k in ks:
        out[f"R@{k}"] = float(ranks[0] <= k)
        out[f"coverage@{k}"] = np.mean(ranks <= k)
        out[f"NDCG@{k}"] = discount[:k][relevant[:k]].sum() / discount[: min(k, len(ranks))].sum()
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.booleans(), st.integers(0, 10**6))
def test_every_figure_is_its_mean_over_all_orders_of_the_ties(pool, dim, exclude_self, seed):
    g = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 2, (pool, dim), generator=g).double()
    k = torch.randint(0, 2, (pool, dim), generator=g).double()
    truth = torch.rand(pool, pool, generator=g) < 0.5
    truth[0, 1] = True
    ks = (1, 2, 4)
    result = rank_queries(q, k, relevant=truth, ks=ks, normalize=False, n_boot=1, exclude_self=exclude_self)
    scores = q @ k.T
    for row, i in enumerate(result.rows.tolist()):
        kept = [j for j in range(pool) if not (exclude_self and j == i)]
        s, t = scores[i, kept].numpy(), truth[i, kept].numpy()
        orders = [o for o in itertools.permutations(range(len(s))) if all(np.diff(s[list(o)]) <= 0)]
        figures = [figures_of_an_order(t[list(o)], ks) for o in orders]
        assert float(result.ranks[row]) == pytest.approx(np.mean([f["rank"] for f in figures]))
        for key in figures[0].keys() - {"rank"}:
            mean = np.mean([f[key] for f in figures])
            assert float(result.per_query[key][row]) == pytest.approx(mean, abs=1e-12), key


def test_the_counting_path_agrees_with_the_sorting_path_under_ties():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randint(0, 2, (60, 4), generator=g).double(), torch.randint(0, 2, (60, 4), generator=g).double()
    fast = retrieval(q, k, normalize=False).a_to_b
    slow = rank_queries(q, k, relevant=(torch.arange(60), torch.arange(60)), normalize=False)
    for key, values in fast.per_query.items():
        torch.testing.assert_close(values, slow.per_query[key], rtol=0, atol=1e-12)


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


def test_chance_of_a_mixture_is_its_mean_over_queries():
    sizes = torch.tensor([1, 1, 1, 4])
    mixed, one, four = (chance_levels(6, n, [2, 9]) for n in (sizes, sizes[:1], sizes[3:]))
    for key in mixed.keys() - {"median_rank"}:
        assert mixed[key] == pytest.approx(0.75 * one[key] + 0.25 * four[key]), key
    assert one["coverage@9"] == one["R@9"] == 1.0  # a cut beyond the pool finds everything
    ranks = [r for r in range(1, 7) for _ in range(3 * 15)]  # 3 queries with one key, and every place of four keys
    ranks += [p[0] for p in itertools.combinations(range(1, 7), 4) for _ in range(6)]
    assert mixed["median_rank"] == np.median(ranks)


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
