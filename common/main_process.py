"""Which of the processes of one training is its first."""

from __future__ import annotations

import os


def main_process() -> bool:
    """Whether this process is the first of its training, by the environment of torchrun, Lightning or `srun`."""
    said = os.environ.get
    if "RANK" in os.environ or ("LOCAL_RANK" not in os.environ and "SLURM_PROCID" in os.environ):
        return int(said("RANK") or said("SLURM_PROCID", "0")) == 0
    node = said("NODE_RANK") or said("GROUP_RANK") or "0"
    return int(node) == 0 and int(said("LOCAL_RANK") or "0") == 0
