"""Which process of a training is its first, for every way in which it may have been started."""

import pytest

from counterpoint.common.main_process import main_process

NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_LOCALID")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),  # torchrun
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),  # torchrun, the second machine's first
        ({"LOCAL_RANK": "1"}, False),  # started by Lightning
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "SLURM_PROCID": "0"}, True),
        ({"NODE_RANK": "1"}, False),  # Lightning on the second machine, before it starts its other processes
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),  # srun
        ({"SLURM_PROCID": "4", "SLURM_LOCALID": "0"}, False),  # srun, the second machine's first
    ],
)
def test_one_process_is_the_first(monkeypatch, environment, first):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main_process() is first
