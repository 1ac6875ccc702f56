"""Faults of a run's folder: each is found, and told in one sentence that says how to go on."""

import csv
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal

import pytest
import tiny_system
from filelock import FileLock
from test_resume import same
from tiny_system import Pairs, Tiny, TinyConfig

from counterpoint.common.errors import InputError, LostProcessError
from counterpoint.common.trainers import Datasets, create_system, fit, load_run, override

STATE_FILES = ("model.safetensors", "state.safetensors", "state.json")


def tiny(out, cls=Tiny, **changes):
    return create_system(cls, override(TinyConfig(), {"train.out": str(out), "train.max_epochs": 2, **changes}))


def resumed(run):
    return fit(load_run(run, "last", allow=["tiny_system"]), resume=run)


@pytest.fixture
def run(tmp_path):
    return fit(tiny(tmp_path / "run")).run_dir


@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.parametrize("seed", range(3))
def test_one_flipped_bit_is_found(run, name, seed):
    file = run / "checkpoints/last" / name
    data = bytearray(file.read_bytes())
    rng = random.Random(f"{name}{seed}")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"last/{name}: damaged .*last good checkpoint is 'best' of step \d+"):
        resumed(run)


def test_truncated_missing_and_older_files_are_told(run):
    last = run / "checkpoints/last"
    weights = (last / "model.safetensors").read_bytes()
    (last / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(InputError, match=r"model.safetensors: damaged"):
        load_run(run, "last", allow=["tiny_system"])
    (last / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: missing"):
        load_run(run, "last", allow=["tiny_system"])
    (last / "model.safetensors").write_bytes(weights)
    load_run(run, "last", allow=["tiny_system"])
    record = json.loads((last / "checkpoint.json").read_text())
    (last / "checkpoint.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(InputError, match="of format 99"):
        load_run(run, "last", allow=["tiny_system"])
    (last / "checkpoint.json").unlink()
    with pytest.raises(InputError, match="an older version of counterpoint wrote it.*'best'"):
        load_run(run, "last", allow=["tiny_system"])


def test_without_a_checkpoint_the_word_is_start_over(tmp_path, run_tiny):
    code, _ = run_tiny(tmp_path / "run", "--die", 1, int(signal.SIGKILL), check=False)
    assert code == -signal.SIGKILL
    with pytest.raises(InputError, match="stopped before its first checkpoint; start it over"):
        load_run(tmp_path / "run", "last", allow=["tiny_system"])
    with pytest.raises(InputError, match="stopped before its first checkpoint; start it over"):
        fit(tiny(tmp_path / "run"))
    fit(tiny(tmp_path / "run", **{"train.overwrite": True}))


def test_a_held_folder_names_its_holder_and_a_free_one_opens(run):
    before = (run / "metrics.csv").read_bytes()
    with FileLock(run / ".lock"):
        (run / ".lock.json").write_text(json.dumps({"pid": 4711, "host": "elsewhere", "since": "2026-01-02 03:04:05"}))
        with pytest.raises(InputError, match="process 4711 on elsewhere trains in this folder since 2026-01-02 03:04"):
            fit(tiny(run, **{"train.overwrite": True}))
    assert (run / "metrics.csv").read_bytes() == before
    resumed(run)  # the note of a dead holder does not hold the folder


class Fewer(Tiny):
    def datasets(self):
        return Datasets(Pairs(40, 0), Pairs(13, 1))


def test_changed_data_are_refused_and_changed_settings_told(run):
    with pytest.raises(InputError, match=r"train data of stage '.*' changed .*48 samples then, 40 now"):
        fit(tiny(run, Fewer), resume=run)
    with pytest.warns(UserWarning, match=r"configuration changed .*optim.lr 0.001 -> 0.5"):
        fit(tiny(run, **{"optim.lr": 0.5}), resume=run)
    file = run / "environment.json"
    known = json.loads(file.read_text())
    known["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(known))
    with pytest.warns(UserWarning, match=r"other versions \(torch 1.0 -> "):
        resumed(run)


class Written(Pairs):
    """Read from files that were last written at `at`; their contents are known by their sizes alone."""

    at = "then"

    @property
    def written(self):
        return self.at


class FromFiles(Tiny):
    def datasets(self):
        return Datasets(Written(self.config.samples, 0), Written(13, 1))


def test_a_file_that_changed_and_kept_its_size_is_told_at_resume(tmp_path, monkeypatch, recwarn):
    run = fit(tiny(tmp_path / "run", FromFiles)).run_dir
    fit(tiny(run, FromFiles), resume=run)
    assert not [w for w in recwarn if "since the run began" in str(w.message)]
    monkeypatch.setattr(Written, "at", "now")
    with pytest.warns(UserWarning, match="the val data was written anew since the run began, and kept its size"):
        fit(tiny(run, FromFiles), resume=run)


def test_metrics_go_back_to_the_checkpoint(run, tmp_path):
    file = run / "metrics.csv"
    whole = file.read_bytes()
    lines = whole.decode().splitlines(keepends=True)
    file.write_bytes(whole + lines[-1].replace("12,", "13,", 1).encode() + b"1")  # a later row, and half a row
    resumed(run)
    assert file.read_bytes() == whole
    file.write_text(lines[0] + "x,0,train\n")
    with pytest.raises(InputError, match=r"metrics.csv: damaged .*remove it to go on"):
        resumed(run)
    file.unlink()
    with pytest.warns(UserWarning, match="metrics.csv is missing"):
        resumed(run)


def test_a_damaged_or_missing_environment_is_told(run):
    (run / "environment.json").write_text("{")
    with pytest.raises(InputError, match="environment.json: damaged .*remove it"):
        resumed(run)
    (run / "environment.json").unlink()
    with pytest.warns(UserWarning, match="environment.json is missing"):
        resumed(run)


def test_half_written_leftovers_are_removed(run):
    (run / "checkpoints/.best.new").mkdir()
    (run / "checkpoints/best").rename(run / "checkpoints/.best.old")
    resumed(run)
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best", "last"}


def test_a_class_of_the_running_script_is_refused_before_training(tmp_path, monkeypatch):
    system = tiny(tmp_path / "run")
    monkeypatch.setattr(Tiny, "__module__", "__main__")
    for refused in (lambda: fit(system), lambda: tiny(tmp_path / "run")):
        with pytest.raises(InputError, match="put the class into a module of its own"):
            refused()
    assert not (tmp_path / "run").exists()


def test_a_lost_process_is_one_sentence(tmp_path, on_two_ranks):
    def body(rank):
        class Dying(Tiny):
            def after_update(self):
                super().after_update()
                if rank == 1 and self.progress.total_step == 3:
                    os._exit(0)

        options = {"train.devices": 2, "train.strategy": "ddp", "distributed": "gather"}
        with pytest.raises(LostProcessError, match="another of the 2 processes .* --resume"):
            fit(tiny(tmp_path / "run", Dying, **options))
        os._exit(0)  # what torch tears down waits for the lost one

    on_two_ranks(body)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_one_sentence(run, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    system = load_run(run, "last", allow=["tiny_system"])
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=rf"cannot be written \({os.strerror(number)}\)"):
        fit(system, resume=run)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_anywhere_and_resumed_it_is_the_run_that_never_died(tmp_path, run_tiny, monkeypatch):
    """SIGKILL at 20 random writes: every call that changes the folder is a moment at which a run may die."""
    real = {name: getattr(os, name) for name in ("rename", "replace", "fsync")}
    left = multiprocessing.Value("i", 0)  # writes until death; shared with the forked process

    def run_dying(out, after):
        def dying(name):
            def call(*arguments):
                left.value -= 1
                if left.value == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*arguments)

            return call

        left.value = after
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, dying(name))
            return run_tiny(out, "train.checkpoint_every_steps=4", check=False)[0]

    assert run_dying(tmp_path / "whole", 0) == 0
    writes = -left.value
    assert writes > 20
    rng, kills, resumes = random.Random(0), 0, 0
    for number in range(20):
        out = tmp_path / f"run{number}"
        code = run_dying(out, rng.randint(1, writes))
        kills += code == -signal.SIGKILL
        begun = any((out / "checkpoints" / name).is_dir() for name in ("last", ".last.old"))
        resumes += begun
        if not begun:
            shutil.rmtree(out, ignore_errors=True)
        run_tiny(out, "--resume" if begun else "train.checkpoint_every_steps=4")
        same(tmp_path / "whole", out)
        with (out / "metrics.csv").open() as handle:
            steps = [row["step"] for row in csv.DictReader(handle)]
        assert len(steps) == len(set(steps))
        for name in ("last", "best"):
            load_run(out, name, allow=[tiny_system.__name__])
    assert kills == 20
    assert resumes >= 10
