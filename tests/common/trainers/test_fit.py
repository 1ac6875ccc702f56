"""What a training leaves behind, and how it refuses."""

import csv
import itertools
import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_system import Pairs, Tiny, TinyConfig

from counterpoint.common.data import BadSample
from counterpoint.common.errors import CollapseWarning, InputError, NonFiniteLossError
from counterpoint.common.trainers import (
    ContrastiveSystem,
    Datasets,
    Schedule,
    ScheduleConfig,
    Stage,
    create_system,
    fit,
    load_run,
    override,
)


def tiny(out: Path, **changes) -> Tiny:
    options = {"train.out": str(out), "train.max_epochs": 1, "train.monitor_every": 0}
    return create_system(Tiny, override(TinyConfig(), {**options, **changes}))


def rows(run: Path) -> list[dict]:
    with (run / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_a_run_folder_is_complete_and_loads_again(tmp_path):
    result = fit(tiny(tmp_path / "run", **{"train.tensorboard": True, "train.monitor_every": 3}))
    run = result.run_dir
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "environment.json",
        "checkpoints",
        "tensorboard",
    }
    assert json.loads((run / "environment.json").read_text())["data"]["train"]["train"]["samples"] == 48
    table = rows(run)
    assert [int(r["step"]) for r in table] == list(range(1, 7))
    assert float(table[-1]["val/loss"]) == result.metrics["val/loss"]
    assert [r["step"] for r in table if r["monitor/rankme/a"]] == ["3", "6"]
    assert 0 <= float(table[-1]["val/a->b/R@10"]) <= 1
    # Two of a group never share a batch, so each sample meets 7 others.
    assert float(table[2]["monitor/negatives"]) == 7
    again, batch = load_run(run), {k: torch.randn(4, 10) for k in "ab"}
    last = load_run(run, "last")
    assert not again.training
    assert torch.equal(again.encode(batch)["a"], last.encode(batch)["a"])  # one epoch: its best is its last


def test_best_is_the_best_validation_and_patience_stops(tmp_path):
    values = iter([3.0, 1.0, 2.0, 2.5, 0.0])

    class Scripted(Tiny):
        def validation_metrics(self, embeddings):
            return {"val/scripted": next(values)}

    config = {"train.max_epochs": 5, "train.monitor": "val/scripted", "train.patience": 2}
    system = create_system(Scripted, override(TinyConfig(), {"train.out": str(tmp_path / "run"), **config}))
    fit(system)
    best = json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())
    last = json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())
    assert (best["best"], best["progress"]["total_step"]) == (1.0, 12)
    assert last["progress"]["epoch"] == 4  # two epochs without improvement


def test_patience_goes_on_counting_after_a_resume(tmp_path):
    class Scripted(Tiny):
        dies = True

        def validation_metrics(self, embeddings):
            return {"val/scripted": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0][self.progress.epoch]}

        def after_update(self):
            super().after_update()
            if self.dies and self.progress.total_step == 13:
                raise KeyError("power cut")

    options = {"train.max_epochs": 6, "train.monitor": "val/scripted", "train.patience": 2, "train.monitor_every": 0}
    config = override(TinyConfig(), {**options, "train.out": str(tmp_path / "run")})
    with pytest.raises(KeyError, match="power cut"):
        fit(create_system(Scripted, config))
    again = create_system(Scripted, config)
    again.dies = False
    fit(again, resume=tmp_path / "run")
    last = json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())
    assert last["progress"]["epoch"] == 3  # one epoch without improvement before the cut, one after it


def test_a_first_validation_without_a_number_is_not_the_best(tmp_path):
    values = iter([float("nan"), 2.0, 1.0, float("nan")])

    class Scripted(Tiny):
        def validation_metrics(self, embeddings):
            return {"val/scripted": next(values)}

    config = {"train.max_epochs": 4, "train.monitor": "val/scripted", "train.out": str(tmp_path / "run")}
    fit(create_system(Scripted, override(TinyConfig(), config)))
    best = json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())
    assert (best["best"], best["progress"]["total_step"]) == (1.0, 18)


