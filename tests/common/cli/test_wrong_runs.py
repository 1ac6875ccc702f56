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
    assert "the settings of a run of toy_system:Pair, not of ts2vec" in err


def test_vectors_of_generated_data_say_so_without_their_run(data, cli):
    assert cli("toy", "pretrain", "toy-pair", *FAST)[0] == 0
    assert cli("toy", "embed", "run", "--out", "vectors")[0] == 0
    code, out, err = cli("toy", "evaluate", "--embeddings", "vectors", "--bootstrap", "5", "--json")
    assert code == 0, err
    assert "SYNTHETIC data: vectors drawn at random" in json.loads(out)["notes"]
