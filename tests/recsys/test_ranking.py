"""Full ranking against counting by hand; ties; slices; conventions that change the figures; sampled figures apart."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from counterpoint.common.data.links import Links
from counterpoint.common.metrics import compare_evaluations
from counterpoint.common.runs.measure import measure
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, override
from counterpoint.recsys.cli import vertical
from counterpoint.recsys.configs import LightGCNConfig, PopularityConfig
from counterpoint.recsys.evaluation.measures import accuracy, beyond_accuracy, chance, hits_of
from counterpoint.recsys.evaluation.protocol import CONVENTIONS, convention_of
from counterpoint.recsys.evaluation.ranking import FunctionScorer, VectorScorer, top_items
from counterpoint.recsys.evaluation.slices import item_slices, user_slices
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.popularity import Popularity

CUTS = (1, 3, 10)


def by_hand(scores, relevant, excluded, k):
    """Figures of one user, from the definitions."""
    order = sorted((i for i in range(len(scores)) if i not in excluded), key=lambda i: -scores[i])[:k]
    hits = [i in relevant for i in order]
    dcg = sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
    ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(relevant))))
    first = next((r + 1 for r, hit in enumerate(hits) if hit), None)
    precision = sum(sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit)
    return {
        "recall": sum(hits) / len(relevant), "ndcg": dcg / ideal, "hr": float(any(hits)),
        "mrr": 0.0 if first is None else 1 / first, "map": precision / min(k, len(relevant)),
    }  # fmt: skip


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.booleans())
def test_figures_are_those_of_the_definitions(seed, n_items, vectors):
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(9, 5)), rng.normal(size=(n_items, 5))
    relevant = [rng.choice(n_items, rng.integers(1, 4), replace=False).tolist() for _ in range(9)]
    free = [[i for i in range(n_items) if i not in wanted] for wanted in relevant]
    excluded = [rng.choice(f, rng.integers(0, len(f) + 1), replace=False).tolist() for f in free]
    truth, exclude = Links.of(relevant, n_items), Links.of(excluded, n_items)
    scores = torch.from_numpy(users @ items.T)
    scorer = VectorScorer(torch.from_numpy(users), torch.from_numpy(items))
    if not vectors:
        scorer = FunctionScorer(lambda rows: scores[rows], n_items)
    lists = top_items(scorer, np.arange(9), exclude, max(CUTS))
    found = accuracy(hits_of(lists, truth), truth.counts, CUTS)
    for u in range(9):
        for k in CUTS:
            for name, value in by_hand(scores[u].tolist(), set(relevant[u]), set(excluded[u]), k).items():
                assert found[f"{name}@{k}"][u] == pytest.approx(value), (name, k)


def test_a_scorer_without_knowledge_is_at_chance_however_the_catalogue_is_ordered():
    n_users, n_items = 4000, 50
    truth = Links.of([[0, 1]] * n_users, n_items)  # what all want stands first in the catalogue
    nothing = Links.of([[]] * n_users, n_items)
    scorer = VectorScorer(torch.ones(n_users, 3), torch.full((n_items, 3), 0.37))
    lists = top_items(scorer, np.arange(n_users), nothing, 10, seed=1)
    found = accuracy(hits_of(lists, truth), truth.counts, [10])
    level = chance(truth.counts, np.full(n_users, n_items), [10])
    for name, value in level.items():
        spread = found[name].std() / n_users**0.5
        assert found[name].mean() == pytest.approx(value, abs=4 * spread), name
    assert all(len(set(row)) == 10 for row in lists.tolist())


def test_ties_within_the_list_and_at_its_end_fall_at_random_and_nothing_else_does():
    scores = torch.tensor([[5.0, 4.0, 4.0, 3.0, 2.0, 2.0, 2.0]])
    scorer = FunctionScorer(lambda rows: scores[rows % 1], 7)
    lists = top_items(scorer, np.arange(3000), Links.of([[]] * 3000, 7), 5, seed=2)
    assert (lists[:, 0] == 0).all()
    assert (lists[:, 3] == 3).all()
    assert np.mean(lists[:, 1] == 1) == pytest.approx(0.5, abs=0.04)
    assert np.mean(lists[:, 4] == 6) == pytest.approx(1 / 3, abs=0.04)


def test_fewer_items_than_places_leave_places_empty():
    lists = top_items(VectorScorer(torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]])), np.array([0]),
                      Links.of([[1]], 3), 5)  # fmt: skip
    assert lists.tolist() == [[2, 0, -1, -1, -1]]


def test_chance_is_what_random_orders_give():
    rng = np.random.default_rng(0)
    n_relevant, pool = np.array([1, 3, 6]), np.array([12, 9, 7])
    draws = {}
    for t, n in zip(n_relevant, pool):
        hits = np.array([rng.permutation(n)[:4] < t for _ in range(20_000)])
        hits = np.pad(hits, ((0, 0), (0, 4 - hits.shape[1])))
        for name, values in accuracy(hits, np.full(len(hits), t), [4]).items():
            draws.setdefault(name, []).append(values.mean())
    for name, value in chance(n_relevant, pool, [4]).items():
        assert np.mean(draws[name]) == pytest.approx(value, abs=0.01), name


def test_beyond_accuracy_counts_what_is_shown():
    lists = np.array([[0, 1], [0, 2], [0, -1]])
    values, whole = beyond_accuracy(lists, np.array([4, 2, 1, 0]), 8, 2)
    assert values["popularity@2"].tolist() == [3.0, 2.5, 4.0]
    assert values["novelty@2"].tolist() == [1.5, 2.0, 1.0]
    assert whole["coverage@2"] == 0.75
    shown = np.array([3, 1, 1, 0])
    gini = np.abs(shown[:, None] - shown).mean() / (2 * shown.mean())
    assert whole["gini@2"] == pytest.approx(gini)


def test_slices_part_all_items_and_users():
    rng = np.random.default_rng(0)
    counts = rng.zipf(1.6, size=500).clip(max=400) - 1
    found = item_slices(counts, 5)
    head, mid, tail = (found[f"{name} items"] for name in ("head", "mid", "tail"))
    assert (head.astype(int) + mid + tail == 1).all()
    assert counts[head].min() > counts[mid].max() > 0
    assert counts[mid].min() > counts[tail].max()
    assert counts[head].sum() >= counts.sum() / 3
    assert counts[tail].sum() <= counts.sum() * 0.4
    lengths = rng.integers(0, 30, size=300)
    masks = user_slices(lengths).values()
    assert (sum(mask.astype(int) for mask in masks) == 1).all()


@pytest.fixture(scope="module")
def trained():
    """Popularity and a LightGCN at its initial weights on the generator's data."""
    changes = {"data.users": 150, "data.items": 90, "ranking.cuts": (5, 10)}
    one = create_system(Popularity, override(PopularityConfig(), changes))
    one.count()
    return one.eval(), create_system(LightGCN, override(LightGCNConfig(), changes | {"dim": 8})).eval()


