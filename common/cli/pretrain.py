"""`pretrain SYSTEM`: the system's config dataclass is its options; presets, YAML and dotted overrides on top."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from counterpoint.common.cli.options import listing, new_parser, parse_options, run, wants_help, write
from counterpoint.common.cli.plugins import add_options, take_names, with_options
from counterpoint.common.cli.run_verbs import check_own
from counterpoint.common.cli.settings import about_file, named_by, other_system
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers.config_files import load_yaml, option_names, override, preset_values, to_dict
from counterpoint.common.vertical import Outcome, SystemEntry

_OWN = ("config", "preset", "resume", "continue_from", "print_config", "json", "run")


def pretrain(call: Call) -> int:
    """`pretrain SYSTEM [options]` or `pretrain --resume RUN`."""
    entries = {entry.name: entry for entry in call.vertical.systems}
    name = call.argv[0] if call.argv else ""
    if not name:
        raise InputError(f"which system? one of: {', '.join(entries)}")
    if wants_help([name]):
        rows = {entry.name: entry.summary for entry in entries.values()}
        usage = f"{call.program} SYSTEM [options]   or   {call.program} --resume RUN"
        about = "Train a system from its configuration."
        write(listing(usage, about, {"systems": rows}, f"{call.program} SYSTEM --help"))
        return 0
    if name.startswith("-"):
        return _resume_only(call)
    if name not in entries:
        raise no_such("system", name, entries)
    return _train(f"{call.program} {name}", entries[name], call.argv[1:])


def _resume_only(call: Call) -> int:
    parser = new_parser(call.program, "Continue an interrupted run from its last checkpoint.")
    parser.add_argument("--resume", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parse_options(parser, call.argv)
    check_own(options.resume, call.vertical)
    return run(lambda: _continue(options.resume), options.json)


def _train(program: str, entry: SystemEntry, argv: list[str]) -> int:
    config_class = resolve(entry.config)
    parser = config_parser(program, entry, config_class)
    plugins = add_options(parser)
    argv, named = take_names(preset_defaults(entry, config_class, parser, argv))
    try:
        options = parse_options(parser, argv)
    except InputError as error:
        raise about_file(error, _value_of("--config", argv), entry) from error
    if plugins:
        options["train.plugins"] = with_options(options["train.plugins"], named, options, argv, plugins)
    if options.print_config:
        write(parser.dump(without_own(options, plugins), skip_unset=False, skip_validation=True).rstrip())
        return 0
    if options.resume is not None:
        given = {word.partition("=")[0] for word in argv if word.startswith("--")}
        if given - {"--resume", "--json"} or named is not None:
            raise InputError("--resume continues a run with the configuration stored in it; give no other settings")
        return run(lambda: _continue(options.resume, entry), options.json)
    try:
        config = build_config(parser, options, config_class)
    except InputError as error:
        raise about_file(error, _value_of("--config", argv), entry) from error
    return run(lambda: _fit(entry, config, options.continue_from), options.json)


def preset_defaults(entry: SystemEntry, config_class: type, parser: Any, argv: list[str]) -> list[str]:
    """Defaults of the preset and of the run's own configuration that the words name; gives the words left to parse."""
    argv = names_of_groups(config_class, argv)
    preset = _value_of("--preset", argv)
    if preset is not None:
        start = to_dict(override(config_class(), preset_values(preset, config_class, entry.system)))
        parser.set_defaults(dict(dotted_options(start, known={action.dest for action in parser._actions})))
    argv = _from_file(entry, config_class, parser, argv)
    steps = any(action.dest == "train.max_steps" for action in parser._actions)
    return _epochs_over_steps(parser, argv) if steps else argv


def names_of_groups(config_class: type, argv: list[str]) -> list[str]:
    """`--encoder NAME` as `--encoder.name NAME`, for every group of settings that has a `name`; what is a file of
    settings, or settings themselves, stays as it is.

    >>> from counterpoint.common.trainers.configs import OptimConfig
    >>> default = dataclasses.field(default_factory=OptimConfig)
    >>> Config = dataclasses.make_dataclass("Config", [("optim", OptimConfig, default)])
    >>> names_of_groups(Config, ["--optim", "adam", "--optim=sgd", "--optim", "{lr: 1}"])
    ['--optim.name', 'adam', '--optim.name=sgd', '--optim', '{lr: 1}']
    """
    options = set(option_names(config_class))
    groups = {f"--{name.removesuffix('.name')}" for name in options if name.endswith(".name")}
    words = list(argv)
    for position, word in enumerate(argv):
        name, given, value = word.partition("=")
        value = value if given else argv[position + 1] if position + 1 < len(argv) else ""
        if name in groups and re.fullmatch(r"[A-Za-z]\w*", value) and value != "null" and not Path(value).is_file():
            words[position] = f"{name}.name={value}" if given else f"{name}.name"
    return words


def _epochs_over_steps(parser: Any, argv: list[str]) -> list[str]:
    """A number of steps wins over epochs, so one that nobody asked for goes: typed epochs beat the steps of a preset or
    a file, the epochs of a file those of a preset."""
    typed = {word.partition("=")[0] for word in argv}
    if "--train.max_epochs" in typed and "--train.max_steps" not in typed:
        return [*argv, "--train.max_steps=null"]
    if _given("train.max_epochs", argv) and not _given("train.max_steps", argv):
        parser.set_defaults({"train.max_steps": None})
    return argv


