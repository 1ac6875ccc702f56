"""Popularity, item-kNN, LightGCN and VBPR against their equations; negatives; what a newcomer is offered."""

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from counterpoint.common.trainers import create_system, override
from counterpoint.common.trainers.loader import SeededBatches
from counterpoint.recsys.configs import ItemKNNConfig, LightGCNConfig, PopularityConfig, VBPRConfig
from counterpoint.recsys.data.samples import TrainingPairs
from counterpoint.recsys.item_knn import ItemKNN
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.popularity import Popularity
from counterpoint.recsys.vbpr import VBPR

SMALL = {"data.users": 40, "data.items": 30, "data.seed": 2}


def made(cls, config, **changes):
    return create_system(cls, override(config(), SMALL | changes)).double().eval()


def met(system):
    """[users, items] 0/1 of training."""
    r = np.zeros(system.histories.shape)
    r[system.histories.queries, system.histories.keys] = 1
    return r


def test_popularity_counts_training_users_alone():
    system = made(Popularity, PopularityConfig)
    system.count()
    train = system.data.log.of("train")
    assert system.scorer().scores(torch.tensor([3]))[0].tolist() == np.bincount(train.item, minlength=30).tolist()
    assert len(train) < len(system.data.log)


@pytest.mark.parametrize("shrink", [0.0, 3.0])
def test_item_knn_is_the_cosine_of_the_items_users(shrink):
    system = made(ItemKNN, ItemKNNConfig, neighbours=4, shrink=shrink)
    system.count()
    r = met(system)
    both = r.T @ r
    size = np.sqrt(np.diag(both))
    with np.errstate(invalid="ignore", divide="ignore"):
        w = np.nan_to_num(both / (np.outer(size, size) + shrink))
    np.fill_diagonal(w, 0)
    for row in w:  # the four largest of every item, the first ones of equals
        row[np.lexsort((np.arange(30), -row))[4:]] = 0
    scores = system.scorer().scores(torch.arange(40)).numpy()
    assert scores == pytest.approx(r @ w, rel=1e-5, abs=1e-6)
    history = torch.from_numpy(np.flatnonzero(r[7]))
    assert system.scores_of_history(history).numpy() == pytest.approx(scores[7], rel=1e-6)


def test_item_knn_offers_who_has_met_nothing_what_suits_most():
    system = made(ItemKNN, ItemKNNConfig, neighbours=4)
    starts = system.assets["starts"].copy()
    starts[1:4] = starts[0]  # the first three users have met nothing
    system.assets = system.assets.replace(starts=starts, history=system.assets["history"])
    system._forget()
    system.count()
    scores = system.scorer().scores(torch.arange(40))
    torch.testing.assert_close(scores[:3], scores[3:].mean(0).expand(3, -1))
    nobody = system.scores_of_history(torch.tensor([], dtype=torch.int64))
    torch.testing.assert_close(nobody, scores[3:].mean(0))


