"""Contrasts over ranks equal the single-process definition: values, gradients, ids; worlds of one, two and three."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1200)
CASES = (
    "clip", "everything", "batched", "large_scale", "rows_alone", "siglip", "soft_count", "targets", "nearest",
    "diagonal_means_the_same_rank", "unequal_rows_and_columns", "data_parallel_averages_to_one_process",
)  # fmt: skip


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Largest error of every case; one start of three processes serves all tests."""
    script = Path(__file__).with_name("ring_cases.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=1100, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("mode", ["ring", "gather"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_do_not_depend_on_the_world(errors, case, mode, world):
    assert errors[f"{case} {mode} {world}"] < 1e-10


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("mode", ["ring", "gather"])
def test_half_precision_keys_keep_float32_statistics(errors, mode, world):
    assert errors[f"half_precision_keys_travel {mode} {world}"] < 1e-5


@pytest.mark.parametrize("mode", ["ring", "gather"])
def test_ranks_that_disagree_are_told_so(errors, mode):
    assert errors[f"disagreement_is_an_error {mode} 3"] == 0
