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
from counterpoint.common.metrics.ranking import Scoring, paired_ranks


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
    rows, columns = paired_ranks(Scoring(q, k, metric="dot"), target, both=True)
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
    result = rank_queries(q, k, relevant=(labels_q, labels_k), ks=(5, 10), metric="dot")
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


def transposed(relevant, n, m):
    """A truth as the bool matrix of the other direction."""
    if isinstance(relevant, tuple):
        return torch.tensor([[a == b for a in relevant[0]] for b in relevant[1]])
    return relevant.T if relevant.ndim == 2 else torch.arange(m)[:, None] == relevant


@pytest.mark.parametrize("kind", ["labels", "index", "matrix"])
def test_backwards_is_the_same_truth_from_the_other_side_with_its_own_groups(kind):
    q, k = random(30, 4, 1), random(45, 4, 2)
    relevant = {
        "labels": ((np.arange(30) % 7).tolist(), (np.arange(45) % 5).tolist()),
        "index": torch.arange(30) * 3 % 11,
        "matrix": torch.rand(30, 45, generator=torch.Generator().manual_seed(3)) < 0.1,
    }[kind]
    groups, groups_b = np.arange(30) // 2, np.arange(45) // 9
    both = retrieval(q, k, relevant=relevant, groups=groups, groups_b=groups_b, n_boot=20)
    back = rank_queries(k, q, relevant=transposed(relevant, 30, 45), groups=groups_b, n_boot=20)
    assert both.b_to_a.metrics == pytest.approx(back.metrics)
    assert both.b_to_a.intervals == back.intervals
    assert both.a_to_b.intervals["MRR"].groups == len(set(groups[both.a_to_b.rows]))
    assert both.b_to_a.intervals["MRR"].groups == len(set(groups_b[both.b_to_a.rows]))


def test_paired_rows_share_their_groups_unless_the_other_side_has_its_own():
    z = random(40, 4)
    groups = {"groups": np.arange(40) // 2, "n_boot": 5}
    both, own = retrieval(z, z, **groups), retrieval(z, z, **groups, groups_b=np.arange(40) // 8)
    assert [r.intervals["MRR"].groups for r in (both.a_to_b, both.b_to_a)] == [20, 20]
    assert [r.intervals["MRR"].groups for r in (own.a_to_b, own.b_to_a)] == [20, 5]


def test_a_set_searched_in_itself_leaves_out_the_query_in_every_block():
    n = 1100  # more than one block of queries
    z, labels = random(n, 6), torch.arange(n) % 275
    result = rank_queries(z, z, relevant=(labels, labels), exclude_self=True, n_boot=5)
    unit = torch.nn.functional.normalize(z, dim=1)
    scores = (unit @ unit.T).fill_diagonal_(-2)
    order = scores.argsort(1, descending=True)
    hits = labels[order] == labels[:, None]
    hits[:, -1] = False  # the query itself
    first = hits.double().argmax(1) + 1
    assert torch.equal(result.ranks, first.double())
    assert result.pool == n - 1
    assert result.metrics["median_rank"] == np.median(first)
    places = hits.nonzero()[:, 1].view(n, 3) + 1.0
    precision = (torch.arange(1, 4) / places).mean(1)
    assert result.metrics["mAP"] == pytest.approx(float(precision.mean()))


def test_length_counts_for_inner_products_only():
    q, k = random(50, 4, 1), random(50, 4, 2)
    lengths = torch.linspace(0.01, 9, 50).double()[:, None]
    plain, long = retrieval(q, k, n_boot=2), retrieval(q * lengths, k * lengths.flip(0), n_boot=2)
    assert long.a_to_b.metrics == pytest.approx(plain.a_to_b.metrics)
    inner = retrieval(q, k * lengths, metric="dot", n_boot=2).a_to_b
    ranks = rankdata(-(q @ (k * lengths).T).numpy(), axis=1)[np.arange(50), np.arange(50)]
    np.testing.assert_array_equal(inner.ranks.numpy(), ranks)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_what_counts_as_a_tie_grows_with_the_scores(scale):
    base = torch.randn(1, 257, generator=torch.Generator().manual_seed(0)).repeat(1003, 1) * scale
    noise = 1e-7 * torch.randn(1003, 257, generator=torch.Generator().manual_seed(1)) * scale
    result = retrieval(base, base + noise, metric="dot", n_boot=2).a_to_b
    assert result.metrics["R@10"] == pytest.approx(10 / 1003)
    apart = retrieval(scale * torch.eye(9), scale * torch.eye(9), metric="dot", n_boot=2).a_to_b
    assert apart.metrics["R@1"] == 1.0


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


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(1, 3), st.booleans(), st.integers(0, 10**6))
def test_every_figure_is_its_mean_over_all_orders_of_the_ties(pool, dim, exclude_self, seed):
    g = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 2, (pool, dim), generator=g).double()
    k = torch.randint(0, 2, (pool, dim), generator=g).double()
    truth = torch.rand(pool, pool, generator=g) < 0.5
    truth[0, 1] = True
    ks = (1, 2, 4)
    result = rank_queries(q, k, relevant=truth, ks=ks, metric="dot", n_boot=1, exclude_self=exclude_self)
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
    fast = retrieval(q, k, metric="dot").a_to_b
    slow = rank_queries(q, k, relevant=(torch.arange(60), torch.arange(60)), metric="dot")
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
