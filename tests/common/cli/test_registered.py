"""Facts that hold for every registered vertical and system."""

import ast
import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import counterpoint
from counterpoint.common.cli.main import main
from counterpoint.common.cli.options import parse_options
from counterpoint.common.cli.pretrain import build_config, config_parser
from counterpoint.common.discover import find_verticals
from counterpoint.common.lazy import resolve

VERTICALS = {name: load() for name, load in find_verticals().items()}
SYSTEMS = [
    pytest.param(vertical, entry, id=f"{vertical.name}-{entry.name}")
    for vertical in VERTICALS.values()
    for entry in vertical.systems
]
TARGETS = [
    pytest.param(target, id=str(target))
    for vertical in VERTICALS.values()
    for target in (
        *(getattr(vertical, name) for name in ("data_check", "check", "split", "simulate", "preview", "demo")),
        vertical.samples_from,
        *(verb.run for verb in vertical.verbs),
        *(target for m in vertical.modalities for target in (m.read, m.parse, m.picture, m.caption)),
        *(importer.run for importer in vertical.importers),
        *(target for e in vertical.systems for target in (e.config, e.system, e.protocols)),
    )
    if target
]


@pytest.mark.parametrize("vertical", VERTICALS.values(), ids=VERTICALS)
def test_names_are_unique_and_kebab_case(vertical):
    for names in ([entry.name for entry in vertical.systems], [importer.name for importer in vertical.importers]):
        assert len(set(names)) == len(names)
        assert all(name == name.lower().replace("_", "-") and " " not in name for name in names)


@pytest.mark.parametrize("target", TARGETS)
def test_every_named_function_and_class_exists(target):
    assert callable(resolve(target))


@pytest.mark.parametrize(("vertical", "entry"), SYSTEMS)
def test_a_system_is_a_contrastive_system_with_its_config(vertical, entry):
    from counterpoint.common.trainers import ContrastiveSystem

    system, config = resolve(entry.system), resolve(entry.config)
    assert issubclass(system, ContrastiveSystem)
    assert system.Config is config
    assert dataclasses.is_dataclass(config)
    assert config.__dataclass_params__.frozen
    assert {"data", "train", "optim"} <= {field.name for field in dataclasses.fields(config)}
    assert entry.status in ("ready", "experimental")
    assert entry.paper
    assert entry.summary


def defined(tree):
    """Names of a file's functions and classes, and of the classes' methods as `Class.method`."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in getattr(node, "body", ()) if hasattr(inner, "name")}
    return names


@pytest.mark.parametrize(("vertical", "entry"), SYSTEMS)
def test_the_file_and_the_name_of_each_term_that_a_system_lists_exist(vertical, entry):
    source = Path(find_spec(entry.module).origin).read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source), clean=False).partition("Where its terms stand:\n")[2]
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) >= 3
    for line in lines:
        file, names = re.fullmatch(r"    \S.*?  +([\w/]+\.py): (.+)", line).groups()
        known = defined(ast.parse((Path(counterpoint.__file__).parent / file).read_text(encoding="utf-8")))
        assert not set(names.split(", ")) - known, f"{file} does not define these"


@pytest.mark.parametrize(("vertical", "entry"), SYSTEMS)
def test_printed_configuration_feeds_back_for_every_preset(vertical, entry, tmp_path, capsys):
    config = resolve(entry.config)
    presets = getattr(config, "presets", None) or resolve(entry.system).presets
    for preset in ("full", *presets):
        command = [vertical.name, "pretrain", entry.name]
        assert main([*command, "--preset", preset, "--print_config"]) == 0
        printed = capsys.readouterr().out
        (tmp_path / "config.yaml").write_text(printed)
        assert main([*command, "--config", str(tmp_path / "config.yaml"), "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


@pytest.mark.parametrize(("vertical", "entry"), SYSTEMS)
def test_no_options_give_the_configs_own_defaults(vertical, entry):
    config = resolve(entry.config)
    parser = config_parser("x", entry, config)
    assert build_config(parser, parse_options(parser, []), config) == config()


@pytest.mark.parametrize(("typed", "steps"), [((), 200), (("--train.max_epochs", "3"), None)])
def test_epochs_that_a_person_gives_beat_the_steps_of_a_preset(typed, steps, capsys):
    command = ["timeseries", "pretrain", "ts2vec", "--preset", "small", *typed, "--print_config"]
    assert main(command) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["max_steps"] == steps
    command[5:5] = ["--train.max_steps", "7"]
    assert main(command) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["max_steps"] == 7


@pytest.mark.parametrize(
    ("file", "typed", "steps"),
    [
        ("train: {max_epochs: 3}", (), None),
        ("train: {max_epochs: 3, max_steps: 9}", (), 9),
        ("train: {batch_size: 4}", (), 200),
        ("train: {max_epochs: 3, max_steps: 9}", ("--train.max_epochs", "5"), None),
        ("train: {max_epochs: 3}", ("--train.max_epochs", "5", "--train.max_steps", "7"), 7),
    ],
)
def test_epochs_of_a_file_beat_the_steps_of_a_preset_and_typed_ones_those_of_a_file(
    file, typed, steps, tmp_path, capsys
):
    (tmp_path / "my.yaml").write_text(file)
    command = ["timeseries", "pretrain", "ts2vec", "--preset", "small", "--config", str(tmp_path / "my.yaml"), *typed]
    assert main([*command, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["max_steps"] == steps
