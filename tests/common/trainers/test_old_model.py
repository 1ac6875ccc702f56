"""Mod-X's loop: every phase starts from the model before, which teaches what it had right."""

import csv
from dataclasses import dataclass

import pytest
import torch
from tiny_system import Datasets, Pairs, Tiny, TinyConfig
from torch.nn.functional import normalize

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import continual, create_system, fit, load_run, override


@dataclass(frozen=True)
class PhaseConfig(TinyConfig):
    phase: int = 0


class Phased(Tiny):
    """Tiny on pairs whose two views are mixed in another way in every phase."""

    Config = PhaseConfig

    def datasets(self):
        return Datasets(phase_pairs(self.config.phase, self.config.samples, 0), phase_pairs(self.config.phase, 13, 1))


def phase_pairs(phase, n, seed):
    pairs = Pairs(n, seed)
    pairs.mix = pairs.mix.roll(3 * phase, dims=2)
    return pairs


def config(out, phase=0, **changes):
    options = {"train.out": str(out), "train.max_epochs": 6, "train.monitor_every": 0, "dropout": 0.0, "phase": phase}
    return override(PhaseConfig(), {**options, **changes})


def create(phase, out):
    return create_system(Phased, config(out, phase))


def recall(system, phase):
    """Share of held-out samples of a phase whose first view finds its second."""
    pairs = phase_pairs(phase, 60, 7)
    torch.manual_seed(0)
    items = [pairs[i] for i in range(60)]
    batch = {k: torch.stack([item[k] for item in items]) for k in ("a", "b")}
    with torch.no_grad():
        found = {k: normalize(v, dim=1) for k, v in system.embed(batch).items()}
    return ((found["a"] @ found["b"].T).argmax(1) == torch.arange(60)).float().mean().item()


def column(run, name):
    with (run / "metrics.csv").open() as handle:
        return [float(r[name]) for r in csv.DictReader(handle) if r.get(name)]


def test_a_phase_starts_from_the_model_before_and_keeps_what_it_had_right(tmp_path):
    runs = continual(create, tmp_path / "modx", 2, alpha=20.0)
    free = continual(create, tmp_path / "free", 2, alpha=0.0)
    # The first step's distillation is that of a model with itself.
    assert column(runs[1], "train/old_model")[0] == pytest.approx(0.0, abs=1e-4)
    assert column(runs[1], "train/old_model")[-1] > 0
    assert 0 < column(runs[1], "old_model/kept")[0] <= 1
    before, kept, lost = (load_run(r, "last") for r in (runs[0], runs[1], free[1]))
    drift = [sum(((p - q) ** 2).sum() for p, q in zip(s.parameters(), before.parameters())) for s in (kept, lost)]
    assert drift[0] < drift[1]
    assert recall(kept, 0) >= recall(lost, 0)
    assert recall(kept, 1) > 3 / 60  # and the new phase is learnt, chance being one in sixty


def test_finished_phases_are_not_trained_again(tmp_path):
    first = continual(create, tmp_path, 1)
    state = (first[0] / "checkpoints/last/state.json").read_bytes()
    made = []
    runs = continual(lambda phase, out: made.append(phase) or create(phase, out), tmp_path, 2)
    assert made == [1]
    assert (runs[0] / "checkpoints/last/state.json").read_bytes() == state


def test_what_does_not_fit_is_said(tmp_path):
    first = fit(create(0, str(tmp_path / "first"))).run_dir

    def train(**changes):
        options = {"run": str(first), **changes.pop("plugin", {})}
        changes = {"train.plugins": {"old_model": options}, "train.overwrite": True, **changes}
        return fit(create_system(Phased, config(tmp_path / "second", 1, **changes)))

    with pytest.raises(InputError, match="old_model.pair: give two of a, b"):
        train(plugin={"pair": ["a", "c"]})
    with pytest.raises(InputError, match="do not fit"):
        train(dim=4)
    with pytest.raises(InputError, match="name the run"):
        train(plugin={"run": ""})