def test_one_kind_of_schedule_for_rate_decay_momentum_and_temperature(tmp_path):
    seen = []

    class Scheduled(Tiny):
        def schedule_configs(self):
            return {"temperature": (ScheduleConfig(kind="cosine", warmup=0, final=0.5), 0.2)}

        def named_schedules(self, total):
            momentum = Schedule("cosine", peak=0.9, end=1.0, total=total)
            return {**super().named_schedules(total), "ema_momentum": momentum}

        def losses(self, batch, embeddings):
            if self.training:
                group = self.optimizers(use_pl_optimizer=False).param_groups[0]
                seen.append((group["lr"], group["weight_decay"], dict(self.scheduled)))
                self.before = self.teacher.module[0].weight.clone()
            return super().losses(batch, embeddings)

        def after_update(self):
            super().after_update()
            moved = self.before.lerp(self.tower_b[0].weight, 1 - self.scheduled["ema_momentum"])
            torch.testing.assert_close(self.teacher.module[0].weight, moved)

    decay = {"kind": "cosine", "warmup": 0.0, "final": 10.0}
    options = {"train.max_epochs": 1, "optim.weight_decay": 0.01, "optim.weight_decay_schedule": decay}
    config = override(TinyConfig(), {"train.out": str(tmp_path / "run"), **options})
    fit(create_system(Scheduled, config))
    half = [(1 - math.cos(math.pi * n / 6)) / 2 for n in range(6)]  # how far a cosine has come
    assert [s["temperature"] for *_, s in seen] == pytest.approx([0.2 - 0.1 * h for h in half])
    assert [s["ema_momentum"] for *_, s in seen] == pytest.approx([0.9 + 0.1 * h for h in half])
    assert [w for _, w, _ in seen] == pytest.approx([0.01 + 0.09 * h for h in half])
    assert [r for r, *_ in seen] == pytest.approx([s["lr"] for *_, s in seen])


def test_every_visit_of_a_sample_draws_new_noise(tmp_path):
    views = {}

    class Watching(Tiny):
        def embed(self, batch):
            if self.training:
                for i, a in zip(batch["index"].tolist(), batch["a"]):
                    views.setdefault(i, []).append(a.clone())
            return super().embed(batch)

    options = {"train.max_epochs": 3, "train.out": str(tmp_path / "run"), "train.monitor_every": 0}
    fit(create_system(Watching, override(TinyConfig(), options)))
    assert len(views) == 48
    for seen in views.values():
        assert len(seen) == 3
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_training_does_not_depend_on_validation(tmp_path):
    often = fit(tiny(tmp_path / "a", **{"train.max_epochs": 2})).last
    never = fit(tiny(tmp_path / "b", **{"train.max_epochs": 2, "train.validate_every_epochs": 5})).last
    assert (often / "model.safetensors").read_bytes() == (never / "model.safetensors").read_bytes()


def test_fit_leaves_the_global_generators_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny(tmp_path / "run"))
    assert torch.equal(torch.rand(3), expected)


def test_fit_leaves_the_process_as_deterministic_as_it_was(tmp_path):
    seen = []

    class Watching(Tiny):
        def after_update(self):
            super().after_update()
            seen.append(torch.are_deterministic_algorithms_enabled())

    before = torch.are_deterministic_algorithms_enabled()
    fit(create_system(Watching, override(TinyConfig(), {"train.out": str(tmp_path / "run"), "train.max_steps": 2})))
    assert seen == [True, True]
    assert torch.are_deterministic_algorithms_enabled() == before


def test_a_quiet_run_says_nothing_and_the_users_own_warnings_pass(tmp_path, capfd):
    class Unvalidated(Tiny):
        def datasets(self):
            return Datasets(Pairs(48, 0))

        def training_step(self, batch, batch_idx):
            warnings.warn("the microphone of s7 clips", UserWarning, stacklevel=1)
            return super().training_step(batch, batch_idx)

    config = override(TinyConfig(), {"train.out": str(tmp_path / "run"), "train.max_epochs": 1})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(create_system(Unvalidated, config))
    assert {str(w.message) for w in caught} == {"the microphone of s7 clips"}
    assert not capfd.readouterr().err
    assert result.best.exists()  # without a validation, the last is the best


def test_stages_train_their_parts_only(tmp_path):
    class Frozen(Tiny):
        def stages(self):
            return (Stage("only-a", trains=("tower_a",), max_epochs=1),)

    system = create_system(Frozen, override(TinyConfig(), {"train.out": str(tmp_path / "run")}))
    before = {n: p.clone() for n, p in system.named_parameters()}
    fit(system)
    for name, parameter in system.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == name.startswith("tower_a"), name


def test_the_teacher_follows_the_student(tmp_path):
    system = tiny(tmp_path / "run", **{"train.max_steps": 1})
    before = [p.clone() for p in system.teacher.parameters()]
    fit(system)
    for old, new, student in zip(before, system.teacher.parameters(), system.tower_b.parameters()):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)


def test_nan_stops_with_the_batch_named(tmp_path):
    with pytest.raises(NonFiniteLossError, match="infonce = nan at step 3"):
        fit(tiny(tmp_path / "run", nan_at=3))
    record = json.loads((tmp_path / "run" / "non_finite_batch_rank0.json").read_text())
    assert len(record["ids"]) == 8
    assert record["ids"][0].startswith("s")


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    fit(tiny(tmp_path / "run"))
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        fit(tiny(tmp_path / "run"))
    fit(tiny(tmp_path / "run", **{"train.overwrite": True}))


