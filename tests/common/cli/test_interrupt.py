"""Ctrl-C in the middle of a training: exit code 130, one line, a run that goes on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

COMMAND = [sys.executable, "-c", "import sys; from counterpoint.common.cli.main import main; sys.exit(main())", "toy"]


@contextmanager
def started(*arguments: str):
    """The command, running; ended with the block, whatever happened there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([*COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupted(process: subprocess.Popen, ready) -> str:
    """What the command says when it is interrupted as soon as `ready()`; how long that takes is nobody's matter."""
    while not ready():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    return process.communicate()[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interrupted_training_resumes(toy, cli, tmp_path):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
    run = tmp_path / "runs" / "one"

    def steps() -> int:
        return len((run / "metrics.csv").read_text().splitlines())

    with started("pretrain", "toy-pair", "--train.out", "runs/one", "--train.max_epochs", "100000") as process:
        said = interrupted(process, (run / "checkpoints" / "last").exists)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    before = steps()
    assert before > 1
    with started("pretrain", "--resume", "runs/one") as process:
        said = interrupted(process, lambda: steps() > before)
    assert process.returncode == 130, said
