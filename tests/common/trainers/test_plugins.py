"""Rows of losses, and the plug-ins around a training: the same figures by every way, and all of it resumed."""

import csv
import json
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_system import Pairs, Tiny, TinyConfig
from torch.nn.functional import normalize

from counterpoint.common.data import ShuffleSampler
from counterpoint.common.data.batch import cut
from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import Plugin, Stage, create_system, empty_system, fit, load_run, override
from counterpoint.common.trainers.plugins import create_plugins

QUIET = {"train.monitor_every": 0, "train.max_epochs": 2}


@dataclass(frozen=True)
class HeavyConfig:
    """Weights of the samples."""

    first: float = 2.0


class Heavy(Plugin):
    """Samples count by their number and by how often they were seen."""

    Config = HeavyConfig

    def __init__(self, config):
        super().__init__(config)
        self.visits = torch.zeros(48)

    def weigh(self, name, rows, batch):
        weights = self.config.first / (1 + batch["index"]) + self.visits[batch["index"]]
        self.visits[batch["index"]] += 0.25
        return rows * weights

    def state_dict(self):
        return {"visits": self.visits}

    def load_state_dict(self, state):
        self.visits = state["visits"].clone()


HEAVY = f"{__name__}:Heavy"


class Rows(Tiny):
    """A loss per sample."""

    def losses(self, batch, embeddings):
        super().losses(batch, embeddings)  # the queue's keys
        return {"infonce": self.contrast.row_losses(embeddings["a"], embeddings["b"])}


class Scalar(Rows):
    """The mean of it."""

    def losses(self, batch, embeddings):
        return {"infonce": super().losses(batch, embeddings)["infonce"].mean()}


class ByHand(Rows):
    """The weights of `Heavy` written into the system."""

    def losses(self, batch, embeddings):
        rows = super().losses(batch, embeddings)["infonce"]
        if self.training:
            rows = rows * (2.0 / (1 + batch["index"]) + 0.25 * self.seen[batch["index"]])
        return {"infonce": rows.mean()}


def train(cls, out, plugins=None, **changes):
    changes = {**QUIET, "train.out": str(out), "train.plugins": plugins or {}, **changes}
    system = create_system(cls, override(TinyConfig(), changes))
    fit(system)
    return system


