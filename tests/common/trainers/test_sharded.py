"""Fully sharded training on two processes does what one process does, and leaves checkpoints that anyone reads."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_system import Tiny, TinyConfig
from torch import nn

from counterpoint.common.data import ShuffleSampler
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.trainers.run_folder import system_name
from counterpoint.common.trainers.sharding import sharded_modules

COMMON = {"dropout": 0.0, "train.max_epochs": 2, "train.monitor_every": 4, "train.precision": "64-true"}
FSDP = {"train.devices": 2, "train.strategy": "fsdp", "distributed": "gather"}
HARMONIZE = {"harmonize": {}}
EXACT = 1e-12  # float64


class Deep(Tiny):
    """A tower of residual blocks, each shared out by itself, and one that is used twice; a predictor in the losses."""

    def __init__(self, config, assets=None):
        super().__init__(config, assets)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 10)) for _ in range(3)])
        self.predictor = nn.Linear(config.dim, config.dim)

    def embed(self, batch):
        x = batch["a"]
        for block in [*self.blocks, self.blocks[0]]:
            x = x + block(x)
        return super().embed({**batch, "a": x})

    def losses(self, batch, embeddings):
        predicted = self.predictor(embeddings["a"])
        terms = super().losses(batch, {**embeddings, "a": predicted})
        return {**terms, "distance": (predicted - embeddings["b"]).square().mean()}


def train(out, cls=Deep, **changes):
    return fit(create_system(cls, override(TinyConfig(), {"train.out": str(out), **COMMON, **changes})))


def figures(run):
    with (run / "metrics.csv").open() as handle:
        return [{k: float(v) for k, v in row.items() if v and k != "stage"} for row in csv.DictReader(handle)]


def same(a, b, tolerance=EXACT, files=("model.safetensors", "state.safetensors")):
    for file in files:
        left, right = (load_file(r / "checkpoints/last" / file) for r in (a, b))
        names = {n for n in left if ".rng" not in n}
        assert names == {n for n in right if ".rng" not in n}
        for name in names:
            torch.testing.assert_close(
                right[name], left[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )
    for mine, theirs in zip(figures(a), figures(b), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"two_stages": 1}, marks=pytest.mark.slow),
        {"train.micro_batch_size": 3, "optim.clip": 0.02, "optim.name": "sgd", "optim.lr": 0.5},
        pytest.param({"train.plugins": HARMONIZE, "optim.name": "lars", "optim.lr": 10.0}, marks=pytest.mark.slow),
    ],
    ids=["two stages", "cached and clipped", "harmonised lars"],
)
def test_two_processes_equal_one(tmp_path, on_two_ranks, changes):
    train(tmp_path / "one", **changes)
    on_two_ranks(lambda rank: train(tmp_path / "two", **FSDP, **changes))
    same(tmp_path / "one", tmp_path / "two")
    norms = [row["train/grad_norm"] for row in figures(tmp_path / "two")]
    assert changes.get("optim.clip") is None or min(norms) > changes["optim.clip"]  # the clipping was at work


def test_a_process_holds_its_share_only(tmp_path, on_two_ranks):
    class Watched(Deep):
        def after_update(self):
            super().after_update()
            optimizer = self.optimizers(use_pl_optimizer=False)
            for p in self.parameters():
                local = p.to_local() if hasattr(p, "to_local") else p
                halves = -(-p.shape[0] // 2) * p[0].numel() if p.ndim else 1
                assert local.numel() <= halves, "a whole weight between two steps"
                for value in optimizer.state.get(p, {}).values():
                    value = value.to_local() if hasattr(value, "to_local") else value
                    assert value.numel() <= halves, "a whole moment"
            assert len(sharded_modules(self)) == 1 + 3
            assert system_name(self).endswith("Watched")

    on_two_ranks(lambda rank: train(tmp_path / "run", Watched, **FSDP, **{"train.max_epochs": 1}))


@pytest.mark.slow
def test_a_sharded_run_resumes_sharded_or_in_one_process(tmp_path, on_two_ranks):
    flat = {**FSDP, "dropout": 0.3, "optim.schedule.kind": "constant"}  # does not know the number of epochs
    on_two_ranks(lambda rank: train(tmp_path / "whole", Tiny, **flat))
    for name, devices in (("sharded", 2), ("alone", 1)):
        out = tmp_path / name
        on_two_ranks(lambda rank, out=out: train(out, Tiny, **{**flat, "train.max_epochs": 1}))
        file = out / "config.yaml"
        text = file.read_text().replace("max_epochs: 1\n", "max_epochs: 2\n")
        if devices == 1:
            text = text.replace("strategy: fsdp", "strategy: auto").replace("devices: 2", "devices: 1")
            text = text.replace("distributed: gather", "distributed: none")
        file.write_text(text)
    on_two_ranks(lambda rank: fit(load_run(tmp_path / "sharded", "last"), resume=tmp_path / "sharded"))
    same(tmp_path / "whole", tmp_path / "sharded", tolerance=0)
    # One process draws other dropout masks than two; it goes on from the same weights, moments and samples.
    again = fit(load_run(tmp_path / "alone", "last"), resume=tmp_path / "alone")
    state = json.loads((again.last / "state.json").read_text())
    assert state["progress"]["total_step"] == 12
    seen = load_file(again.last / "model.safetensors")["seen"]
    assert seen.tolist() == [2.0] * 48


@pytest.mark.slow
def test_batch_norms_of_all_processes_agree_after_a_checkpoint(tmp_path, on_two_ranks):
    class Normed(Tiny):
        def __init__(self, config, assets=None):
            super().__init__(config, assets)
            self.tower_a.append(nn.BatchNorm1d(config.dim))

        def batch_sampler(self, dataset, batch_size, seed):
            return ShuffleSampler(len(dataset), batch_size, seed)

        def on_train_epoch_end(self):
            self.record_reading({"rank_mean": float(self.tower_a[-1].running_mean.sum())})

    def body(rank):
        torch.set_num_threads(1)
        system = create_system(Normed, override(TinyConfig(), {"train.out": str(tmp_path / "run"), **COMMON, **FSDP}))
        fit(system)
        mean = system.tower_a[-1].running_mean
        saved = load_file(tmp_path / "run/checkpoints/last/model.safetensors")["tower_a.4.running_mean"]
        assert torch.equal(mean, saved), f"rank {rank}"

    on_two_ranks(body)
