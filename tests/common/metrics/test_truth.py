"""Truth as a contract: sparse many-to-many answers, keys left out of a pool, and the score that ranks them."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch

from counterpoint.common.data.links import Links
from counterpoint.common.errors import InputError
from counterpoint.common.losses import GRAM
from counterpoint.common.losses.gram import gram_volume
from counterpoint.common.losses.symile import multilinear
from counterpoint.common.metrics import rank_queries, retrieval
from counterpoint.common.metrics.chance import chance_levels
from counterpoint.common.metrics.ranking import Scoring
from counterpoint.common.metrics.scores import score_named


def random(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double()


def links(n, m, share, seed):
    mask = np.random.default_rng(seed).random((n, m)) < share
    return Links(*mask.nonzero(), (n, m)), torch.as_tensor(mask)


class TestLinks:
    def test_every_way_to_write_the_same_pairs_gives_the_same_links(self):
        found, mask = links(7, 5, 0.4, 0)
        lists = [row.nonzero().flatten().tolist() for row in mask]
        for other in (Links.of(lists, 5), Links.of(scipy.sparse.csr_matrix(mask.numpy())), Links.of(found)):
            assert other.pairs == found.pairs
            assert other.shape == (7, 5)
        shuffled = Links(found.queries[::-1], found.keys[::-1], (7, 5))
        assert shuffled.pairs == found.pairs == [tuple(x) for x in mask.nonzero().tolist()]

    def test_blocks_of_queries_and_chosen_rows_are_those_of_the_dense_matrix(self):
        found, mask = links(30, 20, 0.3, 1)
        row, key = found.within(slice(10, 17))
        assert {(r + 10, k) for r, k in zip(row.tolist(), key.tolist())} == {p for p in found.pairs if 10 <= p[0] < 17}
        queries, keys = [4, 29, 0], [19, 3, 7, 11]
        assert found.take(queries, keys).pairs == [tuple(x) for x in mask[queries][:, keys].nonzero().tolist()]
        assert found.T.pairs == [tuple(x) for x in mask.T.nonzero().tolist()]
        assert found.of_query(3).tolist() == mask[3].nonzero().flatten().tolist()

    def test_equal_values_are_linked_and_missing_ones_are_not(self):
        nan = float("nan")
        assert Links.equal(["r", "s", None, "", nan], ["s", "r", "r", None, "", nan]).pairs == [(0, 1), (0, 2), (1, 0)]
        patients = Links.equal(["p", "q", "p"], others=True)
        assert patients.pairs == [(0, 2), (2, 0)]

    @pytest.mark.parametrize(("queries", "keys"), [([0, 3], [0, 0]), ([0], [-1]), ([0], [2])])
    def test_rows_that_do_not_exist_are_named(self, queries, keys):
        with pytest.raises(ValueError, match=r"the (query|key) row (3|-1|2), but there are"):
            Links(queries, keys, (3, 2))


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_sparse_truth_and_exclusion_equal_a_ranking_by_hand(share):
    n, m = 60, 90
    q, k = random(n, 6, 1), random(m, 6, 2)
    relevant, wanted = links(n, m, 0.05, 3)
    exclude, left_out = links(n, m, share, 4)
    left_out &= ~wanted
    exclude = Links(*left_out.numpy().nonzero(), (n, m))
    found = rank_queries(q, k, relevant=relevant, exclude=exclude, metric="dot", ks=(1, 7), n_boot=1)
    scores = (q @ k.T).masked_fill(left_out, -torch.inf)
    for place, row in enumerate(found.rows.tolist()):
        order = scores[row].argsort(descending=True).tolist()
        ranks = sorted(order.index(j) + 1 for j in wanted[row].nonzero().flatten().tolist())
        assert found.ranks[place] == ranks[0]
        precision = np.mean([(i + 1) / rank for i, rank in enumerate(ranks)])
        assert found.per_query["mAP"][place] == pytest.approx(precision)
        assert found.per_query["coverage@7"][place] == pytest.approx(np.mean([rank <= 7 for rank in ranks]))
    assert found.unanswerable == int((wanted.sum(1) == 0).sum())
    pools = (m - left_out.sum(1))[found.rows]
    assert found.pool == int(pools.max())
    assert found.excluded == pytest.approx(float(found.pool - pools.double().mean()))


@pytest.mark.parametrize("n", [5, 700])
def test_one_relevant_key_and_exclusion_agree_with_the_many_to_many_ranking(n):
    q, k = random(n, 4, 5), random(n, 4, 6)
    target = torch.randperm(n, generator=torch.Generator().manual_seed(7))
    _, left_out = links(n, n, 0.3, 8)
    left_out[torch.arange(n), target] = False
    options = {"exclude": Links(*left_out.numpy().nonzero(), (n, n)), "n_boot": 1}
    one = rank_queries(q, k, relevant=target, **options)
    many = rank_queries(q, k, relevant=Links(np.arange(n), target.numpy(), (n, n)), **options)
    torch.testing.assert_close(one.ranks, many.ranks)
    for key, value in one.metrics.items():
        assert many.metrics[key] == pytest.approx(value), key
        assert many.chance[key] == pytest.approx(one.chance[key]), key
    dense = rank_queries(q, k, relevant=target, exclude=left_out, n_boot=1)
    assert dense.metrics == one.metrics


def test_both_directions_exclude_the_same_pairs():
    q, k = random(40, 5, 1), random(40, 5, 2)
    left_out = Links.equal([i // 4 for i in range(40)], others=True)
    both = retrieval(q, k, exclude=left_out, n_boot=1)
    back = rank_queries(k, q, exclude=left_out.T, n_boot=1)
    torch.testing.assert_close(both.b_to_a.ranks, back.ranks)
    assert both.a_to_b.pool == 37


def test_a_collapsed_encoder_stays_at_chance_whatever_is_excluded():
    flat = torch.ones(50, 8)
    exclude, mask = links(50, 50, 0.5, 3)
    mask.fill_diagonal_(False)
    exclude = Links(*mask.numpy().nonzero(), (50, 50))
    for metric, keys in (("cosine", flat), ("dot", flat), ("volume", (flat, flat)), ("multilinear", (flat, flat))):
        found = retrieval(flat, keys, exclude=exclude, metric=metric, n_boot=1).a_to_b
        for key, value in found.metrics.items():
            if key != "median_rank":
                assert value == pytest.approx(found.chance[key]), (metric, key)


def test_chance_with_a_pool_for_each_query_is_the_mean_over_the_pools():
    pools, relevant = torch.tensor([5, 9, 9]), torch.tensor([1, 2, 1])
    together = chance_levels(pools, relevant, (1, 6))
    alone = [chance_levels(int(p), r[None], (1, 6)) for p, r in zip(pools, relevant)]
    for key, value in together.items():
        if key != "median_rank":
            assert value == pytest.approx(np.mean([c[key] for c in alone])), key


def test_a_relevant_key_that_is_excluded_is_refused_with_its_place():
    z = random(4, 3)
    seen = Links([2], [2], (4, 4))
    with pytest.raises(ValueError, match="query 2: its relevant key 2 is also excluded"):
        retrieval(z, z, exclude=seen)
    with pytest.raises(ValueError, match="query 2: its relevant key 2 is also excluded"):
        rank_queries(z, z, relevant=Links.equal(list("abca")), exclude=seen)


def test_links_of_another_size_are_refused():
    z = random(4, 3)
    with pytest.raises(ValueError, match="relevant is about 4 queries and 5 keys, there are 4 and 4"):
        retrieval(z, z, relevant=Links([0], [0], (4, 5)))
    with pytest.raises(ValueError, match="exclude is about 3 queries"):
        retrieval(z, z, exclude=Links([0], [0], (3, 4)))


class TestScores:
    def test_the_volume_is_the_square_root_of_the_gram_determinant(self):
        text, video, audio = (torch.nn.functional.normalize(random(6, 5, s), dim=1) for s in range(3))
        scoring = Scoring(text, video, audio, metric="volume")
        tile = next(iter(scoring.tiles()))[2]
        for i, j in itertools.product(range(6), repeat=2):
            views = torch.stack([text[i], video[j], audio[j]])
            volume = torch.linalg.det(views @ views.T).clamp_min(0).sqrt().item()
            assert scoring.score.shown(tile[i, j].item()) == pytest.approx(volume, abs=1e-9)
        true = gram_volume(text, video, audio)
        shown = [scoring.score.shown(x) for x in scoring.of_pairs(torch.arange(6)).tolist()]
        assert shown == pytest.approx(true.tolist(), abs=1e-9)

    def test_the_multilinear_score_is_symiles(self):
        x, y, z = (random(7, 4, s) for s in range(3))
        unit = [torch.nn.functional.normalize(v, dim=1) for v in (x, y, z)]
        scoring = Scoring(x, y, z, metric="multilinear")
        expected = [multilinear(unit[0][i], unit[1][3], unit[2][3]).item() for i in range(7)]
        assert next(iter(scoring.tiles()))[2][:, 3].tolist() == pytest.approx(expected)

    def test_retrieval_by_volume_finds_what_grams_loss_brings_together(self):
        torch.manual_seed(0)
        views = [torch.nn.Parameter(random(12, 6, s)) for s in range(3)]
        loss, optimizer = GRAM(temperature=0.1), torch.optim.Adam(views, lr=0.05)
        before = retrieval(views[0], (views[1], views[2]), metric="volume", n_boot=1).a_to_b.metrics["R@1"]
        for _ in range(150):
            optimizer.zero_grad()
            loss(*views).backward()
            optimizer.step()
        both = retrieval(views[0], (views[1], views[2]), metric="volume", n_boot=1)
        assert before < 0.5
        assert both.a_to_b.metrics["R@1"] == both.b_to_a.metrics["R@1"] == 1.0

    def test_joint_scores_rank_the_other_way_by_the_same_scores(self):
        q, a, b = (random(30, 5, s) for s in range(3))
        scores = next(iter(Scoring(q, a, b, metric="volume").tiles()))[2]
        back = retrieval(q, (a, b), metric="volume", n_boot=1).b_to_a
        expected = [int((scores[:, j] > scores[j, j]).sum()) + 1 for j in range(30)]
        assert back.ranks.tolist() == expected

    def test_a_dot_product_prefers_long_keys_and_a_cosine_does_not(self):
        q = torch.tensor([[1.0, 0.0]])
        keys = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
        assert rank_queries(q, keys, relevant=torch.tensor([1]), metric="dot", n_boot=1).ranks.tolist() == [1.0]
        assert rank_queries(q, keys, relevant=torch.tensor([1]), n_boot=1).ranks.tolist() == [2.0]

    def test_an_unknown_name_and_a_pair_score_of_three_are_refused(self):
        with pytest.raises(InputError, match="unknown metric 'cosin'; did you mean 'cosine'"):
            score_named("cosin")
        z = random(3, 2)
        with pytest.raises(ValueError, match="cosine compares two modalities, not 3"):
            retrieval(z, (z, z))