def same(one, other, files=("model.safetensors",), tolerance=0.0):
    for file in files:
        left, right = (load_file(run / "checkpoints" / "last" / file) for run in (one, other))
        assert left.keys() == right.keys()
        for name in left:
            torch.testing.assert_close(
                right[name], left[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("changes", [{}, {"train.micro_batch_size": 3}, {"train.precision": "bf16-mixed"}], ids=str)
def test_rows_count_as_their_mean(tmp_path, changes):
    train(Rows, tmp_path / "rows", **changes)
    train(Scalar, tmp_path / "scalar", **changes)
    same(tmp_path / "rows", tmp_path / "scalar")
    assert (tmp_path / "rows" / "metrics.csv").read_text() == (tmp_path / "scalar" / "metrics.csv").read_text()


@pytest.mark.parametrize("changes", [{}, {"train.micro_batch_size": 3}, {"train.precision": "bf16-mixed"}], ids=str)
def test_a_plug_in_weighs_rows_as_the_system_would(tmp_path, changes):
    train(Rows, tmp_path / "plugged", {HEAVY: {"first": 2.0}}, **changes)
    train(ByHand, tmp_path / "by hand", **changes)
    train(Rows, tmp_path / "plain", **changes)
    same(tmp_path / "by hand", tmp_path / "plugged", tolerance=1e-6)
    with pytest.raises(AssertionError):
        same(tmp_path / "plain", tmp_path / "plugged", tolerance=1e-4)


def test_row_losses_are_wide_under_autocast():
    """bfloat16 products would be off by 1e-2."""
    a, b = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = InfoNCE(0.05).row_losses(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(InfoNCE(0.05).row_losses(a, b), expected)


class Uneven(Rows):
    """Plain distances; the first rank trains on one sample of its four, the second on all of its own."""

    def stages(self):
        return (Stage(trains=("tower_",)),)

    def losses(self, batch, embeddings):
        super().losses(batch, embeddings)
        return {"distance": (embeddings["a"] - embeddings["b"]).square().sum(1)}

    def step(self, batch):
        if self.trainer.world_size == 1:
            keep = torch.tensor([0, 4, 5, 6, 7])
            batch = {k: v[keep] if isinstance(v, torch.Tensor) else [v[i] for i in keep] for k, v in batch.items()}
        elif self.global_rank == 0:
            batch = cut(batch, 0, 1)
        return super().step(batch)


def test_the_mean_is_that_of_all_ranks_also_of_unequal_ones(tmp_path, on_two_ranks):
    plugins, plain = {HEAVY: {}}, {"dropout": 0.0, "train.max_epochs": 1, "optim.name": "sgd", "optim.lr": 0.1}
    train(Uneven, tmp_path / "one", plugins, **plain)
    ranks = {"train.devices": 2, "train.strategy": "ddp", **plain}
    on_two_ranks(lambda rank: train(Uneven, tmp_path / "two", plugins, **ranks))
    same(tmp_path / "one", tmp_path / "two", tolerance=1e-5)


def test_terms_that_are_neither_scalar_nor_rows_are_named(tmp_path):
    class Square(Tiny):
        def losses(self, batch, embeddings):
            super().losses(batch, embeddings)
            return {"scores": embeddings["a"] @ embeddings["b"].T}

    with pytest.raises(ValueError, match=r"'scores' of shape \[8, 8\] for 8 samples: .* one value per sample"):
        train(Square, tmp_path / "run")


# Resuming ------------------------------------------------------------------------------------------------------------


def interrupted(cls, out, step, plugins, **changes):
    """Train until `step`, fail there, go on from the last checkpoint (every second step)."""

    class Stopping(cls):
        def _stop(self):
            if self.progress.total_step == step:
                raise KeyError("stop")

        def after_update(self):
            super().after_update()
            self._stop()

        def observe(self, batch, embeddings):
            found = super().observe(batch, embeddings)
            self._stop()
            return found

    with pytest.raises(KeyError):
        train(Stopping, out, plugins, **changes)
    file = out / "config.yaml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([f"system: {cls.__module__}:{cls.__qualname__}", *lines[1:]]))
    system = load_run(out, "last")
    fit(system, resume=out)
    return system


EVERY = {"train.checkpoint_every_steps": 2}


def test_the_state_of_a_plug_in_travels_in_the_run(tmp_path):
    train(Rows, tmp_path / "whole", {HEAVY: {}}, **EVERY)
    interrupted(Rows, tmp_path / "half", 9, {HEAVY: {}}, **EVERY)
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))
    assert load_file(tmp_path / "half/checkpoints/last/state.safetensors")[f".plugins.{HEAVY}.visits"].sum() == 24


class Noting(Rows):
    """Notes the batches."""

    def datasets(self):
        return type(super().datasets())(Pairs(self.config.samples, 0))

    def losses(self, batch, embeddings):
        if self.training:
            noted = self.__dict__.setdefault("noted", [])
            noted.append((self.progress.epoch, batch["index"].tolist()))
        return super().losses(batch, embeddings)


NEAR = {"hard_negatives": {"start": 1, "every": 1, "neighbours": 8, "per_seed": 3}}


def test_refreshed_neighbours_change_the_batches_and_survive_a_resume(tmp_path):
    options = {**EVERY, "train.max_epochs": 3, "optim.lr": 0.01}
    whole = train(Noting, tmp_path / "whole", NEAR, **options)
    late = train(Noting, tmp_path / "late", {"hard_negatives": {**NEAR["hard_negatives"], "start": 9}}, **options)
    by_epoch = [[[b for at, b in s.noted if at == e] for e in range(3)] for s in (whole, late)]
    assert by_epoch[0][0] == by_epoch[1][0]  # nothing was looked up yet
    assert by_epoch[0][1] != by_epoch[1][1]
    assert by_epoch[0][2] != by_epoch[1][2]
    assert all(len({i // 2 for i in b}) == 8 for _, b in whole.noted)  # a group once in a batch
    # The step after the first look-up lies in the middle of an epoch.
    half = interrupted(Noting, tmp_path / "half", 9, NEAR, **options)
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))
    assert half.noted == whole.noted[-len(half.noted) :]


def test_neighbours_are_the_nearest_of_other_groups(tmp_path):
    system = train(Noting, tmp_path / "run", NEAR, **{"train.max_epochs": 1})
    plugin = system.plugins["hard_negatives"]
    table = plugin.nearest()
    assert (plugin.nearest() == table).all()
    assert system.sampler.following is None  # no look-up after the last epoch
    with torch.no_grad():
        system.eval()
        torch.manual_seed(0)
        batch = plugin.samples.collate([plugin.samples[i] for i in range(48)])
        z = normalize(system.embed(batch)["a"], dim=1)
    cosine = (z @ z.T).numpy()
    cosine[np.arange(48)[:, None] // 2 == np.arange(48)[None] // 2] = -2
    # Views are drawn anew: the neighbours looked up are near, not the very same.
    assert np.take_along_axis(cosine, table, 1).mean() > np.sort(cosine, 1)[:, -16:].mean()
    assert not (table // 2 == np.arange(48)[:, None] // 2).any()


def test_a_sampler_changed_in_the_middle_of_an_epoch_changes_the_next_one(tmp_path):
    class Updating(Noting):
        def after_update(self):
            super().after_update()
            if self.progress.total_step == 1:  # the checkpoint after the next step knows of it, in the first epoch
                generator = np.random.default_rng(0)
                self.sampler.update([generator.permutation(48)[:4] for _ in range(48)])

    plugins = {"hard_negatives": {"start": 9}}
    options = {**EVERY, "train.max_epochs": 2}
    whole = train(Updating, tmp_path / "whole", plugins, **options)
    plain = train(Noting, tmp_path / "plain", plugins, **options)
    for epoch, equal in ((0, True), (1, False)):
        one, other = ([b for at, b in s.noted if at == epoch] for s in (whole, plain))
        assert (one == other) == equal
    half = interrupted(Updating, tmp_path / "half", 3, plugins, **options)
    assert half.noted == whole.noted[-len(half.noted) :]
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))


# Harmonised stages ---------------------------------------------------------------------------------------------------


class TwoLosses(Tiny):
    """Two losses meet at `a`, in the last stage only."""

    def stages(self):
        return (Stage("alone", trains=("tower_b",), max_epochs=1), Stage("both", max_epochs=1))

    def embed(self, batch):
        found = super().embed(batch)
        return {"b": found["b"]} if self.stage.name == "alone" else found

    def losses(self, batch, embeddings):
        self.fresh = normalize(self.teacher(batch["b"]), dim=-1), batch["index"]
        spread = {"spread": embeddings["b"].square().sum(1)}
        if "a" not in embeddings:
            return spread
        return {
            "infonce": self.contrast.row_losses(embeddings["a"], embeddings["b"]),
            "pull": -(embeddings["a"] * embeddings["a"].detach().roll(1, 0)).sum(1),
            **spread,
        }


def column(run, name):
    with (run / "metrics.csv").open() as handle:
        return [(row["stage"], float(row[name])) for row in csv.DictReader(handle) if row.get(name)]


def test_harmonisation_works_in_every_stage(tmp_path, capsys):
    train(TwoLosses, tmp_path / "run", {"harmonize": {"shared": "a", "gamma_start": -1.0}})
    assert {stage for stage, _ in column(tmp_path / "run", "train/gradient_cosine")} == {"both"}
    assert "stage 'alone' no two losses meet at an embedding (b)" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"harmonize.shared: 'c' is not among the embeddings a, b"):
        train(TwoLosses, tmp_path / "slip", {"harmonize": {"shared": "c"}})


def test_gradients_are_changed_by_plug_ins_one_after_the_other(tmp_path):
    class Doubled(Plugin):
        def gradients(self, found):
            return {name: {term: 2 * g for term, g in terms.items()} for name, terms in found.items()}

    class Last(Doubled):
        def gradients(self, found):
            return {name: {term: g for term, g in terms.items() if term == "infonce"} for name, terms in found.items()}

    options = {
        "optim": {"name": "sgd", "lr": 0.1, "clip": None, "schedule": {"kind": "constant", "warmup": 0}},
        "train.max_steps": 1, "dropout": 0.0,
    }  # fmt: skip
    names = [f"{__name__}:{cls.__qualname__}" for cls in (Doubled, Last)]

    class Apart(Rows):
        def losses(self, batch, embeddings):
            return {**super().losses(batch, embeddings), "pull": embeddings["a"].square().sum(1)}

    system = train(Apart, tmp_path / "changed", {name: {} for name in names}, **options)
    plain = train(Rows, tmp_path / "plain", **{**options, "optim.lr": 0.2})
    for name in ("tower_a.0.weight", "tower_b.3.bias"):
        torch.testing.assert_close(system.get_parameter(name), plain.get_parameter(name))
    # The temperature stands behind no embedding: its gradient is not doubled, the plain system's step is.
    systems = (create_system(Rows, TinyConfig()), system, plain)
    start, own, other = (float(s.contrast.logit_scale.log_scale.detach()) for s in systems)
    assert start != own
    assert other - start == pytest.approx(2 * (own - start), rel=1e-4)


# Configuration -------------------------------------------------------------------------------------------------------


def test_names_options_and_modules_are_checked():
    for named, words in [
        ({"harmonise": {}}, "unknown plug-in 'harmonise'; did you mean 'harmonize'"),
        ({"harmonize": {"share": "a"}}, r"train.plugins.harmonize.share is not an option; did you mean .*shared"),
        ({"harmonize": {"shared": 3}}, r"train.plugins.harmonize.shared: expected str, got 3"),
        ({"os:system": {}}, r"train.plugins: names os:system, of a module that belongs to no installed vertical"),
        ({"counterpoint.common.lazy:resolve": {}}, "is not a Plugin"),
        ({"hard_negatives": {"every": 0}}, "hard_negatives.every is 0; it must be at least 1"),
    ]:
        with pytest.raises(InputError, match=words):
            create_plugins(named)
    assert list(create_plugins({"bad_pairs": None, HEAVY: {"first": 1}})) == ["bad_pairs", HEAVY]


def test_two_plug_ins_cannot_both_choose_the_batches(tmp_path):
    np.save(tmp_path / "clusters.npy", np.arange(48) % 3)
    plugins = {**NEAR, "within_clusters": {"files": [str(tmp_path / "clusters.npy")]}}
    with pytest.raises(InputError, match="hard_negatives and within_clusters both choose the batches"):
        train(Noting, tmp_path / "run", plugins)
    np.save(tmp_path / "clusters.npy", np.arange(47) % 3)
    for file, words in (("clusters.npy", r"int64 \[47\]; it must name .* 48 training samples"), ("none.npy", "read")):
        with pytest.raises(InputError, match=words):
            train(Noting, tmp_path / "run", {"within_clusters": {"files": [str(tmp_path / file)]}})


@pytest.mark.parametrize("old", [None, {"shared": "a", "gamma_start": -1.0, "gamma_end": 0.0}])
def test_a_run_of_an_earlier_version_loads(tmp_path, old):
    plugins = {} if old is None else {"harmonize": old}
    train(Rows, tmp_path / "run", plugins, **{"train.max_epochs": 1})
    file = tmp_path / "run" / "config.yaml"
    for written, read, write in (
        (file, yaml.safe_load, yaml.safe_dump),
        (tmp_path / "run" / "environment.json", json.loads, json.dumps),
    ):
        record = read(written.read_text())
        del record["config"]["train"]["plugins"], record["config"]["optim"]["options"]
        record["config"]["train"]["harmonize"] = old
        written.write_text(write(record))
    assert empty_system(tmp_path / "run").config.train.plugins == plugins
    state = tmp_path / "run" / "checkpoints" / "last" / "state.json"
    assert json.loads(state.read_text())["per_epoch"] == [8, 6]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no setting has changed
        fit(load_run(tmp_path / "run", "last"), resume=tmp_path / "run")


def test_a_dotted_change_keeps_the_other_plug_ins():
    config = override(TinyConfig(), {"train.plugins": ["bad_pairs", "harmonize"]})
    config = override(config, {"train.plugins.harmonize.shared": "a", "train.plugins.harmonize.gamma_end": 0.5})
    assert config.train.plugins == {"bad_pairs": {}, "harmonize": {"shared": "a", "gamma_end": 0.5}}
    assert override(config, {"train.plugins": {}}).train.plugins == {}


def test_the_sampler_is_the_systems_own_without_a_plug_in(tmp_path):
    class Shuffled(Noting):
        def batch_sampler(self, dataset, batch_size, seed):
            return ShuffleSampler(len(dataset), batch_size, seed)

    assert isinstance(train(Shuffled, tmp_path / "run", {HEAVY: {}}, **{"train.max_epochs": 1}).sampler, ShuffleSampler)
