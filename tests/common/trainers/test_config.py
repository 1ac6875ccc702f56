"""Configurations: there and back, and mistakes named with the path and the near miss."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import OptimConfig, ParamGroup, TrainConfig, from_dict, load_yaml, override, save_yaml
from counterpoint.common.trainers.configs import FinetuneConfig


@dataclass(frozen=True)
class Data:
    manifest: Path = Path("m.csv")
    shape: tuple[int, int] = (160, 200)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Config:
    name: str
    data: Data = field(default_factory=Data)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    rates: tuple[float, ...] = ()
    limit: int | None = None


def test_yaml_there_and_back(tmp_path):
    config = Config(
        "x",
        Data(Path("other.csv"), (1, 2), "b"),
        optim=OptimConfig(lr=1e-3, groups=(ParamGroup("a", 0.1),)),
        rates=(1, 2.5),
    )
    save_yaml(config, tmp_path / "c.yaml")
    assert load_yaml(tmp_path / "c.yaml", Config) == config
    finetune = FinetuneConfig(run="r", base={"system": "a:b", "config": {"x": [1, 2]}}, labels=("y",))
    save_yaml(finetune, tmp_path / "f.yaml")
    assert load_yaml(tmp_path / "f.yaml", FinetuneConfig) == finetune


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-3\nweight_decay: 0\n")  # YAML 1.1 reads 1e-3 as text
    assert load_yaml(tmp_path / "c.yaml", OptimConfig) == OptimConfig(lr=1e-3, weight_decay=0.0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "name must be given"),
        ({"name": "x", "trian": {}}, "trian is not an option; did you mean train"),
        (
            {"name": "x", "train": {"max_epoch": 3}},
            r"train.max_epoch is not an option; did you mean train.max_epochs\?",
        ),
        ({"name": "x", "optim": {"schedule": {"knd": "wsd"}}}, "did you mean optim.schedule.kind"),
        ({"name": "x", "train": {"seed": 1.5}}, "train.seed: expected int, got 1.5"),
        ({"name": "x", "train": {"overwrite": 1}}, "train.overwrite: expected bool, got 1"),
        ({"name": "x", "optim": {"lr": "fast"}}, "optim.lr: expected float, got 'fast'"),
        ({"name": "x", "data": {"shape": [1]}}, "data.shape: expected 2 values, got 1"),
        ({"name": "x", "data": {"kind": "c"}}, "data.kind: 'c' is not one of 'a', 'b'"),
        ({"name": "x", "limit": "many"}, r"limit: expected int \| None, got 'many'"),
        ({"name": "x", "train": 3}, "train: expected a mapping of options, got 3"),
        ({"name": "x", "optim": {"groups": [{"prefx": "a"}]}}, r"optim.groups\[0\].prefx .*prefix"),
    ],
)
def test_mistakes_are_named_with_their_path(data, words):
    with pytest.raises(InputError, match=words):
        from_dict(Config, data)


def test_overrides_reach_nested_fields_and_leave_the_original():
    config = Config("x")
    changed = override(config, {"train.max_epochs": 3, "optim": {"schedule": {"kind": "wsd"}}, "limit": None})
    assert (changed.train.max_epochs, changed.optim.schedule.kind, changed.optim.lr) == (3, "wsd", 1e-3)
    assert config.train.max_epochs == 100
    with pytest.raises(InputError, match="train.max_epoc is not an option; did you mean train.max_epochs"):
        override(config, {"train.max_epoc": 3})


def test_unreadable_yaml_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load_yaml(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="holds list"):
        load_yaml(tmp_path / "c.yaml")


def test_configs_are_light():
    """The command line reads them: no torch, pandas or lightning behind them."""
    code = (
        "import sys, counterpoint.common.trainers.configs, counterpoint.common.trainers.config_files;"
        "from counterpoint.common.trainers import FinetuneConfig;"
        "assert not {'torch', 'pandas', 'lightning', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
