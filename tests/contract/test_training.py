"""Stages without gradients, a vocabulary that grows, a plug-in, batches of objects; killed, on two ranks."""

import csv
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from counterpoint.common.data.batch import cut, rows, to_device
from counterpoint.common.trainers import create_system, fit, load_run, override

QUIET = {"train.tensorboard": False, "train.accelerator": "cpu", "train.monitor_every": 0, "train.batch_size": 8}


def config(songs, out, **changes):
    from ballads.configs import BalladConfig

    fixed = {"data.manifest": str(songs), "train.out": str(out), "dim": 6, "train.max_steps": 6, **QUIET}
    return override(BalladConfig(), {**fixed, **changes})


def weights(run, name="last"):
    return load_file(run / "checkpoints" / name / "model.safetensors")


def equal(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def drawn(songs, **changes):
    """A system and a batch of its training verses."""
    from ballads.system import CommonWords

    system = create_system(CommonWords, config(songs, "unused", **changes))
    samples = system.datasets().train
    return system, samples.collate([samples[i] for i in range(8)])


def test_words_are_counted_before_they_are_weighed(run, songs):
    """Every verse is seen once, with one of its captions."""
    found = weights(run)
    words = json.loads((run / "assets/assets.json").read_text())["plain"]["words"]
    the = words.index("the")
    assert found["counts"][0] == 0, "there is no unknown word in the training split"
    assert 0 < found["counts"][the] <= 32
    assert torch.allclose(found["weights"], 0.01 / (0.01 + found["counts"] / found["counts"].sum()))
    stages = [row["stage"] for row in csv.DictReader((run / "metrics.csv").open())]
    assert stages[0] == "count"
    assert stages[-1] == "contrast"


def test_batches_of_objects_are_moved_and_cut(songs, ballads):
    system, batch = drawn(songs)
    assert rows(batch) == 8
    part = cut(batch, 3, 5)
    assert part["id"] == batch["id"][3:5]
    whole = system.embed(batch)
    for name, z in system.embed(part).items():
        torch.testing.assert_close(z, whole[name][3:5])
    assert to_device(batch, "meta")["tune"].values.device.type == "meta"


def test_small_steps_add_up_to_the_whole_one(songs, ballads, tmp_path):
    from ballads.system import CommonWords

    found = []
    for micro in (None, 3):
        out = tmp_path / str(micro)
        changes = {"train.micro_batch_size": micro, "train.plugins": {"short_captions": {"power": 0.5}}}
        fit(create_system(CommonWords, config(songs, out, **{"train.precision": "64-true"}, **changes)))
        found.append(weights(out))
    equal(*found, 1e-10)


def test_the_plug_in_weighs_rows_by_what_stands_in_the_batch(songs, ballads, run):
    from ballads.configs import ShortCaptionsConfig
    from ballads.plugin import ShortCaptions

    system, batch = drawn(songs)
    plugin = ShortCaptions(ShortCaptionsConfig(2.0))
    plugin.system = system
    found = plugin.weigh("contrast", torch.ones(8), batch)
    assert found.tolist() == pytest.approx([len(text.split()) ** -2.0 for text in batch["text"]])
    figures = [row["train/weighed"] for row in csv.DictReader((run / "metrics.csv").open()) if row["train/weighed"]]
    assert float(figures[-1]) == 64


KILLED = {"train.checkpoint_every_steps": 1, "train.plugins": {"short_captions": {}}}


@pytest.fixture(scope="module")
def whole(songs, ballads, tmp_path_factory):
    from ballads.system import CommonWords

    out = tmp_path_factory.mktemp("whole") / "run"
    fit(create_system(CommonWords, config(songs, out, **KILLED)))
    return out


@pytest.mark.parametrize("step", [2, 6], ids=["while words are counted", "while they are contrasted"])
def test_a_killed_run_goes_on_bit_for_bit(songs, done, whole, tmp_path, forked, step):
    from ballads.system import CommonWords

    out = tmp_path / "run"

    def body(rank):
        real = CommonWords.training_step

        def dying(self, batch, batch_idx):
            if self.progress.total_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, batch, batch_idx)

        CommonWords.training_step = dying
        fit(create_system(CommonWords, config(songs, out, **KILLED)))

    assert forked(body) == [-signal.SIGKILL]
    done("pretrain", "--resume", out)
    equal(weights(whole), weights(out), 0)
    assert (whole / "metrics.csv").read_text() == (out / "metrics.csv").read_text()


def test_two_ranks_train_as_one_process_does(songs, ballads, tmp_path, forked):
    from ballads.system import CommonWords

    def train(out, **changes):
        fixed = {"train.precision": "64-true", "train.plugins": {"short_captions": {}}, "train.micro_batch_size": 3}
        fit(create_system(CommonWords, config(songs, out, **fixed, **changes)))

    train(tmp_path / "one")
    two = {"train.devices": 2, "train.strategy": "ddp"}
    assert forked(lambda rank: train(tmp_path / "two", **two), 2) == [0, 0]
    equal(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-6)


def test_new_words_get_rows_and_old_ones_keep_their_bits(songs, ballads, run):
    from ballads.system import CommonWords

    newer = ballads / "newer" / "manifest.parquet"
    system = create_system(CommonWords, config(newer, "unused"), continue_from=run)
    known = json.loads((run / "assets/assets.json").read_text())["plain"]["words"]
    words = system.assets["words"]
    assert words[: len(known)] == known
    assert "lately" in words[len(known) :]
    before = weights(run, "const")
    for name in ("table.weight", "counts", "weights"):
        assert torch.equal(system.state_dict()[name][: len(known)], before[name]), name
        assert len(system.state_dict()[name]) == len(words)


def test_a_continued_run_goes_on_with_its_optimiser_in_the_stage_that_had_one(songs, done, ballads, run):
    done("pretrain", "common-words", "--preset", "small", "--train.tensorboard", "false", "--train.accelerator", "cpu",
         "--data.manifest", "newer/manifest.parquet", "--continue_from", run, "--train.out", "runs/newer",
         "--train.checkpoint_every_steps", "1", "--train.max_steps", "4")  # fmt: skip
    found = load_run(ballads / "runs/newer", "last")
    assert "lately" in found.assets["words"]
    state = json.loads((ballads / "runs/newer/checkpoints/last/state.json").read_text())
    steps = list(load_file(ballads / "runs/newer/checkpoints/last/state.safetensors").values())
    before = json.loads((run / "checkpoints/const/state.json").read_text())["progress"]["step"]
    assert before > 0
    assert state["continued"]
    assert before + 4 in [float(v) for v in steps if v.ndim == 0]
    done("evaluate", "runs/newer", "--bootstrap", 5)
