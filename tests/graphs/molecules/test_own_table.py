"""The study of one's own table: what it advises follows from the figures, and nothing of the file goes unsaid."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem

from counterpoint.common.errors import InputError
from counterpoint.graphs.molecules import own_table
from counterpoint.graphs.molecules.advice import advise, resampled_interval
from counterpoint.graphs.molecules.fingerprints import fingerprint_matrix, morgan_fingerprints
from counterpoint.graphs.molecules.own_table import CHANCE, FOREST, arms_of, read_task, study_table
from counterpoint.graphs.molecules.properties import PropertyTask, from_scratch, split_task
from counterpoint.graphs.molecules.similar import cluster_groups
from counterpoint.graphs.molecules.tanimoto import nearest_similarity, tanimoto

RINGS = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccsc1", "C1CCNCC1", "c1ccc2ccccc2c1", "C1CCOC1", "c1cc[nH]c1"]
TAILS = ["C", "CC", "CCC", "O", "N", "CO", "CN", "OC(=O)", "Cl", "F", "N#C", "CCO"]
SMILES = [Chem.CanonSmiles(f"{t}{r}") for r in RINGS for t in TAILS]
NAMED = {"baseline": FOREST, "chance": CHANCE, "metric": "AUROC", "higher": True, "test_share": 1 / 9}


def write(path, **columns):
    pd.DataFrame({"smiles": SMILES, **columns}).to_csv(path, index=False)
    return path


def figures(**arms):
    return {name: {"scaffold": values} for name, values in {CHANCE: [0.5, 0.5, 0.5], **arms}.items()}


def test_tanimoto_is_rdkits():
    from rdkit import DataStructs

    prints = morgan_fingerprints(SMILES[:20], bits=2048)
    ours = tanimoto(fingerprint_matrix(SMILES[:20]), fingerprint_matrix(SMILES[:20]))
    theirs = [DataStructs.BulkTanimotoSimilarity(p, prints) for p in prints]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(
        nearest_similarity(fingerprint_matrix(SMILES[:9]), fingerprint_matrix(SMILES[9:20]), block=2),
        np.array(theirs)[:9, 9:].max(1), atol=1e-6,
    )  # fmt: skip


def test_members_of_a_cluster_lie_around_its_centre_and_no_cluster_is_in_two_parts():
    groups = np.array(cluster_groups(SMILES, 0.6))
    bits = fingerprint_matrix(SMILES, bits=1024)
    for name in set(groups):
        inside = tanimoto(bits[groups == name], bits[groups == name])
        assert (inside.min(1) >= 0.4 - 1e-6).any()
    task = PropertyTask.of("size", SMILES, np.arange(len(SMILES), dtype=float))
    parts = [set(groups[rows]) for rows in split_task(task, "cluster", 0).values()]
    assert sum(map(len, parts)) == len(set(groups))


def test_repeated_splits_of_one_set_never_make_a_difference_certain():
    """Where the plain interval shrinks to nothing with more splits, this one stays as wide as a test split is small."""
    rng = np.random.default_rng(0)
    wide = [np.ptp([(i := resampled_interval(rng.normal(size=k), 1 / 9)).low, i.high]) for k in (50, 5000)]
    assert wide[1] > 1.2  # 2 x 1.96 x sqrt(1/9)
    assert np.isnan(resampled_interval([0.5, np.nan], 1 / 9).low)
    assert resampled_interval([0.8, 0.99], 1 / 9, bounds=(0.0, 1.0)).high == 1.0


def test_the_baseline_is_advised_unless_another_is_better_beyond_the_spread():
    forest = [0.80, 0.82, 0.81]
    assert advise(figures(**{FOREST: forest, "net": [0.9, 0.93, 0.91]}), **NAMED).startswith("Use net: ")
    assert advise(figures(**{FOREST: forest, "net": [0.75, 0.95, 0.83]}), **NAMED).startswith(f"Use {FOREST}: ")
    assert advise(figures(**{FOREST: [0.4, 0.6, 0.5], "net": [0.6, 0.4, 0.5]}), **NAMED).startswith("Use none of them")
    assert advise(figures(**{FOREST: [np.nan] * 3, "net": forest}), **NAMED).startswith("No advice")


def test_of_errors_the_smaller_wins():
    errors = {CHANCE: {"random": [2.0, 2.1, 2.05]}, FOREST: {"random": [1.5, 1.6, 1.55]},
              "net": {"random": [1.0, 1.1, 1.06]}}  # fmt: skip
    assert advise(errors, **{**NAMED, "metric": "RMSE", "higher": False}).startswith("Use net: RMSE better")


def test_a_study_measures_the_leak_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    oxygen = [int("O" in s or "o" in s) for s in SMILES]
    file = tmp_path / "mine.csv.gz"
    text = write(tmp_path / "mine.csv", active=oxygen).read_text()
    file.write_bytes(gzip.compress(text.encode()))
    calls = []

    def arms(system, epochs):
        real = arms_of(None, epochs)
        return {
            CHANCE: real[CHANCE],
            FOREST: lambda *a: calls.append(a) or np.random.default_rng(0).random(len(a[1]["test"])),
        }

    monkeypatch.setattr(own_table, "arms_of", arms)
    options = {"splits": ("random", "scaffold"), "seeds": 2, "epochs": 1, "limit": 0}
    found = study_table(file, "active", None, tmp_path / "out", **options)
    assert len(calls) == 3  # eight scaffolds leave the second seed no other split
    assert "scaffold split: 2 seeds drew 1 different one(s); the others are left out" in found.lines
    assert found.figures["figures"]["AUROC"][CHANCE]["random"] == [0.5, 0.5]
    assert np.isnan(found.figures["figures"]["AUROC"][FOREST]["scaffold"][1])
    assert found.lines[-1] == found.figures["advice"]
    leak = found.figures["leak"]
    assert leak["random"]["median_nearest"] > leak["scaffold"]["median_nearest"]
    kept = (tmp_path / "out" / "fits.jsonl").read_text().splitlines()
    (tmp_path / "out" / "fits.jsonl").write_text("\n".join(kept[:-1]) + "\n" + kept[-1][:20])  # cut while writing
    again = study_table(file, "", None, tmp_path / "out", **options)
    assert len(calls) == 4
    assert again.lines == found.lines
    study_table(file, "active", None, tmp_path / "out", **options)
    assert len(calls) == 4
    with pytest.raises(InputError, match="another --out"):
        study_table(file, "active", None, tmp_path / "out", **{**options, "epochs": 2})


@pytest.mark.parametrize(
    ("columns", "label", "message"),
    [
        ({"a": 1, "b": 2.5}, "", r"--label is not set; columns that can be predicted: a, b"),
        ({"a": 1}, "a", r"all 96 values of a are 1; there is nothing to predict"),
        ({"a": [1, 2] * 48}, "a", r"two values, 1 and 2; write classes as 0 and 1"),
        ({"a": [0, 1] * 10 + [""] * 76}, "a", r"20 molecules have a value of a; a study needs 50"),
        ({"a": 1}, "activity", r"--label names 'activity'"),
        ({"a": ["active"] * 96}, "a", r"a.*active"),
    ],
)
def test_labels_that_cannot_be_studied_say_why(tmp_path, columns, label, message):
    with pytest.raises(InputError, match=message):
        read_task(write(tmp_path / "t.csv", **columns), label, 0)


def test_what_was_drawn_and_what_conflicts_is_said(tmp_path):
    frame = pd.DataFrame({"smiles": [*SMILES, SMILES[0]], "a": [*([0, 1] * 48), 1]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    task, notes = read_task(tmp_path / "t.csv", "a", 60)
    assert len(task.labels) == 60
    assert any("1 duplicate(s) have other labels" in n for n in notes)
    assert any("60 of 96 molecules, drawn at random" in n for n in notes)


def test_a_rare_class_is_weighted_in_the_networks_loss(monkeypatch):
    """With 6 % positives the positive terms weigh what the negative ones do; with 40 % nothing is weighted."""
    seen = []
    plain = torch.nn.BCEWithLogitsLoss

    def watched(pos_weight=None):
        seen.append(pos_weight)
        return plain(pos_weight=pos_weight)

    monkeypatch.setattr(torch.nn, "BCEWithLogitsLoss", watched)
    rows = np.arange(60)
    split = {"train": rows[:50], "val": rows[50:55], "test": rows[55:]}
    for positives in (3, 20):
        task = PropertyTask("a", tuple(SMILES[:60]), (np.arange(60) < positives).astype(float), "classification")
        from_scratch(arms_of_encoder, epochs=1)(task, split, 0)
    assert float(seen[0]) == pytest.approx(47 / 3)
    assert seen[1] is None


def arms_of_encoder():
    from counterpoint.graphs.molecules.encoders import MoleculeGCN

    return MoleculeGCN(8, 8, 1, "full")


def test_a_run_of_no_molecules_is_refused():
    with pytest.raises(InputError, match="encodes no molecules"):
        arms_of(torch.nn.Linear(1, 1), 1)
