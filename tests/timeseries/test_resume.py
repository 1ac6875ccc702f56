"""`pretrain SYSTEM`, killed, and `pretrain --resume RUN` from the command line equal the run that was never killed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.common.cli.main import main
from counterpoint.timeseries.manifest import write_signals
from counterpoint.timeseries.simulate import ecg

# The command line of a process that kills itself, without a chance to tidy up, after its n-th step.
DEADLY = """
import os, signal, sys
from counterpoint.common.cli.main import main
from counterpoint.common.trainers import ContrastiveSystem
update, last = ContrastiveSystem.after_update, int(sys.argv[1])
def deadly(self):
    update(self)
    if self.progress.total_step == last:
        os.kill(os.getpid(), signal.SIGKILL)
ContrastiveSystem.after_update = deadly
main(sys.argv[2:])
"""
COMMON = {
    "data.length": 64, "data.step": 64, "train.batch_size": 8, "train.tensorboard": "false",
    "train.checkpoint_every_steps": 4, "train.monitor_every": 5, "train.accelerator": "cpu",
}  # fmt: skip
SMALL = {"encoder.dim": 12, "encoder.hidden": 8, "encoder.depth": 3}
# Four steps an epoch. The step at which the process dies lies within one: for dbpm after pairs have been weighted, for
# frame projections in the mapper stage.
CASES = {
    "ts2vec": (9, SMALL | {"train.max_steps": 14}),
    "comet": (9, SMALL | {"train.max_epochs": 3, "views": "separate"}),
    "dbpm": (14, SMALL | {"train.max_epochs": 4, "mining.warmup": 1, "mining.faulty": 0.5, "mining.noisy": 0.5}),
    "frame-projections": (
        11, {"train.max_epochs": 2, "mapper_epochs": 2, "width": 8, "dim": 8, "frequencies": 4},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    windows = ecg(patients=6, trials=2, windows=4, length=64, fs=32.0)
    patient = windows.frame["group"].str.slice(1).astype(int)
    frame = windows.frame.assign(split=np.select([patient < 4, patient < 5], ["train", "val"], "test"))
    return write_signals(tmp_path_factory.mktemp("cohort"), replace(windows, frame=frame))


def arguments(system, manifest, out):
    options = COMMON | CASES[system][1] | {"data.manifest": manifest, "train.out": out}
    return ["timeseries", "pretrain", system, *(str(x) for name, v in options.items() for x in (f"--{name}", v))]


@pytest.mark.slow
@pytest.mark.parametrize("system", list(CASES))
def test_a_killed_run_resumes_bit_for_bit(tmp_path, manifest, system):
    whole, died = tmp_path / "whole", tmp_path / "died"
    assert main(arguments(system, manifest, whole)) == 0
    command = [sys.executable, "-c", DEADLY, str(CASES[system][0]), *arguments(system, manifest, died)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    before = json.loads((died / "checkpoints" / "last" / "state.json").read_text())["progress"]["total_step"]
    assert before < CASES[system][0]  # the last steps are lost with the process, and done again
    assert main(["timeseries", "pretrain", "--resume", str(died)]) == 0
    for file in ("model.safetensors", "state.safetensors"):
        left, right = (load_file(run / "checkpoints" / "last" / file) for run in (whole, died))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), file
    assert (whole / "metrics.csv").read_text() == (died / "metrics.csv").read_text()
    if system == "dbpm":
        memory = load_file(died / "checkpoints" / "last" / "model.safetensors")
        assert memory["miner.count"].max() == 3  # three whole epochs are remembered, the fourth is open
