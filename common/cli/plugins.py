"""Plug-ins on the command line: `--train.plugins NAME --NAME.option value`, and the list of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from counterpoint.common.cli.options import call
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.output import Rows
from counterpoint.common.plugins import PluginEntry, find_plugins
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers.config_files import from_dict, to_dict

OPTION = "--train.plugins"


def plugins(command: Call) -> int:
    """List the plug-ins."""
    return call(command.program, list_plugins, command.argv)


def list_plugins() -> Rows:
    """List what `--train.plugins` may name, with its options and their defaults."""
    records = ({**entry.as_dict(), "options": to_dict(resolve(entry.config)())} for entry in find_plugins().values())
    return Rows(records, ("name", "summary", "paper"))


def offered(parser: Any) -> dict[str, PluginEntry]:
    """The plug-ins whose options a training's parser takes: all, but for names that the configuration has itself."""
    known = {action.dest for action in parser._actions}
    if "train.plugins" not in known:
        return {}
    taken = {name.partition(".")[0] for name in known}
    return {name: entry for name, entry in find_plugins().items() if name not in taken}


def add_options(parser: Any) -> dict[str, PluginEntry]:
    """Add `--NAME.option` for every plug-in on offer; returns these."""
    entries = offered(parser)
    for name, entry in entries.items():
        parser.add_class_arguments(resolve(entry.config), name, fail_untyped=True)
    return entries


def take_names(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The words without `--train.plugins a b`, and the names given there; None where there are none.

    `none` names no plug-in; a dictionary of names and options (JSON) stays where it is.

    >>> take_names(["--train.plugins", "harmonize,mine", "--train.seed", "1"])
    (['--train.seed', '1'], ['harmonize', 'mine'])
    """
    words, names, position = [], None, 0
    while position < len(argv):
        word = argv[position]
        position += 1
        given = [word.partition("=")[2]] if word.startswith(f"{OPTION}=") else []
        while word == OPTION and position < len(argv) and not argv[position].startswith("-"):
            given.append(argv[position])
            position += 1
        if not given or given[0].startswith("{"):
            words += [word, *given] if word == OPTION else [word]
            continue
        if names is not None:
            raise InputError(f"{OPTION} is given twice; give all names at once, as in {OPTION} a,b")
        text = ",".join(given).strip("[]")
        names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none", "null")]
    return words, names


def with_options(
    known: Mapping[str, Any] | None, names: Sequence[str] | None, options: Any, words: Sequence[str], entries: Mapping
) -> dict[str, dict[str, Any]]:
    """The plug-ins of a training with all their options.

    Args:
        known: those of the configuration file or the preset.
        names: those named on the command line, which count instead; their options in `known` stay.
        options: what was parsed, where `entries` have their options.
        words: what was typed: an option that was not is left as it is known.
    """
    found = {name: dict(values or {}) for name, values in (known or {}).items()}
    if names is not None:
        found = {name: found.get(name, {}) for name in names}
    typed = {word.partition("=")[0][2:] for word in words if word.startswith("--")}
    for name, entry in entries.items():
        fields = [field.name for field in dataclasses.fields(resolve(entry.config))]
        given = [f for f in fields if any(f"{t}.".startswith(f"{name}.{f}.") or t == name for t in typed)]
        if given and name not in found:
            raise InputError(f"--{name}.{given[0]} is an option of the plug-in {name}; add {OPTION} {name}")
        if given:
            found[name] |= {f: to_dict(options[name][f]) for f in given}
    return {name: _complete(name, values) for name, values in found.items()}


def _complete(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their defaults; those of a class of one's own (`module:Class`) are looked at when it is made."""
    known = find_plugins()
    if name in known:
        return to_dict(from_dict(resolve(known[name].config), values, f"train.plugins.{name}"))
    if ":" in name:
        return dict(values)
    raise no_such("plug-in", name, known, "counterpoint plugins")
