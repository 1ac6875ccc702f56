"""Sharded over ranks, averaged as DDP does, every distributed objective has the single-process gradient."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "rank_cases.py"


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    store = tmp_path_factory.mktemp("ranks") / "store"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=100) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in outputs]


@pytest.mark.slow
def test_gradients_scales_and_states_equal_the_single_process(errors):
    wrong = {name: error for rank in errors for name, error in rank.items() if not error < 1e-9}
    assert len(errors[0]) == 40
    assert wrong == {}
