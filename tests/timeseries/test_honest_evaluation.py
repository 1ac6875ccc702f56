"""Data sets on which an evaluation flatters itself: what `evaluate` of a run says of each, and what it leaves out."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from counterpoint.common.cli.main import main
from counterpoint.common.runs.measure import lines_of, measure
from counterpoint.common.runs.opened import OpenRun
from counterpoint.timeseries.cli import vertical

N = 16
SIDES = ["train"] * 8 + ["val"] * 2 + ["test"] * 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen patients with one recording each: slow and fast waves in noise."""
    folder = tmp_path_factory.mktemp("patients")
    rng = np.random.default_rng(0)
    for i in range(N):
        t = np.arange(300) / 50
        wave = np.sin(2 * np.pi * (1.5 + 3 * (i % 2)) * t + rng.uniform(0, 6, size=(2, 1)))
        x = (wave + rng.normal(size=(2, 300))).T.astype(np.float32)
        np.savez(folder / f"p{i}.npz", x=x, fs=50.0, leads=["a", "b"], units=["", ""])
    return folder


def manifest(folder, name, **columns):
    frame = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(N)],
            "group": [f"P{i:02}" for i in range(N)],
            "file": [f"p{i}.npz" for i in range(N)],
            "fs": 50.0,
            "label": [f"c{i % 2}" for i in range(N)],
            "split": SIDES,
        }
    )
    frame.assign(**columns).to_parquet(folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def run(folder):
    words = ["--data.manifest", manifest(folder, "base"), "--data.length", "100", "--data.step", "50"]
    words += ["--encoder.dim", "16", "--encoder.hidden", "8", "--encoder.depth", "3", "--train.max_steps", "10"]
    assert main(["timeseries", "pretrain", "ts2vec", *words, "--train.out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def evaluated(run, tmp_path, capsys):
    """What `evaluate` of the run prints, and its JSON."""

    def evaluate(*words):
        capsys.readouterr()
        out = tmp_path / "e.json"
        code = main(["timeseries", "evaluate", str(run), "--bootstrap", "20", "--out", str(out), *words])
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err, json.loads(out.read_text()) if code == 0 else None

    return evaluate


def line(text, *beginning):
    rows = (" ".join(row.split()) for row in text.splitlines())
    (found,) = [row for row in rows if row.startswith(tuple(" ".join(words.split()) for words in beginning))]
    return found


def test_every_row_is_scored_by_the_label_asked_for_and_stands_beside_the_untrained_network(evaluated):
    _, text, figures = evaluated("--label", "label")
    rows = {name for name in figures["results"] if not name.startswith("labelfree")}
    beside = figures["untrained"]["values"]
    for own in ("probe, 100 % of labels by patient", "MiniRocket probe, 100 % of labels by patient", "similar windows"):
        assert own in rows
        assert 0 < beside[f"{own}: {'auroc' if 'probe' in own else 'R@1'}"] <= 1  # NaN would be null
    rocket = "MiniRocket probe, 100 % of labels by patient"
    assert beside[f"{rocket}: auroc"] == figures["results"][rocket]["probe"]["scores"]["metrics"]["auroc"]
    assert {name.partition(": ")[0] for name in beside} == rows
    shown = line(text, "probe, 100 % of labels by patient  auroc").split()
    assert shown[-3] == f"{beside['probe, 100 % of labels by patient: auroc']:.3g}"
    paired = {d["protocol"] for d in figures["untrained"]["differences"]}
    assert "similar windows" in paired

    code, text, figures = evaluated("--label", "split")
    assert code == 0
    for name, result in figures["results"].items():
        scores = result.get("scores") or (result["probe"]["scores"] if "probe" in result else result)
        assert name.startswith("labelfree") or "train" in scores.get("classes", ["train"]), name
    assert "similar windows: needs labels of two classes in the split (column split)" in text
    _, text, figures = evaluated("--label", "start", "--baseline", "none")
    assert figures["results"]["knn of signal"]["by_k"]["1"]["classes"] == ["0", "50", "100", "150", "200"]
    assert figures["results"]["similar windows"]["chance"]["R@1"] == pytest.approx(5 / 29)


def test_a_label_that_names_the_patients_is_no_target_of_any_row(evaluated):
    _, text, figures = evaluated("--label", "group", "--baseline", "none")
    assert {name.split()[0] for name in figures["results"]} == {"labelfree"}
    for name in ("knn", "probe", "simpleshot", "fewshot", "cluster"):
        assert "another name of the groups" in line(text, f"not run: {name}:")
    for name in ("probe by patient", "similar windows"):
        assert "group is another name of the patients" in line(text, f"not run: {name}:")


@pytest.mark.parametrize("kind", ["the same file", "files of the same content"])
def test_one_recording_in_two_splits_stops_evaluation_and_check(evaluated, folder, capsys, kind):
    files = [f"p{i}.npz" for i in range(N)]
    for i in range(10, N):
        files[i] = f"p{i - 10}.npz" if kind == "the same file" else f"copy{i}.npz"
        shutil.copy(folder / f"p{i - 10}.npz", folder / f"copy{i}.npz")
    where = manifest(folder, "duplicates", file=files)
    code, text, _ = evaluated("--manifest", where, "--label", "label")
    assert code == 2
    assert "rows 1 ('r0', train) and 11 ('r10', test) name " + kind in text
    assert main(["timeseries", "data", "check", where]) == 2
    assert kind in capsys.readouterr().err


def test_copies_within_the_split_are_told(evaluated, folder):
    for copy, of in ((12, 10), (14, 10)):
        shutil.copy(folder / f"p{of}.npz", folder / f"twin{copy}.npz")
    files = [f"twin{i}.npz" if i in (12, 14) else f"p{i}.npz" for i in range(N)]
    where = manifest(folder, "twins", file=files)
    code, text, figures = evaluated("--manifest", where, "--label", "label", "--baseline", "none")
    assert code == 0
    assert "note: 2 rows of test are exact copies of others of them under other ids (first: 'r12' of 'r10')" in text
    assert figures["copies"] in text
    assert "copies" not in evaluated("--label", "label", "--baseline", "none")[2]


def test_missing_labels_are_no_class_and_told(evaluated, folder):
    some = [None if i % 3 == 0 else f"c{i % 2}" for i in range(N)]
    numbers = [float("nan") if i == 3 else float(i % 2) for i in range(N)]
    _, text, figures = evaluated("--manifest", manifest(folder, "some", label=some), "--label", "label")
    assert "10 of 30 samples carry no label and are not scored" in text
    auroc = next(row for row in text.splitlines() if row.startswith("logreg of signal") and " auroc " in row)
    assert auroc.split()[-2:] == ["20", "4"]  # samples and patients
    found = figures["results"]["logreg of signal"]["scores"]
    assert (found["n"], found["unlabelled"], found["classes"]) == (20, 10, ["c0", "c1"])
    _, text, figures = evaluated("--manifest", manifest(folder, "numbers", label=numbers), "--baseline", "none")
    own = figures["results"]["probe, 100 % of labels by patient"]
    assert own["probe"]["scores"]["classes"] == ["0", "1"]
    assert own["labelled_patients"] == 9  # of ten in train and val
    assert "nan" not in text.lower()


def test_patients_the_encoder_was_trained_on_are_told(evaluated, folder):
    sides = ["test"] * 8 + ["val"] * 2 + ["train"] * 6
    code, text, _ = evaluated("--manifest", manifest(folder, "swap", split=sides), "--label", "label")
    assert code == 0
    assert "WARNING: the encoder was trained on data scored here: 40 of 40 samples and 8 of 8 groups" in text
    assert "WARNING" not in evaluated("--label", "label", "--baseline", "none")[1]


def test_a_class_of_the_test_split_alone_ranks_nothing(evaluated, folder):
    label = [f"c{i % 2}" if i < 10 or i % 2 == 0 else "c9" for i in range(N)]
    _, text, _ = evaluated("--manifest", manifest(folder, "unseen", label=label), "--label", "label")
    assert "no training sample of the test class(es) c9: their 15 of 30 samples count as wrong" in text
    for name in ("knn of signal", "logreg of signal", "simpleshot of signal", "probe, 100 % of labels by patient"):
        assert not [row for row in text.splitlines() if row.startswith((f"{name}  auroc", f"{name}  auprc"))]


def test_one_patient_to_score_has_no_interval(evaluated, folder):
    sides = ["train"] * 8 + ["val"] * 7 + ["test"]
    _, text, _ = evaluated("--manifest", manifest(folder, "alone", split=sides), "--label", "label")
    assert "all test samples are of one group (P15): nothing is known of others, so there is no interval" in text
    assert "inf" not in text.replace("inform", "")
    assert "nan" not in text


def test_an_encoder_whose_weights_are_zero_is_called_collapsed_and_a_healthy_one_is_not(run):
    opened = OpenRun.load(run)
    assert "COLLAPSED" not in "\n".join(lines_of(measure(vertical, opened, protocols=("labelfree",), n_boot=5)))
    flat = opened.system
    for parameter in flat.parameters():
        parameter.data.zero_()
    zero = opened.with_system(flat)
    said = "\n".join(lines_of(measure(vertical, zero, protocols=("labelfree",), n_boot=5)))
    assert "COLLAPSED: the embeddings of all 30 samples are zero; no figure can be but chance" in said
