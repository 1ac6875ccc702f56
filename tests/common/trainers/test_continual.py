"""Continual pretraining on the infinite schedule: the next stage starts before the annealing, at the constant rate."""

import csv
import json

import pytest
from safetensors.torch import load_file
from tiny_system import Tiny, TinyConfig

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Stage, create_system, fit, load_run, override

SCHEDULE = {"kind": "infinite", "warmup": 2, "cooldown": 3, "constant": 0.5, "decay": 4, "final": 0.01}


def config(out, **changes):
    options = {"train.out": str(out), "train.max_epochs": 2, "train.monitor_every": 0, "optim.schedule": SCHEDULE}
    return override(TinyConfig(), {**options, **changes})


def rates(run):
    with (run / "metrics.csv").open() as handle:
        return [float(r["train/lr"]) / 1e-3 for r in csv.DictReader(handle) if r["train/lr"]]


def test_a_new_stage_goes_on_from_before_the_annealing(tmp_path):
    first = fit(create_system(Tiny, config(tmp_path / "first"))).run_dir
    assert rates(first)[5:9] == pytest.approx([0.5] * 3 + [0.5 * 0.02**0.0])
    assert rates(first)[11] == pytest.approx(0.5 * 0.02 ** (3 / 4))
    state = json.loads((first / "checkpoints/const/state.json").read_text())
    assert state["progress"]["step"] == 8  # twelve steps, the last four anneal
    second = fit(create_system(Tiny, config(tmp_path / "second"), continue_from=first)).run_dir
    assert rates(second)[:8] == pytest.approx([0.5] * 8)
    # Its first update has the moments of the first stage: after 12 more steps Adam counts 8 + 12.
    moments = load_file(second / "checkpoints/last/state.safetensors")
    steps = {float(v) for k, v in moments.items() if k.endswith(".step")}
    assert steps == {20.0}
    again = fit(load_run(second, "last"), resume=second)
    assert again.last.exists()


def test_other_schedules_cannot_continue(tmp_path):
    first = fit(create_system(Tiny, config(tmp_path / "first"))).run_dir
    with pytest.raises(InputError, match="needs optim.schedule.kind=infinite"):
        create_system(Tiny, config(tmp_path / "b", **{"optim.schedule.kind": "cosine"}), continue_from=first)
    plain = fit(create_system(Tiny, config(tmp_path / "c", **{"optim.schedule.kind": "cosine"}))).run_dir
    with pytest.raises(InputError, match="const: no such checkpoint; there are: best, last"):
        create_system(Tiny, config(tmp_path / "d"), continue_from=plain)


class Counting(Tiny):
    """Looks at the data once before it trains."""

    dies = False

    def stages(self):
        return Stage("count", gradient_free=True, max_epochs=1), Stage("train")

    def observe(self, batch, embeddings):
        if Counting.dies and self.progress.step == 3:
            raise KeyError("killed")
        return {}


@pytest.mark.parametrize("killed", [False, True])
def test_the_moments_wait_for_the_stage_that_they_belong_to(tmp_path, monkeypatch, killed):
    """The first stage has no optimiser; they are not lost when the run is killed there and resumed."""
    first = fit(create_system(Counting, config(tmp_path / "first"))).run_dir
    state = json.loads((first / "checkpoints/const/state.json").read_text())
    assert (state["progress"]["stage"], state["progress"]["step"]) == (1, 8)
    out = tmp_path / "second"
    system = create_system(Counting, config(out, **{"train.checkpoint_every_steps": 1}), continue_from=first)
    if killed:
        monkeypatch.setattr(Counting, "dies", True)
        with pytest.raises(KeyError, match="killed"):
            fit(system)
        monkeypatch.setattr(Counting, "dies", False)
        fit(load_run(out, "last"), resume=out)
    else:
        fit(system)
    moments = load_file(out / "checkpoints/last/state.safetensors")
    assert {float(v) for k, v in moments.items() if k.endswith(".step")} == {20.0}
