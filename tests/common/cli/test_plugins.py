"""`--train.plugins` on the command line: names, options, files, and what is refused."""

import csv
import json

import pytest
import yaml

PRETRAIN = ("toy", "pretrain", "toy-pair")


@pytest.fixture
def printed(toy, cli):
    def settings(*words):
        code, out, err = cli(*PRETRAIN, *words, "--print_config")
        assert code == 0, err
        record = yaml.safe_load(out)
        assert "harmonize" not in record  # a plug-in's options stand in train.plugins
        return record["train"]["plugins"]

    return settings


def test_the_list_has_those_of_the_suite_and_of_other_packages(toy, cli, capsys):
    code, out, _ = cli("plugins", "--json")
    assert code == 0
    listed = {row["name"]: row for row in json.loads(out)}
    assert {"harmonize", "bad_pairs", "hard_negatives", "within_clusters", "first_half"} <= set(listed)
    assert listed["harmonize"]["options"] == {"shared": "", "gamma_start": None, "gamma_end": 0.0}
    assert "conflicting gradients" in cli("plugins")[1]
    with pytest.raises(SystemExit, match="0"):
        cli(*PRETRAIN, "--help")
    out = capsys.readouterr().out
    assert "--first_half.other" in out
    assert "--bad_pairs.warmup" in out


@pytest.mark.parametrize(
    "words", [("harmonize,first_half",), ("harmonize", "first_half"), ("[harmonize, first_half]",)], ids=str
)
def test_names_are_written_as_several_values_are(printed, words):
    found = printed("--train.plugins", *words, "--first_half.other", "0.5", "--harmonize.shared=left")
    assert found == {
        "harmonize": {"shared": "left", "gamma_start": None, "gamma_end": 0.0},
        "first_half": {"other": 0.5},
    }


def test_files_and_words_add_up(printed, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("train: {plugins: {harmonize: {shared: left, gamma_end: 0.25}, first_half: null}}\n")
    from_file = ("--config", file)
    known = printed(*from_file)
    assert known == {
        "harmonize": {"shared": "left", "gamma_start": None, "gamma_end": 0.25},
        "first_half": {"other": 0.0},
    }
    file.write_text(yaml.safe_dump({"train": {"plugins": known}}))
    assert printed(*from_file) == known
    # An option that is typed changes that one; names that are typed count instead, with what is known of them.
    assert printed(*from_file, "--harmonize.gamma_end", "0")["harmonize"] | {"gamma_end": 0.25} == known["harmonize"]
    assert printed(*from_file, "--train.plugins", "first_half") == {"first_half": {"other": 0.0}}
    assert printed(*from_file, "--train.plugins", "none") == {}
    assert printed(*from_file, "--train.plugins", '{"bad_pairs": {"warmup": 3}}')["bad_pairs"]["warmup"] == 3


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"harmonize": None}, {}),
        ({"harmonize": {"shared": "left"}}, {"harmonize": {"shared": "left", "gamma_start": None, "gamma_end": 0.0}}),
        ({"plugins": ["first_half"]}, {"first_half": {"other": 0.0}}),
        ({"plugins": "first_half"}, {"first_half": {"other": 0.0}}),
    ],
    ids=str,
)
def test_settings_of_an_earlier_version_and_bare_names_are_read(printed, tmp_path, train, expected):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"train": {"max_epochs": 2, **train}}))
    assert printed("--config", tmp_path / "old.yaml") == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--train.plugins", "harmonise"), "unknown plug-in 'harmonise'; did you mean 'harmonize'?"),
        (("--harmonize.shared", "left"), "add --train.plugins harmonize"),
        (("--train.plugins", "harmonize", "--harmonize.share", "x"), "did you mean '--harmonize.shared'?"),
        (("--train.plugins", "bad_pairs", "--bad_pairs.warmup", "soon"), "--bad_pairs.warmup: "),
        (("--train.plugins", "harmonize", "--train.plugins", "bad_pairs"), "--train.plugins is given twice"),
        (("--train.plugins", '{"harmonize": {"gamma": 1}}'), "train.plugins.harmonize.gamma is not an option"),
        (("--train.plugins", "os:system"), "of a module that belongs to no installed vertical, so it is not imported"),
        (("--resume", "runs/none", "--train.plugins", "bad_pairs"), "give no other settings"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_a_sentence(toy, cli, words, sentence):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
    code, _, err = cli(*PRETRAIN, *words)
    assert code == 2
    assert sentence in err


def test_a_plug_in_of_another_package_trains_resumes_and_is_recorded(toy, cli, tmp_path):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
    words = ("--train.max_epochs", "2", "--train.log_every", "1", "--train.out", "run")
    code, _, err = cli(*PRETRAIN, *words, "--train.plugins", "first_half", "--first_half.other", "0.25")
    assert code == 0, err
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["config"]["train"]["plugins"] == {
        "first_half": {"other": 0.25}
    }
    with (tmp_path / "run/metrics.csv").open() as handle:
        assert {row["train/other"] for row in csv.DictReader(handle)} == {"0.25"}
    assert cli("toy", "pretrain", "--resume", "run")[0] == 0
    assert cli("toy", "evaluate", "run", "--protocols", "knn", "--label", "side")[0] == 0


def test_finetuning_takes_plug_ins_too(toy, cli):
    words = ("toy", "finetune", "--train.plugins", "harmonize", "--harmonize.shared", "logits", "--print_config")
    code, out, err = cli(*words)
    assert code == 0, err
    assert yaml.safe_load(out)["train"]["plugins"]["harmonize"]["shared"] == "logits"
    assert "harmonize" not in yaml.safe_load(out)
