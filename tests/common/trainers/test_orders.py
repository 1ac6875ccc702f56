"""Steps of a system's own order: several optimisers, stages without gradients, optimisers by name."""

import csv

import pytest
import torch
from safetensors.torch import load_file
from test_plugins import interrupted, same, train
from tiny_system import Pairs, Tiny, TinyConfig
from torch.nn.functional import normalize

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Datasets, OptimConfig, Stage, create_system, override
from counterpoint.common.trainers.optim import build_optimizer, parameter_groups, share_out

CONSTANT = {
    "optim": {
        "name": "sgd", "lr": 0.1, "weight_decay": 0.0, "clip": None, "schedule": {"kind": "constant", "warmup": 0},
    },
}  # fmt: skip


class Alternating(Tiny):
    """First b learns to be far from a, then a to be near b: two optimisers."""

    kept: list = []  # noqa: RUF012

    def optimizer_parts(self):
        return (("tower_a", "contrast"), ("tower_b",))

    def distance(self, batch, embeddings):
        return {"far": -(normalize(embeddings["a"]) - normalize(embeddings["b"])).square().sum(1)}

    def step(self, batch):
        a, b = self.optimizers()
        self.kept.append({k: batch[k].clone() for k in "ab"})
        self.gradients(batch, self.distance, only=[b])
        assert all(p.grad is None for p in self.tower_a.parameters())
        self.update(b)
        found = self.gradients(batch, only=[a])
        assert all(p.grad is None for p in self.tower_b.parameters())
        self.update(a)
        assert all(p.requires_grad for tower in (self.tower_a, self.tower_b) for p in tower.parameters())
        return found


FLAT = {**CONSTANT, "dropout": 0.0}


@pytest.mark.parametrize("micro", [None, 3])
def test_alternating_steps_are_those_written_by_hand(tmp_path, micro):
    Alternating.kept.clear()
    system = train(Alternating, tmp_path / "run", **FLAT, **{"train.micro_batch_size": micro})
    other = create_system(Alternating, override(TinyConfig(), {**FLAT}))
    names = [n for n, _ in other.named_parameters() if n.startswith(("tower_a", "contrast"))]
    mine = torch.optim.SGD([other.get_parameter(n) for n in names], lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(other.tower_b.parameters(), lr=0.1, momentum=0.9)
    for batch in Alternating.kept:
        theirs.zero_grad()
        other.distance(batch, other.embed(batch))["far"].mean().backward()
        theirs.step()
        mine.zero_grad()
        embeddings = other.embed(batch)
        index = torch.arange(8)
        terms = other.losses({**batch, "index": index}, embeddings)
        terms["infonce"].backward()
        mine.step()
        other.update_teachers()
        other.queue.push(*other.fresh)
    for name, value in other.named_parameters():
        torch.testing.assert_close(system.get_parameter(name), value, rtol=1e-4, atol=1e-5, msg=name)


def test_two_optimisers_resume_and_agree_over_ranks(tmp_path, on_two_ranks):
    every = {"train.checkpoint_every_steps": 2, "optim.name": "adamw"}
    train(Alternating, tmp_path / "whole", **every)
    interrupted(Alternating, tmp_path / "half", 9, {}, **every)
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))
    flat = {**FLAT, "train.max_epochs": 1}
    train(Alternating, tmp_path / "one", **flat)
    ranks = {"train.devices": 2, "train.strategy": "ddp", "distributed": "gather", **flat}
    on_two_ranks(lambda rank: train(Alternating, tmp_path / "two", **ranks))
    same(tmp_path / "one", tmp_path / "two", tolerance=2e-5)


def test_every_parameter_has_one_optimiser(tmp_path):
    groups = parameter_groups(Tiny(TinyConfig()).named_parameters(), OptimConfig())
    assert [len(part) for part in share_out(groups, [()])] == [len(groups)]
    for parts, words in [
        ([("tower_a",), ("tower_b",)], "0 of the optimisers take contrast"),
        ([("tower_",), ("tower_b", "contrast")], "2 of the optimisers take tower_b"),
        ([(), ("decoder",)], "no trained parameter's name starts with decoder"),
    ]:
        with pytest.raises(ValueError, match=words):
            share_out(groups, parts)
    for changes, words in [
        ({"train.precision": "16-mixed"}, "16-mixed does not go with several optimisers; give bf16-mixed"),
        ({"train.strategy": "fsdp"}, "fsdp does not go with several optimisers; give ddp"),
    ]:
        system = create_system(Alternating, override(TinyConfig(), changes))
        with pytest.raises(InputError, match=words):
            system.configure_optimizers()


