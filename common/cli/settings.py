"""What is wrong with a configuration file, in its own name: not YAML, another system's, or a setting it cannot have."""

from __future__ import annotations

from collections.abc import Iterator

from counterpoint.common.data.importing import unreadable
from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.trainers.config_files import load_yaml, override
from counterpoint.common.vertical import SystemEntry


def about_file(error: InputError, file: str | None, entry: SystemEntry) -> InputError:
    """The error of a command that was given this `--config`; about the file where the file is at fault."""
    if file is None:
        return error
    if reason := unreadable(file):
        return InputError(f"--config {file}: {reason}")
    try:
        record = load_yaml(file)
    except InputError as told:
        return told
    if not record:
        return InputError(f"{file}: holds no settings; --print_config shows those there are")
    if not (wrong := _misfit(entry, record)):
        return error
    for vertical, other in _systems():
        if other.config != entry.config and not _misfit(other, record):
            return InputError(f"{file}: {other_system(vertical, other, entry)}")
    return InputError(f"{file}: {wrong}; --print_config shows the settings of {entry.name}")


def other_system(vertical: str, other: SystemEntry, entry: SystemEntry) -> str:
    """In words: whose settings they are, and how to go on."""
    return (
        f"holds the settings of {other.name}, not of {entry.name}; train that with `{vertical} pretrain {other.name} "
        f"--config`, or start from what `pretrain {entry.name} --print_config` shows"
    )


def named_by(system: str) -> tuple[str, SystemEntry] | None:
    """The vertical and the system that a run's config.yaml names."""
    return next(((vertical, entry) for vertical, entry in _systems() if entry.system == system), None)


def _systems() -> Iterator[tuple[str, SystemEntry]]:
    for name, load in find_verticals().items():
        for entry in load().systems:
            yield name, entry


def _misfit(entry: SystemEntry, record: dict) -> str:
    try:
        override(resolve(entry.config)(), record)
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        return str(error) or type(error).__name__
    return ""
