"""The property harness: honest splits, the right metric, and arms that learn what can be learnt."""

import numpy as np
import pytest
import torch

from counterpoint.graphs.molecules.encoders import MoleculeGCN
from counterpoint.graphs.molecules.fingerprints import fingerprint_matrix
from counterpoint.graphs.molecules.properties import (
    PropertyTask,
    ecfp_forest,
    from_scratch,
    probe_arm,
    property_table,
    score,
    split_task,
)
from counterpoint.graphs.molecules.splits import check_scaffold_leakage


def molecules():
    rings = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccsc1", "C1CCNCC1", "c1ccc2ccccc2c1", "C1CCOC1", "c1cc[nH]c1"]
    tails = ["C", "CC", "CCC", "O", "N", "CO", "CN", "OC(=O)", "Cl", "F", "N#C", "CCO"]
    return [f"{t}{r}" for r in rings for t in tails]


SMILES = molecules()
OXYGEN = np.array([float("O" in s or "o" in s) for s in SMILES])


def test_two_values_make_a_classification_and_missing_labels_leave():
    labels = OXYGEN.copy()
    labels[3] = np.nan
    task = PropertyTask.of("oxygen", SMILES, labels)
    assert (task.kind, task.metric, len(task.smiles)) == ("classification", "AUROC", len(SMILES) - 1)
    assert PropertyTask.of("size", SMILES, np.array([float(len(s)) for s in SMILES])).metric == "RMSE"


@pytest.mark.parametrize("how", ["random", "scaffold"])
def test_splits_cover_everything_once(how):
    task = PropertyTask.of("oxygen", SMILES, OXYGEN)
    split = split_task(task, how, seed=1)
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(task.smiles)))
    if how == "scaffold":
        names = np.empty(len(task.smiles), dtype=object)
        for name, rows in split.items():
            names[rows] = name
        check_scaffold_leakage(task.smiles, names)


def test_constant_predictions_are_at_chance():
    task = PropertyTask.of("oxygen", SMILES, OXYGEN)
    everything = np.arange(len(SMILES))
    assert score(task, np.zeros(len(SMILES)), everything) == 0.5
    assert score(task, np.zeros(len(SMILES)), everything, "AUPRC") == pytest.approx(OXYGEN.mean())
    assert score(task, OXYGEN, everything, "AUPRC") == 1.0


def test_all_arms_learn_an_easy_property():
    """Oxygen can be read off the formula: forest, probe on bits and a trained GCN all see it on random splits."""
    task = PropertyTask.of("oxygen", SMILES, OXYGEN)
    arms = {
        "ecfp + forest": ecfp_forest,
        "probe on bits": probe_arm(lambda s: torch.from_numpy(fingerprint_matrix(s, bits=256)).float()),
        "from scratch": from_scratch(lambda: MoleculeGCN(16, 16), epochs=30, lr=1e-2),
    }
    rows = property_table([task], arms, seeds=(0, 1), splits=("random",))
    assert [r.arm for r in rows if r.metric == "AUROC"] == list(arms)
    assert [r.arm for r in rows if r.metric == "AUPRC"] == list(arms)
    for row in rows:
        assert row.seeds == 2
        assert row.mean > 0.85, row


def test_regression_arms_beat_the_mean():
    size = np.array([float(s.count("C") + s.count("c")) for s in SMILES])
    task = PropertyTask.of("carbons", SMILES, size)
    split = split_task(task, "random", 0)
    constant = score(task, np.full(len(split["test"]), size[split["train"]].mean()), split["test"])
    for arm in (ecfp_forest, from_scratch(lambda: MoleculeGCN(16, 16), epochs=40, lr=1e-2)):
        assert score(task, arm(task, split, 0), split["test"]) < 0.8 * constant


def test_shuffled_labels_are_at_chance():
    """A leak would let the forest predict labels that have nothing to do with the molecule."""
    rng = np.random.default_rng(0)
    values = []
    for seed in range(6):
        task = PropertyTask.of("noise", SMILES, rng.permutation(OXYGEN))
        split = split_task(task, "random", seed)
        values.append(score(task, ecfp_forest(task, split, seed), split["test"]))
    assert abs(np.nanmean(values) - 0.5) < 0.25
