"""Mixed precision: what is narrow, what is not, and the float16 scaler's bookkeeping (on the CPU's scaler)."""

import json
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tiny_system import Tiny, TinyConfig

from counterpoint.common.trainers import create_system, fit, load_run, override

MIXED = {"train.precision": "bf16-mixed", "train.max_epochs": 2, "train.monitor_every": 0}


def config(out, **changes):
    return override(TinyConfig(), {"train.out": str(out), **MIXED, **changes})


class Watched(Tiny):
    """Notes the types, and each loss beside the float32 loss of the same embeddings."""

    noted: ClassVar[list] = []

    def losses(self, batch, embeddings):
        terms = super().losses(batch, embeddings)
        if self.training:
            with torch.autocast("cpu", enabled=False), torch.no_grad():
                wide = self.contrast(*(embeddings[k].float() for k in "ab"), queue=self.queue)
            self.noted.append((embeddings["a"].dtype, terms["infonce"].dtype, float(terms["infonce"].detach() - wide)))
        return terms


@pytest.mark.parametrize("micro", [None, 3])
def test_towers_are_narrow_and_losses_wide(tmp_path, micro):
    Watched.noted.clear()
    system = create_system(Watched, config(tmp_path / "run", **{"train.micro_batch_size": micro}))
    result = fit(system)
    types = {(a, b) for a, b, _ in Watched.noted}
    assert types == {(torch.bfloat16, torch.float32)}
    assert max(abs(d) for _, _, d in Watched.noted) < 1e-6  # bfloat16 sums of 24 terms would be off by 1e-2
    weights, names = load_file(result.last / "model.safetensors"), dict(system.named_parameters())
    assert {weights[n].dtype for n in names} == {torch.float32}
    moments = load_file(result.last / "state.safetensors")
    assert {v.dtype for k, v in moments.items() if "exp_avg" in k} == {torch.float32}


def test_a_mixed_run_follows_the_float32_run_and_learns(tmp_path):
    options = {"train.max_epochs": 6, "dropout": 0.0, "optim.lr": 1e-2}
    mixed = fit(create_system(Tiny, config(tmp_path / "mixed", **options))).metrics
    wide = fit(create_system(Tiny, config(tmp_path / "wide", **options, **{"train.precision": "32-true"}))).metrics
    start = fit(create_system(Tiny, config(tmp_path / "start", **{**options, "optim.lr": 0.0}))).metrics
    assert mixed["val/loss"] < start["val/loss"] - 0.3
    assert mixed["val/loss"] == pytest.approx(wide["val/loss"], abs=0.05)
    assert mixed["val/loss"] != wide["val/loss"]


def test_a_mixed_run_resumes_bit_for_bit(run_tiny, tmp_path):
    options = ["train.precision=bf16-mixed", "train.checkpoint_every_steps=4", "train.max_epochs=2"]
    run_tiny(tmp_path / "whole", *options)
    code, _ = run_tiny(tmp_path / "half", *options, "--die", 8, 9, check=False)
    assert code == -9
    run_tiny(tmp_path / "half", "--resume")
    for name in ("model.safetensors", "state.safetensors"):
        left, right = (load_file(tmp_path / r / "checkpoints/last" / name) for r in ("whole", "half"))
        assert all(torch.equal(left[k], right[k]) for k in left), name


class Scaled(Callback):
    """Gives the run float16's loss scaler; the arithmetic stays bfloat16, which the CPU has."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def on_fit_start(self, trainer, pl_module):
        trainer.precision_plugin.scaler = torch.amp.GradScaler("cpu", init_scale=self.scale)


@pytest.mark.parametrize("micro", [None, 3])
def test_the_loss_scale_changes_nothing_but_the_scale(tmp_path, micro):
    options = {"train.micro_batch_size": micro, "optim.clip": 0.05, "optim.name": "sgd", "optim.lr": 0.1}
    plain = fit(create_system(Tiny, config(tmp_path / "plain", **options)))
    scaled = fit(create_system(Tiny, config(tmp_path / "scaled", **options)), callbacks=[Scaled(2.0**10)])
    left, right = (load_file(r.last / "model.safetensors") for r in (plain, scaled))
    for name in left:  # a power of two
        torch.testing.assert_close(right[name], left[name], rtol=1e-6, atol=1e-7)
    assert plain.metrics["train/grad_norm"] > 0.05
    assert scaled.metrics["train/grad_norm"] == pytest.approx(plain.metrics["train/grad_norm"], rel=1e-5)


def test_an_overflow_skips_the_step_lowers_the_scale_and_travels(tmp_path):
    class Steep(Tiny):
        loss_weights: ClassVar[dict] = {"infonce": 1e6}  # times 2^127 is beyond float32

    out = tmp_path / "run"
    options = {"train.max_steps": 2, "dropout": 0.0, "optim.name": "sgd"}
    system = create_system(Steep, config(out, **options))
    before = system.tower_a[0].weight.detach().clone()
    fit(system, callbacks=[Scaled(2.0**127)])
    assert torch.equal(system.tower_a[0].weight, before)
    state = json.loads((out / "checkpoints/last/state.json").read_text())
    assert state["scaler"]["scale"] == 2.0**125

    class Reading(Scaled):
        def on_train_end(self, trainer, pl_module):
            self.scale = trainer.precision_plugin.scaler.get_scale()

    reading = Reading(1.0)
    file = out / "config.yaml"
    file.write_text("\n".join(["system: tiny_system:Tiny", *file.read_text().splitlines()[1:]]))
    fit(load_run(out, "last"), resume=out, callbacks=[reading])
    assert reading.scale == 2.0**125