# Gradient-free stages ------------------------------------------------------------------------------------------------


class Still(Pairs):
    """The same views on every visit."""

    def __getitem__(self, i):
        sample = super().__getitem__(i)
        return {**sample, "a": self.latent[i] @ self.mix[0], "b": self.latent[i] @ self.mix[1]}


class Means(Tiny):
    """A contrast, Lloyd's k-means of its embeddings (an iteration an epoch), a contrast again."""

    def __init__(self, config, assets=None):
        super().__init__(config, assets)
        self.register_buffer("centres", torch.eye(config.dim)[:3].clone())
        self.register_buffer("sums", torch.zeros(3, config.dim))
        self.register_buffer("counts", torch.zeros(3))

    def datasets(self):
        return Datasets(Still(48, 0), Still(13, 1))

    def batch_sampler(self, dataset, batch_size, seed):
        from counterpoint.common.data import ShuffleSampler

        return ShuffleSampler(len(dataset), batch_size, seed)

    def stages(self):
        return (
            Stage("first", max_epochs=1),
            Stage("means", gradient_free=True, max_epochs=4),
            Stage("second", max_epochs=1),
        )

    def observe(self, batch, embeddings):
        assert not torch.is_grad_enabled()
        z = self.gather_rows(embeddings["a"]).to(self.device)
        near = torch.cdist(z, self.centres)
        found = torch.nn.functional.one_hot(near.argmin(1), 3).float()
        self.sums += found.T @ z
        self.counts += found.sum(0)
        return {"inertia": near.amin(1).square().mean()}

    def after_epoch(self):
        if self.stage.gradient_free:
            self.centres.copy_(torch.where(self.counts[:, None] > 0, self.sums / self.counts[:, None], self.centres))
            self.sums.zero_()
            self.counts.zero_()


def rows(run):
    with (run / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_a_gradient_free_stage_fits_k_means_and_is_counted(tmp_path):
    class Watched(Means):
        def on_stage_start(self, stage):
            self.__dict__.setdefault("before", {})[stage.name] = {k: v.clone() for k, v in self.state_dict().items()}

    system = train(Watched, tmp_path / "run", **{"optim.lr": 0.01})
    means, second = system.before["means"], system.before["second"]
    changed = {name for name, value in means.items() if not torch.equal(value, second[name])}
    assert changed == {"centres"}
    system.load_state_dict(means)
    data = Still(48, 0)
    with torch.no_grad():
        z = system.eval().embed(data.collate([data[i] for i in range(48)]))["a"]
    centres = means["centres"]
    for _ in range(4):
        label = torch.cdist(z, centres).argmin(1)
        centres = torch.stack([z[label == k].mean(0) if (label == k).any() else centres[k] for k in range(3)])
    torch.testing.assert_close(second["centres"], centres)
    written = rows(tmp_path / "run")
    assert [row["stage"] for row in written] == ["first"] * 6 + ["means"] * 24 + ["second"] * 6
    inertia = [float(row["train/inertia"]) for row in written if row["stage"] == "means"]
    assert len(inertia) == 24
    assert sum(inertia[-6:]) < sum(inertia[:6])
    assert not any(row["val/loss"] for row in written if row["stage"] == "means")
    assert int(written[-1]["step"]) == 6 + 24 + 6


def test_a_gradient_free_stage_resumes_and_agrees_over_ranks(tmp_path, on_two_ranks):
    every = {"train.checkpoint_every_steps": 4}
    train(Means, tmp_path / "whole", **every)
    interrupted(Means, tmp_path / "half", 21, {}, **every)  # in the third of the four passes
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))
    assert (tmp_path / "whole/metrics.csv").read_text() == (tmp_path / "half/metrics.csv").read_text()
    flat = {"dropout": 0.0, "train.micro_batch_size": 3}
    train(Means, tmp_path / "one", **flat)
    for strategy in ("ddp", "fsdp"):
        ranks = {"train.devices": 2, "train.strategy": strategy, "distributed": "gather", **flat}
        on_two_ranks(lambda rank, strategy=strategy, ranks=ranks: train(Means, tmp_path / strategy, **ranks))
        same(tmp_path / "one", tmp_path / strategy, tolerance=2e-5)


