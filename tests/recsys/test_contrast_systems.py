"""The contrastive recommenders as systems: trained through `fit`, resumed, grown, evaluated."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.recsys.bm3 import BM3
from counterpoint.recsys.ceaa import CEAA
from counterpoint.recsys.contrast_configs import (
    BM3Config,
    CEAAConfig,
    MCLRecConfig,
    REARMConfig,
    SASRecConfig,
    TwoTowerConfig,
)
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions
from counterpoint.recsys.evaluation.protocol import protocols
from counterpoint.recsys.mclrec import MCLRec
from counterpoint.recsys.rearm import REARM
from counterpoint.recsys.sasrec import SASRec
from counterpoint.recsys.two_tower import TwoTower

QUIET = {
    "data.users": 40, "data.items": 30, "train.tensorboard": False, "train.accelerator": "cpu",
    "train.monitor_every": 0, "train.batch_size": 16, "train.max_steps": 4, "train.log_every": 1,
    "train.checkpoint_every_steps": 1, "ranking.cuts": [5],
}  # fmt: skip
SEQUENCES = {"dim": 8, "hidden": 16, "length": 12}
SYSTEMS = {
    "bm3": (BM3, BM3Config, {"dim": 8}),
    "ceaa": (CEAA, CEAAConfig, {"dim": 4, "neighbours": 3}),
    "rearm": (REARM, REARMConfig, {"dim": 4, "layers": 1, "user_neighbours": 5, "item_neighbours": 3}),
    "sasrec": (SASRec, SASRecConfig, SEQUENCES),
    "mclrec": (MCLRec, MCLRecConfig, {**SEQUENCES, "views": 0.1}),
    "two-tower": (TwoTower, TwoTowerConfig, {"dim": 8, "widths": [16], "field_dim": 4, "buckets": 512}),
}


def made(name, out="unused", **changes):
    cls, config, own = SYSTEMS[name]
    return create_system(cls, override(config(), {**QUIET, **own, "train.out": str(out), **changes}))


def weights(run):
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


class Looking(Callback):
    """Asks for the vectors after every step, as validation does: they must be those of the weights as they are."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, system, outputs, batch, number):
        served = [table.clone() for table in system.served()]
        system._known = None
        for table, fresh in zip(served, system.served()):
            assert torch.equal(table, fresh)
        self.seen.append(served[1])


class Stopped(Callback):
    def on_train_batch_start(self, trainer, system, batch, number):
        if system.progress.total_step == 2:
            raise KeyError("power cut")


@pytest.fixture(scope="module", params=SYSTEMS)
def run(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    looking = Looking()
    fit(made(request.param, out / "whole"), callbacks=[looking])
    assert not torch.equal(looking.seen[0], looking.seen[-1])
    return request.param, out


def test_an_interrupted_run_goes_on_bit_for_bit(run):
    name, out = run
    with pytest.raises(KeyError, match="power cut"):
        fit(made(name, out / "part"), callbacks=[Stopped()])
    fit(load_run(out / "part", "last"), resume=out / "part")
    whole, part = weights(out / "whole"), weights(out / "part")
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[k], part[k]) for k in whole)


def test_its_run_is_ranked_over_the_whole_catalogue(run):
    _, out = run
    opened = OpenRun.of(load_run(out / "whole", "last"))
    found = protocols(opened.drawing(10, 0))["ranking user -> item"]
    assert 0 <= found.metrics["recall@5"] <= 1
    assert found.pool <= 30
    assert "val/recall@20" in (out / "whole" / "metrics.csv").read_text()
    users, items = opened.system.served()
    scores = super(type(opened.system), opened.system).scorer().scores(torch.arange(3))
    torch.testing.assert_close(scores, users[:3] @ items.T)


def newer(data):
    """The same data and split with two new users, two new items and their training interactions."""
    log = data.log
    n, m = len(log.users), len(log.items)
    users, items = IdMap([*log.users, "z0", "z1"]), IdMap([*log.items, "z8", "z9"])
    met = np.array([*((n, i) for i in range(9)), (n, m), (n + 1, 0), (n + 1, m + 1)])
    new = {"user": met[:, 0], "item": met[:, 1], "time": np.arange(len(met)), "split": np.zeros(len(met))}
    own = {name: np.concatenate([getattr(log, name), values]) for name, values in new.items()}
    rows = np.append(np.arange(m), [-1, -1])
    features = {name: partial(data.feature(name).take, rows) for name in data.features}
    tables = {
        "users": pa.table({"id": users.names}),
        "items": data.items.take(pa.array(np.maximum(rows, 0))).set_column(0, "id", items.names),
    }
    return replace(data, log=Interactions(users, items, **own).ordered(), features=features, **tables)


