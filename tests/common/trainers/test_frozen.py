"""Frozen weights are written once a run and named by their hash: in checkpoints, saved models, probes and adapters."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_system import Tiny, TinyConfig
from torch import nn

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, from_pretrained, load_run, override, save_pretrained
from counterpoint.common.trainers.frozen import digest


class Taught(Tiny):
    """A tower beside it that never moves, drawn once; its batch norm's statistics do move."""

    def __init__(self, config, assets=None):
        super().__init__(config, assets)
        self.guide = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Linear(16, config.dim))
        self.guide.requires_grad_(False)

    def losses(self, batch, embeddings):
        guided = self.guide(batch["a"])
        return {**super().losses(batch, embeddings), "guide": (embeddings["a"] - guided).square().mean()}


class Drifting(Taught):
    """Moves its guide by hand, as a momentum encoder of somebody's own does: not frozen, though no stage trains it."""

    def after_update(self):
        super().after_update()
        with torch.no_grad():
            self.guide[0].weight.mul_(0.9)


def made(cls, out, **changes):
    return create_system(cls, override(TinyConfig(), {"train.out": str(out), **changes}))


def files(folder):
    return sorted(f.name for f in (folder / "frozen").iterdir())


def test_checkpoints_name_the_frozen_weights_and_the_run_holds_them_once(tmp_path):
    system = made(Taught, tmp_path / "run")
    before = {k: v.clone() for k, v in system.guide.named_parameters()}
    result = fit(system)
    (name,) = files(result.run_dir)
    stored = load_file(result.run_dir / "frozen" / name)
    assert set(stored) == {f"guide.{k}" for k in before}
    assert name == f"{digest(stored)}.safetensors"
    for checkpoint in (result.best, result.last):
        held = load_file(checkpoint / "model.safetensors")
        assert not set(held) & set(stored)
        assert "guide.1.running_mean" in held  # statistics move
        assert {n for n in held if n.startswith("teacher.")}  # a momentum teacher moves as well
    loaded = load_run(result.run_dir, "last")
    for key, value in system.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert all(torch.equal(loaded.guide.get_parameter(k), v) for k, v in before.items())


def test_what_moves_after_all_is_held_as_it_was_in_each_checkpoint(tmp_path):
    system = made(Drifting, tmp_path / "run", **{"train.max_steps": 7})
    result = fit(system)
    assert torch.equal(load_run(result.run_dir, "last").guide[0].weight, system.guide[0].weight)
    best, last = (load_run(result.run_dir, name) for name in ("best", "last"))
    assert len(files(result.run_dir)) == (1 if torch.equal(best.guide[0].weight, last.guide[0].weight) else 2)


@pytest.mark.parametrize("cls", [Taught, Drifting])
def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path, cls):
    flat = {"optim.schedule.kind": "constant", "optim.schedule.warmup": 0}  # does not know the number of epochs
    whole = fit(made(cls, tmp_path / "whole", **flat))
    fit(made(cls, tmp_path / "run", **flat, **{"train.max_epochs": 1}))
    system = load_run(tmp_path / "run", "last")
    system.config = replace(system.config, train=replace(system.config.train, max_epochs=3))
    with pytest.warns(UserWarning, match="configuration changed"):
        resumed = fit(system, resume=tmp_path / "run")
    for name in ("model.safetensors", "state.safetensors"):
        assert (resumed.last / name).read_bytes() == (whole.last / name).read_bytes()
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_missing_and_damaged_frozen_weights_are_one_sentence(tmp_path):
    result = fit(made(Taught, tmp_path / "run", **{"train.max_epochs": 1}))
    (name,) = files(result.run_dir)
    file = result.run_dir / "frozen" / name
    kept = file.read_bytes()
    values = load_file(file)
    values["guide.0.weight"][0, 0] += 1
    save_file(values, file)
    with pytest.raises(InputError, match=r"damaged: the frozen weights of 'guide' are not those of its name"):
        load_run(result.run_dir)
    file.write_bytes(kept[:200])
    with pytest.raises(InputError, match="frozen weights of 'guide' cannot be read"):
        load_run(result.run_dir)
    file.unlink()
    with pytest.raises(InputError, match=f"{name}: missing: it holds the frozen weights of 'guide'; copy the whole"):
        load_run(result.run_dir)
    file.write_bytes(kept)
    load_run(result.run_dir)


def test_a_run_that_holds_everything_in_its_checkpoints_still_loads(tmp_path):
    """As written before frozen weights had a file of their own."""
    system = made(Taught, tmp_path / "run", **{"train.max_epochs": 1})
    system.frozen_weights = dict
    result = fit(system)
    assert not (result.run_dir / "frozen").exists()
    assert torch.equal(load_run(result.run_dir).guide[0].weight, system.guide[0].weight)


def test_a_saved_model_has_the_frozen_weights_with_it(tmp_path):
    result = fit(made(Taught, tmp_path / "run", **{"train.max_epochs": 1}))
    system = load_run(result.run_dir)
    save_pretrained(system, tmp_path / "model")
    assert files(tmp_path / "model") == files(result.run_dir)
    assert not any(n.startswith("guide") and "weight" in n for n in load_file(tmp_path / "model/model.safetensors"))
    shutil.rmtree(result.run_dir)
    again = from_pretrained(tmp_path / "model")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in system.state_dict().items())
    system.guide[0].weight.data.add_(1)
    (tmp_path / "model/frozen/notes.txt").write_text("somebody's own")
    save_pretrained(system, tmp_path / "model")  # in place of the other: its weights go
    assert len(files(tmp_path / "model")) == 2
    assert files(tmp_path / "model")[-1] == "notes.txt"
