"""Two processes do what one does: the same weights, queues, samples and figures."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_system import Tiny, TinyConfig

from counterpoint.common.data import ShuffleSampler
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import create_system, fit, load_run, override

# 13 validation samples divide by neither the batch (8) nor the ranks (2); dropout differs between ranks by design.
COMMON = {"dropout": 0.0, "train.max_epochs": 2, "train.monitor_every": 4}


class Shuffled(Tiny):
    def batch_sampler(self, dataset, batch_size, seed):
        return ShuffleSampler(len(dataset), batch_size, seed)


def train(out, system=Tiny, **changes):
    return fit(create_system(system, override(TinyConfig(), {"train.out": str(out), **COMMON, **changes})))


def figures(run):
    with (run / "metrics.csv").open() as handle:
        return [{k: float(v) for k, v in row.items() if v and k != "stage"} for row in csv.DictReader(handle)]


def equal(a, b, tolerance):
    left, right = (load_file(r / "checkpoints/last/model.safetensors") for r in (a, b))
    for name in left:
        torch.testing.assert_close(
            right[name], left[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    for mine, theirs in zip(figures(a), figures(b), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    train(out)
    return out


@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("distributed", [None, "gather", "ring"])
def test_two_ranks_equal_one(tmp_path, one, on_two_ranks, distributed, micro):
    out = tmp_path / "run"
    options = {"train.devices": 2, "train.strategy": "ddp", "distributed": distributed, "train.micro_batch_size": micro}
    on_two_ranks(lambda rank: train(out, **options))
    equal(one, out, 2e-5)
    seen = load_file(out / "checkpoints/last/model.safetensors")["seen"]
    assert seen.tolist() == [2.0] * 48  # two epochs: every sample twice, none doubled or lost between the ranks


def test_negatives_of_one_rank_alone_would_differ(tmp_path, one, on_two_ranks):
    out = tmp_path / "run"
    options = {"train.devices": 2, "train.strategy": "ddp", "train.negatives": "local"}
    on_two_ranks(lambda rank: train(out, **options))
    with pytest.raises(AssertionError):
        equal(one, out, 2e-5)


def test_two_ranks_resume(tmp_path, on_two_ranks):
    options = {
        "train.devices": 2,
        "train.strategy": "ddp",
        "distributed": "gather",
        "dropout": 0.3,
        "train.max_epochs": 1,
    }
    on_two_ranks(lambda rank: train(tmp_path / "whole", **options, **{"train.checkpoint_every_steps": 4}))

    def interrupted(rank):
        class Stopping(Tiny):
            def after_update(self):
                super().after_update()
                if self.progress.total_step == 4:
                    raise KeyError("stop")

        config = override(TinyConfig(), {"train.out": str(tmp_path / "half"), **COMMON, **options})
        try:
            fit(create_system(Stopping, override(config, {"train.checkpoint_every_steps": 4})))
        except KeyError:
            return
        raise AssertionError("the run was to stop")

    on_two_ranks(interrupted)
    file = tmp_path / "half" / "config.yaml"
    file.write_text("\n".join(["system: tiny_system:Tiny", *file.read_text().splitlines()[1:]]))
    on_two_ranks(lambda rank: fit(load_run(tmp_path / "half", "last"), resume=tmp_path / "half"))
    for name in ("model.safetensors", "state.safetensors"):
        left, right = (load_file(tmp_path / r / "checkpoints/last" / name) for r in ("whole", "half"))
        assert all(torch.equal(left[k], right[k]) for k in left), name
    states = [json.loads((tmp_path / r / "checkpoints/last/state.json").read_text()) for r in ("whole", "half")]
    assert states[0]["progress"] == states[1]["progress"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train.batch_size": 9}, "train.batch_size 9 cannot be shared evenly by 2 processes; give 8 or 10"),
        ({"train.batch_size": 1}, "train.batch_size 1 cannot be shared evenly by 2 processes; give 2"),
    ],
)
def test_a_batch_that_the_processes_cannot_share_names_what_the_user_gave(tmp_path, on_two_ranks, changes, sentence):
    def refused(rank):
        with pytest.raises(InputError, match=sentence):
            train(tmp_path / "run", **{"train.devices": 2, "train.strategy": "ddp"}, **changes)

    on_two_ranks(refused)


def test_a_batch_that_shrinks_to_the_data_shrinks_to_what_the_processes_can_share(tmp_path, on_two_ranks):
    options = {"train.devices": 2, "train.strategy": "ddp", "train.batch_size": 16, "samples": 15}

    def shrunk(rank):
        with pytest.warns(UserWarning, match="only 15 training samples: the batch shrinks from 16 to 14"):
            train(tmp_path / "run", Shuffled, **options)

    on_two_ranks(shrunk)
