"""A run that died and was resumed equals the run that never died: every byte of weights, state and metrics."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file


def same(a, b):
    """Both runs' last checkpoints and metrics are equal."""
    for file in ("model.safetensors", "state.safetensors"):
        left, right = (load_file(r / "checkpoints" / "last" / file) for r in (a, b))
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), f"{file}: {name}"
    left, right = (json.loads((r / "checkpoints" / "last" / "state.json").read_text()) for r in (a, b))
    for state in (left, right):
        for rng in state["rng"]:
            del rng["python"]  # beartype, which checks signatures in these tests, draws from Python's generator
    assert left == right
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(run_tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run_tiny(out, "train.checkpoint_every_steps=4", "two_stages=1")
    return out


# Steps of the whole run: stage one has 12 (2 epochs of 6), stage two 18. 9 is in the middle of an epoch, 12 the first
# step of stage two, 20 in the middle again.
@pytest.mark.parametrize("step", [9, 12, 20])
def test_killed_run_resumes_bit_for_bit(run_tiny, tmp_path, whole, step):
    out = tmp_path / "run"
    code, _ = run_tiny(
        out, "train.checkpoint_every_steps=4", "two_stages=1", "--die", step, int(signal.SIGKILL), check=False
    )
    assert code == -signal.SIGKILL
    run_tiny(out, "--resume")
    same(whole, out)


def test_sigterm_writes_a_checkpoint_and_exits(run_tiny, tmp_path, whole):
    out = tmp_path / "run"
    code, _ = run_tiny(
        out, "train.checkpoint_every_steps=4", "two_stages=1", "--die", 14, int(signal.SIGTERM), check=False
    )
    assert code == 143
    state = json.loads((out / "checkpoints" / "last" / "state.json").read_text())
    assert state["progress"]["total_step"] == 15  # the running step was finished, no checkpoint was due
    run_tiny(out, "--resume")
    same(whole, out)


def test_the_samples_do_not_depend_on_the_number_of_workers(run_tiny, tmp_path, whole):
    out = tmp_path / "run"
    run_tiny(out, "train.checkpoint_every_steps=4", "two_stages=1", "train.workers=2")
    same(whole, out)
