"""From simulated data to a trained run and everything one can ask of it, on the command line alone."""

import json

import pytest


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the toy system was trained once; tests copy nothing and change nothing in it."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(toy, cli, trained, monkeypatch):
    monkeypatch.chdir(trained)
    if not (trained / "runs").exists():
        assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
        command = ("toy", "pretrain", "toy-pair", "--train.max_epochs", "20", "--train.out", "runs/one", "--json")
        code, out, err = cli(*command)
        assert code == 0, err
        assert json.loads(out)["run_dir"] == "runs/one"
    return trained / "runs" / "one"


def test_evaluation_has_pool_chance_and_intervals_by_group(run, cli):
    code, out, _ = cli("toy", "evaluate", run, "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["samples"] == {"test": 30}
    assert figures["groups"] == {"test": 10}
    way = figures["results"]["retrieval left -> right (pool 30)"]
    assert way["chance"]["R@1"] == pytest.approx(1 / 30)
    assert way["metrics"]["R@10"] > 0.8
    assert way["intervals"]["R@10"]["groups"] == 10
    assert way["intervals"]["R@10"]["low"] <= way["metrics"]["R@10"] <= way["intervals"]["R@10"]["high"]
    assert figures["results"]["labelfree of left"]["n"] == 30
    assert figures["results"]["nearest is own"] == {"rows": 30, "modalities": ["left", "right"]}
    assert "labels" in figures["skipped"]["knn"]
    assert json.loads((run / "evaluation-test.json").read_text())["results"] == figures["results"]
    _, out, _ = cli("toy", "evaluate", run)
    assert "retrieval left -> right" in out
    assert "chance" in out
    assert "not run: knn: needs labels" in out


def test_labels_bring_probes_that_learn_from_the_training_split(run, cli):
    code, out, err = cli("toy", "evaluate", run, "--label", "side", "--protocols", "[probe,knn]", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["samples"] == {"test": 30, "train": 60, "val": 30}
    assert figures["results"]["logreg of left"]["scores"]["intervals"]["balanced_accuracy"]["value"] > 0.7


def test_evaluation_repeats_exactly(run, cli):
    first, second = (cli("toy", "evaluate", run, "--json")[1] for _ in range(2))
    assert first == second


def test_evaluation_on_another_manifest(run, cli):
    assert cli("toy", "data", "simulate", "--out", "other", "--rows", "60", "--seed", "5000")[0] == 0
    code, out, _ = cli("toy", "evaluate", run, "--manifest", "other/manifest.csv", "--json")
    assert code == 0
    assert json.loads(out)["samples"] == {"test": 15}


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (("--split", "tset"), "did you mean 'test'"),
        (("--checkpoint", "bset"), "--checkpoint: expected"),
        (("--manifest", "nowhere.csv"), "nowhere.csv"),
        (("--label", "sied"), "did you mean 'side'"),
        (("--protocols", "[retreival]"), "did you mean 'retrieval'"),
        (("--protocols", "[knn]"), "needs labels"),
    ],
)
def test_mistakes(run, cli, argv, advice):
    code, _, err = cli("toy", "evaluate", run, *argv)
    assert code == 2
    assert advice in err


def test_a_folder_that_is_no_run(toy, cli, tmp_path):
    code, _, err = cli("toy", "evaluate", tmp_path)
    assert code == 2
    assert "not a run folder" in err


def test_report_is_one_file_with_the_fields_pictures(run, cli):
    code, out, _ = cli("toy", "report", run, "--examples", "2")
    assert code == 0
    page = (run / "report.html").read_text()
    assert str(run / "report.html") in out
    for part in ("left -&gt; right", "Embedding map", "Collapse monitors", "data:image/png;base64", "max_epochs: 20"):
        assert part in page, part
    assert "http" not in page.split("<body", 1)[1].replace("http://www.w3.org", "")


def test_resume_needs_only_the_folder(run, cli):
    """A finished run resumed does nothing more and says the same."""
    code, out, err = cli("toy", "pretrain", "--resume", run, "--json")
    assert code == 0, err
    assert json.loads(out)["run_dir"] == str(run)


def test_a_run_is_not_overwritten_by_accident(run, cli):
    code, _, err = cli("toy", "pretrain", "toy-pair", "--train.out", "runs/one")
    assert code == 2
    assert "--resume" in err


def test_resume_of_another_system_is_refused(run, cli):
    code, _, err = cli("toy", "pretrain", "toy-one", "--resume", run)
    assert code == 2
    assert "holds a run of Pair, not of toy-one" in err