def test_new_users_and_items_get_rows_and_old_ones_keep_their_bits(run, tmp_path):
    name, out = run
    old = load_run(out / "whole", "last")
    config = made(name, tmp_path / "more").config
    system = create_system(SYSTEMS[name][0], config, newer(old.data), continue_from=out / "whole")
    assert (system.n_users, system.n_items) == (old.n_users + 2, old.n_items + 2)
    known = old.state_dict()
    assert known.keys() == system.state_dict().keys()
    for key, value in system.state_dict().items():
        assert torch.equal(value[: len(known[key])] if value.ndim else value, known[key]), key
    fit(system)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "more").values() if v.is_floating_point())
    assert len(system.served()[1]) == old.n_items + 2


def test_evaluation_reads_all_that_a_user_met_before(tmp_path):
    """Of the training alone, and of training and validation in the test."""
    system = made("sasrec").eval()
    asked = system.evaluation_datasets().test
    user = int(asked.rows[0])
    log = asked.data.log
    own = (log.user == user) & (log.split >= 0) & (log.split < 2)
    items = torch.from_numpy(log.item[own].astype("int64"))
    assert (log.split[own] == 1).any()
    expected = system.encoder(items[None, -12:], torch.tensor([min(len(items), 12)])) @ system.served()[1].T
    torch.testing.assert_close(system.scorer(asked).scores(torch.tensor([user])), expected.detach())
    assert not torch.equal(system.scorer().scores(torch.tensor([user])), expected)


def test_a_newcomer_is_what_the_encoder_makes_of_his_history():
    system = made("mclrec").eval()
    found = system.newcomers([torch.tensor([3, 5]), torch.tensor([], dtype=torch.int64)])
    torch.testing.assert_close(found[0], system.encoder(torch.tensor([[3, 5]]), torch.tensor([2]))[0])
    torch.testing.assert_close(found[1], system.served()[0].mean(0))


@pytest.mark.parametrize("objective", ["InfoNCE(temperature=0.2)", "Alignment"])
def test_another_objective_takes_the_place_of_bm3s_term(objective):
    system = made("bm3", objective=objective, uniformity=1.0)
    train = system.datasets().train
    batch = train.batch(list(range(8)), list(range(8)))
    terms = system.losses(batch, system.embed(batch))
    assert "rec" not in terms
    assert {objective.partition("(")[0].lower(), "align", "mask", "reg", "uniformity"} == terms.keys()
    assert system.total(system.reduced(terms, batch)).isfinite()


def test_an_item_that_nobody_met_is_served_by_what_its_modalities_say():
    system = made("bm3", **{"data.split": "items", "data.fractions": (0.6, 0.2, 0.2)})
    system.initialize()
    items = system.served()[1]
    new = torch.from_numpy(system.item_counts == 0)
    assert new.any()
    said = system.network.modalities(torch.arange(len(items)))
    both = system.feature_table.known("image") & system.feature_table.known("text") & new
    expected = sum(system.network.predictor(h) for h in said.values())
    close = torch.nn.functional.cosine_similarity(items, expected)
    torch.testing.assert_close(close[both], torch.ones(int(both.sum())))
    assert not torch.isclose(close[~new], torch.ones(int((~new).sum()))).any()
    torch.testing.assert_close(items[new].norm(dim=1), items[~new].norm(dim=1).mean().expand(int(new.sum())))


def test_without_contrast_mclrec_is_sasrec_on_prefixes():
    system = made("mclrec", views=0.0, meta=0.0)
    batch = system.datasets().train.batch([0, 5], [1, 2])
    assert "first" not in batch
    assert system.losses(batch, system.embed(batch)).keys() == {"next_item"}


def test_a_prefix_holds_what_came_before_its_item():
    system = made("mclrec")
    train, log = system.datasets().train, system.data.log.of("train")
    assert len(train) == int((log.user_counts - 1).clip(0).sum())
    batch = train.batch(list(range(len(train))), list(range(len(train))))
    for row in range(0, len(train), 7):
        own = log.item[log.user == int(batch["user"][row])].tolist()
        n = int(batch["lengths"][row])
        prefix = batch["sequence"][row, :n].tolist()
        assert any(own[: i + 1][-12:] == prefix and own[i + 1] == int(batch["item"][row]) for i in range(len(own) - 1))


def test_a_hidden_field_says_nothing_and_an_item_never_met_has_no_id():
    system = made("two-tower").eval()
    tower, rows = system.item_tower, torch.arange(4)
    every = torch.ones(tower.size, dtype=torch.bool)
    blind = tower(rows, every)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))
    tower.known = torch.zeros_like(tower.known)
    plain = tower(rows)
    with torch.no_grad():
        tower.id.weight.add_(1.0)
    assert torch.equal(tower(rows), plain)


def test_masks_are_of_the_step_alone():
    system = made("two-tower", value_dropout=0.0, dropout=0.0)
    batch = system.datasets().train.batch(list(range(6)), list(range(6)))
    one, two = system.embed(batch), system.embed(batch)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["first"], one["second"])