def test_a_finished_run_resumes_to_itself(tmp_path):
    first = fit(tiny(tmp_path / "run"))
    weights = (first.last / "model.safetensors").read_bytes()
    again = fit(load_run(first.run_dir, "last"), resume=first.run_dir)
    assert (again.last / "model.safetensors").read_bytes() == weights
    assert again.metrics == first.metrics


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from counterpoint.common.trainers import checkpoints

    system = tiny(tmp_path / "run", **{"train.max_epochs": 3})
    original, calls = checkpoints.write_model, []

    def full(folder, weights, parts):
        calls.append(folder)
        if len([c for c in calls if ".last" in str(c)]) > 1:
            (folder / checkpoints.MODEL).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(folder, weights, parts)

    monkeypatch.setattr(checkpoints, "write_model", full)
    with pytest.raises(InputError, match=r"last: the checkpoint cannot be written \(No space left.*is intact"):
        fit(system)
    monkeypatch.undo()
    result = fit(load_run(tmp_path / "run", "last"), resume=tmp_path / "run")
    whole = fit(tiny(tmp_path / "whole", **{"train.max_epochs": 3}))
    assert (result.last / "model.safetensors").read_bytes() == (whole.last / "model.safetensors").read_bytes()


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the run folder cannot be written"):
        fit(tiny(tmp_path / "file" / "run"))


def test_a_crash_between_two_renames_leaves_a_checkpoint(tmp_path):
    result = fit(tiny(tmp_path / "run"))
    result.last.rename(result.last.with_name(".last.old"))
    load_run(result.run_dir, "last")


def test_configurations_that_cannot_work_are_refused(tmp_path):
    for changes, words in [
        ({"train.precision": "float7"}, "float7"),
        ({"train.monitor": "val/accuracy"}, "val/accuracy.*there are: .*val/loss"),
        ({"train.strategy": "zero"}, "'zero' is not supported; give auto, ddp or fsdp"),
        ({"train.strategy": "fsdp", "train.precision": "16-mixed"}, "16-mixed does not go with .*; give bf16-mixed"),
        ({"optim.name": "adamax"}, "adamax.*adamw"),
        ({"optim.schedule.kind": "cosin"}, "cosin"),
        ({"optim.groups": [{"prefix": "tower_c"}]}, "tower_c"),
    ]:
        with pytest.raises(InputError, match=words):
            fit(tiny(tmp_path / "run", **{"train.overwrite": True, **changes}))
    with pytest.raises(InputError, match="not a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("system: os:system\nconfig: {}\n")
    with pytest.raises(InputError, match="os:system, of a module that belongs to no installed vertical"):
        load_run(tmp_path)


class Holes(Pairs):
    """Some samples cannot be read."""

    def __init__(self, broken: set[int]) -> None:
        super().__init__(48, 0)
        self.broken = broken

    def __getitem__(self, i):
        return BadSample(i, f"s{i}", "header missing") if i in self.broken else super().__getitem__(i)


class Skipping(Tiny):
    broken = frozenset({3, 17})

    def datasets(self):
        return Datasets(Holes(set(self.broken)), Pairs(13, 1))

    def training_step(self, batch, batch_idx):
        assert len(batch["id"]) == 8
        assert len(set(batch["group"])) == 8
        assert not {f"s{i}" for i in self.broken} & set(batch["id"])
        return super().training_step(batch, batch_idx)


def test_bad_samples_are_replaced_counted_and_limited(tmp_path):
    config = override(TinyConfig(), {"train.max_epochs": 2, "train.max_bad": 0.05, "train.out": str(tmp_path / "run")})
    fit(create_system(Skipping, config))
    listed = [json.loads(line) for line in (tmp_path / "run/bad_samples.jsonl").read_text().splitlines()]
    assert {r["id"] for r in listed} == {"s3", "s17"}
    assert all(r["reason"] == "header missing" for r in listed)
    strict = override(config, {"train.max_bad": 0.03, "train.out": str(tmp_path / "strict")})
    with pytest.raises(InputError, match=r"2 of 48 samples cannot be read, more than train.max_bad = 3.00%"):
        fit(create_system(Skipping, strict))


def test_collapse_is_announced_with_causes(tmp_path):
    class Collapsing(Tiny):
        def losses(self, batch, embeddings):
            terms = super().losses(batch, embeddings)
            return {
                "collapse": sum(((v - 1) ** 2).mean() for v in embeddings.values()),
                "infonce": 0 * terms["infonce"],
            }

    options = {"train.max_epochs": 14, "train.monitor_every": 20, "optim.lr": 0.1, "dropout": 0.0}
    config = override(TinyConfig(), {"train.out": str(tmp_path / "run"), "train.validate_every_epochs": 50, **options})
    with pytest.warns(CollapseWarning, match="Likely causes: the views"):
        fit(create_system(Collapsing, config))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        fit(tiny(tmp_path / "healthy", **{"train.max_epochs": 5, "train.monitor_every": 10}))


def test_a_batch_larger_than_the_data_shrinks_and_says_so(tmp_path):
    class Loose(Tiny):
        batch_sampler = ContrastiveSystem.batch_sampler

    config = override(
        TinyConfig(), {"train.out": str(tmp_path / "run"), "train.max_epochs": 1, "train.batch_size": 100}
    )
    with pytest.warns(UserWarning, match="only 48 training samples"):
        fit(create_system(Loose, replace(config, queue=100)))