def figures(system, n_boot=20, **ranking):
    before = system.config
    system.config = override(before, {f"ranking.{name}": value for name, value in ranking.items()})
    found = measure(vertical, OpenRun.of(system), n_boot=n_boot, seed=3)
    system.config = before
    return found


def test_named_conventions_change_the_figures(trained):
    name = "ranking user -> item"
    found = {one: figures(trained[0], convention=one).results[name] for one in CONVENTIONS}
    ours, mmrec, recbole = (found[one] for one in ("counterpoint", "mmrec", "recbole"))
    assert mmrec.metrics["recall@10"] != ours.metrics["recall@10"], "validation items stand in the way"
    assert mmrec.pool > ours.pool
    assert recbole.metrics["recall@10"] == round(ours.metrics["recall@10"], 4) != ours.metrics["recall@10"]
    assert (ours.protocol["mask"], mmrec.protocol["mask"]) == ("train+val", "train")
    only = figures(trained[0], mask="train").results[name]
    assert round(only.metrics["recall@10"], 4) == mmrec.metrics["recall@10"]


def test_mmrec_leaves_users_without_history_out():
    changes = {"data.users": 60, "data.items": 40, "data.split": "time", "ranking.cuts": (5,)}
    system = create_system(Popularity, override(PopularityConfig(), changes))
    system.count()
    starts = system.assets["starts"].copy()
    asked = OpenRun.of(system.eval()).samples()
    first = asked.rows[0]  # made a user who has met nothing
    history = np.delete(system.assets["history"], np.arange(starts[first], starts[first + 1]))
    starts[first + 1 :] -= starts[first + 1] - starts[first]
    system.assets = system.assets.replace(starts=starts, history=history)
    system._forget()
    ours = figures(system).results
    theirs = figures(system, convention="mmrec").results
    assert ours["ranking user -> item"].queries == theirs["ranking user -> item"].queries + 1
    assert ours["ranking: users without a history"].queries == 1
    assert "ranking: users without a history" not in theirs


def test_every_result_says_what_it_was_measured_on(trained):
    found = figures(trained[0])
    whole = found.results["ranking user -> item"]
    assert set(whole.protocol) == {"convention", "mask", "ties", "data", "split"}
    assert whole.protocol["split"].startswith("random ")
    part = found.results["ranking: tail items"]
    assert set(part.metrics) == {"recall@10", "ndcg@10"}
    assert part.protocol == whole.protocol
    assert "SAMPLED" not in " ".join(found.results)


def test_two_models_are_compared_user_by_user(trained):
    first, second = (figures(system) for system in trained)
    found = {c.metric: c for c in compare_evaluations(second, first) if c.protocol == "ranking user -> item"}
    assert found["recall@10"].verdict == "better"
    assert "popularity@10" not in found, "more popular is neither better nor worse"
    difference = first.results["ranking user -> item"].per_query["recall@10"]
    difference = difference - second.results["ranking user -> item"].per_query["recall@10"]
    assert found["recall@10"].difference.value == pytest.approx(difference.mean())


def test_sampled_figures_are_only_there_on_request_and_say_so(trained):
    found = figures(trained[0], sampled=10).results
    (name,) = [name for name in found if "SAMPLED" in name]
    assert "10 drawn items" in name
    assert found[name].metrics["hr@10"] > found["ranking user -> item"].metrics["hr@10"]
    assert "do not agree with full rankings" in found[name].notes[0]


def test_masks_are_of_train_in_the_validation_and_by_convention_in_the_test(trained):
    splits = trained[0].evaluation_datasets()
    assert splits.val.mask == ("train",)
    assert splits.test.mask == convention_of(trained[0].config.ranking).mask == ("train", "val")
    assert splits.test.left_out_items.counts.sum() > splits.val.left_out_items.counts.sum()
