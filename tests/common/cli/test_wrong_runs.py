"""Runs in the wrong place: another vertical's, a failed start, a run's own settings given back as a configuration."""

import json

import pytest


@pytest.fixture
def data(toy, cli):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0


FAST = ("--train.max_epochs", "1", "--train.out", "run")


@pytest.mark.parametrize("verb", [("evaluate",), ("report",), ("embed",), ("search", "--id", "s1"), ("export",)])
def test_a_run_of_another_vertical_is_refused_before_anything_is_written(verb, data, cli, tmp_path):
    assert cli("toy", "pretrain", "toy-pair", *FAST)[0] == 0
    before = sorted((tmp_path / "run").iterdir())
    code, _, err = cli("timeseries", verb[0], "run", *verb[1:])
    assert code == 2
    assert "run: a run of the vertical toy; type counterpoint toy in place of timeseries" in err
    assert sorted((tmp_path / "run").iterdir()) == before


def test_a_run_of_another_vertical_is_not_resumed(data, cli):
    assert cli("toy", "pretrain", "toy-pair", *FAST)[0] == 0
    code, _, err = cli("timeseries", "pretrain", "--resume", "run")
    assert code == 2
    assert "a run of the vertical toy" in err


def test_a_start_that_failed_does_not_block_the_mended_one(data, cli):
    code, _, err = cli("toy", "pretrain", "toy-pair", *FAST, "--data.manifest", "absent.csv")
    assert code == 2
    assert "absent.csv" in err
    code, _, err = cli("toy", "pretrain", "toy-pair", *FAST)
    assert code == 0, err
    code, _, err = cli("toy", "pretrain", "toy-pair", *FAST)
    assert code == 2
    assert "holds a run already" in err


def test_the_settings_of_a_run_are_a_configuration(data, cli):
    assert cli("toy", "pretrain", "toy-pair", *FAST, "--dim", "5")[0] == 0
    for given in (("--config", "run/config.yaml"), ("--config=run/config.yaml",)):
        code, out, err = cli("toy", "pretrain", "toy-pair", *given, "--train.out", "second", "--print_config")
        assert code == 0, err
        assert "dim: 5" in out
        assert "out: second" in out
    code, _, err = cli("timeseries", "pretrain", "ts2vec", "--config", "run/config.yaml")
    assert code == 2
    assert "run/config.yaml: holds the settings of toy-pair, not of ts2vec; train that with `toy pretrain" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("kmpnn_steps: 3\nrotate_epochs: 5\n", "c.yaml: holds the settings of kcl, not of graphcl; train that with "
         "`graphs pretrain kcl --config`, or start from what `pretrain graphcl --print_config` shows"),
        ("lrr: 3\n", "c.yaml: lrr is not an option; known: atom_features, data,"),
        ("temperature: warm\n", "c.yaml: temperature: expected float, got 'warm'"),
        ("train:\n", "c.yaml: train: expected a mapping of options, got None"),
        ("", "c.yaml: holds no settings; --print_config shows those there are"),
        ("temperature: 0.2\noptim:\n", "c.yaml: optim: expected a mapping of options, got None"),
        ("a: [1\n", "c.yaml: not valid YAML"),
        ("ä".encode("latin-1"), "c.yaml: not valid YAML"),
        (None, "--config c.yaml: no such file"),
    ],
)  # fmt: skip
def test_a_configuration_file_is_told_what_is_wrong_with_it(tmp_path, monkeypatch, cli, content, said):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = cli("graphs", "pretrain", "graphcl", "--config", "c.yaml")
    assert code == 2
    assert said in err


def test_a_file_of_data_is_no_file_of_settings(tmp_path, cli):
    for content in (b"\x80\x81", b"id,smiles\na,C\n"):
        (tmp_path / "g.pt").write_bytes(content)
        code, _, err = cli("graphs", "pretrain", "grace", "--data", tmp_path / "g.pt")
        assert code == 2
        assert f"--data takes a YAML file of settings, which {tmp_path / 'g.pt'} is not; set --data.path" in err


def test_vectors_of_generated_data_say_so_without_their_run(data, cli):
    assert cli("toy", "pretrain", "toy-pair", *FAST)[0] == 0
    assert cli("toy", "embed", "run", "--out", "vectors")[0] == 0
    code, out, err = cli("toy", "evaluate", "--embeddings", "vectors", "--bootstrap", "5", "--json")
    assert code == 0, err
    assert "SYNTHETIC data: vectors drawn at random" in json.loads(out)["notes"]
