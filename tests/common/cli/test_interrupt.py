"""Ctrl-C in the middle of a training: exit code 130, one line, a run that goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-c", "import sys; from counterpoint.common.cli.main import main; sys.exit(main())", "toy"]


@pytest.mark.slow
def test_interrupted_training_resumes(toy, cli, tmp_path):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pretrain = [*COMMAND, "pretrain", "toy-pair", "--train.out", "runs/one", "--train.max_epochs", "100000"]
    with subprocess.Popen(pretrain, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.time() + 90
        while not (tmp_path / "runs" / "one" / "checkpoints" / "last").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.time() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    steps = len((tmp_path / "runs" / "one" / "metrics.csv").read_text().splitlines())
    assert steps > 1
    with subprocess.Popen(
        [*COMMAND, "pretrain", "--resume", "runs/one"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.time() + 90
        while len((tmp_path / "runs" / "one" / "metrics.csv").read_text().splitlines()) <= steps:
            assert process.poll() is None, process.stderr.read()
            assert time.time() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