def _from_file(entry: SystemEntry, config_class: type, parser: Any, argv: list[str]) -> list[str]:
    """Where `--config` names a run's own config.yaml, take the settings under its `config`; where it names a file of an
    earlier version, its settings in the form of today. Gives the other words."""
    file = _value_of("--config", argv)
    try:
        record = load_yaml(file) if file is not None and Path(file).is_file() else {}
    except InputError:
        return argv  # the parser reads it again and says what is wrong, with the command's help
    settings, train = record, record.get("train")
    if isinstance(record.get("config"), Mapping) and "system" in record:
        if record["system"] != entry.system:
            other = named_by(str(record["system"]))
            said = f"the settings of a run of {record['system']}, not of {entry.name}"
            raise InputError(f"{file}: {other_system(*other, entry) if other else said}")
        settings = record["config"]
    elif not isinstance(train, Mapping) or ("harmonize" not in train and isinstance(train.get("plugins", {}), Mapping)):
        return argv
    start = to_dict(override(config_class(), settings))
    parser.set_defaults(dict(dotted_options(start, known={action.dest for action in parser._actions})))
    place = next(i for i, word in enumerate(argv) if word.partition("=")[0] == "--config")
    return [*argv[:place], *argv[place + (1 if "=" in argv[place] else 2) :]]


def config_parser(program: str, entry: SystemEntry, config_class: type):
    """Parser whose options are the config's fields, nested ones dotted (`--train.max_epochs 3`)."""
    from jsonargparse import ActionConfigFile

    parser = new_parser(program, f"{entry.summary} ({entry.paper})", usage=f"{program} [options]")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings; later options override it")
    names = ", ".join(getattr(config_class, "presets", {})) or "see the README"
    parser.add_argument("--preset", type=str, default=None, help=f"named settings to start from: full, {names}")
    parser.add_argument("--resume", type=Path, default=None, metavar="RUN", help="continue an interrupted run")
    about = "a new run from the weights that a finished one with optim.schedule.kind=infinite had before its annealing"
    parser.add_argument("--continue_from", type=Path, default=None, metavar="RUN", help=about)
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML, for --config")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_class_arguments(config_class, None, fail_untyped=True)
    return parser


def build_config(parser, options, config_class: type, given: Mapping[str, Any] | None = None) -> Any:
    """Instantiate the frozen config dataclass from parsed options and `given` fields; others keep their defaults."""
    names = [field.name for field in dataclasses.fields(config_class)]
    try:
        values = {**vars(parser.instantiate(options)), **(given or {})}
        return config_class(**{name: values[name] for name in names if name in values})
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error


def dotted_options(values: Mapping[str, Any], known: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted ones, as far down as there are options of that name.

    >>> dict(dotted_options({"train": {"seed": 1}, "mining": {"start": 2}}, known={"train.seed", "mining"}))
    {'train.seed': 1, 'mining': {'start': 2}}
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if value and isinstance(value, Mapping) and all(_is_option(f"{name}.{inner}", known) for inner in value):
            yield from dotted_options(value, known, f"{name}.")
        else:
            yield name, value


def _is_option(name: str, known: set[str]) -> bool:
    return any(option == name or option.startswith(f"{name}.") for option in known)


def _value_of(option: str, argv: list[str]) -> str | None:
    for position, word in enumerate(argv):
        if word == option and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _given(setting: str, argv: list[str]) -> bool:
    """Whether a person gave a setting, by option or in a configuration file."""
    if any(word.partition("=")[0] == f"--{setting}" for word in argv):
        return True
    file = _value_of("--config", argv)
    if file is None or not Path(file).is_file():
        return False
    node = load_yaml(file)
    for part in setting.split("."):
        if not isinstance(node, Mapping) or node.get(part) is None:
            return False
        node = node[part]
    return True


def without_own(options, plugins: Iterable[str] = ()):
    """The settings alone, without the options that are no settings; those of plug-ins stand in `train.plugins`."""
    options = options.clone()
    for name in (*_OWN, *plugins):
        options.pop(name, None)
    return options


def _fit(entry: SystemEntry, config: Any, continue_from: Path | None) -> Outcome:
    from counterpoint.common.trainers import create_system, fit

    return outcome(fit(create_system(resolve(entry.system), config, continue_from=continue_from)))


def _continue(run_dir: Path, entry: SystemEntry | None = None) -> Outcome:
    if not (run_dir / "config.yaml").is_file():
        raise InputError(f"{run_dir} is not a run folder: it has no config.yaml")
    from counterpoint.common.trainers import empty_system, fit

    system = empty_system(run_dir)
    if entry is not None and not isinstance(system, resolve(entry.system)):
        raise InputError(f"{run_dir} holds a run of {type(system).__name__}, not of {entry.name}")
    return outcome(fit(system, resume=run_dir))


def outcome(result: Any) -> Outcome:
    """A training's run folder and last figures."""
    figures = {"run_dir": str(result.run_dir), "metrics": dict(result.metrics)}
    lines = [f"run folder  {result.run_dir}"]
    lines += [f"{name}  {value:.4g}" for name, value in result.metrics.items() if isinstance(value, (int, float))]
    return Outcome(figures=figures, lines=tuple(lines))