def test_a_gradient_free_stage_may_stand_last_and_needs_observe(tmp_path):
    class Only(Means):
        def stages(self):
            return (Stage("means", gradient_free=True, max_epochs=1),)

    train(Only, tmp_path / "run")
    assert (load_file(tmp_path / "run/checkpoints/best/model.safetensors")["centres"] != torch.eye(6)[:3]).any()

    class Blind(Only):
        observe = Tiny.observe

    with pytest.raises(TypeError, match=r"Blind has a gradient-free stage and does not define observe\(\)"):
        train(Blind, tmp_path / "blind")


# Optimisers by name --------------------------------------------------------------------------------------------------


def built(**changes):
    config = override(OptimConfig(), changes)
    return build_optimizer(parameter_groups(Tiny(TinyConfig()).named_parameters(), config), config)


class Halving(torch.optim.SGD):
    """One of a team's own."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] *= 0.5
        return super().step(closure)


def test_optimisers_by_dotted_name():
    found = built(name="torch.optim.RAdam", options={"decoupled_weight_decay": True, "eps": "1e-6"})
    assert type(found) is torch.optim.RAdam
    assert found.defaults["decoupled_weight_decay"]
    assert found.defaults["eps"] == 1e-6
    assert {g["weight_decay"] for g in found.param_groups} == {1e-4, 0.0}
    assert built(name="torch.optim.NAdam", betas=[0.8, 0.99]).defaults["betas"] == (0.8, 0.99)
    assert built(name="torch.optim.Adafactor").defaults["eps"] == (None, 1e-3)  # its own default, not Adam's
    assert built(name="adamw", options={"amsgrad": True}).defaults["amsgrad"]
    assert type(built(name=f"{__name__}.Halving", weight_decay=0.0)) is Halving


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "adamax"}, "is not one of adamw, adam, sgd, lars; give .* torch.optim.RAdam"),
        ({"name": "torch.optim.RAdm"}, "did you mean 'torch.optim.RAdam'"),
        ({"name": "torch.optim.Optimizer.step"}, "belongs to no installed vertical"),
        ({"name": "torch.optim.lr_scheduler"}, "unknown optimiser"),
        ({"name": "os.system"}, "optim.name: names os:system, of a module that belongs to no installed vertical"),
        ({"name": "counterpoint.common.lazy.resolve"}, "is not a Optimizer"),
        ({"name": "torch.optim.LBFGS"}, "needs a closure"),
        ({"name": "torch.optim.Rprop"}, "optim.weight_decay: torch.optim.Rprop has no weight_decay; set it to 0"),
        ({"name": "torch.optim.SGD", "betas": [0.8, 0.9]}, "optim.betas: torch.optim.SGD has no betas; leave it out"),
        ({"name": "torch.optim.RAdam", "options": {"nu": 1}}, "optim.options.nu: torch.optim.RAdam has no nu"),
        ({"name": "torch.optim.RAdam", "options": {"eps": "x"}}, "optim.name torch.optim.RAdam: "),
        ({"name": "adamw", "options": {"nu": 1}}, "optim.name adamw: .*'nu'"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_optimisers_that_cannot_be_are_refused_in_a_sentence(changes, words):
    with pytest.raises(InputError, match=words):
        built(**changes)


def test_a_run_with_an_optimiser_by_name_resumes(tmp_path):
    options = {"optim.name": "torch.optim.RAdam", "train.checkpoint_every_steps": 2}
    train(Tiny, tmp_path / "whole", **options)
    interrupted(Tiny, tmp_path / "half", 9, {}, **options)
    same(tmp_path / "whole", tmp_path / "half", ("model.safetensors", "state.safetensors"))
