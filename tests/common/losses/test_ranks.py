"""Sharded over ranks, averaged as DDP does, every objective has the single-process value, gradient and state."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import counterpoint.common.losses as losses

SCRIPT = Path(__file__).parent / "rank_cases.py"


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """The largest difference of every case, as any rank saw it; one start of three processes serves all."""
    store = tmp_path_factory.mktemp("ranks") / "store"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    outputs = [process.communicate(timeout=1100) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0, 0], outputs
    found: dict[str, float] = {}
    for out, _ in outputs:
        for name, error in json.loads(out.strip().splitlines()[-1]).items():
            found[name] = max(found.get(name, 0.0), error)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_values_gradients_and_states_equal_the_single_process(errors):
    assert {name: error for name, error in errors.items() if not error < 1e-10} == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_objective_was_shared_out_evenly_unevenly_and_with_an_empty_rank(errors):
    for case in ("ring, 4 + 4", "gather, 5 + 3", "auto, 5 + 1 + 2", "ring, 5 + 0 + 3"):
        assert {n.split(",")[0].split()[0] for n in errors if f", {case} " in n} == {
            entry.name for entry in losses.objectives()
        }


def test_a_setting_of_ones_own_wins_over_that_of_the_surroundings():
    own, open_to_both = losses.InfoNCE(distributed="none", backend="dense"), losses.MoCo(2, 4)
    with losses.engine_settings(distributed="ring", backend="tiled"):
        assert (own.distributed, own.backend) == ("none", "dense")
        assert (open_to_both.distributed, open_to_both.backend) == ("ring", "tiled")
        assert open_to_both.queue.distributed == "ring"
        with losses.engine_settings(distributed="gather"):
            assert (open_to_both.distributed, open_to_both.backend) == ("gather", "tiled")
    assert (open_to_both.distributed, open_to_both.backend) == ("none", "auto")


def test_objectives_of_raw_numbers_do_not_take_normalize():
    with pytest.raises(TypeError, match="BalancedSoftmax takes no argument normalize"):
        losses.BalancedSoftmax(torch.ones(2), normalize=True)
    with pytest.raises(TypeError, match="InfoNCE takes no argument normalise"):
        losses.InfoNCE(normalise=True)


def test_a_distributed_loss_without_a_process_group_says_what_is_missing():
    z = losses.LogitScale()().detach().expand(2, 3)
    with pytest.raises(ValueError, match="init_process_group"):
        losses.InfoNCE(distributed="gather")(z, z)
