"""The property study: the claims are judged the right way round, and a seed's arms share their split."""

from pathlib import Path

import numpy as np
import pytest

from counterpoint.graphs.checks import CHECKS
from counterpoint.graphs.molecules import study
from counterpoint.graphs.molecules.properties import PropertyTask

CLAIMS = {name: claim for name, (claim, _) in CHECKS.items() if name.startswith("kcl-")}


def test_every_set_and_split_is_compared_with_the_untrained_encoder():
    assert {f"kcl-{name}-{how}" for name in study.SETS for how in study.SPLIT_KINDS} <= set(CLAIMS)


@pytest.mark.parametrize("name", list(CLAIMS))
def test_claims_name_arms_of_the_study_and_say_which_way_is_better(name):
    claim, (task, how) = CLAIMS[name], name.split("-")[-2:]
    assert {claim.baseline, claim.method} <= set(study.ARMS)
    assert task in study.SETS
    assert how in study.SPLIT_KINDS
    assert claim.metric == ("AUROC" if task in ("bbbp", "bace") else "RMSE")
    assert claim.higher_is_better == (claim.metric == "AUROC")
    assert claim.margin == (0.03 if claim.baseline == "untrained" and claim.higher_is_better else 0)
    assert "test molecules included" in claim.data


def test_arms_of_a_seed_share_the_split_and_seeds_differ(monkeypatch):
    task = PropertyTask.of("size", [f"{'C' * n}O" for n in range(1, 41)], np.arange(40.0))
    seen = {}

    def arm_of(data, name, seed):
        def predict(task, split, seed):
            seen[name, seed] = tuple(split["test"])
            return np.zeros(len(split["test"]))

        return predict

    monkeypatch.setattr(study, "load_task", lambda data, name: task)
    monkeypatch.setattr(study, "arm_of", arm_of)
    for arm in study.ARMS:
        for seed in (0, 1):
            study.figure(None, "esol", "random", arm, seed)
    assert len({seen[arm, 0] for arm in study.ARMS}) == 1
    assert seen["KCL", 0] != seen["KCL", 1]


def test_an_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="arm must be one of untrained, from scratch"):
        study.arm_of(Path("nowhere"), "oracle", 0)
