"""Sharded over ranks, averaged as DDP does, every objective has the single-process value, gradient and state."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import counterpoint.common.losses as losses

SCRIPT = Path(__file__).parent / "rank_cases.py"
# Rows meet nothing but the parameters every rank holds: averaging over ranks is exact without further ado.
SEPARABLE = {
    "Alignment", "BalancedSoftmax", "BNI", "DecoupledSoftmax", "GAI", "MultiLabelSigmoid", "MultiLabelSoftmax",
    "PixPro", "SoftTopK",
}  # fmt: skip


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """The largest difference of every case, as either rank saw it; one start of two processes serves all."""
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
    outputs = [process.communicate(timeout=1100) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    found = [json.loads(out.strip().splitlines()[-1]) for out, _ in outputs]
    return {name: max(rank[name] for rank in found) for name in found[0]}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_values_gradients_and_states_equal_the_single_process(errors):
    assert {name: error for name, error in errors.items() if not error < 1e-10} == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_objective_was_sharded_both_ways(errors):
    for mode in ("gather", "ring"):
        assert {n.split(",")[0].split()[0] for n in errors if f", {mode}, " in n} == {
            entry.name for entry in losses.objectives()
        }


def test_only_objectives_whose_rows_do_not_meet_lack_the_argument():
    lacking = {e.name for e in losses.objectives() if "distributed" not in _arguments(getattr(losses, e.name))}
    assert lacking == SEPARABLE


def _arguments(objective):
    return inspect.signature(objective.__init__).parameters


def test_a_distributed_loss_without_a_process_group_says_what_is_missing():
    z = losses.LogitScale()().detach().expand(2, 3)
    with pytest.raises(ValueError, match="init_process_group"):
        losses.InfoNCE(distributed="gather")(z, z)