def test_lightgcn_is_the_dense_formula_and_its_gradient():
    system = made(LightGCN, LightGCNConfig, dim=5, layers=3, reg=0.2)
    r = torch.from_numpy(met(system))
    a = torch.zeros(70, 70, dtype=torch.float64)
    a[:40, 40:], a[40:, :40] = r, r.T
    scale = a.sum(1).clamp_min(1) ** -0.5
    a = scale[:, None] * a * scale
    tables = (system.user_embedding.weight, system.item_embedding.weight)
    e = torch.cat(tables)
    mean = sum(torch.linalg.matrix_power(a, layer) @ e for layer in range(4)) / 4
    users, items = system.tables()
    torch.testing.assert_close(torch.cat([users, items]), mean, rtol=1e-6, atol=1e-8)
    batch = {"user": torch.tensor([0, 5, 5]), "item": torch.tensor([1, 2, 1]), "negative": torch.tensor([3, 3, 9])}
    u, i, j = (mean[batch["user"]], mean[40 + batch["item"]], mean[40 + batch["negative"]])
    own = [tables[0][batch["user"]], tables[1][batch["item"]], tables[1][batch["negative"]]]
    length = sum((x**2).sum() for x in own) / 2 / 3
    expected = -logsigmoid((u * i).sum(1) - (u * j).sum(1)).mean() + 0.2 * length
    found = sum(term.mean() for term in system.losses(batch, system.embed(batch)).values())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    for one, other in zip(torch.autograd.grad(found, tables), torch.autograd.grad(expected, tables)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_vbpr_scores_are_the_sum_of_its_parts_and_batches_are_rows_of_its_tables():
    system = made(VBPR, VBPRConfig, dim=4)
    system.initialize()
    f = {name: system.feature_table.table(name) for name in system.project}
    with torch.no_grad():
        parts = system.user_id.weight @ system.item_id.weight.T + system.bias.weight.T
        for name, layer in system.project.items():
            parts = parts + system.taste[name].weight @ (f[name] @ layer.weight.T).T
    met_by_some = torch.from_numpy(system.item_counts > 0)
    found = system.scorer().scores(torch.arange(40))
    torch.testing.assert_close(found[:, met_by_some], parts[:, met_by_some])
    batch = {"user": torch.tensor([0, 7]), "item": torch.tensor([1, 2]), "negative": torch.tensor([2, 9])}
    users, items = system.tables()
    for name, rows in (("user", users), ("item", items), ("negative", items)):
        torch.testing.assert_close(system.embed(batch)[name], rows[batch[name]])
    missing = ~system.feature_table.known("image")
    assert missing.any()
    assert not f["image"][missing].any(), "what is missing is zero, not imputed"
    train = (system.item_counts > 0) & system.feature_table.known("image").numpy()
    assert f["image"][torch.from_numpy(train)].mean(0).abs().max() < 1e-6, "standardised by the training items"


def test_negatives_are_uniform_over_what_was_not_met_and_come_from_the_seeds_alone():
    samples = TrainingPairs(made(Popularity, PopularityConfig).data)
    users = np.repeat(samples.log.user[:1], 40_000).astype(np.int64)
    drawn = samples.others(users, np.arange(40_000, dtype=np.uint64))
    mine = set(samples.log.item[samples.log.user == users[0]].tolist())
    assert not mine & set(drawn.tolist())
    counts = np.bincount(drawn, minlength=30)[[i for i in range(30) if i not in mine]]
    assert counts == pytest.approx(np.full(len(counts), 40_000 / len(counts)), rel=0.15)
    held = samples.data.log.split > 0
    assert set(samples.data.log.item[held & (samples.data.log.user == users[0])]) <= set(drawn.tolist())
    whole = samples.batch([5, 9, 2, 7], [11, 12, 13, 14])
    part = samples.batch([2, 7], [13, 14])
    for name in ("user", "item", "negative"):
        assert torch.equal(whole[name][2:], part[name]), "however a batch is shared out"
    one, _ = SeededBatches(samples)[[5, 9], [11, 12], 11, False]
    assert torch.equal(one["negative"], whole["negative"][:2])


def test_who_has_no_history_is_served_the_mean_and_a_newcomer_his_history():
    system = made(LightGCN, LightGCNConfig, dim=6, layers=2)
    users = system.served()[0]
    assert system.served()[0] is users, "computed once"
    with torch.no_grad():
        system.user_embedding.weight += 1.0
    assert system.served()[0] is not users, "and again for other weights"
    starts = system.assets["starts"].copy()
    starts[1:4] = starts[0]  # the first three users have met nothing
    empty = made(LightGCN, LightGCNConfig, dim=6, layers=2)
    empty.assets = empty.assets.replace(starts=starts)
    empty._forget()
    users = empty.served()[0]
    torch.testing.assert_close(users[:3], empty.tables()[0][3:].mean(0).expand(3, -1))
    torch.testing.assert_close(users[3:], empty.tables()[0][3:])
    nobody, somebody = system.newcomers([torch.tensor([], dtype=torch.int64), torch.tensor([1, 4])])
    torch.testing.assert_close(nobody, system.served()[0].mean(0))
    layers = system._item_layers()
    degree = torch.from_numpy(system.item_counts).double().clamp_min(1)
    rows = torch.tensor([1, 4])
    expected = sum(((2 * degree[rows]) ** -0.5)[:, None] * layer[rows] for layer in layers[:2]).sum(0) / 3
    torch.testing.assert_close(somebody, expected)


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """VBPR on a split that holds whole items out, trained for a moment."""
    from counterpoint.common.trainers import fit, load_run

    out = tmp_path_factory.mktemp("cold") / "run"
    changes = {"data.users": 300, "data.items": 200, "data.split": "items", "data.fractions": (0.7, 0.1, 0.2)}
    changes |= {"dim": 16}
    changes |= {"train.out": str(out), "train.max_epochs": 12, "train.batch_size": 256, "train.tensorboard": False}
    changes |= {"optim.lr": 5e-3, "train.monitor_every": 0, "train.accelerator": "cpu"}
    fit(create_system(VBPR, override(VBPRConfig(), changes)))
    return load_run(out, "last")


def test_items_that_nobody_met_are_ranked_by_their_features(cold):
    from counterpoint.common.data import Links
    from counterpoint.recsys.evaluation.measures import accuracy, chance, hits_of
    from counterpoint.recsys.evaluation.ranking import VectorScorer, top_items

    held = cold.data.log.of("test")
    new = np.flatnonzero(held.item_counts)
    assert not cold.item_counts[new].any()
    users = np.flatnonzero(held.user_counts)
    place = np.full(200, -1)
    place[new] = np.arange(len(new))
    truth = Links(np.searchsorted(users, held.user), place[held.item], (len(users), len(new)))
    nothing = Links([], [], truth.shape)
    vectors = cold.served()
    rows = torch.from_numpy(new)

    def recall(items):
        lists = top_items(VectorScorer(vectors[0], items[rows]), users, nothing, 5)
        return accuracy(hits_of(lists, truth), truth.counts, [5])["recall@5"]

    values = recall(vectors[1])
    level = chance(truth.counts, np.full(len(users), len(new)), [5])["recall@5"]
    assert values.mean() - 4 * values.std() / len(users) ** 0.5 > level, "features tell what suits"
    wrong = recall(vectors[1][torch.randperm(200, generator=torch.Generator().manual_seed(0))])
    assert wrong.mean() < values.mean()
    trained = cold.tables()[1].detach()
    assert torch.equal(trained[rows][:, 16:-1], vectors[1][rows][:, 16:-1]), "features are their own"
    assert vectors[1][rows][:, :16].unique(dim=0).shape[0] == 1, "ids say nothing"
